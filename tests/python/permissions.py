"""Checkpoint permissions with the official OpenAI package: permissions.py URL MODEL ROWS_FILE SETTINGS_JSON

Trains a model, makes a project, shows the model to it with every call the package has, and takes the permission back.
"""
import json
import sys

import openai

from main_job import wait_until_terminal


def main(url, model, rows, settings):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60)
    file = client.files.create(file=open(rows, "rb"), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=model, training_file=file.id, seed=11, extra_body=json.loads(settings))
    job = wait_until_terminal(client, job)
    assert job.status == "succeeded", job
    name = openai.__version__.replace(".", "-")
    project = client.post("/organization/projects", body={"name": name}, cast_to=object)
    permissions = client.fine_tuning.checkpoints.permissions
    made = list(permissions.create(job.fine_tuned_model, project_ids=[project["id"]]))
    assert [(permission.object, permission.project_id) for permission in made] == [("checkpoint.permission", project["id"])]
    listing = getattr(permissions, "list", permissions.retrieve)
    assert [permission.id for permission in listing(job.fine_tuned_model, order="ascending", limit=1).data] == [made[0].id]
    inside = client.with_options(default_headers={"OpenAI-Project": project["id"]})
    assert inside.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model
    gone = permissions.delete(made[0].id, fine_tuned_model_checkpoint=job.fine_tuned_model)
    assert gone.deleted and not listing(job.fine_tuned_model).data
    try:
        inside.models.retrieve(job.fine_tuned_model)
        raise AssertionError("a model is seen without a permission")
    except openai.NotFoundError:
        pass
    usage = client.get(f"/organization/usage/fine_tuning?start_time={job.created_at - 60}", cast_to=object)
    assert usage["data"][0]["results"][0]["trained_tokens"] >= job.trained_tokens, usage
    print(json.dumps({"openai": openai.__version__, "project": project["id"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
