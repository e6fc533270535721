"""Webhooks with the official OpenAI package: webhooks.py URL MODEL ROWS_FILE

Needs a service that may call 127.0.0.1. Manages an endpoint with every call the package has, and verifies what arrives with
`client.webhooks.unwrap`, across a rotation of the secret.
"""
import json
import sys
import time

import openai

from receiver import Receiver

ALL = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


def refused(call, status, code=None):
    try:
        call()
    except openai.APIStatusError as error:
        assert error.status_code == status and code in (None, error.code), error.body
        return error
    raise AssertionError(f"expected a {status}")


def cancelled_job(client, model, file):
    job = client.fine_tuning.jobs.create(model=model, training_file=file.id)
    return client.fine_tuning.jobs.cancel(job.id)


def deliveries(client, endpoint, until):
    deadline = time.monotonic() + 30
    while True:
        listed = client.get(f"/webhook_endpoints/{endpoint.id}/deliveries", cast_to=object)["data"]
        if until(listed):
            return listed
        assert time.monotonic() < deadline, listed
        time.sleep(0.1)


def main(url, model, rows):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60, max_retries=0)
    receiver = Receiver()
    assert client.webhooks.event_types.list().data == ALL
    endpoint = client.webhooks.create(name="ci", url=receiver.url, event_types=ALL)
    secret = endpoint.signing_secret
    assert secret.startswith("whsec_") and endpoint.signing_secret_hint.endswith(secret[-4:])
    assert not hasattr(client.webhooks.retrieve(endpoint.id), "signing_secret")
    assert [listed.id for listed in client.webhooks.list(limit=1)] == [endpoint.id]
    assert client.webhooks.update(endpoint.id, name="renamed").name == "renamed"

    # What may not be called, and what does not exist.
    for address in ("https://10.0.0.1/", "https://169.254.169.254/latest", "http://example.com/", "https://[::1]/", "x"):
        refused(lambda: client.webhooks.create(name="x", url=address, event_types=ALL), 400, "invalid_value")
    refused(lambda: client.webhooks.create(name="x", url=receiver.url, event_types=["batch.completed"]), 400)
    refused(lambda: client.webhooks.retrieve("we_00000000000000000000000000000000"), 404)
    inside = client.webhooks.create(name="inside", url="https://localhost/", event_types=ALL)
    refused(lambda: client.webhooks.test(inside.id, event_type=ALL[0]), 400, "endpoint_unreachable")
    client.webhooks.delete(inside.id)

    tested = client.webhooks.test(endpoint.id, event_type=ALL[0])
    assert tested.success and tested.status_code == 200, tested
    headers, body = receiver.wait_for(1)
    assert client.webhooks.unwrap(body, headers, secret=secret).type == ALL[0]

    # A job's end arrives, verified by its own class.
    file = client.files.create(file=open(rows, "rb"), purpose="fine-tune")
    job = cancelled_job(client, model, file)
    headers, body = receiver.wait_for(2)
    event = client.webhooks.unwrap(body, headers, secret=secret)
    assert (type(event).__name__, event.data.id) == ("FineTuningJobCancelledWebhookEvent", job.id), event
    for broken, given in ((body.replace(b"ftjob", b"ftjoc"), secret), (body, "whsec_AAAA")):
        try:
            client.webhooks.unwrap(broken, headers, secret=given)
            raise AssertionError("a forged webhook was taken")
        except openai.InvalidWebhookSignatureError:
            pass

    # Both secrets sign while they overlap; a redirect is a failure and is tried again under the same id.
    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != secret
    receiver.status = 307
    cancelled_job(client, model, file)
    first, body = receiver.wait_for(3)
    receiver.status = 204
    second, body = receiver.wait_for(4)
    assert first["webhook-id"] == second["webhook-id"]
    for given in (secret, rotated.signing_secret):
        assert client.webhooks.unwrap(body, second, secret=given).type == ALL[2]
    latest = deliveries(client, endpoint, lambda listed: all(one["status"] == "delivered" for one in listed))[0]
    assert [attempt["status_code"] for attempt in latest["attempts"]] == [307, 204], latest

    # A replay; and a rotation without overlap, after which the old secret verifies nothing.
    client.post(f"/webhook_endpoints/{endpoint.id}/deliveries/{latest['id']}/replay", cast_to=object)
    third, body = receiver.wait_for(5)
    assert third["webhook-id"] == second["webhook-id"]
    final = client.webhooks.rotate_secret(endpoint.id).signing_secret
    client.webhooks.test(endpoint.id, event_type=ALL[1])
    headers, body = receiver.wait_for(6)
    client.webhooks.unwrap(body, headers, secret=final)
    try:
        client.webhooks.unwrap(body, headers, secret=rotated.signing_secret)
        raise AssertionError("an ended secret still signs")
    except openai.InvalidWebhookSignatureError:
        pass

    assert client.webhooks.delete(endpoint.id).deleted
    cancelled_job(client, model, file)
    time.sleep(1)
    assert len(receiver.received) == 6
    print(json.dumps({"secrets": [secret, rotated.signing_secret, final], "received": len(receiver.received)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
