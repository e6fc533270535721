"""Creates one file and one job through a connection that breaks: create_once.py URL MODEL WHAT

WHAT is `file` or `job`; for `job` the training file is the first one listed. The package retries by itself, without an
Idempotency-Key; prints the id that it ended up with.
"""
import sys

import openai


def main(url, model, what):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=30, max_retries=3)
    if what == "file":
        row = b'{"prompt": "a", "completion": "b"}\n' * 50
        print(client.files.create(file=("once.jsonl", row), purpose="fine-tune").id)
    else:
        file = next(iter(client.files.list(purpose="fine-tune")))
        print(client.fine_tuning.jobs.create(model=model, training_file=file.id, seed=1, suffix="once").id)


if __name__ == "__main__":
    main(*sys.argv[1:])
