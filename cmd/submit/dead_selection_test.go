package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// lot buries dead letters of all kinds. Their ages are in their names.
func (b *bench) lot() {
	b.t.Helper()
	for i, l := range []struct {
		queue, id, class string
		backends         []string
		old              time.Duration
	}{
		{"default", "b.1-3h", "timeout", []string{"openrouter", "vllm"}, 3 * time.Hour},
		{"low", "b.2-2h", "quota", []string{"openrouter"}, 2 * time.Hour},
		{"default", "b.c.3-1h", "quota", []string{"vllm"}, time.Hour},
		{"low", "bb-30m", "timeout", []string{"vllm"}, 30 * time.Minute},
		{"default", "none-10m", "invalid_job", nil, 10 * time.Minute},
		{"default", "long-5m", "timeout", []string{"first", "cut off", "last"}, 5 * time.Minute},
	} {
		d := &job.DeadLetter{ID: l.id, Queue: l.queue, Reason: l.class, Deliveries: 1, Worker: "w", Time: noon().Add(-l.old)}
		for n, name := range l.backends {
			d.Attempts = append(d.Attempts, job.Attempt{N: n + 1, Backend: name, Outcome: job.OutcomeFailed, StartedAt: noon()})
			d.LastError = &job.Failure{Backend: name, Class: l.class}
			if n == 0 {
				d.FirstError = d.LastError
			}
		}
		d.Attempts = append(d.Attempts, job.Attempt{N: 9, Backend: "skipped", Outcome: job.OutcomeSkipped, StartedAt: noon()})
		if l.id == "long-5m" {
			d.Attempts = nil
		}
		require.NoError(b.t, b.store.Bury(b.t.Context(), d, []byte(`{"prompt":"SECRET"}`), uint64(i+1)))
	}
}

// ids are the ids in JSON lines.
func ids(tb testing.TB, lines string) string {
	tb.Helper()
	var list []string
	for line := range strings.Lines(lines) {
		var entry struct {
			ID string `json:"id"`
		}
		require.NoError(tb, json.Unmarshal([]byte(line), &entry))
		list = append(list, entry.ID)
	}
	return strings.Join(list, " ")
}

func TestEveryCommandChoosesTheSameLetters(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lot()
	for _, tc := range []struct{ flags, want string }{
		{"-class timeout", "b.1-3h bb-30m long-5m"},
		{"-class RateLimitError", ""},
		{"-class quota -queue low", "b.2-2h"},
		{"-backend vllm", "b.1-3h b.c.3-1h bb-30m"},
		{"-backend OpenRouter", "b.1-3h b.2-2h"},
		{"-backend last", "long-5m"},
		{"-backend skipped", ""},
		{"-older 1h", "b.1-3h b.2-2h b.c.3-1h"},
		{"-newer 1h", "b.c.3-1h bb-30m none-10m long-5m"},
		{"-older 10m -newer 1h", "b.c.3-1h bb-30m none-10m"},
		{"-batch b", "b.1-3h b.2-2h b.c.3-1h"},
		{"-batch b.c", "b.c.3-1h"},
		{"-batch b -class quota -backend vllm", "b.c.3-1h"},
		{"b.* -class timeout", "b.1-3h"},
		{"b.* b.1-3h none-10m", "b.1-3h b.2-2h none-10m"},
		{"-queue low", "b.2-2h bb-30m"},
	} {
		for _, command := range []string{"ls", "redrive -dry-run", "purge -dry-run"} {
			args := append([]string{"dead"}, strings.Fields(command+" -json "+tc.flags)...)
			code, out, stderr := b.submit(args...)
			require.Equal(t, exitOK, code, "%v: %s", args, stderr)
			require.Equal(t, tc.want, ids(t, out), "%v", args)
			require.NotContains(t, out, "SECRET")
		}
	}
	require.Len(t, b.letters(), 6)
	require.Zero(t, b.queued())
	require.Empty(t, b.told("default", "b.1-3h"))

	_, out, stderr := b.submit("dead", "redrive", "-class", "timeout", "-max", "2", "-dry-run")
	require.Equal(t, "submit: 2 jobs would be queued again; nothing was changed\nsubmit: -max 2 left out 1 more dead letter\n", stderr)
	require.Regexp(t, `^ID +QUEUE .*\nb\.1-3h .*\nbb-30m .*\n$`, out)
	_, _, stderr = b.submit("dead", "ls", "-limit", "0")
	require.Equal(t, "6 dead letters.\n", stderr)
}

func TestARedriveHasALimitOfNumberAndRate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 5 {
		b.died("default", fmt.Sprintf("x%d", i), `{"prompt":"p"}`)
	}
	start := time.Now()
	code, out, stderr := b.submit("dead", "redrive", "-all", "-max", "3", "-rate", "20")
	require.Equal(t, exitOK, code, stderr)
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond) // the third job is due then
	require.Equal(t, "x0\nx1\nx2\n", out)
	require.Equal(t, "submit: 3 of 3 jobs queued again\nsubmit: -max 3 left out 2 more dead letters\n", stderr)
	require.Equal(t, []string{"x3", "x4"}, b.letters())

	c := b.command("").start("dead", "redrive", "-all", "-rate", "0.001")
	c.out.await(t, "x3\n")
	c.interrupt()
	require.Equal(t, exitInterrupted, c.wait())
	require.Equal(t, []string{"x4"}, b.letters())
}

func TestTheWayThroughManyLettersIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 201 {
		d := &job.DeadLetter{ID: fmt.Sprintf("x%03d", i), Queue: "default", Reason: "timeout", Time: noon()}
		require.NoError(t, b.store.Bury(t.Context(), d, []byte(`{"prompt":"p"}`), uint64(i+1)))
	}
	code, _, stderr := b.submit("dead", "redrive", "-all")
	require.Equal(t, exitOK, code)
	require.Equal(t, "submit: 100 of 201 dead letters so far\nsubmit: 200 of 201 dead letters so far\nsubmit: 201 of 201 jobs queued again\n", stderr)
}

// The result of a job that failed is announced before its letter is stored.
func TestALetterThatIsStillToComeIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"show"}, {"show", "-queue", "low"}, {"edit", "-set", "prompt=1"}, {"redrive", "-dry-run"}, {"purge", "-yes"}} {
		b := newBench(t)
		b.publish("low", "x", `{"prompt":"p"}`)
		tk := b.take("low")
		require.NoError(t, b.commit(tk, job.Failed))
		looks, err := b.js.Conn().SubscribeSync("$JS.API.STREAM.MSG.GET.LLM_JOBS")
		require.NoError(t, err)
		require.NoError(t, b.js.Conn().Flush())
		c := b.command("").start(append([]string{"dead", args[0], "x"}, args[1:]...)...)
		for range 3 { // it looks again and again
			_, err := looks.NextMsg(patience)
			require.NoError(t, err)
		}
		require.NoError(t, b.bury(tk))
		require.Equal(t, exitOK, c.wait(), "%v: %s", args, c.err)
	}
}

func TestALetterThatDoesNotComeIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("default", "x", `{"prompt":"p"}`)
	require.NoError(t, b.commit(b.take("default"), job.Expired)) // its worker hangs
	code, _, stderr := b.submit("dead", "show", "x")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: there is no dead letter of job x\n", stderr)
}

func TestTwoRedrivesAtOncePutEveryJobBackOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const n = 40
	for i := range n {
		b.died("default", fmt.Sprintf("x%d", i), `{"prompt":"p"}`)
	}
	one, two := b.command("").start("dead", "redrive", "-all"), b.command("").start("dead", "redrive", "-all")
	one.wait()
	two.wait()
	require.Empty(t, b.letters())
	require.Equal(t, n, b.queued())
	stream, err := b.js.Stream(t.Context(), b.subjects.JobsStream())
	require.NoError(t, err)
	require.Equal(t, uint64(2*n), stream.CachedInfo().State.LastSeq, "each was published twice: at first, and once more")
}
