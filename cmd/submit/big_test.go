package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// bigBench is a bench with a worker, whose server takes messages of 32 KiB. The
// worker answers with size bytes.
func bigBench(t *testing.T, size int) (*bench, <-chan llmtest.Call) {
	t.Helper()
	b := bareBench(t, natstest.Options{MaxPayload: 32 << 10})
	calls := make(chan llmtest.Call, 100)
	b.work(func(c llmtest.Call) llmtest.Reply {
		calls <- c
		return llmtest.Reply{Text: "answer", Size: size}
	})
	return b, calls
}

// weight counts the messages of the object store for payloads; -1 while the server
// does not say.
func (b *bench) weight() int { return b.messages("OBJ_LLM_PAYLOADS") }

func TestABigQuestionAndItsBigAnswerTravelByThemselves(t *testing.T) {
	t.Parallel()
	b, calls := bigBench(t, 200<<10)
	prompt := strings.Repeat("x", 100<<10)
	code, out, stderr := b.submitWith(prompt, "ask", "-id", "q", "-json", "-")
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, string((<-calls).Body), prompt)
	r, err := job.DecodeResult([]byte(out))
	require.NoError(t, err)
	require.Empty(t, r.Response.Object)
	require.Zero(t, r.Response.Bytes)
	require.Len(t, r.Response.Body, 200<<10)
	require.NotContains(t, out, `"object":"llm.`)
	for _, args := range [][]string{{"result", "-json", "q"}, {"ask", "-id", "q", "-json", "again"}} {
		code, again, stderr := b.submit(args...)
		require.Equal(t, exitOK, code, stderr)
		require.Equal(t, out, again)
	}
	code, text, stderr := b.submit("ask", "-id", "q", "again")
	require.Equal(t, exitOK, code, stderr)
	require.True(t, strings.HasPrefix(text, "answer"), "%.20s", text)
	require.Greater(t, len(text), 190<<10)
	eventually(t, func() bool { return b.weight() == 0 })
}

func TestABatchOfBigLinesIsRunAndResumed(t *testing.T) {
	t.Parallel()
	b, calls := bigBench(t, 100<<10)
	line := func(id string, size int) string {
		text, err := json.Marshal(map[string]any{
			"custom_id": id,
			"body":      map[string]any{"messages": []any{map[string]string{"role": "user", "content": strings.Repeat(id, size)}}},
		})
		require.NoError(t, err)
		return string(text) + "\n"
	}
	in := b.file("in.jsonl", line("a", 50<<10)+line("b", 10)+line("c", 90<<10))
	out := filepath.Join(t.TempDir(), "out.jsonl")
	for range 2 { // the second time nothing is run
		code, _, stderr := b.submit("batch", in, "-o", out)
		require.Equal(t, exitOK, code, stderr)
		list := resultsIn(t, read(t, out))
		require.Len(t, list, 3)
		for i, id := range []string{"a", "b", "c"} {
			require.Equal(t, id, list[i].CustomID)
			require.Len(t, list[i].Response.Body, 100<<10)
		}
	}
	require.Len(t, calls, 3)
	eventually(t, func() bool { return b.weight() == 0 })
}

// TestABigJobThatIsQueuedAlreadyKeepsItsObject, and the second try takes its own
// away.
func TestABigJobThatIsQueuedAlreadyKeepsItsObject(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{MaxPayload: 32 << 10})
	b.ensure("default")
	require.NoError(t, b.store.EnsureBuckets(t.Context(), 1, 0))
	text := `{"body":{"messages":[],"user":"` + strings.Repeat("x", 40<<10) + `"}}`
	file := b.file("job.json", text)
	code, _, stderr := b.submit("job", "-f", file, "-id", "j", "-no-wait")
	require.Equal(t, exitOK, code, stderr)
	before := b.weight()
	require.Positive(t, before)
	code, _, stderr = b.submit("job", "-f", file, "-id", "j", "-no-wait")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "submit: job j is queued or running already\n", stderr)
	other := b.file("other.json", strings.Replace(text, "xx", "yy", 1))
	code, _, stderr = b.submit("job", "-f", other, "-id", "j", "-no-wait")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "another job with the id j is queued or running")
	require.Equal(t, before, b.weight())
	tk := b.take("default")
	payload, err := b.store.LoadPayload(t.Context(), "default", "j", tk.Headers().Get(job.HeaderPayload), 1<<20)
	require.NoError(t, err)
	require.Equal(t, text, string(payload))
}

func TestAnAnswerThatIsGoneIsSaidToBe(t *testing.T) {
	t.Parallel()
	b, _ := bigBench(t, 100<<10)
	code, _, stderr := b.submit("ask", "-id", "q", "hello")
	require.Equal(t, exitOK, code, stderr)
	stored, err := b.store.Lookup(t.Context(), "default", "q")
	require.NoError(t, err)
	r, err := job.DecodeResult(stored.Data)
	require.NoError(t, err)
	require.NoError(t, b.store.DropAnswer(t.Context(), r.Response.Object))
	code, out, stderr := b.submit("result", "-json", "q")
	require.Equal(t, exitFailed, code)
	require.Equal(t, string(stored.Data)+"\n", out)
	require.Equal(t, "submit: job q succeeded, but its answer is too big for a message and cannot be had: read the answer "+r.Response.Object+
		" from LLM_ANSWERS: "+jetstream.ErrObjectNotFound.Error()+"\n", stderr)
}

func TestAJobThatIsPutOffTooFarIsRefusedBeforeItIsQueued(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := b.file("in.jsonl", `{"not_before":"2027-11-23T12:00:00Z","body":{"messages":[]}}`+"\n"+`{"not_before":"2027-11-24T12:00:00Z","body":{"messages":[]}}`+"\n")
	code, _, stderr := b.submit("batch", in, "-o", filepath.Join(t.TempDir(), "out.jsonl"))
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "1 line is wrong, nothing is queued\nline 2: not_before: is more than 366 days ahead\n")
	code, _, stderr = b.submitWith(`{"not_before":"2027-11-24T12:00:00Z","body":{"messages":[]}}`, "job", "-no-wait")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "not_before: is more than 366 days ahead")
	code, _, stderr = b.submitWith(`{"not_before":"2027-11-22T12:00:00Z","body":{"messages":[]}}`, "job", "-no-wait")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, 1, b.queued())
}

// TestABigResultThatIsThereAtTheEndOfAWaitIsTaken, and its answer fetched, although the
// wait is over.
func TestABigResultThatIsThereAtTheEndOfAWaitIsTaken(t *testing.T) {
	t.Parallel()
	b, _ := bigBench(t, 100<<10)
	code, _, stderr := b.submit("ask", "-id", "q", "hello")
	require.Equal(t, exitOK, code, stderr)
	stored, err := b.store.Lookup(t.Context(), "default", "q")
	require.NoError(t, err)
	require.Less(t, len(stored.Data), 10<<10)
	_, c, done, err := b.command("").connect(t.Context())
	require.NoError(t, err)
	defer done()
	col, err := c.collect(t.Context())
	require.NoError(t, err)
	col.expect(key{"default", "q"}, 0)
	col.in <- &nats.Msg{Subject: b.subjects.Done("default", "q"), Data: stored.Data}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err := col.next(ctx)
	require.NoError(t, err)
	require.NoError(t, out.missing)
	require.Greater(t, len(out.data), 100<<10)
}
