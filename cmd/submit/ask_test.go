package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

func TestAskPrintsTheAnswerAndNothingElse(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Echo())
	for _, tc := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"Why <now>?"}},
		{"", []string{"ask", "Why <now>?"}},
		{"Why <now>?", []string{"ask", "-"}},
		{"Why <now>?", []string{"ask"}},
		{"", []string{"-stream", "Why <now>?"}},
		{"", []string{"ask", "Why <now>?", "-stream", "-timeout", "50s"}},
	} {
		code, out, stderr := b.submitWith(tc.stdin, tc.args...)
		require.Equal(t, exitOK, code, "%v: %s", tc.args, stderr)
		require.Equal(t, "echo: Why <now>?\n", out, "%v", tc.args)
		require.Empty(t, stderr, "%v", tc.args)
	}
}

func TestAskSaysWhoAnsweredToThosWhoWatch(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Always(llmtest.Fail(503, "busy")), llmtest.Echo())
	code, out, stderr := b.submit("-v", "-id", "q-1", "Hi")
	require.Equal(t, exitOK, code)
	require.Equal(t, "echo: Hi\n", out)
	require.Regexp(t, `^job q-1: answered by model2, 2 attempts, [^,]+\n$`, stderr)

	c := b.command("")
	c.terminals.err = true
	require.Equal(t, exitOK, c.start("-id", "q-2", "Hi").wait())
	require.Regexp(t, `^job q-2: answered by model2, 2 attempts, [^,]+\n$`, c.err.String())
}

func TestAskSendsWhatItWasTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.command("").start("ask", "-route", "simple_qa", "-model", "big", "-queue", "low", "-id", "a.b", "-timeout", "90s", "-stream", "5 < 6 & \"so\"")
	tk := b.take("low")
	require.Equal(t, "a.b", tk.id)
	requireBytes(t, `{"body":{"model":"big","messages":[{"role":"user","content":"5 < 6 & \"so\""}],"stream":true},"route":"simple_qa","timeout_ms":90000}`+"\n", tk.Data())
	b.finish(tk, job.Succeeded)
	require.Equal(t, exitOK, c.wait())
	require.Equal(t, "answer to a.b\n", c.out.String())
}

func TestAskPrintsTheWholeResultAsJSON(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Echo())
	code, out, stderr := b.submit("ask", "-json", "Hi")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, 1, strings.Count(out, "\n"))
	r, err := job.DecodeResult([]byte(out))
	require.NoError(t, err)
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, "echo: Hi", answerText(r.Response))

	code, out, stderr = b.submit("ask", "-json", "-stream", "one two")
	require.Equal(t, exitOK, code, stderr)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	require.Greater(t, len(lines), 3)
	var words strings.Builder
	for _, line := range lines[:len(lines)-1] {
		var c liveChunk
		require.NoError(t, json.Unmarshal([]byte(line), &c))
		require.Equal(t, 1, c.Attempt)
		var body completion
		require.NoError(t, json.Unmarshal(c.Chunk, &body))
		if len(body.Choices) > 0 {
			words.WriteString(body.Choices[0].Delta.text())
		}
	}
	require.Equal(t, "echo: one two", words.String())
	r, err = job.DecodeResult([]byte(lines[len(lines)-1]))
	require.NoError(t, err)
	require.Equal(t, "echo: one two", answerText(r.Response))
}

func TestAStreamThatBreaksStartsAnewAndSaysSo(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Always(llmtest.Reply{Text: "half of it", Stream: llmtest.Stream{After: 2, End: llmtest.EndCut}}), llmtest.Always(llmtest.Answer("all of it")))
	code, out, stderr := b.submit("-stream", "Hi")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "half of \nall of it\n", out)
	require.Equal(t, "submit: attempt 1 failed; the answer starts anew with attempt 2\n", stderr)
}

func TestAFailedQuestionSaysWhyAndWhatToDo(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Always(llmtest.Fail(400, "no such thing")))
	for _, args := range [][]string{{"-id", "q.1", "Hi"}, {"-id", "q.2", "-stream", "Hi"}} {
		code, out, stderr := b.submit(args...)
		require.Equal(t, exitFailed, code)
		require.Empty(t, out)
		first, rest, _ := strings.Cut(stderr, "\n")
		require.Contains(t, first, "submit: job "+args[1]+" failed: invalid_request: ")
		require.Equal(t, strings.ReplaceAll("  the whole result:  submit result ID\n  every attempt:     submit dead show ID\n  run it again:      submit dead redrive ID -wait\n", "ID", args[1]), rest)
	}
	code, out, _ := b.submit("-json", "-id", "q.3", "Hi")
	require.Equal(t, exitFailed, code)
	r, err := job.DecodeResult([]byte(out))
	require.NoError(t, err)
	require.Equal(t, "invalid_request", r.Error.Code)
}

func TestTheHintsNameAQueueThatIsNotTheDefault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("low", always(job.Failed))
	_, _, stderr := b.submit("-queue", "low", "-id", "q", "Hi")
	require.Equal(t, `submit: job q failed: timeout: no answer in 5s
  the whole result:  submit result q -queue low
  every attempt:     submit dead show q -queue low
  run it again:      submit dead redrive q -queue low -wait
`, stderr)
}

func TestACancelledQuestionHasNoDeadLetterToShow(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("default", always(job.Cancelled))
	code, _, stderr := b.submit("-id", "q", "Hi")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: job q cancelled: timeout: no answer in 5s\n  the whole result:  submit result q\n", stderr)
}

func TestAnAnswerOnATerminalCannotSteerIt(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Always(llmtest.Answer("\x1b[2Jgone")))
	code, out, _ := b.submit("Hi")
	require.Equal(t, exitOK, code)
	require.Equal(t, "\x1b[2Jgone\n", out) // a program gets what was said
	for _, args := range [][]string{{"Hi"}, {"-stream", "Hi"}} {
		c := b.command("")
		c.terminals.out = true
		require.Equal(t, exitOK, c.start(args...).wait())
		require.Equal(t, "\uFFFD[2Jgone\n", c.out.String())
	}
}

func TestThePromptOnStandardInputHasALimit(t *testing.T) {
	t.Parallel()
	code, _, stderr := offline(t, strings.Repeat("x", maxPrompt+1), "ask", "-")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "the prompt on standard input has more than 1048576 bytes")
	code, _, _ = offline(t, strings.Repeat("x", maxPrompt), "ask", "-")
	require.Equal(t, exitUnreachable, code)
	code, _, stderr = offline(t, "", "ask")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "the prompt is empty")
	c := newCommand(t, "never read", environment{})
	c.terminals.in = true
	require.Equal(t, exitUsage, c.start("ask").wait())
	require.Contains(t, c.err.String(), "there is no prompt")
}

func TestAQuestionThatIsTooBigForTheServerIsRefusedWithTheSizes(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{MaxPayload: 4 << 10})
	b.ensure("default")
	code, _, stderr := b.submit("-id", "q", strings.Repeat("x", 4<<10))
	require.Equal(t, exitUsage, code)
	require.Equal(t, "submit: job q has 4149 bytes; the server takes 4096 (max_payload). Bigger ones need the object store LLM_PAYLOADS: workers make it, unless WORKER_MAX_PAYLOAD is 0\n", stderr)
	require.Zero(t, b.queued())
}

func TestAQuestionNobodyAnswersInTimeIsStillQueued(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	code, out, stderr := b.submit("-id", "q", "-timeout", "1ms", "Hi")
	require.Equal(t, exitFailed, code)
	require.Empty(t, out)
	require.Equal(t, `submit: job q is queued or running; it goes on without this command. To await it: submit result q -wait 10m
submit: there is no result after 1 ms
`, stderr)
	require.Equal(t, 1, b.queued())
}

func TestWhoeverWaitsLongHearsThatNoWorkerServesTheQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	unknown := b.command("").start("-queue", "typo", "Hi")
	unserved := b.command("").start("-queue", "low", "Hi")
	busy := b.command("").start("-queue", "default", "Hi")
	b.take("default") // one worker is at work
	unknown.err.await(t, "submit: no worker has ever served queue typo; its jobs wait (is the name right?)\n")
	unserved.err.await(t, "submit: no worker serves queue low at the moment; its jobs wait\n")
	busy.interrupt()
	busy.wait()
	require.NotContains(t, busy.err.String(), "no worker")
}

func TestTheSameIDIsNotRunAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.command("").start("-id", "q", "Hi")
	tk := b.take("default")

	second := b.command("").start("-id", "q", "Hi")
	second.err.await(t, "submit: job q is queued or running already; it is awaited\n")
	code, _, stderr := b.submit("-id", "q", "Something else")
	require.Equal(t, exitUsage, code)
	require.Equal(t, "submit: another job with the id q is queued or running: choose another -id, or await that one: submit result q -wait 10m\n", stderr)

	b.finish(tk, job.Succeeded)
	require.Equal(t, exitOK, first.wait())
	require.Equal(t, exitOK, second.wait())
	require.Equal(t, "answer to q\n", first.out.String())
	require.Equal(t, "answer to q\n", second.out.String())

	code, out, stderr := b.submit("-id", "q", "Hi")
	require.Equal(t, exitOK, code)
	require.Equal(t, "answer to q\n", out)
	require.Equal(t, "submit: job q has a result already; it is not run again\n", stderr)
	require.Zero(t, b.queued())
}

func TestAnInterruptedQuestionGoesOnAndSaysHowToAwaitIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.command("").start("-id", "q", "-queue", "low", "Hi")
	tk := b.take("low")
	c.interrupt()
	require.Equal(t, exitInterrupted, c.wait())
	require.Equal(t, "submit: job q is queued or running; it goes on without this command. To await it: submit result q -queue low -wait 10m\n", c.err.String())

	waiting := b.command("").start("result", "q", "-queue", "low", "-wait", "10m")
	b.finish(tk, job.Succeeded)
	require.Equal(t, exitOK, waiting.wait())
	require.Contains(t, waiting.out.String(), `"answer to q"`)
}

func TestAResultThatWasStoredWhileTheConnectionWasBrokenIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c, network := b.gated()
	c.start("-id", "q", "Hi")
	tk := b.take("default")
	network.cut()
	c.err.await(t, "submit: the connection to NATS is lost; trying to get it back\n")
	b.finish(tk, job.Succeeded) // nobody hears of it
	network.mend()
	require.Equal(t, exitOK, c.wait())
	require.Equal(t, "answer to q\n", c.out.String())
	require.Contains(t, c.err.String(), "submit: connected to NATS again at nats://127.0.0.1:")
}

func TestAJobIsPublishedByteForByte(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const payload = "{ \"custom_id\": \"row <17>\", \"body\": {\"messages\":[], \"temperature\": 0, \"seed\": 12345678901234567890 } }\n"
	c := b.command(payload).start("job", "-id", "x")
	tk := b.take("default")
	requireBytes(t, payload, tk.Data())
	b.finish(tk, job.Succeeded)
	require.Equal(t, exitOK, c.wait())
	stored, err := b.store.Lookup(t.Context(), "default", "x")
	require.NoError(t, err)
	require.Equal(t, string(stored.Data)+"\n", c.out.String())
	require.Contains(t, c.out.String(), "{\n \"choices\"") // as the backend sent it

	file := b.file("job.json", payload)
	code, out, stderr := b.submit("job", "-f", file, "-id", "x", "-json")
	require.Equal(t, exitOK, code)
	require.Equal(t, "submit: job x has a result already; it is not run again\n", stderr)
	var line bytes.Buffer
	require.NoError(t, json.Compact(&line, stored.Data))
	require.Equal(t, line.String()+"\n", out)

	person := b.command("")
	person.terminals.out = true
	require.Equal(t, exitOK, person.start("result", "x").wait())
	require.True(t, strings.HasPrefix(person.out.String(), "{\n  \"id\": \"x\",\n"))
}

func TestAJobMayNameItsAddressAndTheFlagsBeatIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const payload = `{"id":"mine","queue":"low","body":{"messages":[]}}`
	for _, tc := range []struct {
		args                []string
		queue, id, receipts string
	}{
		{nil, "low", "mine", ""},
		{[]string{"-id", "other", "-queue", "default"}, "default", "other", ""},
	} {
		code, out, stderr := b.submitWith(payload, append([]string{"job", "-no-wait"}, tc.args...)...)
		require.Equal(t, exitOK, code, stderr)
		require.Equal(t, strings.NewReplacer("ID", tc.id, "QUEUE", tc.queue).Replace(
			`{"id":"ID","queue":"QUEUE","result_subject":"llm.results.QUEUE.ID","done_subject":"llm.done.QUEUE.ID","events_subject":"llm.events.QUEUE.ID"}`+"\n"), out)
		requireBytes(t, `{"body":{"messages":[]}}`, b.take(tc.queue).Data())
	}
	code, _, stderr := b.submitWith(payload, "job", "-no-wait") // the same again
	require.Equal(t, exitOK, code)
	require.Equal(t, "submit: job mine is queued or running already\n", stderr)
}

func TestAWrongJobIsRefusedBeforeItIsPublished(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		"":                                    "payload: is empty",
		"{":                                   "payload: is not valid JSON: see byte 1 of 1",
		"[]":                                  "payload: must be an object, not an array",
		`{"route":"x"}`:                       "body: is required, or messages, prompt or input of a bare request",
		`{"body":{"messages":[]},"colour":1}`: "colour: is no field of a job; there are: custom_id, method, url, body, route, chain, primary, policy, timeout_ms, not_before, deadline, reply_to, events_to, metadata",
		`{"body":{"messages":[]},"id":"a b"}`: "id: ' ' is not allowed; use A-Z a-z 0-9 _ -",
		`{"body":{"messages":[]},"reply_to":"*"}`: "reply_to: holds a wildcard where none is allowed",
	} {
		code, out, stderr := offline(t, payload, "job")
		require.Equal(t, exitUsage, code, payload)
		require.Empty(t, out)
		require.Equal(t, "submit: "+want+"\nRun \"submit job -h\" for help.\n", stderr, payload)
	}
	// Which replies are allowed is for the workers to say.
	code, _, _ := offline(t, `{"body":{"messages":[]},"reply_to":"orders.done"}`, "job")
	require.Equal(t, exitUnreachable, code)
	c := newCommand(t, "never read", environment{})
	c.terminals.in = true
	require.Equal(t, exitUsage, c.start("job").wait())
}

func TestACommandThatWaitsForItsInputCanBeInterrupted(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"ask", "-"}, {"job"}} {
		input, end := io.Pipe()
		c := newCommand(t, "", environment{})
		c.stdin = input
		c.start(args...)
		_, err := end.Write([]byte("a")) // it reads now
		require.NoError(t, err)
		c.interrupt()
		require.Equal(t, exitInterrupted, c.wait())
		require.NoError(t, end.Close())
	}
}

func TestTheSubjectsOfTheInstallationAreThoseOfTheEnvironment(t *testing.T) {
	t.Parallel()
	subjects, err := job.NewSubjects("acme")
	require.NoError(t, err)
	for reply, want := range map[string]int{"llm.done.x": exitUnreachable, "acme.done.x": exitUsage} {
		c := newCommand(t, `{"body":{"messages":[]},"reply_to":"`+reply+`"}`, environment{
			subjects: subjects, connect: func(...nats.Option) (*nats.Conn, error) { return nil, nats.ErrNoServers },
		}).start("job")
		require.Equal(t, want, c.wait(), c.err)
	}
}
