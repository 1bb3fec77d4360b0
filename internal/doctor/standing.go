package doctor

import (
	"strconv"
	"time"

	"understudy/internal/job"
)

// State is where a job is. The set is closed.
type State string

// The states of a job that has no end, or whose end does not add up.
const (
	// Queued has not been taken by a worker yet.
	Queued State = "queued"
	// Redriven is queued again after it ended in a dead letter.
	Redriven State = "redriven"
	// Running is in the hands of a worker.
	Running State = "running"
	// Waiting was handed back by a worker until a time to come.
	Waiting State = "waiting"
	// Settling has its result and is about to leave the queue.
	Settling State = "settling"
	// Returning was in the hands of a worker that is gone, and comes back when its
	// lease ends.
	Returning State = "returning"
	// Stuck is in the queue, and nothing will take it as things are.
	Stuck State = "stuck"
	// Lost was taken by a worker and is neither queued nor ended. It must never be.
	Lost State = "lost"
	// Unburied failed and has no dead letter. It must never be.
	Unburied State = "unburied"
	// Removed ended, and its result was taken away before its time.
	Removed State = "removed"
	// Unknown cannot be told: what would tell is too old to be kept, or unreadable.
	Unknown State = "unknown"
	// Invalid is a job at an address that cannot be one.
	Invalid State = "invalid"
)

// Standing is where one job is, and what to do.
type Standing struct {
	State State `json:"state"`
	// Level is [OK] or [Note] where nobody is needed.
	Level Level  `json:"level"`
	Queue string `json:"queue"`
	ID    string `json:"id"`
	// Worker is who has or had it; empty when no event tells.
	Worker string `json:"worker,omitempty"`
	// Since is when it came into this state, Until when it goes on by itself; nil
	// where that is not known.
	Since *time.Time `json:"since,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	// Deliveries is how often it was handed out; 0 when no event tells.
	Deliveries int `json:"deliveries,omitempty"`
	// What and Mend are for people.
	What string `json:"what"`
	Mend string `json:"mend,omitempty"`
}

// happening is an event in short.
type happening struct {
	kind     job.EventType
	worker   string
	at       time.Time
	jobSeq   uint64 // 0 where the event does not tell
	delivery int
	until    time.Time
	why      string
	status   job.Status
	backend  string
}

// happened reads an event; nil for what is none.
func happened(m *stored) *happening {
	e, err := job.DecodeEvent(m.data)
	if err != nil {
		return nil
	}
	const source = "understudy/"
	h := &happening{kind: e.Type, at: e.Time, worker: e.Source}
	if len(e.Source) > len(source) && e.Source[:len(source)] == source {
		h.worker = e.Source[len(source):]
	}
	switch e.Type { //nolint:exhaustive // the other types say no more than their name
	case job.EventReceived:
		var r job.Received
		if e.DataAs(&r) == nil {
			h.jobSeq, h.delivery = r.JobSeq, r.Delivery
		}
	case job.EventWaiting:
		var w job.Waiting
		if e.DataAs(&w) == nil {
			h.jobSeq, h.delivery, h.until, h.why = w.JobSeq, w.Delivery, w.Until, w.Why
		}
	case job.EventCompleted:
		var c job.Completed
		if e.DataAs(&c) == nil {
			h.status = c.Status
		}
	case job.EventAttemptStarted, job.EventAttemptFailed, job.EventAttemptSucceeded:
		var a job.Attempt
		if e.DataAs(&a) == nil {
			h.backend = a.Backend
		}
	}
	return h
}

// ends reports whether the event says that the job has its result.
func (h *happening) ends() bool {
	return h.kind == job.EventCompleted || h.kind == job.EventDeadLettered
}

// ofLetter reports whether the event is about a dead letter, and not about a run.
func (h *happening) ofLetter() bool {
	return h.kind == job.EventLetterRedriven || h.kind == job.EventLetterEdited || h.kind == job.EventLetterPurged
}

// story is what all events of a job tell of its latest life.
type story struct {
	// taken is the last time a worker took it, or handed it back; nil for never.
	taken *happening
	// last is the last event of a run; nil for none.
	last *happening
	// buried tells that its dead letter was stored in this life, purged and
	// redriven what became of the letter.
	buried, purged bool
	redriven       *happening
}

func (s *story) add(h *happening) {
	if h == nil {
		return
	}
	if !h.ofLetter() {
		s.last = h
	}
	switch h.kind { //nolint:exhaustive // the others do not begin or end anything
	case job.EventReceived:
		if s.taken == nil || s.taken.jobSeq != h.jobSeq {
			s.buried, s.purged, s.redriven = false, false, nil
		}
		s.taken = h
	case job.EventWaiting:
		s.taken = h
	case job.EventDeadLettered:
		s.buried, s.redriven = true, nil
	case job.EventLetterRedriven:
		s.redriven = h
	case job.EventLetterPurged:
		s.purged = true
	}
}

// ending is a result in short.
type ending struct {
	status job.Status
	class  string
	at     time.Time
	jobSeq uint64
	// unreadable tells that it is no result.
	unreadable bool
}

func ended(m *stored) *ending {
	end := &ending{at: m.time, jobSeq: jobSeq(m)}
	r, err := job.DecodeResult(m.data)
	if err != nil {
		end.unreadable = true
		return end
	}
	end.status = r.Status
	if r.Error != nil {
		end.class = r.Error.Code
	}
	return end
}

// fails reports whether a job with this end has a dead letter.
func (e *ending) fails() bool { return e.status == job.Failed || e.status == job.Expired }

// jobSeq is the sequence of the job message that a result belongs to.
func jobSeq(m *stored) uint64 {
	seq, _ := strconv.ParseUint(m.header.Get(job.HeaderJobSeq), 10, 64) // absent or foreign: 0
	return seq
}

// queuedJob is a job message in short.
type queuedJob struct {
	seq      uint64
	at       time.Time
	redriven bool
}

func queued(m *stored) *queuedJob {
	return &queuedJob{seq: m.seq, at: m.time, redriven: m.header.Get(job.HeaderRedrives) != ""}
}
