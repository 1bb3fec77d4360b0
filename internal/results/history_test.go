package results

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

// at is the i-th moment of a test.
func at(i int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(i)).UTC() }

const lost = "the worker died during this call: whether it was answered is not known"

// life writes the events of jobs as workers do, and remembers what happened.
type life struct {
	clock    int
	seq      uint64 // of the job message
	delivery int
	n        int // of the last attempt
	worker   string
	events   []*job.Event
	facts    []fact // one for each event
}

// fact is what an event means, in the words of the model.
type fact struct {
	what     string // received, waiting, started, ended, other
	seq      uint64
	delivery int
	at       time.Time
	attempt  job.Attempt
	history  History // of a waiting
}

func (l *life) tick() time.Time {
	l.clock++
	return at(l.clock)
}

func (l *life) emit(t job.EventType, data any, f fact) {
	e := job.NewEvent(l.worker, t, "a", l.tick(), data)
	back, err := job.DecodeEvent(e.Encode()) // as it is read from the stream
	if err != nil {
		panic(err)
	}
	f.seq, f.delivery, f.at = l.seq, l.delivery, e.Time
	l.events, l.facts = append(l.events, back), append(l.facts, f)
}

// take is a worker that gets the job: it learns the history, and says so.
func (l *life) take() {
	h := model(l.facts, l.seq)
	l.delivery++
	l.worker = "w" + strconv.Itoa(l.clock)
	l.emit(job.EventReceived, job.Received{Queue: "default", Delivery: l.delivery, JobSeq: l.seq}, fact{what: "received"})
	for _, a := range h.Unknown {
		l.emit(job.EventAttemptUnknown, a, fact{what: "ended", attempt: a})
	}
	l.n = len(h.Trail)
}

func (l *life) start() job.Attempt {
	l.n++
	a := job.Attempt{N: l.n, Backend: "vllm", StartedAt: l.tick()}
	l.emit(job.EventAttemptStarted, a, fact{what: "started", attempt: a})
	return a
}

func (l *life) end(a job.Attempt, t job.EventType, o job.Outcome) {
	a.Outcome = o
	l.emit(t, a, fact{what: "ended", attempt: a})
}

func (l *life) wait(h History) {
	h.Crashes-- // the worker that hands it back lives
	w := job.Waiting{
		Queue: "default", Delivery: l.delivery, JobSeq: l.seq,
		StartedAt: h.StartedAt, Attempts: h.Trail, Crashes: h.Crashes,
	}
	h.Returns++ // this one; those before are in h, or crashes
	l.emit(job.EventWaiting, w, fact{what: "waiting", history: h})
}

// model says what a prefix of a life means, fact by fact and slowly.
func model(facts []fact, seq uint64) History {
	var h History
	facts = slices.DeleteFunc(slices.Clone(facts), func(f fact) bool { return f.seq != seq })
	first := 0
	for i, f := range facts { // a hand-back sums up what was before it
		if f.what == "received" && h.StartedAt.IsZero() {
			h.StartedAt = f.at
		}
		if f.what == "received" {
			h.Crashes++
		}
		if f.what == "waiting" {
			h, first = f.history, i+1
		}
	}
	facts = facts[first:]
	h.Trail, h.Unknown = slices.Clone(h.Trail), nil
	for i, f := range facts {
		switch f.what {
		case "started":
			a, own := f.attempt, false
			a.Outcome, a.Error = job.OutcomeUnknown, new(lost)
			for _, later := range facts[i:] {
				if later.what == "ended" && later.attempt.N == a.N && later.attempt.StartedAt.Equal(a.StartedAt) {
					a, own = later.attempt, true
				}
			}
			h.Trail = append(h.Trail, a)
			if !own {
				h.Unknown = append(h.Unknown, a)
			}
		case "ended":
			if f.attempt.Outcome == job.OutcomeSkipped {
				h.Trail = append(h.Trail, f.attempt)
			}
		}
	}
	slices.SortFunc(h.Trail, func(a, b job.Attempt) int { return a.N - b.N })
	slices.SortFunc(h.Unknown, func(a, b job.Attempt) int { return a.N - b.N })
	return h
}

// random lives through one life of a job.
func (l *life) random(r *rand.Rand) {
	l.delivery = 0
	for range 1 + r.IntN(5) {
		l.take()
		var open []job.Attempt
		for range r.IntN(6) {
			switch {
			case len(open) > 0 && r.IntN(2) == 0:
				i := r.IntN(len(open)) // parallel calls end in any order
				if r.IntN(4) == 0 {
					l.end(open[i], job.EventAttemptSucceeded, job.OutcomeSucceeded)
				} else {
					l.end(open[i], job.EventAttemptFailed, job.OutcomeFailed)
				}
				open = slices.Delete(open, i, i+1)
			case r.IntN(3) == 0:
				l.n++
				l.end(job.Attempt{N: l.n, Backend: "openai", StartedAt: l.tick()}, job.EventAttemptSkipped, job.OutcomeSkipped)
			default:
				open = append(open, l.start())
			}
		}
		if r.IntN(2) == 0 {
			continue // kill -9
		}
		for _, a := range open {
			l.end(a, job.EventAttemptFailed, job.OutcomeFailed)
		}
		if r.IntN(3) == 0 {
			l.emit(job.EventDeadLettered, job.DeadLettered{}, fact{what: "other"})
			l.emit(job.EventCompleted, job.Completed{}, fact{what: "other"})
			return
		}
		l.wait(model(l.facts, l.seq))
	}
}

// fold is the history of events, read one by one.
func fold(events []*job.Event, seq uint64) History {
	h := newHistory(Holder{JobSeq: seq})
	for _, e := range events {
		h.add(e)
	}
	return h.end()
}

func requireHistory(t *testing.T, want, got History, why string) {
	t.Helper()
	for _, list := range []*[]job.Attempt{&want.Trail, &got.Trail, &want.Unknown, &got.Unknown} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	require.Equal(t, want, got, why)
}

func TestEveryPrefixOfALifeIsUnderstood(t *testing.T) {
	t.Parallel()
	seen := make(map[string]int)
	for seed := range 100 {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		var l life
		for l.seq = 1; l.seq <= uint64(1+r.IntN(2)); l.seq++ { // one or two lives of the id
			l.random(r)
			l.seq += uint64(r.IntN(3))
		}
		seq := l.facts[len(l.facts)-1].seq
		for n := range len(l.events) + 1 {
			why := fmt.Sprintf("seed %d, the first %d events", seed, n)
			facts := l.facts[:n]
			want := model(facts, seq)
			requireHistory(t, want, fold(l.events[:n], seq), why)
			seen["unknown"] += len(want.Unknown)
			seen["returns"] += want.Returns
			// Where the last event is a hand-back, it alone says the same.
			if n > 0 && facts[n-1].what == "waiting" {
				requireHistory(t, want, fold(l.events[n-1:n], seq), why)
				seen["shortcut"]++
			}
		}
	}
	for _, what := range []string{"unknown", "returns", "shortcut"} {
		require.Greater(t, seen[what], 50, what) // the property was tried
	}
}

func (b *bundle) tell(events ...*job.Event) {
	b.t.Helper()
	for _, e := range events {
		b.tellRaw(string(e.Encode()))
	}
}

func (b *bundle) tellRaw(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		_, err := b.js.Publish(b.t.Context(), "llm.events.default.a", []byte(text))
		require.NoError(b.t, err)
	}
}

func TestHistoryIsReadFromTheStream(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	history := func(seq uint64) History {
		t.Helper()
		h, err := b.store.History(t.Context(), "default", "a", Holder{JobSeq: seq})
		require.NoError(t, err)
		newest, err := last(t.Context(), b.store.events, "llm.events.default.a")
		require.NoError(t, err)
		if newest != nil {
			require.Equal(t, newest.Sequence, h.Seq)
		}
		h.Seq = 0
		return h
	}
	require.Equal(t, History{}, history(7))

	l := life{seq: 3}
	l.take() // an earlier life, and a crash
	l.start()
	l.seq, l.delivery = 7, 0
	l.take()
	failed := l.start()
	l.end(failed, job.EventAttemptFailed, job.OutcomeFailed)
	unknown := l.start()
	for _, e := range l.events {
		b.tell(e)
		_, err := b.js.Publish(t.Context(), "llm.events.default.b", e.Encode()) // another job
		require.NoError(t, err)
		b.tellRaw("", "{", "null", `{"type":7}`, `[]`) // anybody may write here
	}
	failed.Outcome, unknown.Outcome, unknown.Error = job.OutcomeFailed, job.OutcomeUnknown, new(lost)
	want := History{
		StartedAt: l.facts[2].at, Trail: []job.Attempt{failed, unknown}, Unknown: []job.Attempt{unknown},
		Crashes: 1,
	}
	require.Equal(t, want, history(7))
	require.Equal(t, History{}, history(8))

	n := len(l.events)
	l.take()
	want.Unknown = nil
	h := want
	h.Crashes++ // the one that has just taken it
	l.wait(h)
	b.tell(l.events[n:]...)
	want.Returns = 1 // the second delivery, of two
	require.Equal(t, want, history(7))
	require.Equal(t, History{}, history(8))
}

// A job that waits through a long outage has thousands of events, and is read
// whenever it comes back.
func TestAJobThatWaitedIsReadAtOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	l := life{seq: 7}
	for range 200 {
		l.take()
		l.wait(model(l.facts, l.seq))
	}
	b.tell(l.events...)
	reads := b.watch("$JS.API.STREAM.MSG.GET.LLM_EVENTS")
	h, err := b.store.History(t.Context(), "default", "a", Holder{JobSeq: 7, Delivery: 201})
	require.NoError(t, err)
	require.Equal(t, 200, h.Returns)
	require.Equal(t, l.facts[0].at, h.StartedAt)
	receive(t, reads)
	b.none(reads, "$JS.API.STREAM.MSG.GET.LLM_EVENTS")

	n := len(l.events)
	l.take() // and dies
	b.tell(l.events[n:]...)
	h, err = b.store.History(t.Context(), "default", "a", Holder{JobSeq: 7, Delivery: 202})
	require.NoError(t, err)
	require.Equal(t, 200, h.Returns)
	require.Equal(t, l.facts[0].at, h.StartedAt)
}

func TestForeignEventsDoNoHarm(t *testing.T) {
	t.Parallel()
	received := func(seq uint64, delivery int) *job.Event {
		return job.NewEvent("w", job.EventReceived, "a", at(0), job.Received{Delivery: delivery, JobSeq: seq})
	}
	attempt := func(kind job.EventType, n int) *job.Event {
		return job.NewEvent("w", kind, "a", at(0), job.Attempt{N: n, Outcome: job.OutcomeFailed, StartedAt: at(n)})
	}
	raw := func(kind job.EventType, data string) *job.Event {
		return &job.Event{Type: kind, Source: "x", Data: []byte(data)}
	}
	many := make([]*job.Event, 0, job.MaxTrail+2)
	many = append(many, received(7, 1))
	for n := range job.MaxTrail + 1 {
		many = append(many, attempt(job.EventAttemptStarted, n))
	}
	for name, tc := range map[string]struct {
		events  []*job.Event
		returns int
		trail   int
	}{
		"nothing":                    {nil, 0, 0},
		"attempts before the job":    {[]*job.Event{attempt(job.EventAttemptFailed, 1)}, 0, 0},
		"data of a wrong type":       {[]*job.Event{raw(job.EventReceived, `7`), raw(job.EventWaiting, `{"job_seq":"7"}`), raw(job.EventAttemptFailed, `[]`)}, 0, 0},
		"no data":                    {[]*job.Event{raw(job.EventReceived, ``), raw(job.EventWaiting, `null`)}, 0, 0},
		"wrong attempts":             {[]*job.Event{received(7, 1), raw(job.EventAttemptStarted, `{"n":"x"}`), raw(job.EventAttemptFailed, `{"n":1e99}`)}, 0, 0},
		"a wait of another life":     {[]*job.Event{received(7, 1), raw(job.EventWaiting, `{"job_seq":6,"attempts":[{"n":1}]}`)}, 0, 0},
		"an unknown type":            {[]*job.Event{received(7, 1), raw("understudy.job.new", `{"job_seq":7}`)}, 0, 0},
		"an end without a start":     {[]*job.Event{received(7, 1), attempt(job.EventAttemptFailed, 3)}, 0, 1},
		"the same end twice":         {[]*job.Event{received(7, 1), attempt(job.EventAttemptFailed, 3), attempt(job.EventAttemptFailed, 3)}, 0, 1},
		"huge and negative numbers":  {[]*job.Event{received(7, 1), attempt(job.EventAttemptStarted, math.MaxInt), attempt(job.EventAttemptStarted, math.MinInt)}, 0, 2},
		"a wait with nonsense":       {[]*job.Event{raw(job.EventWaiting, `{"job_seq":7,"delivery":-5,"crashes":2}`)}, 0, 0},
		"more than anybody can read": {many, 0, job.MaxTrail},
		"a wait after crashes":       {[]*job.Event{received(7, 1), raw(job.EventWaiting, `{"job_seq":7,"delivery":5,"crashes":2}`)}, 3, 0},
	} {
		h := fold(tc.events, 7)
		require.Equal(t, tc.returns, h.Returns, name)
		require.Len(t, h.Trail, tc.trail, name)
	}
}

// A worker that lost its lease may still report how its call ended.
func TestALateEndReplacesTheUnknown(t *testing.T) {
	t.Parallel()
	for name, told := range map[string]bool{"before the next worker has told": false, "after it": true} {
		l := life{seq: 7}
		l.take()
		a := l.start()
		slow := l.worker
		h := model(l.facts, 7)
		require.Len(t, h.Unknown, 1)
		l.take()
		if !told {
			l.events, l.facts = l.events[:3], l.facts[:3]
		}
		b := l.start()
		l.worker = slow
		l.end(a, job.EventAttemptSucceeded, job.OutcomeSucceeded)
		got := fold(l.events, 7)
		require.Len(t, got.Trail, 2, name)
		require.Equal(t, job.OutcomeSucceeded, got.Trail[0].Outcome, name)
		require.Equal(t, job.OutcomeUnknown, got.Trail[1].Outcome, name)
		require.Equal(t, b.N, got.Unknown[0].N, name)
		require.Len(t, got.Unknown, 1, name)
	}
}
