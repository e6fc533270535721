"""A fine-tuning through DSPy's own OpenAI provider: dspy_job.py URL MODEL

The provider saves the rows, uploads, creates the job with the deprecated `hyperparameters`, reads `estimated_finish` and the
newest event, waits and asks for the model, all through the module-level client, which finds its `base_url` in the environment.
Prints one JSON object.
"""
import json
import os
import sys
import tempfile

COLOURS = ["red", "green", "blue", "white", "black"]


def main(url, model):
    os.environ.update(OPENAI_BASE_URL=f"{url}/v1", OPENAI_API_KEY="unused", DSPY_CACHEDIR=tempfile.mkdtemp(prefix="dspy-"))
    from dspy.clients.openai import OpenAIProvider, TrainingJobOpenAI
    from dspy.clients.utils_finetune import TrainDataFormat

    rows = [{"messages": [{"role": "user", "content": f"Which colour has number {i}?"},
                          {"role": "assistant", "content": COLOURS[i % 5]}]} for i in range(24)]
    job = TrainingJobOpenAI()
    tuned = OpenAIProvider.finetune(job, f"openai/{model}", rows, TrainDataFormat.CHAT, {"n_epochs": 1, "batch_size": 8})
    assert tuned.startswith(f"ft:{model}:"), tuned
    print(json.dumps({"job": job.provider_job_id, "model": tuned}))


if __name__ == "__main__":
    main(*sys.argv[1:])
