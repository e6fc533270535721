// The whole main job with the official OpenAI package for Node: main_job.mjs PACKAGE URL MODEL ROWS_FILE SETTINGS_JSON
//
// PACKAGE is a name in package.json, so that one script holds every version. The calls are those of a fine-tuning script:
// upload, create, poll, events, checkpoints, models, result file and the adapter. Prints one JSON object of what it saw.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const DEADLINE_MS = 280_000;
const [packageName, url, model, rows, settings] = process.argv.slice(2);
const { default: OpenAI } = await import(packageName);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", timeout: 60_000 });

async function collect(page) {
  const all = [];
  for await (const item of page) all.push(item);
  return all;
}

async function terminal(job) {
  const deadline = Date.now() + DEADLINE_MS;
  while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
    assert.ok(Date.now() < deadline, `still ${job.status} after ${DEADLINE_MS} ms`);
    await sleep(300);
    job = await client.fineTuning.jobs.retrieve(job.id);
  }
  return job;
}

async function refused(call, status, code) {
  const error = await call().then(
    () => assert.fail(`expected a ${status}`),
    (thrown) => thrown,
  );
  assert.equal(error.status, status, String(error));
  if (code) assert.equal(error.code, code);
  assert.ok(error.requestID, "an error without a request id");
}

let file = await client.files.create({ file: fs.createReadStream(rows), purpose: "fine-tune" });
file = await client.files.waitForProcessing(file.id);
assert.equal(file.status, "processed");
assert.equal(file.lint.error_rows, 0);
assert.equal(await (await client.files.content(file.id)).text(), fs.readFileSync(rows, "utf8"));
assert.ok((await collect(client.files.list({ purpose: "fine-tune" }))).some((listed) => listed.id === file.id));

await refused(() => client.fineTuning.jobs.create({ model: "no-such-model", training_file: file.id }), 400);
await refused(() => client.fineTuning.jobs.create({ model, training_file: file.id, no_such_field: 1 }), 400);

let job = await client.fineTuning.jobs.create({
  model,
  training_file: file.id,
  suffix: "node",
  seed: 11,
  metadata: { from: packageName },
  ...JSON.parse(settings),
});
assert.ok(["validating_files", "queued", "running"].includes(job.status), job.status);
job = await terminal(job);
assert.equal(job.status, "succeeded", JSON.stringify(job.error));
assert.ok(job.fine_tuned_model.startsWith(`ft:${model}:`) && job.fine_tuned_model.includes(":node:"));
assert.ok(job.trained_tokens > 0 && job.finished_at >= job.created_at && job.error === null);

const events = await collect(client.fineTuning.jobs.listEvents(job.id, { limit: 2 }));
assert.ok(events.length > 3 && new Set(events.map((event) => event.id)).size === events.length);
const checkpoints = await collect(client.fineTuning.jobs.checkpoints.list(job.id));
assert.ok(checkpoints.length > 0);
assert.equal(
  checkpoints[0].fine_tuned_model_checkpoint,
  `${job.fine_tuned_model}:ckpt-step-${checkpoints[0].step_number}`,
);
const listed = await collect(client.fineTuning.jobs.list({ metadata: { from: packageName } }));
assert.ok(listed.length > 0 && listed[0].id === job.id);

assert.equal((await client.models.retrieve(job.fine_tuned_model)).id, job.fine_tuned_model);
assert.ok((await collect(client.models.list())).some((found) => found.id === job.fine_tuned_model));
const table = await (await client.files.content(job.result_files[0])).text();
assert.ok(table.startsWith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"));

const artifacts = (await client.get(`/fine_tuning/jobs/${job.id}/artifacts`)).data;
for (const artifact of artifacts) {
  const answer = await client
    .get(`/fine_tuning/jobs/${job.id}/artifacts/${artifact.name}`, { __binaryResponse: true })
    .asResponse();
  const bytes = Buffer.from(await answer.arrayBuffer());
  assert.equal(createHash("sha256").update(bytes).digest("hex"), artifact.sha256, artifact.name);
}

const asked = {
  model: job.fine_tuned_model,
  messages: [{ role: "user", content: "Which colour has number 4?" }],
  temperature: 0,
  max_completion_tokens: 8,
};
const whole = await client.chat.completions.create(asked);
assert.ok(["stop", "length"].includes(whole.choices[0].finish_reason));
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, whole.choices[0].message.content);
await refused(() => client.chat.completions.create({ ...asked, model: "no-such-model" }), 404, "model_not_found");

await refused(() => client.fineTuning.jobs.cancel(job.id), 400, "invalid_state");
assert.ok((await client.models.delete(job.fine_tuned_model)).deleted);
assert.ok((await client.files.delete(file.id)).deleted);
await refused(() => client.files.retrieve(file.id), 404);
console.log(JSON.stringify({ job: job.id, events: events.length, artifacts: artifacts.length }));
