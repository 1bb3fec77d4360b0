package main

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

func TestAResultSaysWhichKindOfNothingThereIs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("low", "x", `{"prompt":"p"}`)
	code, out, stderr := b.submit("result", "x", "-queue", "low")
	require.Equal(t, exitFailed, code)
	require.Empty(t, out)
	require.Equal(t, "submit: job x is queued or running; to await it: submit result x -queue low -wait 10m\n", stderr)

	code, _, stderr = b.submit("result", "x")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: there is no job x in queue default: it has no result and is not queued\nThere is one in another queue: -queue low\n", stderr)
	code, _, stderr = b.submit("result", "y", "-wait", "1ms")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: there is no job y in queue default: it has no result and is not queued\n", stderr)
	code, _, stderr = b.submit("result", "x", "-queue", "low", "-wait", "1ms")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: job x is still queued or running\nsubmit: there is no result after 1 ms\n", stderr)

	b.finish(b.take("low"), job.Failed)
	code, out, stderr = b.submit("result", "x", "-queue", "low")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "submit: job x failed: timeout: no answer in 5s\n")
	r, err := job.DecodeResult([]byte(out))
	require.NoError(t, err)
	require.Equal(t, job.Failed, r.Status)
}

func TestAResultMayBeAwaitedBeforeItsJobIsThere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.command("").start("result", "x", "-wait", "10m")
	b.publish("default", "x", `{"prompt":"p"}`)
	b.finish(b.take("default"), job.Succeeded)
	require.Equal(t, exitOK, c.wait(), c.err)
	require.Contains(t, c.out.String(), "answer to x")
}

func TestTheResultOfARedrivenJobIsTheOldOneUntilItIsAwaited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p"}`)
	code, _, stderr := b.submit("dead", "redrive", "x")
	require.Equal(t, exitOK, code, stderr)
	code, out, stderr := b.submit("result", "x")
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, `"status":"failed"`)
	require.Contains(t, stderr, "submit: job x was redriven and is queued or running again; this is its result before\n")

	c := b.command("").start("result", "x", "-wait", "10m")
	b.finish(b.take("default"), job.Succeeded)
	require.Equal(t, exitOK, c.wait(), c.err)
	require.Contains(t, c.out.String(), `"status":"succeeded"`)
}

func TestAResultThatCannotBeReadIsPrintedAndIsNoSuccess(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.js.Publish(t.Context(), b.subjects.Result("default", "x"), []byte("junk"))
	require.NoError(t, err)
	for _, args := range [][]string{{"result", "x"}, {"result", "x", "-json"}, {"result", "x", "-wait", "1m"}, {"ask", "-id", "x", "-json", "Hi"}} {
		code, out, stderr := b.submit(args...)
		require.Equal(t, exitFailed, code)
		require.Equal(t, "junk\n", out)
		require.Contains(t, stderr, "submit: the result of job x cannot be read: result: ")
	}
}

func TestACollectorReturnsWhatWasMissedAndWhatIsGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := b.command("")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ctx, c, done, err := cmd.connect(ctx)
	require.NoError(t, err)
	defer done()
	col, err := c.collect(ctx) // it hears nothing
	require.NoError(t, err)
	defer col.close()
	col.every = time.Hour // only what is suspected is looked up
	b.died("default", "old", `{"prompt":"p"}`)
	b.died("default", "new", `{"prompt":"p"}`)
	b.publish("default", "waits", `{"prompt":"p"}`)
	col.expect(key{"default", "old"}, 100) // a redrive of it was published as job 100
	col.expect(key{"default", "new"}, 2)
	col.expect(key{"default", "waits"}, 3)
	col.expect(key{"default", "nobody"}, 4)
	col.announce(key{"default", "unsent"})
	require.Equal(t, 5, col.left())
	require.Equal(t, 4, col.published())

	c.suspect()
	out, err := col.next(ctx)
	require.NoError(t, err)
	require.Equal(t, key{"default", "new"}, out.key)
	require.Equal(t, job.Failed, out.result.Status)

	gone := map[key]bool{}
	for len(gone) < 2 {
		for range goneAfter {
			col.pending = append(col.pending, col.all()...)
			col.sweep(ctx)
		}
		out, err = col.next(ctx)
		require.NoError(t, err)
		require.True(t, out.gone)
		require.Nil(t, out.result)
		gone[out.key] = true
	}
	require.Equal(t, map[key]bool{{"default", "old"}: true, {"default", "nobody"}: true}, gone)
	require.Equal(t, 2, col.left()) // waits, unsent
}

func TestACollectorTakesNoFailureOfAnEarlierLifeForThisOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cmd := b.command("")
	ctx, c, done, err := cmd.connect(t.Context())
	require.NoError(t, err)
	defer done()
	col, err := c.collect(ctx, b.subjects.Done("default", "x"))
	require.NoError(t, err)
	defer col.close()
	col.every = time.Hour
	k := key{"default", "x"}
	col.expect(k, 8)
	said := func(seq uint64, status job.Status) {
		tk := &taken{Msg: nil, queue: "default", id: "x", seq: seq}
		msg := nats.NewMsg(b.subjects.Done("default", "x"))
		msg.Header.Set(job.HeaderJobSeq, strconv.FormatUint(seq, 10))
		msg.Data = tk.result(status).Encode()
		require.NoError(t, b.js.Conn().PublishMsg(msg))
	}
	said(7, job.Failed) // late
	said(8, job.Expired)
	out, err := col.next(ctx)
	require.NoError(t, err)
	require.Equal(t, job.Expired, out.result.Status)

	col.expect(k, 9)
	said(8, job.Expired)
	said(7, job.Succeeded) // which no redrive replaces
	out, err = col.next(ctx)
	require.NoError(t, err)
	require.Equal(t, job.Succeeded, out.result.Status)
}

// TestAResultThatIsThereAtTheEndOfAWaitIsTaken asks often: chance has it whether
// the result or the end is seen.
func TestAResultThatIsThereAtTheEndOfAWaitIsTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, c, done, err := b.command("").connect(t.Context())
	require.NoError(t, err)
	defer done()
	late := &tooLongError{time.Second}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	k := key{"default", "x"}
	foreign := &nats.Msg{Subject: b.subjects.Done("default", "other")}
	result := &nats.Msg{Subject: b.subjects.Done(k.queue, k.id), Data: (&taken{queue: k.queue, id: k.id}).result(job.Succeeded).Encode()}
	for range 64 {
		col, err := c.collect(t.Context())
		require.NoError(t, err)
		col.expect(k, 0)
		col.in <- foreign
		col.in <- result
		out, err := col.next(ctx)
		require.NoError(t, err)
		require.Equal(t, k, out.key)
		require.Zero(t, col.left())
		_, err = col.next(ctx)
		require.Equal(t, late, err)
	}

	// One whose answer cannot be had is not taken.
	r := (&taken{queue: k.queue, id: k.id}).result(job.Succeeded)
	r.Response = &job.Response{Object: "not there", Bytes: 1}
	col, err := c.collect(t.Context())
	require.NoError(t, err)
	col.expect(k, 0)
	col.in <- &nats.Msg{Subject: result.Subject, Data: r.Encode()}
	_, err = col.next(ctx)
	require.Equal(t, late, err)
	require.Equal(t, 1, col.published())
}

func FuzzAnAnswerIsReadWithoutPanic(f *testing.F) {
	f.Add([]byte(`{"choices":[{"message":{"content":"Hi","tool_calls":[]},"delta":{"content":null}}]}`))
	f.Add([]byte(`{"choices":[{"message":{"content":[{}]}}]}`))
	f.Add([]byte(`{"choices":{}}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = answerText(&job.Response{Body: json.RawMessage(body)})
		c := newCommand(t, "", environment{})
		l := newLive(c.app, false)
		msg := chunkOf("1", "x")
		msg.Data = body
		l.chunk(msg)
		_ = l.finish("x")
	})
}
