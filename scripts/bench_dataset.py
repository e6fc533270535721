#!/usr/bin/env python3
"""How fast datasets are looked at, beside Python's own readers on the same file.

    python3 scripts/bench_dataset.py target/debug/finetuned [--megabytes 200]

Rows are made of random words, so that they are alike from run to run and none equals another. `datasets` (Hugging Face) is
timed only where it can be imported.
"""
import argparse
import json
import pathlib
import random
import re
import subprocess
import tempfile
import time


def make(path, megabytes):
    words = [f"{a}{b}" for a in ("lo", "mi", "ra", "te", "su", "no", "ka", "ve") for b in ("n", "rs", "lit", "mer", "do", "s")]
    draw = random.Random(0)
    size = 0
    with open(path, "w") as out:
        while size < megabytes * 1_000_000:
            say = lambda count: " ".join(draw.choices(words, k=count))
            row = {"messages": [{"role": "user", "content": say(40)}, {"role": "assistant", "content": say(draw.randint(20, 300))}]}
            size += out.write(json.dumps(row) + "\n")
    return size


def ours(program, path, *options):
    told = subprocess.run([program, "lint", *options, "--findings", "0", str(path)], capture_output=True, text=True, check=True)
    return float(re.search(r"([0-9]+) MB/s", told.stdout).group(1))


def timed(size, work):
    begun = time.monotonic()
    work()
    return size / 1e6 / (time.monotonic() - begun)


def python_json(path):
    with open(path, "rb") as rows:
        for row in rows:
            json.loads(row)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--megabytes", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rows.jsonl"
        size = make(path, args.megabytes)
        print(f"{size / 1e6:.0f} MB of chat rows, one core each")
        print(f"  finetuned, structure                {ours(args.program, path, '--structure'):7.0f} MB/s")
        print(f"  finetuned, content, near duplicates {ours(args.program, path):7.0f} MB/s")
        print(f"  Python json                         {timed(size, lambda: python_json(path)):7.0f} MB/s")
        try:
            import datasets
        except ImportError:
            print("  datasets                            not installed")
            return
        read = lambda: datasets.load_dataset("json", data_files=str(path), cache_dir=folder, split="train")
        print(f"  datasets.load_dataset               {timed(size, read):7.0f} MB/s")


if __name__ == "__main__":
    main()
