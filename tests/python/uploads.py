"""Files in parts with the official OpenAI package: uploads.py URL

Every call that the package has for uploads: create, parts, complete, cancel, and `upload_file_chunked` from a path and from
memory, with and without its MD5; then the parts of a client that lost its place. Prints one JSON object of what it saw.
"""
import hashlib
import json
import pathlib
import sys
import tempfile

import openai

# Each row is another, so that parts in another order are other bytes.
ROWS = [{"messages": [{"role": "user", "content": f"Which colour has number {number}?"}, {"role": "assistant", "content": "Red, of course."}]}
        for number in range(10_000)]
PART_BYTES = 100_000


def refused(call, status, param=None):
    try:
        call()
    except openai.APIStatusError as error:
        assert error.status_code == status and error.param == param, error.body
        return
    raise AssertionError(f"expected a {status}")


def main(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60, max_retries=0)
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    digest = hashlib.md5(content).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rows.jsonl"
        path.write_bytes(content)
        chunked = client.uploads.upload_file_chunked(file=path, mime_type="text/jsonl", purpose="fine-tune",
                                                     part_size=PART_BYTES, md5=digest)
    assert chunked.status == "completed" and chunked.file.status == "processed", chunked
    assert chunked.file.lint["rows"] == 10_000 and chunked.file.filename == "rows.jsonl", chunked.file
    memory = client.uploads.upload_file_chunked(file=content, filename="rows.jsonl", bytes=len(content), purpose="fine-tune",
                                                mime_type="text/jsonl", part_size=PART_BYTES)
    assert memory.file.id != chunked.file.id and memory.file.sha256 == chunked.file.sha256, memory
    assert client.files.content(memory.file.id).read() == content
    client.files.delete(chunked.file.id)
    assert client.files.content(memory.file.id).read() == content, "deleting one file touched another"

    # Out of order, and by a second client that only knows the upload's id.
    upload = client.uploads.create(filename="rows.jsonl", purpose="fine-tune", bytes=len(content), mime_type="text/jsonl")
    half = len(content) // 2
    later = client.uploads.parts.create(upload.id, data=content[half:])
    assert later.upload_id == upload.id and later.object == "upload.part", later
    second = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=60, max_retries=0)
    there = second.get(f"/uploads/{upload.id}/parts", cast_to=object)["data"]
    assert [(part["id"], part["bytes"]) for part in there] == [(later.id, len(content) - half)], there
    earlier = second.uploads.parts.create(upload.id, data=content[:half])
    refused(lambda: client.uploads.complete(upload.id, part_ids=[later.id]), 400, "part_ids")
    refused(lambda: client.uploads.complete(upload.id, part_ids=[later.id, earlier.id], md5=digest), 400, "md5")
    whole = client.uploads.complete(upload.id, part_ids=[earlier.id, later.id], md5=digest)
    assert whole.file.sha256 == hashlib.sha256(content).hexdigest(), whole
    assert client.uploads.complete(upload.id, part_ids=[earlier.id, later.id]).file.id == whole.file.id, "again"
    refused(lambda: client.uploads.cancel(upload.id), 400)
    refused(lambda: client.uploads.create(filename="x", purpose="fine-tune", bytes=9_000_000_000, mime_type="x"), 400, "bytes")

    dropped = client.uploads.create(filename="x", purpose="batch", bytes=1, mime_type="text/plain",
                                    expires_after={"anchor": "created_at", "seconds": 3600})
    assert client.uploads.cancel(dropped.id).status == "cancelled"
    refused(lambda: client.uploads.parts.create(dropped.id, data=b"x"), 400)
    refused(lambda: client.uploads.cancel("upload_00000000000000000000000000000000"), 404)
    for file in (memory.file, whole.file):
        client.files.delete(file.id)
    print(json.dumps({"openai": openai.__version__, "parts": -(-len(content) // PART_BYTES)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
