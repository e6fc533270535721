"""Many equal creations at once, under one Idempotency-Key: create_at_once.py URL MODEL TRAINING_FILE COUNT

Prints the id that each call ended up with.
"""
import concurrent.futures
import sys

import openai


def main(url, model, training_file, count):
    def create(_):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60)
        return client.fine_tuning.jobs.create(model=model, training_file=training_file, seed=1,
                                              extra_headers={"Idempotency-Key": "at-once"}).id

    with concurrent.futures.ThreadPoolExecutor(int(count)) as pool:
        print("\n".join(pool.map(create, range(int(count)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
