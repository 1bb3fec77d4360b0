"""The smallest publisher in Python: one job by JetStream, one by request.

    pip install nats-py
    python publish.py "Why is the sky blue?"

NATS_URL says where the server is (default nats://127.0.0.1:4222).
"""

import asyncio
import json
import os
import sys
import uuid

import nats

# How long to wait for an answer, in seconds. The job itself has no hurry: its
# result is stored, and can be fetched from llm.results.<queue>.<id> for a week.
PATIENCE = 60


def answer_of(data: bytes) -> str:
    """Return the answer in a result, or raise with the reason why there is none."""
    result = json.loads(data)
    if result["status"] != "succeeded":
        raise RuntimeError(f"{result['status']}: {result['error']['code']}: {result['error']['message']}")
    return result["response"]["body"]["choices"][0]["message"]["content"]


async def publish(nc: nats.NATS, question: str) -> str:
    """Store a job under an id of our own, and wait for its result."""
    job_id = f"hello-{uuid.uuid4().hex}"
    job = {"body": {"model": "auto", "messages": [{"role": "user", "content": question}]}}

    # Subscribe before publishing: the result is announced once. The server reads
    # a connection in order, so the subscription is there when the job arrives.
    done = await nc.subscribe(f"llm.done.default.{job_id}", max_msgs=1)

    # The acknowledgement says that the job is stored; from here on it is safe.
    # Publishing the same id again is refused while the job is queued or running.
    ack = await nc.jetstream().publish(f"llm.jobs.default.{job_id}", json.dumps(job).encode())
    print(f"stored as {job_id}, sequence {ack.seq}", file=sys.stderr)

    message = await done.next_msg(timeout=PATIENCE)
    return answer_of(message.data)


async def request(nc: nats.NATS, question: str) -> str:
    """Ask and get the result as the reply. It is a stored job all the same."""
    body = {"messages": [{"role": "user", "content": question}]}
    message = await nc.request("llm.complete", json.dumps(body).encode(), timeout=PATIENCE)
    if error := (message.headers or {}).get("Nats-Service-Error"):
        raise RuntimeError(error)
    return answer_of(message.data)


async def main() -> None:
    question = sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?"
    nc = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    try:
        print(await publish(nc, question))
        print(await request(nc, question))
    finally:
        await nc.close()


asyncio.run(main())
