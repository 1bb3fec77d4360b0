// The smallest publisher in Node: one job by JetStream, one by request.
//
//     npm ci
//     node publish.mjs "Why is the sky blue?"
//
// NATS_URL says where the server is (default nats://127.0.0.1:4222).

import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

// How long to wait for an answer, in milliseconds. The job itself has no hurry:
// its result is stored, and can be fetched from llm.results.<queue>.<id> for a week.
const patience = 60_000;

// answerOf returns the answer in a result, or throws the reason why there is none.
function answerOf(message) {
  const result = message.json();
  if (result.status !== "succeeded") {
    throw new Error(`${result.status}: ${result.error.code}: ${result.error.message}`);
  }
  return result.response.body.choices[0].message.content;
}

// publish stores a job under an id of our own, and waits for its result.
async function publish(nc, question) {
  const id = `hello-${crypto.randomUUID()}`;
  const job = { body: { model: "auto", messages: [{ role: "user", content: question }] } };

  // Subscribe before publishing: the result is announced once. The server reads
  // a connection in order, so the subscription is there when the job arrives.
  const done = new Promise((resolve, reject) => {
    nc.subscribe(`llm.done.default.${id}`, {
      max: 1,
      timeout: patience,
      callback: (err, message) => (err ? reject(err) : resolve(message)),
    });
  });
  done.catch(() => {}); // reported below, also when publishing fails first

  // The acknowledgement says that the job is stored; from here on it is safe.
  // Publishing the same id again is refused while the job is queued or running.
  const ack = await jetstream(nc).publish(`llm.jobs.default.${id}`, JSON.stringify(job));
  console.error(`stored as ${id}, sequence ${ack.seq}`);
  return answerOf(await done);
}

// request asks and gets the result as the reply. It is a stored job all the same.
async function request(nc, question) {
  const body = { messages: [{ role: "user", content: question }] };
  const message = await nc.request("llm.complete", JSON.stringify(body), { timeout: patience });
  const error = message.headers?.get("Nats-Service-Error");
  if (error) throw new Error(error);
  return answerOf(message);
}

const question = process.argv[2] ?? "Why is the sky blue?";
const nc = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
try {
  console.log(await publish(nc, question));
  console.log(await request(nc, question));
} finally {
  await nc.close();
}
