"""How far peft's own figures are from each other: conditioning.py METHOD [METHOD ...]

Repeats the eight training steps of `tests/fixtures/parity-peft/METHOD` in transformers + peft with two attentions, in f32
and f64, and prints by how much the logits afterwards differ from the stored ones, for the four vocabulary entries that
differ most. A tolerance tighter than what correct arithmetic does to itself would only test the order of additions.
"""
import math
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
STEPS, PEAK = 8, 5e-3


def trained(method, attention, dtype):
    base = AutoModelForCausalLM.from_pretrained(FIXTURES / "parity/llama/base", dtype=dtype, attn_implementation=attention)
    model = PeftModel.from_pretrained(base, FIXTURES / "parity-peft" / method / "adapter", is_trainable=True).to(dtype).train()
    batches = load_file(FIXTURES / "parity-peft" / method / "expected.safetensors")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=PEAK, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = PEAK * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        ids, mask, labels = (batches[f"train_{name}_{step}"] for name in ("ids", "mask", "labels"))
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return model.eval(), batches


def main(methods):
    for method in methods:
        for attention in ("eager", "sdpa"):
            for dtype in (torch.float32, torch.float64):
                model, batches = trained(method, attention, dtype)
                with torch.no_grad():
                    logits = model(input_ids=batches["input_ids"], attention_mask=batches["attention_mask"]).logits
                gap = (logits.float() - batches["logits_after_lora_train"]) * batches["attention_mask"][..., None]
                worst = gap.abs().amax((0, 1)).topk(4)
                columns = ", ".join(f"token {index}: {value:.1e}" for value, index in zip(worst.values.tolist(), worst.indices.tolist()))
                print(f"{method} {attention} {str(dtype).removeprefix('torch.')}: {columns}")


if __name__ == "__main__":
    main(sys.argv[1:])
