"""`make base-precision`: what a frozen base model in fewer bits saves and costs, by jobs of the service itself.

LoRA of SmolLM2-135M-Instruct on the demo's rows, once for each `base_precision`, all else equal; one row at once, so that the
weights are what memory is for. Prints a table: the engine's peak resident memory, its speed, and the loss of the held-out rows.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

from service import call, running

PRECISIONS = ["f32", "bf16", "int8", "nf4"]
SETTINGS = {"model": "smollm2-135m-instruct", "seed": 1, "max_steps": 40, "batch_size": 8, "micro_batch_size": 1,
            "evaluate_every": 40, "checkpoint_every": 40, "lora": {"r": 16}, "answers": {"rows": 0}}
JOB_SECONDS = 1200


def upload(url, rows):
    boundary = "finetuned-base-precision"
    part = 'content-disposition: form-data; name='
    body = f'--{boundary}\r\n{part}"purpose"\r\n\r\nfine-tune\r\n--{boundary}\r\n{part}"file"; filename="rows.jsonl"\r\n' \
           f'content-type: application/octet-stream\r\n\r\n{rows}\r\n--{boundary}--\r\n'
    return json.loads(call(f"{url}/v1/files", body.encode(), f"multipart/form-data; boundary={boundary}"))["id"]


def run(url, file, precision):
    body = json.dumps({**SETTINGS, "training_file": file, "base_precision": precision}).encode()
    job = json.loads(call(f"{url}/v1/fine_tuning/jobs", body))
    deadline = time.monotonic() + JOB_SECONDS
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline, job
        time.sleep(0.5)
        job = json.loads(call(f"{url}/v1/fine_tuning/jobs/{job['id']}"))
    assert job["status"] == "succeeded", job
    series = json.loads(call(f"{url}/v1/fine_tuning/jobs/{job['id']}/metrics"))["series"]
    peak = max(point["value"] for point in series["peak_memory_bytes"])
    return job, peak, series["tokens_per_second"][-1]["value"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runtime", required=True)
    options = parser.parse_args()
    options.runtime = str(pathlib.Path(options.runtime).resolve())
    with tempfile.TemporaryDirectory(prefix="finetuned-base-precision-") as temporary:
        folder = pathlib.Path(temporary)
        rows = folder / "rows.jsonl"
        subprocess.run([f"{options.bin}/finetuned", "demo", "--runtime-dir", options.runtime, "--write-rows", str(rows)], check=True)
        print("| `base_precision` | peak memory | tokens a second | held-out loss, base | tuned |\n|---|---|---|---|---|", flush=True)
        with running(options, folder / "data") as url:
            file = upload(url, rows.read_text())
            for precision in PRECISIONS:
                job, peak, speed = run(url, file, precision)
                evaluation = job["evaluation"]
                print(f"| `{precision}` | {peak / 1e6:.0f} MB | {speed:.0f} | {evaluation['base']['loss']:.3f} | "
                      f"{evaluation['tuned']['loss']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
