package results

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

func handled(kind job.EventType) *job.Event {
	return job.NewEvent("submit", kind, "a", at(0), job.LetterHandled{Queue: "default", By: "ada@console", Seq: 3, Reason: "timeout", Redrives: 1})
}

func TestWhatIsDoneWithDeadLettersDoesNotDisturbTheTrail(t *testing.T) {
	t.Parallel()
	kinds := []job.EventType{job.EventLetterRedriven, job.EventLetterEdited, job.EventLetterPurged}
	for seed := range 20 {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		l := life{seq: 7}
		l.random(r)
		want := fold(l.events, 7)
		for i := range len(l.events) + 1 {
			events := slices.Insert(slices.Clone(l.events), i, handled(kinds[r.IntN(3)]))
			requireHistory(t, want, fold(events, 7), "in between")
		}
	}
}

// An old letter may be purged while its job waits: then the job's last event is
// not the one that says everything.
func TestAJobThatWaitsIsUnderstoodWhenItsOldLetterIsPurged(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	l := life{seq: 7}
	l.take()
	l.end(l.start(), job.EventAttemptFailed, job.OutcomeFailed)
	l.wait(model(l.facts, 7))
	b.tell(l.events...)
	want, err := b.store.History(t.Context(), "default", "a", Holder{JobSeq: 7})
	require.NoError(t, err)
	require.Len(t, want.Trail, 1)
	require.NoError(t, b.store.Record(t.Context(), "default", handled(job.EventLetterPurged)))
	got, err := b.store.History(t.Context(), "default", "a", Holder{JobSeq: 7})
	require.NoError(t, err)
	require.Equal(t, want.Seq+1, got.Seq)
	want.Seq = got.Seq
	requireHistory(t, want, got, "after the purge")
}

func TestEventsAreRecordedOnceAndReadInOrder(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	first, second := handled(job.EventLetterEdited), handled(job.EventLetterRedriven)
	for _, e := range []*job.Event{first, first, second} { // the answer to the first was lost
		require.NoError(t, b.store.Record(t.Context(), "default", e))
	}
	b.tellRaw("", "{", `{"type":7}`)
	var types []job.EventType
	for e, err := range b.store.Events(t.Context(), "default", "a") {
		require.NoError(t, err)
		types = append(types, e.Type)
	}
	require.Equal(t, []job.EventType{job.EventLetterEdited, job.EventLetterRedriven}, types)
	for range b.store.Events(t.Context(), "default", "other") {
		require.Fail(t, "there are none")
	}
	for e, err := range b.store.Events(t.Context(), "default", "a") {
		require.NoError(t, err)
		require.Equal(t, second.Data, e.Data)
		break
	}
}
