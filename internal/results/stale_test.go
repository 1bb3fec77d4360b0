package results

import (
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

// took, waits and failed are what a worker of the job message 7 tells.
func took(worker string, delivery int) *job.Event {
	return job.NewEvent(worker, job.EventReceived, "a", at(delivery), job.Received{Delivery: delivery, JobSeq: 7})
}

func waits(worker string, delivery, crashes int, attempts ...job.Attempt) *job.Event {
	return job.NewEvent(worker, job.EventWaiting, "a", at(delivery), job.Waiting{
		Delivery: delivery, JobSeq: 7, StartedAt: at(1), Attempts: attempts, Crashes: crashes,
	})
}

func failed(n int) job.Attempt {
	return job.Attempt{N: n, Backend: "vllm", Outcome: job.OutcomeFailed, StartedAt: at(n)}
}

func fails(worker string, n int) *job.Event {
	return job.NewEvent(worker, job.EventAttemptFailed, "a", at(n), failed(n))
}

// A worker that was cut off may say that it hands the job back when others have
// long taken it, and a consumer that was made anew counts from 1.
func TestHistoryTellsALateHandBackFromATrueOne(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		events   []*job.Event
		delivery int // of whoever reads
		want     History
	}{
		"late, and the newest": {
			[]*job.Event{took("a", 1), took("b", 2), fails("b", 2), fails("a", 1), waits("a", 1, 0, failed(1))},
			3,
			History{Crashes: 2, StartedAt: at(1), Trail: []job.Attempt{failed(1), failed(2)}},
		},
		"late, and not the newest": {
			[]*job.Event{took("a", 1), took("b", 2), waits("a", 1, 0), fails("b", 2)},
			3,
			History{Crashes: 2, StartedAt: at(1), Trail: []job.Attempt{failed(2)}},
		},
		"late after a true one": {
			[]*job.Event{took("a", 1), took("b", 2), fails("b", 2), waits("b", 2, 1, failed(2)), waits("a", 1, 0)},
			3,
			History{Returns: 1, Crashes: 1, StartedAt: at(1), Trail: []job.Attempt{failed(2)}},
		},
		"late with all its words": {
			[]*job.Event{took("b", 2), took("a", 1), fails("a", 1), waits("a", 1, 0)},
			3,
			History{Crashes: 2, StartedAt: at(2), Trail: []job.Attempt{failed(1)}},
		},
		"true, then deliveries that nobody began": {
			[]*job.Event{took("a", 1), fails("a", 1), waits("a", 1, 0, failed(1))},
			4,
			History{Returns: 1, StartedAt: at(1), Trail: []job.Attempt{failed(1)}},
		},
		"true of a lease that was lost and got again": {
			[]*job.Event{took("a", 1), fails("a", 1), waits("a", 3, 0, failed(1))},
			5,
			History{Returns: 3, StartedAt: at(1), Trail: []job.Attempt{failed(1)}},
		},
		"true, and the consumer is made anew": {
			[]*job.Event{took("a", 1), took("b", 2), fails("b", 1), waits("b", 2, 1, failed(1))},
			1,
			History{Returns: 1, Crashes: 1, StartedAt: at(1), Trail: []job.Attempt{failed(1)}},
		},
		"true under a consumer that was made anew": {
			[]*job.Event{took("a", 1), took("b", 2), took("c", 1), fails("c", 1), waits("c", 1, 2, failed(1))},
			3,
			History{Crashes: 2, StartedAt: at(1), Trail: []job.Attempt{failed(1)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, natstest.Options{})
			b.tell(tc.events...)
			got, err := b.store.History(t.Context(), "default", "a", Holder{Worker: "z", JobSeq: 7, Delivery: tc.delivery})
			require.NoError(t, err)
			tc.want.Seq = uint64(len(tc.events))
			requireHistory(t, tc.want, got, name)
		})
	}
}

// Whether the word of it was stored may not be known, and it is said again.
func TestAWorkerThatSaysTwiceThatItTookAJobIsOneCrash(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		by      Holder
		crashes int
	}{
		"read by the next worker":          {Holder{Worker: "c", JobSeq: 7, Delivery: 3}, 2},
		"read by itself":                   {Holder{Worker: "b", JobSeq: 7, Delivery: 2}, 1},
		"read by itself, in a later life":  {Holder{Worker: "b", JobSeq: 8, Delivery: 2}, 0},
		"read by its successor of a name":  {Holder{Worker: "b", JobSeq: 7, Delivery: 3}, 2},
		"read by the first one once again": {Holder{Worker: "a", JobSeq: 7, Delivery: 3}, 2},
	} {
		h := newHistory(tc.by)
		for _, e := range []*job.Event{took("a", 1), took("b", 2), took("b", 2), took("b", 2)} {
			h.add(e)
		}
		require.Equal(t, tc.crashes, h.end().Crashes, name)
	}
}

func TestAWorkerLearnsThatItLostItsJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	other := job.NewEvent("c", job.EventReceived, "a", at(9), job.Received{Delivery: 9, JobSeq: 6})
	b.tell(took("z", 3), took("a", 2), fails("a", 1), took("a", 4), other)
	b.tellRaw("", "{", "null")
	lost := func(worker string, delivery int, after uint64) bool {
		t.Helper()
		lost, err := b.store.Lost(t.Context(), "default", "a", Holder{Worker: worker, JobSeq: 7, Delivery: delivery}, after)
		require.NoError(t, err)
		return lost
	}
	require.False(t, lost("a", 2, 1), "its own word, and another life's")
	require.False(t, lost("a", 4, 0), "those before it")
	require.True(t, lost("a", 2, 0))
	b.tell(took("b", 5))
	require.True(t, lost("a", 4, 2))
	require.False(t, lost("b", 5, 2))
	b.srv.Stop(t)
	_, err := b.store.Lost(soon(t), "default", "a", Holder{JobSeq: 7}, 0)
	require.ErrorContains(t, err, "read the events of job a: ")
	b.srv.Start(t)
}
