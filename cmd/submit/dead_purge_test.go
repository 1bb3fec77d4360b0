package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

func TestAPurgeDeletesWhatIsChosen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lot()
	code, out, stderr := b.submit("dead", "purge", "-class", "quota", "-yes")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "b.2-2h\nb.c.3-1h\n", out)
	require.Equal(t, "submit: 2 of 2 dead letters deleted\n", stderr)
	require.Equal(t, []string{"b.1-3h", "bb-30m", "none-10m", "long-5m"}, b.letters())
	require.Equal(t, []string{"purged 2 quota 0  "}, b.told("low", "b.2-2h"))

	code, out, stderr = b.submit("dead", "purge", "none", "bb-30m", "-yes", "-json")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "bb-30m", ids(t, out))
	require.Equal(t, "submit: there is no dead letter of job none\nsubmit: 1 of 1 dead letter deleted\n", stderr)
	_, _, stderr = b.submit("dead", "purge", "-all", "-dry-run")
	require.Equal(t, "submit: 3 dead letters would be deleted; nothing was changed\n", stderr)
	code, _, stderr = b.submit("dead", "purge", "-class", "quota", "-yes")
	require.Equal(t, exitOK, code)
	require.Equal(t, "There are no dead letters to purge.\n", stderr)
	require.Len(t, b.letters(), 3)
	require.Zero(t, b.queued())
}

func TestAPurgeAsksFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lot()
	for answer, want := range map[string]int{"": exitFailed, "\n": exitFailed, "y\n": exitFailed, "5\n": exitFailed, strings.Repeat("6", 1000): exitFailed} {
		c := b.command(answer)
		c.terminals.in = true
		require.Equal(t, want, c.start("dead", "purge", "-all").wait(), "%q", answer)
		require.Equal(t, "submit: 6 dead letters will be deleted for good, with the jobs in them.\nType 6 to go on:\nsubmit: nothing was deleted\n", c.err.String())
		require.Len(t, b.letters(), 6)
	}
	c := b.command(" 6 \n")
	c.terminals.in = true
	require.Equal(t, exitOK, c.start("dead", "purge", "-all").wait(), c.err)
	require.Contains(t, c.err.String(), "submit: 6 of 6 dead letters deleted\n")
	require.Empty(t, b.letters())
}

// objects are the names of all payloads that were put aside.
func (b *bench) objects() []string {
	b.t.Helper()
	names := []string{}
	bucket, err := b.js.ObjectStore(b.t.Context(), "LLM_DEAD_PAYLOADS")
	require.NoError(b.t, err)
	list, err := bucket.List(b.t.Context())
	if err != nil {
		require.ErrorIs(b.t, err, jetstream.ErrNoObjectsFound)
	}
	for _, o := range list {
		names = append(names, o.Name)
	}
	return names
}

func TestPayloadsGoWithTheirLetters(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{MaxPayload: 16 << 10})
	b.ensure("default")
	large := fmt.Sprintf(`{"prompt":"%s"}`, strings.Repeat("x", 15<<10))
	for i, id := range []string{"a", "b", "c"} {
		d := &job.DeadLetter{ID: id, Queue: "default", Reason: "timeout", Time: noon(), Headers: map[string][]string{"X": {strings.Repeat("h", 500)}}}
		require.NoError(t, b.store.Bury(t.Context(), d, []byte(large), uint64(i+1)))
	}
	require.Len(t, b.objects(), 3)
	code, _, stderr := b.submit("dead", "purge", "a", "-yes")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, []string{"llm.dead.default.b@2", "llm.dead.default.c@3"}, b.objects())
	code, _, stderr = b.submit("dead", "redrive", "b")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, []string{"llm.dead.default.c@3"}, b.objects())
	requireBytes(t, large, b.take("default").Data())

	bucket, err := b.js.ObjectStore(t.Context(), "LLM_DEAD_PAYLOADS")
	require.NoError(t, err)
	_, err = bucket.PutString(t.Context(), "llm.dead.default.a@1", "left over")
	require.NoError(t, err)
	code, out, stderr := b.submit("dead", "purge", "-orphans")
	require.Equal(t, exitOK, code)
	require.Empty(t, out)
	require.Equal(t, "submit: 0 objects of 0 bytes deleted\n", stderr) // younger than an hour
	_, out, stderr = b.submit("dead", "purge", "-orphans", "-older", time.Nanosecond.String(), "-dry-run", "-json")
	require.Equal(t, "submit: 1 object of 9 bytes would be deleted\n", stderr)
	require.Contains(t, out, `{"object":"llm.dead.default.a@1","bytes":9,"time":"`)
	code, out, stderr = b.submit("dead", "purge", "-orphans", "-older", time.Nanosecond.String())
	require.Equal(t, exitOK, code)
	require.Equal(t, "llm.dead.default.a@1\n", out)
	require.Equal(t, "submit: 1 object of 9 bytes deleted\n", stderr)
	require.Equal(t, []string{"llm.dead.default.c@3"}, b.objects())
	_, out, _ = b.submit("dead", "show", "c", "-payload", "-json")
	d, err := job.DecodeDeadLetter([]byte(out))
	require.NoError(t, err)
	requireBytes(t, large, d.Job)
}
