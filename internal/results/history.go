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
}

// History reads what happened to the job message jobSeq so far. It is meant for
// a worker that was handed the job and has not emitted anything about it yet.
func (s *Store) History(ctx context.Context, queue, id string, jobSeq uint64) (History, error) {
	subject := s.subjects.Event(queue, id)
	newest, err := last(ctx, s.events, subject)
	if newest == nil || err != nil {
		return History{}, err
	}
	h := newHistory(jobSeq)
	// A job that was handed back says so last, and that event says everything:
	// a job that waits for days is not read from its beginning each time.
	if e, err := job.DecodeEvent(newest.Data); err == nil && h.wait(e) {
		return h.end(), nil
	}
	for seq := uint64(0); seq < newest.Sequence; {
		msg, err := s.events.GetMsg(ctx, seq+1, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return History{}, fmt.Errorf("read the events of job %s: %w", id, err)
		}
		seq = msg.Sequence
		e, err := job.DecodeEvent(msg.Data)
		if err != nil {
			continue // not ours: somebody else published to this subject
		}
		h.add(e)
	}
	return h.end(), nil
}

// history builds a [History] event by event.
type history struct {
	History
	jobSeq uint64
	ours   bool                 // the events being read belong to this life
	open   map[call]job.Attempt // calls without an end
	index  map[mark]int         // where in the trail
	untold map[mark]bool        // unknown, and without an event that says so
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

func newHistory(jobSeq uint64) *history {
	h := &history{jobSeq: jobSeq}
	h.reset(History{})
	return h
}

// reset forgets everything but what known says.
func (h *history) reset(known History) {
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
			h.begin(r, e.Time)
		}
	case job.EventWaiting:
		h.wait(e)
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

// begin notes that a worker took the job.
func (h *history) begin(r job.Received, at time.Time) {
	if r.JobSeq != h.jobSeq { // an earlier life of the id
		h.reset(History{})
		h.ours = false
		return
	}
	h.lose()
	h.Crashes++
	if h.StartedAt.IsZero() {
		h.StartedAt = at
	}
	h.ours = true
}

// wait notes that a worker handed the job back. It reports whether e says so.
func (h *history) wait(e *job.Event) bool {
	var w job.Waiting
	if e.Type != job.EventWaiting || e.DataAs(&w) != nil || w.JobSeq != h.jobSeq {
		return false
	}
	h.reset(History{Returns: max(w.Delivery-w.Crashes, 0), Crashes: w.Crashes, StartedAt: w.StartedAt, Trail: w.Attempts})
	h.ours = true
	return true
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
