#!/bin/sh
# The smallest publisher in shell: one job by JetStream, one by request.
# Needs the nats CLI (https://github.com/nats-io/natscli) and jq.
#
#     ./publish.sh "Why is the sky blue?"
#
# NATS_URL says where the server is (default nats://127.0.0.1:4222).
set -eu

NATS_URL="${NATS_URL:-nats://127.0.0.1:4222}"
export NATS_URL
question="${1:-Why is the sky blue?}"

# print_answer prints the answer in the result on stdin, or fails with the reason.
print_answer() {
	jq -er 'if .status == "succeeded" then .response.body.choices[0].message.content
		else error("\(.status): \(.error.code): \(.error.message)") end'
}

# 1. A job by JetStream. The id is ours to choose: while a job of that id is queued
# or running, publishing it again is refused. The reply to a request on a job
# subject is not the answer but the acknowledgement that the job is stored.
id="hello-$(date +%s)-$$"
job=$(jq -cn --arg q "$question" '{body: {model: "auto", messages: [{role: "user", content: $q}]}}')
# (The CLI takes {{…}} in a body for a template of its own; --no-templates ends that.)
ack=$(nats request --raw "llm.jobs.default.$id" "$job")
case "$ack" in
*'"seq"'*) echo "stored as $id: $ack" >&2 ;;
*)
	echo "publish.sh: the job was not stored: $ack" >&2
	exit 1
	;;
esac

# The result is announced once on llm.done.default.$id, for programs that subscribe
# before they publish. A script has it easier with the stored result: this prints
# it if it is there already, or else waits for it, a minute at most.
nats sub --raw --count=1 --wait=60s --stream=LLM_RESULTS --all "llm.results.default.$id" | print_answer

# 2. Ask and get the result as the reply. It is a stored job all the same.
request=$(jq -cn --arg q "$question" '{messages: [{role: "user", content: $q}]}')
nats request --raw --timeout=60s llm.complete "$request" | print_answer
