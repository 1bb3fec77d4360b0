package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// putOff is a job that is not to be run before a moment.
func putOff(at time.Time, more string) []byte {
	return fmt.Appendf(nil, `{"not_before":%q,%s"body":{"messages":[{"role":"user","content":"hi"}]}}`, at.Format(time.RFC3339Nano), more)
}

func TestAJobThatIsPutOffIsRunAtItsMoment(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	at := time.Now().Add(5 * time.Second).UTC() // all are taken long before it, on a busy machine too
	const jobs = 8
	for i := range jobs {
		b.publish(fmt.Sprint(i), putOff(at, `"timeout_ms":4500,`))
	}
	b.publish("now", chat("hi"))
	require.Equal(t, job.Succeeded, b.result("now").Status)
	for i := range jobs {
		r := b.result(fmt.Sprint(i))
		require.Equal(t, job.Succeeded, r.Status, "its budget runs from its moment")
		require.Equal(t, 2, r.Deliveries)
		require.False(t, r.Attempts[0].StartedAt.Before(at.Truncate(time.Millisecond)), "never before")
		require.Zero(t, r.QueuedMS)
		require.Less(t, r.DurationMS, int64(4900), "nor does its duration count the wait")
	}
	events := b.events("0")
	require.Equal(t, []job.EventType{
		job.EventReceived, job.EventWaiting, job.EventReceived, job.EventAttemptStarted, job.EventAttemptSucceeded, job.EventCompleted,
	}, types(events))
	var w job.Waiting
	require.NoError(t, events[1].DataAs(&w))
	require.Equal(t, "it is not due yet", w.Why)
	require.Equal(t, at.Truncate(time.Millisecond), w.Until)
	require.Zero(t, w.Crashes)
}

// TestTheMomentIsExact to 50 ms, on a machine that is not busy: one of the tries that
// fit into a minute or two must be.
func TestTheMomentIsExact(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.start(b.config(model("vllm", llmtest.New(t))))
	late := time.Duration(0)
	for i := range 60 {
		at := time.Now().Add(1200 * time.Millisecond).UTC().Truncate(time.Millisecond)
		id := fmt.Sprint(i)
		b.publish(id, putOff(at, ""))
		if late = b.result(id).Attempts[0].StartedAt.Sub(at); late <= 50*time.Millisecond {
			return
		}
	}
	require.FailNow(t, "it is never exact", "late by %s", late)
}

// TestAJobThatIsPutOffSurvivesRestarts of the server, which keeps the moment of a
// redelivery in whole seconds, and of the worker.
func TestAJobThatIsPutOffSurvivesRestarts(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	cfg := b.config(model("vllm", p))
	cfg.MaxCrashes = 1 // parking is none
	w := b.start(cfg)
	at := time.Now().Add(4 * time.Second).UTC()
	b.publish("a", putOff(at, ""))
	b.eventually("it is parked", func() bool {
		msg := b.last("LLM_EVENTS", "llm.events.default.a")
		if msg == nil {
			return false
		}
		e, err := job.DecodeEvent(msg.Data)
		return err == nil && e.Type == job.EventWaiting
	})
	require.NoError(t, w.stop())
	b.srv.Restart(t)
	cfg.Name = "w-2"
	b.start(cfg)
	r := b.result("a")
	require.Equal(t, job.Succeeded, r.Status, "%+v", r.Error)
	require.Equal(t, "w-2", r.Worker)
	late := r.Attempts[0].StartedAt.Sub(at.Truncate(time.Millisecond))
	require.GreaterOrEqual(t, late, time.Duration(0))
	t.Logf("late by %s after %d deliveries", late, r.Deliveries)
}

func TestAMomentThatCannotBeIsToldAtOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	at := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	b.publish("late", putOff(at, fmt.Sprintf(`"deadline":%q,`, at.Format(time.RFC3339))))
	r := b.result("late")
	require.Equal(t, job.Expired, r.Status)
	require.Equal(t, "expired", r.Error.Code)
	require.Equal(t, "not_before "+at.Format(time.RFC3339)+" is not before the deadline "+at.Format(time.RFC3339), r.Error.Message)
	require.Zero(t, r.QueuedMS)
	b.publish("far", putOff(time.Now().Add(366*24*time.Hour+time.Minute), ""))
	r = b.result("far")
	require.Equal(t, "invalid_job: not_before: is more than 366 days ahead", r.Error.Code+": "+r.Error.Message)
	b.publish("wrong", putOff(at, `"route":"nope",`))
	require.Equal(t, "invalid_job", b.result("wrong").Error.Code, "a mistake is told before the moment")
	b.publish("past", putOff(time.Now().Add(-time.Hour), ""))
	require.Equal(t, job.Succeeded, b.result("past").Status)
	b.settled()
	require.Len(t, p.Calls(), 1)
}

// TestAJobWhoseWaitCannotBeStoredKeepsItsSlot pins that its moment is kept when the
// events stream is full.
func TestAJobWhoseWaitCannotBeStoredKeepsItsSlot(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	p := llmtest.New(t)
	b.limit("LLM_EVENTS", 1)
	b.start(b.config(model("vllm", p)))
	at := time.Now().Add(1200 * time.Millisecond).UTC()
	b.publish("a", putOff(at, ""))
	r := b.result("a")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, 1, r.Deliveries, "it was never handed back")
	require.GreaterOrEqual(t, r.Attempts[0].StartedAt.Sub(at.Truncate(time.Millisecond)), time.Duration(0))
}

// limit makes a stream refuse what goes beyond so many bytes; 0 takes the limit away.
func (b *bundle) limit(stream string, size int64) {
	b.t.Helper()
	s, err := b.js.Stream(b.t.Context(), stream)
	require.NoError(b.t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxBytes, cfg.Discard = -1, jetstream.DiscardNew
	if size > 0 {
		cfg.MaxBytes = size
	}
	_, err = b.js.UpdateStream(b.t.Context(), cfg)
	require.NoError(b.t, err)
}
