// Webhooks with the official OpenAI package for Node: webhooks.mjs PACKAGE URL MODEL ROWS_FILE
//
// Needs a service that may call 127.0.0.1. Older packages cannot manage endpoints, so that is done over plain HTTP for them;
// all verify what arrives with `client.webhooks.unwrap`.
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";

const DEADLINE_MS = 30_000;
const [packageName, url, model, rows] = process.argv.slice(2);
const { default: OpenAI } = await import(packageName);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", timeout: 60_000 });

const received = [];
let arrived = () => {};
const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    response.writeHead(204).end();
    received.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
    arrived();
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

async function webhook(count) {
  const late = AbortSignal.timeout(DEADLINE_MS);
  while (received.length < count) {
    assert.ok(!late.aborted, `${received.length} of ${count} webhooks came within ${DEADLINE_MS} ms`);
    await Promise.race([new Promise((resolve) => (arrived = resolve)), new Promise((resolve) => setTimeout(resolve, 200))]);
  }
  return received[count - 1];
}

const settings = {
  name: packageName,
  url: `http://127.0.0.1:${server.address().port}/hook`,
  event_types: ["fine_tuning.job.cancelled"],
};
const manages = typeof client.webhooks.create === "function";
const endpoint = manages
  ? await client.webhooks.create(settings)
  : await client.post("/webhook_endpoints", { body: settings });
if (manages) {
  assert.equal((await client.webhooks.retrieve(endpoint.id)).signing_secret, undefined);
  const tested = await client.webhooks.test(endpoint.id, { event_type: "fine_tuning.job.failed" });
  assert.equal(tested.status_code, 204);
} else {
  await client.post(`/webhook_endpoints/${endpoint.id}/test`, { body: { event_type: "fine_tuning.job.failed" } });
}
let { headers, body } = await webhook(1);
assert.equal((await client.webhooks.unwrap(body, headers, endpoint.signing_secret)).type, "fine_tuning.job.failed");

const file = await client.files.create({ file: fs.createReadStream(rows), purpose: "fine-tune" });
const job = await client.fineTuning.jobs.create({ model, training_file: file.id });
await client.fineTuning.jobs.cancel(job.id);
({ headers, body } = await webhook(2));
const event = await client.webhooks.unwrap(body, headers, endpoint.signing_secret);
assert.deepEqual([event.type, event.data.id, event.object], ["fine_tuning.job.cancelled", job.id, "event"]);
await assert.rejects(client.webhooks.unwrap(body.replace("ftjob", "ftjoc"), headers, endpoint.signing_secret));

if (manages) {
  const rotated = await client.webhooks.rotateSecret(endpoint.id, { keep_old_secret_active_for_24_hours: true });
  await client.webhooks.test(endpoint.id, { event_type: "fine_tuning.job.failed" });
  ({ headers, body } = await webhook(3));
  for (const secret of [endpoint.signing_secret, rotated.signing_secret]) {
    await client.webhooks.unwrap(body, headers, secret);
  }
  assert.ok((await client.webhooks.delete(endpoint.id)).deleted);
} else {
  await client.delete(`/webhook_endpoints/${endpoint.id}`);
}
server.close();
server.closeAllConnections();
console.log(JSON.stringify({ job: job.id, manages, received: received.length }));
