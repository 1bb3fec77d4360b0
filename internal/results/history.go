package results

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// History is what the stored events tell of one life of a job.
type History struct {
	// Returns counts the deliveries, up to the last time the job was handed back
	// on purpose, with which no worker died.
	Returns int
	// Crashes counts the workers that took the job and neither ended it nor
	// handed it back. A delivery that no worker began is not among them.
	Crashes int
	// StartedAt is when the job was first taken; zero when not known.
	StartedAt time.Time
	// Trail is everything that was attempted, by number. A call that was started
	// and whose end nobody recorded has the outcome unknown.
	Trail []job.Attempt
	// Unknown are the entries of Trail that this reading found to be unknown,
	// and that have no event of their own yet.
	Unknown []job.Attempt
	// Seq is the sequence of the newest event that was there; 0 when there was none.
	Seq uint64
}

// Holder is a worker that was handed a job.
type Holder struct {
	// Worker is its name.
	Worker string
	// JobSeq is the sequence of the job message, which is one life of the job.
	JobSeq uint64
	// Delivery is the number under which the worker has the job.
	Delivery int
}

// History reads what happened so far to the job that was handed to by. It is
// meant for a worker that has begun nothing of this delivery yet.
func (s *Store) History(ctx context.Context, queue, id string, by Holder) (History, error) {
	newest, err := last(ctx, s.events, s.subjects.Event(queue, id))
	if err != nil {
		return History{}, err
	}
	return s.historyUpTo(ctx, queue, id, by, newest)
}

// historyUpTo is [Store.History] where the newest event is known, nil when there
// is none.
func (s *Store) historyUpTo(ctx context.Context, queue, id string, by Holder, newest *jetstream.RawStreamMsg) (History, error) {
	if newest == nil {
		return History{}, nil
	}
	h := newHistory(by)
	h.Seq = newest.Sequence
	// A job that was handed back says so last, and that event says everything:
	// a job that waits for days is not read from its beginning each time. But the
	// event of a worker that had lost the job before may come late: only that of
	// the delivery just before this one is trusted unseen.
	if e, err := job.DecodeEvent(newest.Data); err == nil {
		if w, ok := h.waiting(e); ok && w.Delivery == by.Delivery-1 {
			h.wait(w)
			return h.end(), nil
		}
	}
	err := s.replay(ctx, queue, id, 0, func(e *job.Event, seq uint64) bool {
		h.add(e)
		return seq < newest.Sequence
	})
	if err != nil {
		return History{}, err
	}
	return h.end(), nil
}

// Lost reports whether another worker has taken the job since by was handed it.
// It reads the events stored after the sequence after, see [History.Seq].
func (s *Store) Lost(ctx context.Context, queue, id string, by Holder, after uint64) (lost bool, err error) {
	err = s.replay(ctx, queue, id, after, func(e *job.Event, _ uint64) bool {
		var r job.Received
		lost = e.Type == job.EventReceived && e.DataAs(&r) == nil && r.JobSeq == by.JobSeq &&
			e.Source != by.source() && r.Delivery > by.Delivery
		return !lost
	})
	return lost, err
}

// source is the holder as the source of events.
func (h Holder) source() string { return job.Source(h.Worker) }

// replay hands the events of a job that are stored after a sequence to each, with
// their own, until there are no more or it returns false.
func (s *Store) replay(ctx context.Context, queue, id string, after uint64, each func(*job.Event, uint64) bool) error {
	subject := s.subjects.Event(queue, id)
	for {
		msg, err := s.events.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events of job %s: %w", id, err)
		}
		after = msg.Sequence
		e, err := job.DecodeEvent(msg.Data)
		if err != nil { // not ours: somebody else published to this subject
			e = &job.Event{}
		}
		if !each(e, after) {
			return nil
		}
	}
}

// history builds a [History] event by event.
type history struct {
	History
	by     Holder
	source string               // of by's events
	ours   bool                 // the events being read belong to this life
	taken  taking               // the last one of this life
	high   int                  // the highest delivery of this life and consumer
	seen   map[int]bool         // the deliveries of this life and consumer
	open   map[call]job.Attempt // calls without an end
	index  map[mark]int         // where in the trail
	untold map[mark]bool        // unknown, and without an event that says so
}

// taking is one delivery to one worker.
type taking struct {
	source   string
	delivery int
}

// call names a call: two workers may run one job for a while.
type call struct {
	source string
	n      int
}

// mark names an entry of the trail.
type mark struct {
	n  int
	at int64 // nanoseconds
}

func markOf(a job.Attempt) mark { return mark{a.N, a.StartedAt.UnixNano()} }

func newHistory(by Holder) *history {
	h := &history{by: by, source: by.source(), seen: make(map[int]bool)}
	h.reset(History{})
	return h
}

// reset forgets everything but what known says.
func (h *history) reset(known History) {
	known.Seq = h.Seq
	h.History = known
	h.open = make(map[call]job.Attempt)
	h.index, h.untold = make(map[mark]int, len(known.Trail)), make(map[mark]bool)
	for i, a := range known.Trail {
		h.index[markOf(a)] = i
	}
}

func (h *history) add(e *job.Event) {
	switch e.Type { //nolint:exhaustive // the other types say nothing about the trail
	case job.EventReceived:
		var r job.Received
		if e.DataAs(&r) == nil {
			h.begin(r, e)
		}
	case job.EventWaiting:
		if w, ok := h.waiting(e); ok && w.Delivery >= h.high { // else that worker had lost the job before
			h.wait(w)
		}
	case job.EventAttemptStarted:
		if a, ok := h.attempt(e); ok && len(h.open) < job.MaxTrail {
			h.open[call{e.Source, a.N}] = a
		}
	case job.EventAttemptSucceeded, job.EventAttemptFailed, job.EventAttemptSkipped, job.EventAttemptUnknown:
		if a, ok := h.attempt(e); ok {
			delete(h.open, call{e.Source, a.N})
			h.ended(a)
		}
	}
}

// begin notes that a worker took the job. One that could not learn whether its
// word of it was stored has said so again, and is not one more.
func (h *history) begin(r job.Received, e *job.Event) {
	if r.JobSeq != h.by.JobSeq { // an earlier life of the id
		h.reset(History{})
		h.ours, h.taken, h.high = false, taking{}, 0
		clear(h.seen)
		return
	}
	now := taking{e.Source, r.Delivery}
	again := h.taken == now
	h.ours, h.taken = true, now
	if h.StartedAt.IsZero() {
		h.StartedAt = e.Time
	}
	if again {
		return
	}
	h.count(r.Delivery)
	h.lose()
	if now != (taking{h.source, h.by.Delivery}) { // else it is whoever asks, and lives
		h.Crashes++
	}
}

// count notes the number of a delivery. One that comes again is of a consumer that
// was made anew and counts from 1; a lower one that is new was told late.
func (h *history) count(delivery int) {
	if h.seen[delivery] {
		clear(h.seen)
		h.high = 0
	}
	h.seen[delivery] = true
	h.high = max(h.high, delivery)
}

// waiting reads e where it says that this life of the job was handed back.
func (h *history) waiting(e *job.Event) (w job.Waiting, ok bool) {
	return w, e.Type == job.EventWaiting && e.DataAs(&w) == nil && w.JobSeq == h.by.JobSeq
}

// wait notes that a worker handed the job back.
func (h *history) wait(w job.Waiting) {
	h.reset(History{Returns: max(w.Delivery-w.Crashes, 0), Crashes: w.Crashes, StartedAt: w.StartedAt, Trail: w.Attempts})
	h.ours = true
}

func (h *history) attempt(e *job.Event) (a job.Attempt, ok bool) {
	return a, h.ours && e.DataAs(&a) == nil
}

// ended notes the end of a call or a skip. A call that was given up as unknown
// may have an event that says so, or that says how it ended after all.
func (h *history) ended(a job.Attempt) {
	m := markOf(a)
	delete(h.untold, m)
	i, there := h.index[m]
	switch {
	case !there && len(h.Trail) < job.MaxTrail:
		h.index[m] = len(h.Trail)
		h.Trail = append(h.Trail, a)
	case there && h.Trail[i].Outcome == job.OutcomeUnknown:
		h.Trail[i] = a
	}
}

// lose turns the calls that have no end into unknown ones.
func (h *history) lose() {
	for _, a := range h.open {
		a.Outcome = job.OutcomeUnknown
		a.Error = new("the worker died during this call: whether it was answered is not known")
		h.ended(a)
		h.untold[markOf(a)] = true
	}
	clear(h.open)
}

func (h *history) end() History {
	h.lose()
	slices.SortStableFunc(h.Trail, func(a, b job.Attempt) int {
		return cmp.Or(cmp.Compare(a.N, b.N), a.StartedAt.Compare(b.StartedAt))
	})
	for _, a := range h.Trail {
		if h.untold[markOf(a)] {
			h.Unknown = append(h.Unknown, a)
		}
	}
	return h.History
}
