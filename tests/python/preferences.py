"""A preference job against TRL: the loss and the rewards of its held-out pairs, by TRL's own trainer with our adapter."""
import json

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from service import tiny_path

BETA = 0.3
# Losses of two correct f32 implementations, over answers of a few tokens.
TOLERANCE = 1e-5
SETTINGS = {
    "max_steps": 12, "batch_size": 4, "optimizer": {"learning_rate": 3e-3}, "answers": {"rows": 0},
    "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": BETA}}},
}


def pairs(count):
    better, worse = ["red", "green", "blue"], ["no idea", "who knows", "ask again"]
    return [{"prompt": f"Which colour has number {i}?", "chosen": better[i % 3], "rejected": worse[i % 3]} for i in range(count)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def by_trl(adapter, held_out, folder):
    """The adapter is merged, because TRL would take one that is trained already for its own reference. The prompt comes as
    text, so that TRL closes each answer as we do."""
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    base, reference = (AutoModelForCausalLM.from_pretrained(tiny_path(), dtype=torch.float32) for _ in range(2))
    model = PeftModel.from_pretrained(base, adapter).merge_and_unload()

    def rendered(row):
        question = [{"role": "user", "content": row["prompt"]}]
        return {**row, "prompt": tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)}

    data = Dataset.from_list([rendered(row) for row in held_out])
    settings = DPOConfig(output_dir=str(folder / "trl"), beta=BETA, per_device_eval_batch_size=len(held_out), use_cpu=True,
                         bf16=False, report_to="none", disable_tqdm=True)
    trainer = DPOTrainer(model=model, ref_model=reference, args=settings, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    return trainer.evaluate()


def check(upload_and_train, unpack, folder):
    """`upload_and_train` takes training rows, validation rows and settings; `unpack` gives the folder of a job's adapter."""
    rows = pairs(24)
    job = upload_and_train(lines(rows[:16]), lines(rows[16:]), SETTINGS)
    ours, theirs = job["evaluation"]["tuned"], by_trl(unpack(job, folder), rows[16:], folder)
    compared = {
        "loss": (ours["loss"], theirs["eval_loss"]),
        "reward_accuracy": (ours["preference"]["reward_accuracy"], theirs["eval_rewards/accuracies"]),
        "reward_margin": (ours["preference"]["reward_margin"], theirs["eval_rewards/margins"]),
        "chosen_reward": (ours["preference"]["chosen_reward"], theirs["eval_rewards/chosen"]),
        "rejected_reward": (ours["preference"]["rejected_reward"], theirs["eval_rewards/rejected"]),
    }
    gaps = {name: abs(a - b) / max(1.0, abs(a)) for name, (a, b) in compared.items()}
    print(f"preferences, ours and TRL's: {compared}; largest gap {max(gaps.values()):.2e} (allowed {TOLERANCE:.0e})", flush=True)
    return max(gaps.values()) <= TOLERANCE and job["evaluation"]["base"]["loss"] - ours["loss"] > 0.05
