"""`make conformance`: the official OpenAI packages and a framework above them run the main job, unmodified.

Starts `finetuned serve` and runs each client of CLIENTS against it, in turn. Prints a line for each and ends with
`N passed, N failed`.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from service import HERE, running

MODEL = "tiny-chat"
CLIENT_SECONDS = 400
SETTINGS = {"max_steps": 3, "batch_size": 4, "checkpoint_every": 2, "answers": {"rows": 2, "max_new_tokens": 8},
            "optimizer": {"learning_rate": 2e-3}, "lora": {"r": 4, "alpha": 8}}


def clients(runtime, node_modules):
    """(name, command without the arguments all share) of each client."""
    for environment in ("python-sdk", "python-sdk-1", "python-sdk-2"):
        yield environment, [runtime / environment / "bin/python", HERE / "main_job.py"], True
    for package in ("openai-7", "openai-6"):
        yield f"node {package}", [runtime / "node/bin/node", node_modules / "main_job.mjs", package], True
    yield "dspy", [runtime / "python-dspy/bin/python", HERE / "dspy_job.py"], False


def installed_node(runtime, folder):
    """The packages that package-lock.json pins by hash, beside a copy of the script, outside the work tree."""
    for name in ("package.json", "package-lock.json", "main_job.mjs", "webhooks.mjs", "uploads.mjs"):
        (folder / name).write_bytes((HERE.parent / "node" / name).read_bytes())
    path = f"{runtime / 'node/bin'}:{os.environ['PATH']}"
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True,
                   timeout=CLIENT_SECONDS, env={**os.environ, "PATH": path})
    return folder


def webhook_clients(runtime, node_modules):
    """The packages that verify webhooks; only the newest manages endpoints as well."""
    yield "webhooks python-sdk", [runtime / "python-sdk/bin/python", HERE / "webhooks.py"]
    for package in ("openai-7", "openai-6"):
        yield f"webhooks node {package}", [runtime / "node/bin/node", node_modules / "webhooks.mjs", package]


def upload_clients(runtime, node_modules):
    """Every package sends files in parts."""
    for environment in ("python-sdk", "python-sdk-1", "python-sdk-2"):
        yield f"uploads {environment}", [runtime / environment / "bin/python", HERE / "uploads.py"]
    for package in ("openai-7", "openai-6"):
        yield f"uploads node {package}", [runtime / "node/bin/node", node_modules / "uploads.mjs", package]


def permission_clients(runtime):
    """The packages whose permissions ask for no key of another kind."""
    for environment in ("python-sdk", "python-sdk-1", "python-sdk-2"):
        yield f"permissions {environment}", [runtime / environment / "bin/python", HERE / "permissions.py"]


def passes(name, command, arguments):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    started = time.monotonic()
    try:
        done = subprocess.run([*map(str, command), *arguments], env={**environment, "NO_PROXY": "*"}, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=CLIENT_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{name}: FAILED, no end within {CLIENT_SECONDS} s", flush=True)
        return False
    verdict = "passed" if done.returncode == 0 else f"FAILED\n{done.stdout}\n{done.stderr}"
    print(f"{name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    return done.returncode == 0


def chat_rows(folder):
    rows = [{"messages": [{"role": "user", "content": f"Which colour has number {i}?"},
                          {"role": "assistant", "content": ["red", "green", "blue"][i % 3]}]} for i in range(24)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runtime", required=True)
    options = parser.parse_args()
    options.runtime = str(pathlib.Path(options.runtime).resolve())
    with tempfile.TemporaryDirectory(prefix="finetuned-conformance-") as temporary:
        folder = pathlib.Path(temporary)
        (folder / "node").mkdir()
        runtime, node = pathlib.Path(options.runtime), installed_node(pathlib.Path(options.runtime), folder / "node")
        rows = chat_rows(folder)
        # The receivers of webhooks listen here, where without a word of the operator none is called.
        with running(options, folder / "data", {"FINETUNED_ALLOW_OUTBOUND": "127.0.0.1"}) as url:
            results = [passes(name, command, [url, MODEL, *([str(rows), json.dumps(SETTINGS)] if main_job else [])])
                       for name, command, main_job in clients(runtime, node)]
            results += [passes(name, command, [url, MODEL, str(rows)]) for name, command in webhook_clients(runtime, node)]
            results += [passes(name, command, [url]) for name, command in upload_clients(runtime, node)]
            results += [passes(name, command, [url, MODEL, str(rows), json.dumps(SETTINGS)])
                        for name, command in permission_clients(runtime)]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
