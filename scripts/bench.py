"""`make bench`: LoRA of SmolLM2-135M-Instruct on the demo's rows, our engine and transformers + peft in turn.

Both sides read one file of token ids and labels and do the same: r 16, alpha 32 on all linear layers, AdamW without weight
decay, learning rate 2e-4 falling along a cosine without warm-up, 8 rows a step, norm clipped at 1, one epoch, f32, the same
number of threads. Prints real tokens a second and peak resident memory of each, and the ratios.

With BENCH_PEER=folder, `tokens.py`, `trl_lora.py` and `score_adapter.py` of that folder run in place of the peer below
(they want trl and datasets beside the packages of tests/python/requirements-interop.txt).
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

ROWS_A_STEP, HELD_OUT_ROWS, MAX_TOKENS = 8, 24, 512


def hugging_face_folder(runtime):
    """The bundled GGUF as a Hugging Face folder, made once, so that both sides read the same weights."""
    folder = runtime / "models/smollm2-135m-instruct-hf"
    if (folder / ".done").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    gguf = {"pretrained_model_name_or_path": runtime / "models", "gguf_file": "smollm2-135m-instruct.gguf"}
    quantised = AutoModelForCausalLM.from_pretrained(**gguf, dtype=torch.float32)
    # transformers refuses to save what it read from GGUF, although the weights are plain f32 by now.
    config = quantised.config.to_dict()
    config.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(type(quantised.config).from_dict(config))
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**gguf).save_pretrained(folder)
    (folder / ".done").touch()
    return folder


def write_tokens(model, rows, folder):
    """train.jsonl and heldout.jsonl of `input_ids` and `labels`; the answer and its end marker carry loss."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)

    def encode(row):
        user = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
        text = tokenizer.apply_chat_template([{"role": "user", "content": user}], add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["output"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        return {"input_ids": (prompt + answer)[:MAX_TOKENS], "labels": ([-100] * len(prompt) + answer)[:MAX_TOKENS]}

    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows[:-HELD_OUT_ROWS]), ("heldout", rows[-HELD_OUT_ROWS:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(encode(row)) + "\n" for row in part))


def peer(model_dir, tokens, out, threads):
    """The same recipe in transformers + peft, rows padded on the right to the longest of their step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = [json.loads(line) for line in open(pathlib.Path(tokens) / "train.jsonl")]
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    steps = -(-len(rows) // ROWS_A_STEP)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    losses, start = [], time.time()
    for step in range(steps):
        batch = rows[step * ROWS_A_STEP:(step + 1) * ROWS_A_STEP]
        width = max(len(row["input_ids"]) for row in batch)
        padded = lambda key, fill: torch.tensor([row[key] + [fill] * (width - len(row[key])) for row in batch])
        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch])
        loss = model(input_ids=padded("input_ids", 0), attention_mask=mask, labels=padded("labels", -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(round(loss.item(), 4))
    seconds = time.time() - start
    model.save_pretrained(out)
    real = sum(len(row["input_ids"]) for row in rows)
    print(json.dumps({"real_tokens": real, "train_s": round(seconds, 1), "tokens_per_s": round(real / seconds, 1), "losses": losses,
                      "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)}))


def last_json_line(command, **environment):
    done = subprocess.run([str(part) for part in command], env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runtime", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=pathlib.Path, help="Alpaca rows as JSON lines; the demo's by default")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    work = options.runtime / "bench"
    work.mkdir(exist_ok=True)
    rows_file = options.rows or work / "rows.jsonl"
    if not options.rows:
        subprocess.run([f"{options.bin}/finetuned", "demo", "--runtime-dir", str(options.runtime), "--write-rows", str(rows_file)], check=True)
    model = hugging_face_folder(options.runtime)
    given = os.environ.get("BENCH_PEER")
    if given:
        alpaca = work / "rows.json"
        alpaca.write_text(json.dumps([json.loads(line) for line in open(rows_file)]))
        subprocess.run([sys.executable, f"{given}/tokens.py", str(model), str(alpaca), str(work / "tokens")], check=True)
        sides = {"trl padded": [sys.executable, f"{given}/trl_lora.py", model, work / "tokens", work / "peer-pad", "pad"],
                 "trl packed": [sys.executable, f"{given}/trl_lora.py", model, work / "tokens", work / "peer-pack", "pack"]}
    else:
        write_tokens(model, [json.loads(line) for line in open(rows_file)], work / "tokens")
        sides = {"transformers + peft": [sys.executable, __file__, "--peer", model, work / "tokens", work / "peer", threads]}
    ours = [f"{options.bin}/finetuned-engine", "bench", "--model", model, "--tokens", work / "tokens/train.jsonl",
            "--threads", threads, "--out", work / "ours"]
    for _ in range(options.rounds):
        mine = last_json_line(ours)
        print(f"{'finetuned':22} {mine['tokens_per_s']:8.1f} real tokens/s  {mine['peak_rss_gb']:6.2f} GB  "
              f"loss {mine['losses'][0]:.4f} -> {mine['losses'][-1]:.4f}")
        for name, command in sides.items():
            theirs = last_json_line(command)
            print(f"{name:22} {theirs['tokens_per_s']:8.1f} real tokens/s  {theirs['peak_rss_gb']:6.2f} GB  "
                  f"loss {theirs['losses'][0]:.4f} -> {theirs['losses'][-1]:.4f}")
            print(f"{'':22} finetuned is {mine['tokens_per_s'] / theirs['tokens_per_s']:.2f} times as fast, "
                  f"with {mine['peak_rss_gb'] / theirs['peak_rss_gb']:.2f} of the memory")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        peer(*sys.argv[2:5], int(sys.argv[5]))
    else:
        main()
