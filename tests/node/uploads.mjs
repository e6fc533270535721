// Files in parts with the official OpenAI package for Node: uploads.mjs PACKAGE URL
import assert from "node:assert/strict";
import { createHash } from "node:crypto";

const [packageName, url] = process.argv.slice(2);
const { default: OpenAI, toFile } = await import(packageName);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", timeout: 60_000, maxRetries: 0 });

const row = { prompt: "Which colour?", completion: "Red, of course." };
const content = Buffer.from(`${JSON.stringify(row)}\n`.repeat(10_000));
const md5 = createHash("md5").update(content).digest("hex");
const announced = { filename: "rows.jsonl", purpose: "fine-tune", bytes: content.length, mime_type: "text/jsonl" };

const upload = await client.uploads.create(announced);
assert.equal(upload.status, "pending");
const partIds = [];
for (let start = 0; start < content.length; start += 100_000) {
  const data = await toFile(content.subarray(start, start + 100_000), "upload");
  const part = await client.uploads.parts.create(upload.id, { data });
  assert.equal(part.upload_id, upload.id);
  partIds.push(part.id);
}
const completed = await client.uploads.complete(upload.id, { part_ids: partIds, md5 });
assert.equal(completed.status, "completed");
assert.equal(completed.file.status, "processed");
assert.equal(completed.file.lint.rows, 10_000);
const back = Buffer.from(await (await client.files.content(completed.file.id)).arrayBuffer());
assert.ok(back.equals(content));

const dropped = await client.uploads.create(announced);
assert.equal((await client.uploads.cancel(dropped.id)).status, "cancelled");
const refusal = await client.uploads.complete(dropped.id, { part_ids: partIds }).catch((error) => error);
assert.equal(refusal.status, 400);
assert.ok((await client.files.delete(completed.file.id)).deleted);
console.log(JSON.stringify({ parts: partIds.length }));
