"""`make api-fuzz`: schemathesis, with all of its checks and the stateful phase, on a running service.

Half of SECONDS goes with a key that may do everything, half without one. The service has an object of each kind, whose ids
take their turn in paths, so that handlers are reached. Ends with the number of test cases; fails where anything is found.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from service import call, running

ROWS = '{"prompt": "Name a colour.", "completion": "Red."}\n' * 12
# A document cannot say that an id must be one that exists, or that two fields exclude each other: a 400 that names the
# field is a right answer to such a request, although it is of the right form.
REFUSED_WITH_REASON = [
    "GET /v1/files", "GET /v1/fine_tuning/jobs", "GET /v1/webhook_endpoints", "GET /v1/organization/audit_logs",
    "GET /v1/organization/projects", "GET /v1/organization/usage/fine_tuning", "GET /v1/files/{file_id}/rows",
    "GET /v1/files/{file_id}/statistics", "GET /v1/files/{file_id}/lint", "GET /v1/files/{file_id}/lint/findings",
    "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events", "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/metrics",
    "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/evaluation/rows",
    "GET /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
    "GET /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries",
    "POST /v1/files", "POST /v1/uploads", "POST /v1/uploads/{upload_id}/complete", "POST /v1/uploads/{upload_id}/parts",
    "POST /v1/uploads/{upload_id}/cancel", "POST /v1/fine_tuning/jobs", "POST /v1/fine_tuning/jobs/estimate",
    "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel", "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause",
    "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume", "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/retry",
    "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/start", "PATCH /v1/fine_tuning/jobs/{fine_tuning_job_id}",
    "POST /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions", "POST /v1/organization/projects",
    "POST /v1/webhook_endpoints", "POST /v1/webhook_endpoints/{webhook_endpoint_id}",
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/test",
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{delivery_id}/replay",
    "DELETE /v1/models/{model}",
]


def objects(url):
    """One of each kind, by the name of its path parameter."""
    def post(path, body):
        return json.loads(call(f"{url}/v1{path}", json.dumps(body).encode()))
    boundary = "XBOUNDARYX"
    part = '--{b}\r\ncontent-disposition: form-data; name="{n}"{f}\r\n\r\n{v}\r\n'
    form = (part.format(b=boundary, n="purpose", f="", v="fine-tune")
            + part.format(b=boundary, n="file", f='; filename="rows.jsonl"', v=ROWS) + f"--{boundary}--\r\n")
    file = json.loads(call(f"{url}/v1/files", form.encode(), f"multipart/form-data; boundary={boundary}"))
    job = post("/fine_tuning/jobs", {"model": "tiny-chat", "training_file": file["id"], "auto_start": False})
    hook = post("/webhook_endpoints", {"name": "x", "url": "https://example.com/", "event_types": ["fine_tuning.job.failed"]})
    upload = post("/uploads", {"filename": "x", "purpose": "batch", "bytes": 9, "mime_type": "text/plain"})
    project = post("/organization/projects", {"name": "fuzzed"})
    return {"file_id": file["id"], "fine_tuning_job_id": job["id"], "webhook_endpoint_id": hook["id"],
            "upload_id": upload["id"], "project_id": project["id"], "model": "tiny-chat"}


def configuration(ids):
    lines = ["[parameters]", *(f'"path.{name}" = {json.dumps(value)}' for name, value in ids.items())]
    lines += ["[[operations]]", f"include-name = {json.dumps(REFUSED_WITH_REASON)}",
              'checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 413, 429, 503]']
    return "\n".join(lines) + "\n"


def run(name, options, url, folder, headers):
    command = [f"{options.runtime}/python-schemathesis/bin/schemathesis", "--config-file", str(folder / "schemathesis.toml"),
               "run", f"{url}/openapi.json", "--max-time", str(options.seconds // 2), "--workers", "2", "--request-timeout", "60",
               "--continue-on-failure", "--suppress-health-check", "all", *headers]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=options.seconds + 600, env={**os.environ, "NO_PROXY": "*", "COLUMNS": "160"})
    cases = re.search(r"(\d+) generated", done.stdout)
    count = cases.group(1) if cases else "no"
    print(f"{name}: {count} test cases, {'nothing found' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-2_000:])
    return done.returncode == 0 and cases is not None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--seconds", type=int, default=1200)
    options = parser.parse_args()
    options.runtime = str(pathlib.Path(options.runtime).resolve())
    with tempfile.TemporaryDirectory(prefix="finetuned-api-fuzz-") as temporary:
        folder = pathlib.Path(temporary)
        with running(options, folder / "data", {"RUST_LOG": "warn"}) as url:
            (folder / "schemathesis.toml").write_text(configuration(objects(url)))
            create = [f"{options.bin}/finetuned", "keys", "create", "fuzz"]
            environment = {**os.environ, "FINETUNED_DATA_DIR": str(folder / "data"), "FINETUNED_RUNTIME_DIR": options.runtime}
            key = subprocess.run(create, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
            results = [run("with a key", options, url, folder, ["-H", f"Authorization: Bearer {key}", "-H", f"api-key: {key}"]),
                       run("without a key", options, url, folder, [])]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
