"""`make bench-generate`: greedy answers of SmolLM2-135M-Instruct to the demo's questions, our engine and transformers in turn.

Both read the same prompts of many lengths, in f32 on the same number of threads, at batches of 8 and of 32, and answer with
as many tokens whatever the model says, so that both compute equally much. Prints new tokens a second of each, without
loading, the ratio, and how many of the tokens are equal.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from bench import hugging_face_folder, last_json_line

BATCHES = (8, 32)


def write_prompts(model, rows, count, path):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    with open(path, "w") as file:
        for row in rows[:count]:
            user = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
            text = tokenizer.apply_chat_template([{"role": "user", "content": user}], add_generation_prompt=True, tokenize=False)
            file.write(json.dumps({"input_ids": tokenizer(text, add_special_tokens=False)["input_ids"]}) + "\n")


def peer(model_dir, prompts, new_tokens, threads, out):
    """transformers' generate, prompts padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    rows = [json.loads(line)["input_ids"] for line in open(prompts)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        model.generate(input_ids=ids[:, -2:], attention_mask=mask[:, -2:], max_new_tokens=2, do_sample=False, pad_token_id=0)
        start = time.time()
        answers = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
        seconds = time.time() - start
    answers = answers[:, width:].tolist()
    json.dump(answers, open(out, "w"))
    tokens = sum(map(len, answers))
    print(json.dumps({"new_tokens": tokens, "seconds": seconds, "new_tokens_per_second": tokens / seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runtime", required=True, type=pathlib.Path)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    work = options.runtime / "bench"
    work.mkdir(exist_ok=True)
    rows = work / "generate-rows.jsonl"
    subprocess.run([f"{options.bin}/finetuned", "demo", "--runtime-dir", str(options.runtime), "--write-rows", str(rows)], check=True)
    model = hugging_face_folder(options.runtime)
    rows = [json.loads(line) for line in open(rows)]
    for batch in options.batches:
        prompts, ours, theirs = (work / f"generate-{name}-{batch}.jsonl" for name in ("prompts", "ours", "theirs"))
        write_prompts(model, rows, batch, prompts)
        engine = [f"{options.bin}/finetuned-engine", "generate", "--model", model, "--threads", threads, "--ignore-eos",
                  "--max-new-tokens", options.new_tokens, "--requests", prompts, "--out", ours]
        other = [sys.executable, __file__, "--peer", model, prompts, options.new_tokens, threads, theirs]
        for _ in range(options.rounds):
            mine, their = last_json_line(engine), last_json_line(other)
            answers = zip((json.loads(line)["output_ids"] for line in open(ours)), json.load(open(theirs)))
            equal = sum(a == b for mine_, their_ in answers for a, b in zip(mine_, their_))
            speeds = mine["new_tokens_per_second"], their["new_tokens_per_second"]
            print(f"batch {batch:3}: finetuned {speeds[0]:7.1f} new tokens/s, transformers {speeds[1]:7.1f}: "
                  f"{speeds[0] / speeds[1]:.2f} times as fast; {equal} of {mine['new_tokens']} tokens equal", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        peer(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    else:
        main()
