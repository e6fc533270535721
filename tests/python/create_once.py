"""Creates one file or one job through a connection that breaks: create_once.py URL MODEL NAME WHAT TRAINING_FILE

WHAT is `file` or `job`. The package retries by itself, without an Idempotency-Key; prints the id that it ended up with.
"""
import sys

import openai


def main(url, model, name, what, training_file):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=30, max_retries=3)
    if what == "file":
        row = b'{"prompt": "a", "completion": "b"}\n' * 50
        print(client.files.create(file=(f"{name}.jsonl", row), purpose="fine-tune").id)
    else:
        print(client.fine_tuning.jobs.create(model=model, training_file=training_file, seed=1, suffix=name).id)


if __name__ == "__main__":
    main(*sys.argv[1:])
