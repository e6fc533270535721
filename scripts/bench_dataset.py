#!/usr/bin/env python3
"""How fast datasets are looked at, beside Python's own readers and tokenizers on the same file, and in how much memory.

    python3 scripts/bench_dataset.py --bin target/debug --runtime .runtime [--megabytes 200] [--upload-megabytes 2000]

Rows are made of random words, so that they are alike from run to run and none equals another. `datasets` and `tokenizers`
(Hugging Face) are timed only where they can be imported.
"""
import argparse
import http.client
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/python"))
import service  # noqa: E402

TOKENS_MEGABYTES = 20
LINT_MEMORY, UPLOAD_MEMORY = 256, 100
BOUNDARY = "benchmark"


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


def make_short(path, megabytes):
    """As many rows as fit, all different: the most keys to remember."""
    size, number = 0, 0
    with open(path, "w") as out:
        while size < megabytes * 1_000_000:
            rows = [f'{{"prompt": "{number + n:x}", "completion": "say {number + n}"}}\n' for n in range(10_000)]
            number += len(rows)
            size += out.write("".join(rows))
    return size, number


def lint(program, path, *options):
    """The command's words, and the most memory that it held, in MB."""
    command = ["/usr/bin/env", "python3", "-c", "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
               "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)",
               program, "lint", *options, "--findings", "0", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return told, int(re.search(r"peak ([0-9]+)", told).group(1)) / 1000


def rate(told, before=""):
    return float(re.search(before + r"[^\n]* ([0-9.]+) MB/s", told).group(1))


def timed(size, work):
    begun = time.monotonic()
    work()
    return size / 1e6 / (time.monotonic() - begun)


def python_json(path):
    with open(path, "rb") as rows:
        for row in rows:
            json.loads(row)


def line(name, value, unit="MB/s"):
    print(f"  {name:<44} {value:8.1f} {unit}", flush=True)


def structure(program, folder, megabytes):
    path = folder / "rows.jsonl"
    size = make(path, megabytes)
    print(f"{size / 1e6:.0f} MB of chat rows, one core each")
    line("finetuned, structure", rate(lint(program, path, "--structure")[0]))
    line("finetuned, content and near duplicates", rate(lint(program, path)[0]))
    line("Python json", timed(size, lambda: python_json(path)))
    try:
        import datasets
    except ImportError:
        print("  datasets is not installed")
    else:
        datasets.disable_progress_bars()
        read = lambda: datasets.load_dataset("json", data_files=str(path), cache_dir=str(folder), split="train")
        line("datasets.load_dataset", timed(size, read))


def tokens(program, folder, runtime):
    path = folder / "tokens.jsonl"
    size = make(path, TOKENS_MEGABYTES)
    print(f"{size / 1e6:.0f} MB of chat rows as tokens of SmolLM2, all cores")
    model = runtime / "models/smollm2-135m-instruct-hf"
    ours = rate(lint(program, path, "--structure", "--model", str(model))[0], "with the model in")
    line("finetuned, read, rendered, tokenised, masked", ours)
    try:
        import tokenizers
    except ImportError:
        print("  tokenizers is not installed")
        return
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    texts = []
    for row in open(path):
        turns = json.loads(row)["messages"]
        texts.append("".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns))

    def encode():
        for start in range(0, len(texts), 256):
            tokenizer.encode_batch(texts[start:start + 256], add_special_tokens=False)

    theirs = timed(size, encode)
    line("tokenizers, encode_batch of the rendered texts", theirs)
    line("of that", ours / theirs, "times")


def memory(program, folder, megabytes):
    path = folder / "keys.jsonl"
    size, rows = make_short(path, megabytes)
    told, peak = lint(program, path)
    print(f"{size / 1e6:.0f} MB of {rows} short rows, none equal to another")
    line("finetuned, content and near duplicates", rate(told))
    line(f"its peak memory (at most {LINT_MEMORY})", peak, "MB")
    path.unlink()
    return peak <= LINT_MEMORY


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+([0-9]+)", status).group(1)) / 1000


def send(url, path):
    """Streams a file as the official clients do, in a form."""
    head = (f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--{BOUNDARY}\r\n'
            f'content-disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n').encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(urllib.parse.urlparse(url).netloc, timeout=600)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("content-type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("content-length", str(len(head) + path.stat().st_size + len(tail)))
    connection.endheaders(head)
    with open(path, "rb") as rows:
        while piece := rows.read(1 << 20):
            connection.send(piece)
    connection.send(tail)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def upload(args, folder, megabytes):
    path = folder / "large.jsonl"
    size = make(path, min(megabytes, 200))
    piece = path.read_bytes()
    with open(path, "ab") as out:
        while size < megabytes * 1_000_000:
            size += out.write(piece)
    del piece
    peaks, done = [], threading.Event()
    with service.running(args, folder / "data") as url:
        pid = service.running.pid
        idle = resident(pid)

        def watch():
            while not done.wait(0.05):
                peaks.append(resident(pid))

        thread = threading.Thread(target=watch)
        thread.start()
        begun = time.monotonic()
        status, file = send(url, path)
        seconds = time.monotonic() - begun
        done.set()
        thread.join()
    print(f"an upload of {size / 1e6:.0f} MB, linted and stored: {status}, {file['lint']['rows']} rows")
    line("finetuned serve", size / 1e6 / seconds)
    line("resident before", idle, "MB")
    line(f"resident at most (at most {UPLOAD_MEMORY})", max(peaks), "MB")
    return max(peaks) <= UPLOAD_MEMORY


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runtime", required=True, type=pathlib.Path)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--upload-megabytes", type=int, default=2000)
    parser.add_argument("--parts", default="structure,tokens,memory,upload")
    args = parser.parse_args()
    program, parts = f"{args.bin}/finetuned", args.parts.split(",")
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if "structure" in parts:
            structure(program, folder, args.megabytes)
        if "tokens" in parts:
            tokens(program, folder, args.runtime)
        if "memory" in parts:
            kept.append(memory(program, folder, args.upload_megabytes))
        if "upload" in parts:
            kept.append(upload(args, folder, args.upload_megabytes))
    sys.exit(0 if all(kept) else "more memory than promised")


if __name__ == "__main__":
    main()
