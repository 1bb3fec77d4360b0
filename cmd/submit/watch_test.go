package main

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// emit stores an event as a worker does.
func (b *bench) emit(queueName, id string, kind job.EventType, data any) {
	b.t.Helper()
	require.NoError(b.t, b.tryEmit(queueName, id, kind, data))
}

// tryEmit is emit while the server may be away, or it does not matter.
func (b *bench) tryEmit(queueName, id string, kind job.EventType, data any) error {
	_, err := b.js.Publish(b.t.Context(), b.subjects.Event(queueName, id), job.NewEvent("w-1", kind, id, noon(), data).Encode())
	return err
}

// bodies are the lines of a watch without their times.
func bodies(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		_, body, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		list = append(list, body)
	}
	return list
}

func TestWatchingAJobShowsItsWholeStoryAndItsEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	tk := b.take("default")
	b.emit("default", "x", job.EventReceived, job.Received{Queue: "default", Delivery: 1, JobSeq: tk.seq})
	b.emit("default", "x", job.EventAttemptStarted, job.Attempt{N: 1, Backend: "vllm"})
	c := b.command("").start("watch", "x")
	c.out.await(t, "attempt 1 vllm: called\n")
	b.emit("default", "other", job.EventReceived, job.Received{})
	b.emit("default", "x", job.EventAttemptSucceeded, job.Attempt{N: 1, Backend: "vllm", DurationMS: 20})
	require.NoError(t, b.commit(tk, job.Succeeded))
	b.emit("default", "x", job.EventCompleted, job.Completed{Status: job.Succeeded, Backend: "vllm", Attempts: 1, DurationMS: 30})
	require.Equal(t, exitOK, c.wait(), c.err) // the job is not acknowledged yet, and over all the same
	require.Equal(t, []string{
		"x taken by w-1", "x attempt 1 vllm: called", "x attempt 1 vllm: answered in 20 ms", "x succeeded in 30 ms, 1 attempt, vllm",
	}, bodies(c.out.String()))
	require.Empty(t, strings.TrimPrefix(c.err.String(), "submit: job x is queued\n")) // on a slow machine
}

func TestWatchingAJobThatHasEndedTellsHow(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Steps(llmtest.Fail(400, "no"), llmtest.Answer("yes")))
	code, _, _ := b.submit("-id", "bad", "Hi")
	require.Equal(t, exitFailed, code)
	code, _, _ = b.submit("-id", "good", "Hi")
	require.Equal(t, exitOK, code)

	code, out, stderr := b.submit("watch", "good")
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, out, "good attempt 1 model1 (test): called\n")
	code, out, stderr = b.submit("watch", "bad")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: job bad failed: invalid_request\n", stderr)
	require.Contains(t, out, "bad dead letter: invalid_request\n")
	code, out, _ = b.submit("watch", "good", "-json")
	require.Equal(t, exitOK, code)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for _, line := range lines {
		e, err := job.DecodeEvent([]byte(line))
		require.NoError(t, err)
		require.Equal(t, "good", e.Subject)
	}
	require.Len(t, lines, 4)
}

func TestWatchingGoesOnThroughARedrive(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	tk := b.take("default")
	b.emit("default", "x", job.EventReceived, job.Received{Delivery: 1, JobSeq: tk.seq})
	b.emit("default", "x", job.EventCompleted, job.Completed{Status: job.Failed, Class: new("timeout")})
	b.finish(tk, job.Failed)
	code, _, stderr := b.submit("dead", "redrive", "x")
	require.Equal(t, exitOK, code, stderr)

	c := b.command("").start("watch", "x")
	c.out.await(t, "failed in 0 ms")
	tk = b.take("default")
	b.emit("default", "x", job.EventReceived, job.Received{Delivery: 1, JobSeq: tk.seq, Redrives: 1})
	c.out.await(t, "redrive 1")
	b.finish(tk, job.Succeeded)
	b.emit("default", "x", job.EventCompleted, job.Completed{Status: job.Succeeded})
	require.Equal(t, exitOK, c.wait(), c.err)

	code, out, stderr := b.submit("watch", "x") // both lives are over
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, []string{"x taken by w-1", "x failed in 0 ms, 0 attempts, timeout", "x dead letter redriven by " + who(), "x taken by w-1, redrive 1", "x succeeded in 0 ms, 0 attempts"}, bodies(out))
}

func TestAWatchEndsAlsoWhenTheLastEventWasDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	tk := b.take("default")
	c := b.command("").start("watch", "x")
	c.err.await(t, "submit: job x is queued\n")
	b.finish(tk, job.Failed)
	require.Equal(t, exitFailed, c.wait())
	require.Equal(t, "submit: job x is queued\nsubmit: job x has ended; its last events are not stored any more, or were dropped\nsubmit: job x failed: timeout\n", c.err.String())
}

// TestEventsThatComeLateWereNotDropped pins that a job which has ended is watched
// to its last event when there was no time to look at those that came.
func TestEventsThatComeLateWereNotDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	b.finish(b.take("default"), job.Succeeded)
	cmd := b.command("")
	ctx, c, done, err := cmd.connect(t.Context())
	require.NoError(t, err)
	defer done()
	w := &watcher{app: cmd.app, c: c, key: key{"default", "x"}, one: true, in: make(chan jetstream.Msg, 1)}
	w.in <- nil
	end, err := w.look(ctx)
	require.NoError(t, err)
	require.False(t, end)
	require.Empty(t, cmd.err.String())
	<-w.in
	end, err = w.look(ctx)
	require.NoError(t, err)
	require.True(t, end)
	require.Equal(t, "submit: job x has ended; its last events are not stored any more, or were dropped\n", cmd.err.String())
}

func TestWatchingAJobThatIsNotThereYetWaitsForIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("low", "x", `{"prompt":"p"}`)
	c := b.command("").start("watch", "x")
	c.err.await(t, "submit: nothing is known of job x in queue default yet; waiting for it\nThere is one in another queue: -queue low\n")
	b.emit("default", "x", job.EventReceived, job.Received{})
	c.out.await(t, "x taken by w-1\n")
	c.interrupt()
	require.Equal(t, exitInterrupted, c.wait())
	require.Contains(t, c.err.String(), "submit: job x goes on without being watched\n")
}

func TestWatchingAllShowsWhatHappensFromNowOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.emit("default", "before", job.EventReceived, job.Received{})
	everything := b.command("").start("watch")
	low := b.command("").start("watch", "-queue", "low", "-json")
	// A watch says nothing when it has begun; so events come until they are seen.
	beat := func(c *command, queueName string) {
		eventually(t, func() bool {
			_ = b.tryEmit(queueName, "beat", job.EventReceived, job.Received{}) // the next one will do
			return strings.Contains(c.out.String(), "beat")
		})
	}
	beat(everything, "default")
	beat(low, "low")
	b.emit("default", "a", job.EventReceived, job.Received{Delivery: 1})
	_, err := b.js.Publish(t.Context(), b.subjects.Breaker("vllm"), job.NewEvent("w-1", job.EventBreakerChanged, "vllm", noon(), job.BreakerChanged{From: "closed", To: "open"}).Encode())
	require.NoError(t, err)
	_, err = b.js.Publish(t.Context(), b.subjects.Event("low", "junk"), []byte("junk"))
	require.NoError(t, err)
	b.emit("low", "b.1", job.EventCompleted, job.Completed{Status: job.Failed})
	everything.out.await(t, "b.1 failed in 0 ms, 0 attempts\n")
	low.out.await(t, `"subject":"b.1"`)
	for _, c := range []*command{everything, low} {
		c.interrupt()
		require.Equal(t, exitInterrupted, c.wait())
		require.NotContains(t, c.out.String(), "before")
		require.NotContains(t, c.out.String(), "junk")
	}
	require.Contains(t, everything.out.String(), "a taken by w-1\n")
	require.Contains(t, everything.out.String(), "vllm breaker closed -> open\n")
	require.NotContains(t, low.out.String(), `"subject":"a"`)
}

func TestAWatchSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	tk := b.take("default")
	b.emit("default", "x", job.EventReceived, job.Received{Delivery: 1, JobSeq: tk.seq})
	c := b.command("").start("watch", "x")
	c.out.await(t, "x taken by w-1\n")
	b.srv.Restart(t)
	eventually(t, func() bool {
		return b.tryEmit("default", "x", job.EventAttemptStarted, job.Attempt{N: 1, Backend: "vllm"}) == nil
	})
	c.out.await(t, "x attempt 1 vllm: called\n")
	require.Equal(t, 1, strings.Count(c.out.String(), "taken by"))
	b.emit("default", "x", job.EventCompleted, job.Completed{Status: job.Cancelled})
	c.out.await(t, "x cancelled in 0 ms")
}
