"""The whole main job with the official OpenAI package: main_job.py URL MODEL ROWS_FILE EXTRA_BODY_JSON

Every call that a fine-tuning script makes: upload, create, poll, events, checkpoints, models, result file, and the adapter
through the client's raw GET. Prints one JSON object of what it saw.
"""
import hashlib
import io
import json
import sys
import tarfile
import time

import openai

DEADLINE_SECONDS = 280


def wait_until_terminal(client, job):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while job.status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline, f"still {job.status} after {DEADLINE_SECONDS} s: {job}"
        time.sleep(0.3)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def adapter_of(client, job):
    """The files of the tar, each checked against the artifact list."""
    listed = client.get(f"/fine_tuning/jobs/{job.id}/artifacts", cast_to=object)["data"]
    tar = client.get(f"/fine_tuning/jobs/{job.id}/adapter", cast_to=openai.HttpxBinaryResponseContent).read()
    members = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            assert member.mtime == 0 and member.uid == 0 and member.gid == 0, member
            members[member.name.split("/")[-1]] = archive.extractfile(member).read()
    for artifact in listed:
        content = members[artifact["name"]]
        assert len(content) == artifact["bytes"], artifact
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"], artifact
    assert len(listed) == len(members), (listed, list(members))
    return members


def chat(client, job, checkpoint):
    """The last line of a fine-tuning script: a chat with what was tuned, whole and streamed, and a checkpoint of it."""
    asked = {"messages": [{"role": "user", "content": "Which colour has number 4?"}], "temperature": 0,
             "max_completion_tokens": 8, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(model=job.fine_tuned_model, **asked)
    choice = whole.choices[0]
    assert choice.finish_reason in ("stop", "length") and whole.model == job.fine_tuned_model, whole
    assert whole.usage.completion_tokens <= 8 and whole.usage.total_tokens > whole.usage.prompt_tokens > 0, whole.usage
    first = choice.logprobs.content[0]
    assert first.top_logprobs[0].token == first.token and first.logprob == first.top_logprobs[0].logprob <= 0, first
    text, usage = "", None
    for chunk in client.chat.completions.create(model=job.fine_tuned_model, stream=True, stream_options={"include_usage": True}, **asked):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == choice.message.content and usage.completion_tokens == whole.usage.completion_tokens, (text, whole, usage)
    base = client.chat.completions.create(model=job.model, **asked).choices[0].logprobs.content[0]
    earlier = client.chat.completions.create(model=checkpoint, **asked).choices[0].logprobs.content[0]
    assert abs(base.logprob - first.logprob) > 1e-3 and abs(earlier.logprob - first.logprob) > 1e-5, (base, earlier, first)
    try:
        client.chat.completions.create(model="no-such-model", **asked)
        raise AssertionError("an unknown model answered")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.body


def main(url, model, rows, extra):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60)
    file = client.files.create(file=open(rows, "rb"), purpose="fine-tune")
    file = client.files.wait_for_processing(file.id)
    assert file.status == "processed" and file.lint["error_rows"] == 0, file
    assert client.files.content(file.id).read() == open(rows, "rb").read()
    assert file.id in [listed.id for listed in client.files.list(purpose="fine-tune")]

    job = client.fine_tuning.jobs.create(model=model, training_file=file.id, suffix="sdk", seed=11, metadata={"from": f"openai {openai.__version__}"},
                                         extra_body=json.loads(extra))
    assert job.status in ("validating_files", "queued", "running"), job
    job = wait_until_terminal(client, job)
    assert job.status == "succeeded", job
    assert job.fine_tuned_model.startswith(f"ft:{model}:") and ":sdk:" in job.fine_tuned_model, job.fine_tuned_model
    assert job.trained_tokens > 0 and job.finished_at >= job.created_at and job.error is None

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert len({event.id for event in events}) == len(events) > 3
    assert [event.created_at for event in events] == sorted((event.created_at for event in events), reverse=True)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    steps = [checkpoint.step_number for checkpoint in checkpoints]
    assert steps == sorted(steps, reverse=True) and steps, steps
    assert checkpoints[0].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{steps[0]}"
    assert job.id in [listed.id for listed in client.fine_tuning.jobs.list(limit=1)]
    listed = client.fine_tuning.jobs.list(extra_query={"metadata": {"from": f"openai {openai.__version__}"}})
    assert [found.id for found in listed] == [job.id]

    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model
    assert {model, job.fine_tuned_model} <= {listed.id for listed in client.models.list()}
    table = client.files.content(job.result_files[0]).text
    assert table.splitlines()[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy", table
    series = client.get(f"/fine_tuning/jobs/{job.id}/metrics", cast_to=object)
    members = adapter_of(client, job)
    config = json.loads(members["adapter_config.json"])
    assert config["base_model_name_or_path"] == model and config["peft_type"] == "LORA", config

    chat(client, job, f"{job.fine_tuned_model}:ckpt-step-{steps[-1]}")

    # A cancelled finished job is a refusal that is not tried again.
    try:
        client.fine_tuning.jobs.cancel(job.id)
        raise AssertionError("a finished job was cancelled")
    except openai.BadRequestError as error:
        assert error.code == "invalid_state", error.body

    assert client.models.delete(job.fine_tuned_model).deleted
    assert client.files.delete(file.id).deleted
    try:
        client.files.retrieve(file.id)
        raise AssertionError("a deleted file was found")
    except openai.NotFoundError as error:
        assert error.request_id, "an error without a request id"
    print(json.dumps({"job": job.id, "evaluation": job.evaluation, "effective": job.effective, "parity": job.parity,
                      "steps": steps, "events": len(events), "series": series, "adapter": sorted(members)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
