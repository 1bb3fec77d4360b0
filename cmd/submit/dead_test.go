package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// died queues a job and lets it fail, as the stand-in for a worker.
func (b *bench) died(queueName, id, payload string, headers ...string) {
	b.t.Helper()
	b.publish(queueName, id, payload, headers...)
	tk := b.take(queueName)
	require.Equal(b.t, id, tk.id)
	b.finish(tk, job.Failed)
}

// letterFixture is a dead letter with everything in it.
func letterFixture() *job.DeadLetter {
	at := noon().Add(-3 * time.Hour)
	first := &job.Failure{Backend: "openrouter", Class: "timeout", Message: "no answer in 5s"}
	last := &job.Failure{Backend: "vllm", Class: "server_error", Status: 503, Message: "upstream\nsaid \x1b[31mno"}
	return &job.DeadLetter{
		ID: "b.000007", Queue: "low", Reason: "server_error",
		Error: &job.Error{Code: "server_error", Message: "vllm: upstream said no", First: first, Last: last},
		Job:   json.RawMessage(`{"messages":[{"role":"user","content":"SECRET PROMPT"}]}`), Headers: map[string][]string{"traceparent": {"00-x"}},
		Attempts: []job.Attempt{
			{N: 1, Backend: "openrouter", Model: "auto", Outcome: job.OutcomeFailed, Class: new("timeout"), Error: new("no answer in 5s"), StartedAt: at, DurationMS: 5003, Next: new(job.NextFallback)},
			{N: 2, Backend: "spare", Outcome: job.OutcomeSkipped, Class: new("circuit_open"), StartedAt: at, Next: new(job.NextFallback)},
			{N: 3, Backend: "vllm", Model: "qwen", Outcome: job.OutcomeFailed, Class: new("server_error"), Status: 503, Error: new("upstream said no"), Code: "model_loading", Type: "unavailable\nerror", StartedAt: at, DurationMS: 120, WaitMS: 1000, Next: new(job.NextStop)},
		},
		FirstError: first, LastError: last, Deliveries: 2, Redrives: 1, Worker: "w-1", Time: at,
	}
}

func TestTheTablesOfDeadLettersAreAligned(t *testing.T) {
	t.Parallel()
	refused := &job.DeadLetter{
		ID: "x", Queue: "default", Reason: "invalid_job", Error: &job.Error{Code: "invalid_job", Message: "route: no route is called \"x\""},
		Deliveries: 1, Worker: "w-2", Time: noon().Add(-90 * time.Second),
	}
	requireGolden(t, "dead-ls.txt", deadTable([]picked{{summarize(letterFixture()), 1}, {summarize(refused), 2}}, noon()))
	requireGolden(t, "dead-show.txt", letterText(letterFixture(), noon()))
	requireGolden(t, "dead-show-refused.txt", letterText(refused, noon()))
	requireGolden(t, "dead-show-empty.txt", letterText(&job.DeadLetter{ID: "y", Queue: "q"}, noon()))
}

func TestDeadLettersAreListedTheNewestLast(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	code, out, stderr := b.submit("dead", "ls")
	require.Equal(t, exitOK, code)
	require.Empty(t, out)
	require.Equal(t, "There are no dead letters.\n", stderr)

	for i := 1; i <= 7; i++ {
		b.died([]string{"default", "low"}[i%2], fmt.Sprintf("b.%d", i), `{"prompt":"SECRET PROMPT"}`)
	}
	b.died("default", "x", `{"prompt":"SECRET PROMPT"}`)
	list := func(args ...string) string {
		code, out, stderr := b.submit(append([]string{"dead", "ls"}, args...)...)
		require.Equal(t, exitOK, code, stderr)
		require.NotContains(t, out, "SECRET")
		var ids []string
		for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			ids = append(ids, strings.Fields(line)[0])
		}
		return strings.Join(ids, " ")
	}
	require.Equal(t, "b.1 b.2 b.3 b.4 b.5 b.6 b.7 x", list())
	require.Equal(t, "b.1 b.3 b.5 b.7", list("-queue", "low"))
	require.Equal(t, "b.2 b.4 b.6", list("b.*", "-queue", "default"))
	require.Equal(t, "b.7 x", list("-limit", "2"))
	require.Equal(t, "b.1 b.2 b.3 b.4 b.5 b.6 b.7 x", list("-limit", "0"))
	require.Equal(t, "x b.3", list("x", "b.3"))
	require.Equal(t, "b.1 b.2 b.3 b.4 b.5 b.6 b.7 x", list("-class", "timeout"))
	require.Equal(t, "b.1 b.2 b.3 b.4 b.5 b.6 b.7 x", list("-class", "TimeoutError")) // a name of the same class
	_, _, stderr = b.submit("dead", "ls", "-class", "quota")
	require.Equal(t, "There are no dead letters.\n", stderr)
	_, _, stderr = b.submit("dead", "ls", "b.*", "b.7", "b.1") // each is listed once
	require.Equal(t, "7 dead letters.\n", stderr)
	_, _, stderr = b.submit("dead", "ls", "-limit", "3")
	require.Equal(t, "The newest 3 of 8; -limit 0 lists all.\n", stderr)

	code, out, _ = b.submit("dead", "ls", "x", "-json")
	require.Equal(t, exitOK, code)
	require.JSONEq(t, `{"id":"x","queue":"default","reason":"timeout","attempts":1,"redrives":0,"last_class":"timeout","last_backend":"standin",
		"time":"2026-11-22T11:00:00Z","worker":"w-1","deliveries":1}`, out)
}

func TestWhatIsNoDeadLetterIsToldOfAndPassedOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.js.Publish(t.Context(), b.subjects.Dead("default", "junk"), []byte("junk"))
	require.NoError(t, err)
	b.died("default", "x", `{"prompt":"p"}`)
	code, out, stderr := b.submit("dead", "ls")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "\nx ")
	require.Contains(t, stderr, "submit: passed over: message 1 on llm.dead.default.junk is no dead letter: ")
}

func TestAPromptIsShownOnlyWhenAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	letter := letterFixture()
	require.NoError(t, b.store.Bury(t.Context(), letter, letter.Job, 1))
	for _, args := range [][]string{{}, {"-json"}, {"-queue", "low"}} {
		code, out, stderr := b.submit(append([]string{"dead", "show", "b.000007"}, args...)...)
		require.Equal(t, exitOK, code, stderr)
		require.NotContains(t, out, "SECRET")
		require.Contains(t, out, "server_error")
	}
	_, out, _ := b.submit("dead", "show", "b.000007")
	requireGolden(t, "dead-show.txt", out)
	_, out, _ = b.submit("dead", "show", "b.000007", "-payload")
	require.Contains(t, out, "\nJOB\n{\n  \"messages\": [\n")
	require.Contains(t, out, `"content": "SECRET PROMPT"`)
	_, out, _ = b.submit("dead", "show", "b.000007", "-payload", "-json")
	shown, err := job.DecodeDeadLetter([]byte(out))
	require.NoError(t, err)
	require.JSONEq(t, string(letter.Job), string(shown.Job))
	_, out, _ = b.submit("dead", "show", "b.000007", "-json")
	require.Contains(t, out, `"job":null`)
}

func TestAPayloadThatIsNoJSONIsShownAsItIs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", "not JSON\x1b[2J")
	_, out, _ := b.submit("dead", "show", "x", "-payload")
	require.True(t, strings.HasSuffix(out, "\nJOB\nnot JSON\x1b[2J\n"), out)
	c := b.command("")
	c.terminals.out = true
	require.Equal(t, exitOK, c.start("dead", "show", "x", "-payload").wait())
	require.True(t, strings.HasSuffix(c.out.String(), "\nJOB\nnot JSON\uFFFD[2J\n"), c.out)
}

func TestADeadLetterThatIsNotThereOrNotTheOnlyOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	code, _, stderr := b.submit("dead", "show", "x")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: there is no dead letter of job x\n", stderr)
	b.died("default", "x", `{"prompt":"p"}`)
	b.died("low", "x", `{"prompt":"p"}`)
	code, _, stderr = b.submit("dead", "show", "x")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "submit: job x has dead letters in several queues: choose with -queue default\n")
	code, out, _ := b.submit("dead", "show", "x", "-queue", "low")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "queue   low\n")
}

func TestARedriveRunsTheJobAgainWithinTheDuplicateWindow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const payload = `{"messages": [],   "temperature": 0}`
	b.died("low", "x", payload, "Nats-Msg-Id", "mine", "traceparent", "00-x")
	code, out, stderr := b.submit("dead", "redrive", "x")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "x\n", out)
	require.Equal(t, "submit: 1 of 1 job queued again\n", stderr)
	require.Empty(t, b.letters())
	tk := b.take("low")
	requireBytes(t, payload, tk.Data())
	require.Equal(t, "1", tk.Headers().Get(job.HeaderRedrives))
	require.Equal(t, "00-x", tk.Headers().Get("traceparent"))
	b.finish(tk, job.Failed)

	code, out, _ = b.submit("dead", "redrive", "x", "-json") // the second time
	require.Equal(t, exitOK, code)
	require.JSONEq(t, `{"id":"x","queue":"low","result_subject":"llm.results.low.x","done_subject":"llm.done.low.x","events_subject":"llm.events.low.x","redrives":2}`, out)
	tk = b.take("low")
	require.Equal(t, "2", tk.Headers().Get(job.HeaderRedrives))
	b.finish(tk, job.Succeeded)
	code, out, _ = b.submit("result", "x", "-queue", "low")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "answer to x")
}

func TestARedriveWaitsForTheNewResultNotTheOldOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p"}`)
	c := b.command("").start("dead", "redrive", "x", "-wait")
	b.finish(b.take("default"), job.Failed)
	require.Equal(t, exitFailed, c.wait())
	require.Empty(t, c.out.String())
	require.Contains(t, c.err.String(), "submit: job x failed: timeout: no answer in 5s\n")

	c = b.command("").start("dead", "redrive", "x", "-wait") // right away: its worker may still be settling
	b.finish(b.take("default"), job.Succeeded)
	require.Equal(t, exitOK, c.wait(), c.err)
	require.Equal(t, "x\tsucceeded\tstandin\n", c.out.String())
	require.Empty(t, b.letters())
}

func TestARedriveOfAJobThatRunsIsRefusedAndKeepsItsLetter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p"}`)
	b.publish("default", "x", `{"prompt":"newer"}`, job.HeaderRedrives, "1")
	running := b.take("default")
	code, out, stderr := b.submit("dead", "redrive", "x")
	require.Equal(t, exitFailed, code)
	require.Empty(t, out)
	require.Equal(t, "submit: job x (queue default) is queued or running; its dead letter stays\nsubmit: 0 of 1 job queued again\n", stderr)
	require.Equal(t, []string{"x"}, b.letters())
	b.finish(running, job.Failed)
	code, _, stderr = b.submit("dead", "redrive", "x")
	require.Equal(t, exitOK, code, stderr)
	require.Empty(t, b.letters())
}

func TestARedriveWaitsForAWorkerThatIsStillSettling(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	tk := b.take("default")
	require.NoError(t, b.commit(tk, job.Failed)) // the result is there, the letter is not
	c := b.command("").start("dead", "redrive", "x")
	require.NoError(t, b.bury(tk)) // the letter is there, the job is in the queue
	require.NoError(t, tk.DoubleAck(t.Context()))
	require.Equal(t, exitOK, c.wait(), c.err)
	require.Equal(t, "x\n", c.out.String())
	requireBytes(t, `{"prompt":"p"}`, b.take("default").Data())

	b = newBench(t) // the same, one step later
	b.publish("default", "x", `{"prompt":"p"}`)
	tk = b.take("default")
	require.NoError(t, b.commit(tk, job.Failed))
	require.NoError(t, b.bury(tk))
	looks, err := b.js.Conn().SubscribeSync("$JS.API.STREAM.MSG.GET.LLM_JOBS")
	require.NoError(t, err)
	require.NoError(t, b.js.Conn().Flush())
	c = b.command("").start("dead", "redrive", "x")
	for range 3 { // the stream has refused it, and what it looks at is still there
		_, err = looks.NextMsg(patience)
		require.NoError(t, err)
	}
	require.NoError(t, tk.DoubleAck(t.Context()))
	require.Equal(t, exitOK, c.wait(), c.err)
	require.Equal(t, "x\n", c.out.String())
}

func TestOnlyTheChosenLettersAreRedriven(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, id := range []string{"b.1", "b.2", "x", "y"} {
		b.died("default", id, `{"prompt":"p"}`)
	}
	b.died("low", "z", `{"prompt":"p"}`)
	quota := letterFixture()
	require.NoError(t, b.store.Bury(t.Context(), quota, quota.Job, 99)) // low/b.000007, server_error

	code, out, stderr := b.submit("dead", "redrive", "-all", "-class", "server_error")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "b.000007\n", out)
	require.Equal(t, []string{"b.1", "b.2", "x", "y", "z"}, b.letters())
	_, out, _ = b.submit("dead", "redrive", "b.*")
	require.Equal(t, "b.1\nb.2\n", out)
	_, out, _ = b.submit("dead", "redrive", "-all", "-queue", "low")
	require.Equal(t, "z\n", out)
	code, out, stderr = b.submit("dead", "redrive", "none", "y")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "y\n", out)
	require.Equal(t, "submit: there is no dead letter of job none\nsubmit: 1 of 1 job queued again\n", stderr)
	_, out, _ = b.submit("dead", "redrive", "-all")
	require.Equal(t, "x\n", out)
	code, out, stderr = b.submit("dead", "redrive", "-all")
	require.Equal(t, exitOK, code)
	require.Empty(t, out)
	require.Equal(t, "There are no dead letters to redrive.\n", stderr)
	require.Equal(t, 6, b.queued())
}

func TestARedriveIntoAFullQueueWaitsForRoom(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 4 {
		b.died("default", fmt.Sprintf("x%d", i), `{"prompt":"p"}`)
	}
	b.limit(1)
	c := b.command("").start("dead", "redrive", "-all", "-wait", "-json")
	c.err.await(t, "submit: queue default is full; waiting for room, nothing is lost (maximum messages exceeded, code 10077)\n")
	b.serve("default", always(job.Succeeded))
	require.Equal(t, exitOK, c.wait(), c.err)
	list := resultsIn(t, c.out.String())
	require.Len(t, list, 4)
	require.Empty(t, b.letters())
}

func TestAnInterruptedRedriveSaysWhatGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p"}`)
	b.died("default", "y", `{"prompt":"p"}`)
	c := b.command("").start("dead", "redrive", "-all", "-wait")
	c.err.await(t, "submit: 2 of 2 jobs queued again\n")
	c.interrupt()
	require.Equal(t, exitInterrupted, c.wait())
	require.Contains(t, c.err.String(), "submit: 2 jobs of those queued again are still queued or running; to await one: submit result ID -wait 10m\n")
}

func TestARealWorkerRunsARedrivenJobAgain(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Steps(llmtest.Fail(400, "no"), llmtest.Fail(400, "still no"), llmtest.Answer("yes")))
	inbox := make(chan *nats.Msg, 8)
	sub, err := b.js.Conn().ChanSubscribe("_INBOX.asker", inbox)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	code, _, _ := b.submitWith(`{"body":{"messages":[{"role":"user","content":"Hi"}]},"reply_to":"_INBOX.asker"}`, "job", "-id", "x")
	require.Equal(t, exitFailed, code)
	code, _, stderr := b.submit("dead", "redrive", "x", "-wait")
	require.Equal(t, exitFailed, code, stderr)
	code, out, stderr := b.submit("dead", "redrive", "x", "-wait")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "x\tsucceeded\tmodel1\n", out)
	code, out, _ = b.submit("result", "x")
	require.Equal(t, exitOK, code)
	r, err := job.DecodeResult([]byte(out))
	require.NoError(t, err)
	require.Equal(t, 2, r.Redrives)
	require.Equal(t, "yes", answerText(r.Response))
	require.Empty(t, b.letters())
	for range 3 { // whoever asked first hears of every end
		select {
		case <-inbox:
		case <-time.After(patience):
			require.FailNow(t, "a reply is missing")
		}
	}
}
