package doctor

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// received plants what a worker tells when it takes a job.
func (b *bundle) received(id, workerName string, seq uint64, at time.Time) {
	b.event(id, workerName, job.EventReceived, at, job.Received{Queue: "default", Delivery: 2, JobSeq: seq})
}

func TestEachJobHasItsStanding(t *testing.T) {
	t.Parallel()
	const deadWorker, failed = "gone", job.Failed
	long := -10 * time.Minute
	for name, tc := range map[string]struct {
		plant func(b *bundle, now time.Time)
		want  Standing // of job a of queue default, or of the queue it names; without state: none
	}{
		"queued": {
			func(b *bundle, _ time.Time) { b.job("default", "a") },
			Standing{State: Queued, Level: OK, What: "never taken"},
		},
		"in a queue without a consumer": {
			func(b *bundle, _ time.Time) { b.job("typo", "a") },
			Standing{State: Stuck, Level: Problem, Queue: "typo", What: "never taken, and its queue has no consumer", Mend: "add typo to WORKER_QUEUES of a worker"},
		},
		"in a queue that is paused": {
			func(b *bundle, now time.Time) {
				_, err := b.js.PauseConsumer(b.t.Context(), "LLM_JOBS", "q-default", now.Add(time.Hour))
				require.NoError(b.t, err)
				b.job("default", "a")
			},
			Standing{State: Stuck, Level: Problem, What: "never taken, and the consumer of its queue is paused", Mend: "nats consumer resume LLM_JOBS q-default"},
		},
		"running": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", b.job("default", "a"), now)
				b.event("a", "w-1", job.EventAttemptStarted, now, job.Attempt{N: 1, Backend: "vllm", Outcome: job.OutcomeUnknown, StartedAt: now})
			},
			Standing{State: Running, Level: OK, Worker: "w-1", Deliveries: 2, What: "on worker w-1 for 0s, last at backend vllm"},
		},
		"running for long, on a worker that answers": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", b.job("default", "a"), now)
				b.later = time.Hour
			},
			Standing{State: Running, Level: OK, Worker: "w-1", Deliveries: 2, What: "on worker w-1 for 1h"},
		},
		"in the lease of a dead worker": {
			func(b *bundle, now time.Time) { b.received("a", deadWorker, b.job("default", "a"), now) },
			Standing{
				State: Returning, Level: Note, Worker: deadWorker, Deliveries: 2,
				What: "worker gone does not answer; the job comes back when its lease of 30s ends",
			},
		},
		"of a worker that was restarted": {
			func(b *bundle, now time.Time) { b.received("a", "w-1", b.job("default", "a"), now.Add(-time.Minute)) },
			Standing{
				State: Returning, Level: Note, Worker: "w-1", Deliveries: 2,
				What: "worker w-1 does not answer; the job comes back when its lease of 30s ends",
			},
		},
		"of a worker that is long dead": {
			func(b *bundle, now time.Time) { b.received("a", deadWorker, b.job("default", "a"), now.Add(long)) },
			Standing{
				State: Stuck, Level: Problem, Worker: deadWorker, Deliveries: 2,
				What: "worker gone is gone, its lease is long over, and nobody took the job again",
				Mend: "start a worker whose WORKER_QUEUES names default; submit doctor tells why the others do not take it",
			},
		},
		"waiting": {
			func(b *bundle, now time.Time) {
				b.event("a", "w-1", job.EventWaiting, now, job.Waiting{Queue: "default", Why: "every breaker is open", Until: now.Add(time.Minute), Delivery: 3, JobSeq: b.job("default", "a")})
			},
			Standing{State: Waiting, Level: OK, Worker: "w-1", Deliveries: 3, What: "every breaker is open"},
		},
		"waiting since many deliveries": {
			func(b *bundle, now time.Time) {
				b.event("a", "w-1", job.EventWaiting, now, job.Waiting{Why: "every breaker is open", Until: now.Add(time.Minute), Delivery: 11, JobSeq: b.job("default", "a")})
			},
			Standing{State: Waiting, Level: Note, Worker: "w-1", Deliveries: 11, What: "every breaker is open; handed out 11 times"},
		},
		"whose wait is long over": {
			func(b *bundle, now time.Time) {
				b.event("a", "w-1", job.EventWaiting, now.Add(-time.Hour), job.Waiting{Why: "x", Until: now.Add(long), Delivery: 3, JobSeq: b.job("default", "a")})
			},
			Standing{
				State: Stuck, Level: Problem, Worker: "w-1", Deliveries: 3, What: "its wait was over 10m ago, and nobody took it again",
				Mend: "start a worker whose WORKER_QUEUES names default; submit doctor tells why the others do not take it",
			},
		},
		"whose result is stored a moment ago": {
			func(b *bundle, now time.Time) {
				seq := b.job("default", "a")
				b.received("a", "w-1", seq, now)
				b.result("a", job.Succeeded, seq)
			},
			Standing{State: Settling, Level: OK, What: "its result is stored; it is about to leave the queue"},
		},
		"whose result is stored for long": {
			func(b *bundle, now time.Time) {
				seq := b.job("default", "a")
				b.received("a", "w-1", seq, now)
				b.result("a", job.Succeeded, seq)
				b.later = time.Hour
			},
			Standing{
				State: Stuck, Level: Problem, What: "its result is stored for 1h, and it does not leave the queue",
				Mend: "start a worker whose WORKER_QUEUES names default; submit doctor tells why the others do not take it",
			},
		},
		"published again after its end": {
			func(b *bundle, now time.Time) {
				b.result("a", job.Succeeded, 1)
				b.job("default", "other")
				b.finish("default")
				b.job("default", "a")
			},
			Standing{State: Queued, Level: OK, What: "published again: the stored result will be sent, without a call"},
		},
		"redriven": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", 1, now)
				b.result("a", failed, 1)
				b.event("a", "w-1", job.EventDeadLettered, now, job.DeadLettered{})
				b.job("default", "other")
				b.finish("default")
				b.job("default", "a", job.HeaderRedrives, "1")
				b.event("a", "submit", job.EventLetterRedriven, now, job.LetterHandled{Queue: "default"})
			},
			Standing{State: Redriven, Level: OK, What: "queued again after it was dead-lettered"},
		},
		"redriven, with its letter": {
			func(b *bundle, now time.Time) {
				b.result("a", failed, 0)
				b.letter("a", "timeout", "{}")
				b.job("default", "a", job.HeaderRedrives, "1")
			},
			Standing{State: Redriven, Level: OK, What: "queued again, and its dead letter is still there: a redrive is under way, or was cut off"},
		},
		"lost": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", b.job("default", "a"), now)
				b.finish("default")
			},
			Standing{
				State: Lost, Level: Problem, Worker: "w-1", Deliveries: 2, What: "it was taken by worker w-1, and is neither queued nor ended",
				Mend: "publish it again under the same id, and report this: it must never happen, unless somebody purged the queue",
			},
		},
		"lost after a redrive": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", 1, now)
				b.result("a", failed, 1)
				b.event("a", "w-1", job.EventDeadLettered, now, job.DeadLettered{})
				b.event("a", "submit", job.EventLetterRedriven, now, job.LetterHandled{Queue: "default"})
			},
			Standing{
				State: Lost, Level: Problem, Deliveries: 2, What: "it was redriven, and is neither queued nor ended",
				Mend: "publish it again under the same id, and report this: it must never happen, unless somebody purged the queue",
			},
		},
		"taken so long ago that nobody can tell": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", 1, now)
				b.later = 200 * time.Hour
			},
			Standing{State: Unknown, Level: Note, Worker: "w-1", Deliveries: 2, What: "it was taken, and results of that time are no longer kept (168h0m0s)"},
		},
		"without the dead letter it should have": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", 1, now)
				b.result("a", job.Expired, 1)
				b.event("a", "w-1", job.EventCompleted, now, job.Completed{Status: job.Expired})
			},
			Standing{
				State: Unburied, Level: Problem, Worker: "w-1", Deliveries: 2,
				What: "it expired (timeout) and has no dead letter: it cannot be redriven", Mend: "publish it again from its source, under a new id",
			},
		},
		"whose result was removed": {
			func(b *bundle, now time.Time) {
				b.event("a", "w-1", job.EventCompleted, now, job.Completed{Status: job.Succeeded})
			},
			Standing{State: Removed, Level: Warning, Worker: "w-1", What: "it ended, and its result is gone before its time: somebody removed it"},
		},
		"whose result is junk": {
			func(b *bundle, _ time.Time) { b.publish("llm.results.default.a", []byte("junk")) },
			Standing{
				State: Unknown, Level: Warning, What: "its result cannot be read: another program wrote it",
				Mend: "submit result a -queue default tells more",
			},
		},
		"succeeded": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", 1, now)
				b.result("a", job.Succeeded, 1)
			},
			Standing{},
		},
		"cancelled, which has no dead letter": {
			func(b *bundle, _ time.Time) { b.result("a", job.Cancelled, 1) },
			Standing{},
		},
		"dead": {
			func(b *bundle, _ time.Time) {
				b.result("a", failed, 1)
				b.letter("a", "timeout", "{}")
			},
			Standing{},
		},
		"whose dead letter was purged": {
			func(b *bundle, now time.Time) {
				b.received("a", "w-1", 1, now)
				b.result("a", failed, 1)
				b.event("a", "w-1", job.EventDeadLettered, now, job.DeadLettered{})
				b.event("a", "w-1", job.EventCompleted, now, job.Completed{Status: failed})
				b.event("a", "submit", job.EventLetterPurged, now, job.LetterHandled{Queue: "default"})
			},
			Standing{},
		},
		"that ended long ago": {
			func(b *bundle, now time.Time) {
				b.event("a", "w-1", job.EventCompleted, now, job.Completed{Status: job.Succeeded})
				b.later = 200 * time.Hour
			},
			Standing{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			tc.plant(b, time.Now())
			all := b.reconcile(nil)
			got, there := all["a"]
			require.Equal(t, tc.want.State != "", there, "%+v", got)
			if !there {
				return
			}
			tc.want.ID = "a"
			if tc.want.Queue == "" {
				tc.want.Queue = "default"
			}
			require.Equal(t, tc.want.State == Waiting, got.Until != nil)
			got.Since, got.Until = nil, nil
			require.Equal(t, tc.want, got)
		})
	}
}

func TestAnInvalidAddressIsNamed(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.publish("llm.jobs.default.a$b", []byte("{}"))
	got := b.reconcile(nil)["default.a$b"]
	require.Equal(t, Standing{
		State: Invalid, Level: Problem, Queue: "default", ID: "default.a$b",
		What: "it is at an address that cannot be one: id: '$' is not allowed; use A-Z a-z 0-9 _ -",
		Mend: "nats stream purge LLM_JOBS --subject='llm.jobs.default.a$b'",
	}, got)
}

func TestAQueueAndABatchAreChosen(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, id := range []string{"b.1", "b.2", "c.1", "x"} {
		b.job("default", id)
		b.job("low", "low-"+id)
	}
	require.Len(t, b.reconcile(nil), 8)
	require.Len(t, b.reconcile(func(c *ReconcileConfig) { c.Queue = "low" }), 4)
	require.Len(t, b.reconcile(func(c *ReconcileConfig) { c.Batch = "b" }), 2)
	require.Empty(t, b.reconcile(func(c *ReconcileConfig) { c.Queue, c.Batch = "low", "b" }))
}

func TestManyJobsAreGoneThroughInOrderAndTold(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const n = 2500
	for i := range n {
		_, err := b.js.PublishAsync(b.layout.Subjects.Job("default", fmt.Sprintf("b.%06d", i)), []byte(`{}`))
		require.NoError(t, err)
	}
	<-b.js.PublishAsyncComplete()
	for i := 0; i < n; i += 500 { // some are being run
		b.received(fmt.Sprintf("b.%06d", i), "w-1", uint64(i+1), time.Now())
	}
	var told []int
	next, running := 0, 0
	for s, err := range Reconcile(t.Context(), ReconcileConfig{Conn: b.nc, Layout: b.layout, Progress: func(jobs int) { told = append(told, jobs) }}) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("b.%06d", next), s.ID)
		next++
		if s.State == Running {
			running++
		}
	}
	require.Equal(t, n, next)
	require.Equal(t, 5, running)
	require.Equal(t, []int{1000, 2000}, told)
}

func TestAReaderMayStop(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.job("default", "a")
	b.job("default", "b")
	n := 0
	for range Reconcile(t.Context(), ReconcileConfig{Conn: b.nc, Layout: b.layout}) {
		n++
		break
	}
	require.Equal(t, 1, n)
}

func TestAStreamWithoutDirectGetsIsNamed(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.edit("LLM_RESULTS", func(c *jetstream.StreamConfig) { c.AllowDirect = false })
	b.result("a", job.Failed, 1)
	var last error
	for _, err := range Reconcile(t.Context(), ReconcileConfig{Conn: b.nc, Layout: b.layout}) {
		last = err
	}
	require.ErrorContains(t, last, "the stream LLM_RESULTS allows no direct get: nats stream edit LLM_RESULTS --allow-direct: ")
}

func TestWhatMovedMeanwhileIsNotTakenForLost(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(b *bundle){
		"it has its result":      func(b *bundle) { b.result("a", job.Succeeded, 1) },
		"it has its dead letter": func(b *bundle) { b.letter("a", "timeout", "{}") },
		"it is queued":           func(b *bundle) { b.job("default", "a") },
		"":                       func(*bundle) {},
	} {
		b := newBundle(t)
		b.received("a", "w-1", 1, time.Now())
		plant(b)
		d := openDoor(b.nc)
		r := &reconciliation{ReconcileConfig: ReconcileConfig{Layout: b.layout, Now: b.now}, door: d}
		for in, want := range map[places]State{inEvents: Lost, inEvents | inResults: Unburied} { // as the lists had it
			f := &facts{
				located: located{"default.a", in}, queue: "default", id: "a", result: &ending{status: job.Failed, jobSeq: 1},
				last: &happening{kind: job.EventReceived, at: time.Now()},
			}
			got, err := r.judge(t.Context(), f)
			require.NoError(t, err)
			switch {
			case name == "":
				require.Equal(t, want, got.State)
			case name == "it has its result" && in == inEvents|inResults: // that is what it has
			default:
				require.Nil(t, got, name)
			}
		}
		d.close()
	}
}
