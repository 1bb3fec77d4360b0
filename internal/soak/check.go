package soak

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"understudy/internal/job"
)

// crossing is how long a call may be on its way: nothing can stop one that left
// just before another worker stored the result.
const crossing = 250 * time.Millisecond

// Check judges the evidence.
func Check(e *Evidence) *Report {
	c := &checker{
		report: &Report{Accepted: int(e.Accepted), Calls: len(e.Calls), Dead: len(e.Dead), Unknown: make(map[Fate]int)},
		jobs:   make(map[string]*record), bySeq: make(map[uint64]*record), amnesia: e.Amnesia,
	}
	for _, m := range e.Events {
		c.event(m)
	}
	for _, m := range e.Jobs {
		c.queued(m)
	}
	c.results(e)
	for _, m := range e.Dead {
		c.letter(m)
	}
	for _, call := range e.Calls {
		r := c.of(call.Job)
		r.calls = append(r.calls, call)
	}
	c.accepted(e.Accepted)
	for _, id := range c.order {
		c.judge(c.jobs[id])
	}
	return c.report
}

// record is all that is known of one job.
type record struct {
	id       string
	seq      uint64 // of the job message, 0 when not known
	result   *job.Result
	stored   time.Time // when
	letters  int
	received int                  // how often a worker said it took the job
	attempts map[mark]job.Attempt // calls
	calls    []Call
}

// mark names a call: two workers may run one job for a while.
type mark struct {
	n  int
	at int64 // milliseconds
}

type checker struct {
	report *Report
	jobs   map[string]*record
	order  []string
	bySeq  map[uint64]*record // those with a result or in the queue

	amnesia []Span
}

func (c *checker) find(kind Kind, id, format string, args ...any) {
	c.report.Findings = append(c.report.Findings, Finding{Kind: kind, Job: id, Detail: fmt.Sprintf(format, args...)})
}

func (c *checker) of(id string) *record {
	r := c.jobs[id]
	if r == nil {
		r = &record{id: id, attempts: make(map[mark]job.Attempt)}
		c.jobs[id] = r
		c.order = append(c.order, id)
	}
	return r
}

// idOf is the last part of llm.<kind>.<queue>.<id>.
func idOf(subject string) string {
	parts := strings.SplitN(subject, ".", 4)
	if len(parts) < 4 {
		return subject
	}
	return parts[3]
}

func (c *checker) event(m Message) {
	e, err := job.DecodeEvent(m.Data)
	if err != nil {
		c.find(Unreadable, idOf(m.Subject), "event %d: %v", m.Seq, err)
		return
	}
	if e.Type == job.EventBreakerChanged {
		return
	}
	r := c.of(idOf(m.Subject))
	switch e.Type { //nolint:exhaustive // the others say nothing that is checked
	case job.EventReceived:
		var got job.Received
		if e.DataAs(&got) == nil {
			r.received++
			r.seq = cmp.Or(r.seq, got.JobSeq)
		}
	case job.EventAttemptStarted, job.EventAttemptSucceeded, job.EventAttemptFailed, job.EventAttemptUnknown:
		var a job.Attempt
		if e.DataAs(&a) == nil {
			r.attempt(a)
		}
	}
}

func (r *record) attempt(a job.Attempt) {
	if a.Outcome != job.OutcomeSkipped {
		r.attempts[mark{a.N, a.StartedAt.UnixMilli()}] = a
	}
}

func (c *checker) queued(m Message) {
	r := c.of(idOf(m.Subject))
	r.seq = m.Seq
	c.bySeq[m.Seq] = r
	c.find(Stuck, r.id, "it is still in the queue, as message %d", m.Seq)
}

func (c *checker) results(e *Evidence) {
	next := uint64(1)
	for _, m := range e.Results {
		if m.Seq > next {
			c.find(SecondResult, "not known", "results %d to %d were replaced or removed", next, m.Seq-1)
		}
		next = m.Seq + 1
		c.result(m)
	}
	if e.ResultsEnd >= next {
		c.find(SecondResult, "not known", "results %d to %d were replaced or removed", next, e.ResultsEnd)
	}
}

func (c *checker) result(m Message) {
	r := c.of(idOf(m.Subject))
	got, err := job.DecodeResult(m.Data)
	if err != nil {
		c.find(Unreadable, r.id, "result %d: %v", m.Seq, err)
		return
	}
	if other := c.bySeq[m.JobSeq]; r.result != nil || other != nil && other.result != nil {
		c.find(SecondResult, r.id, "result %d is not the only one", m.Seq)
		return
	}
	r.result, r.stored, r.seq = got, m.Time, m.JobSeq
	c.bySeq[m.JobSeq] = r
	for _, a := range got.Attempts {
		r.attempt(a)
	}
	switch got.Status {
	case job.Succeeded:
		c.report.Succeeded++
	case job.Failed, job.Expired:
		c.report.Failed++
	case job.Cancelled:
		c.report.Other++
	}
}

func (c *checker) letter(m Message) {
	r := c.of(idOf(m.Subject))
	switch {
	case r.result == nil || r.result.Status != job.Failed && r.result.Status != job.Expired:
		c.find(Unfounded, r.id, "there is a dead letter, but no failed result")
	case m.JobSeq != r.seq:
		c.find(Unfounded, r.id, "the dead letter is of job message %d, the result of %d", m.JobSeq, r.seq)
	default:
		r.letters++
	}
}

// accepted looks for the jobs by their numbers.
func (c *checker) accepted(last uint64) {
	names := make(map[uint64]string)
	for _, r := range c.jobs {
		names[r.seq] = r.id
	}
	for seq := uint64(1); seq <= last; seq++ {
		if c.bySeq[seq] == nil {
			c.find(Lost, cmp.Or(names[seq], "not known"), "job message %d has no result and is not in the queue", seq)
		}
	}
}

func (c *checker) judge(r *record) {
	told := len(r.attempts)
	c.report.Attempts += told
	slices.SortFunc(r.calls, func(a, b Call) int { return a.Time.Compare(b.Time) })
	again := r.received > 1 || r.result != nil && r.result.Deliveries > 1
	if !again && (len(r.calls) > told || answers(r.calls) > 1) && c.forgotten(r.calls) {
		again = true
		c.report.Forgotten++
	}
	switch n := len(r.calls); {
	case n > told && again:
		c.report.Untold += n - told
	case n > told:
		c.find(UnexplainedCall, r.id, "the provider saw %d calls, the workers tell of %d", n, told)
	}
	if r.result == nil {
		return // found by its number, if there ever was one
	}
	if r.seq == 0 || int(r.seq) > c.report.Accepted {
		c.find(Unfounded, r.id, "the result names job message %d, which was never accepted", r.seq)
	}
	if again {
		c.report.Redelivered++
	}
	if failed := r.result.Status == job.Failed || r.result.Status == job.Expired; failed && r.letters == 0 {
		c.find(NoDeadLetter, r.id, "it %s and has no dead letter", r.result.Status)
	}
	c.unknown(r, again)
	c.bought(r, again)
}

// bought looks at when a job was called, and how often it was answered.
func (c *checker) bought(r *record, again bool) {
	for i := range r.calls {
		call := &r.calls[i]
		switch late := call.Time.Sub(r.stored); {
		case late > crossing:
			c.find(CallAfterResult, r.id, "called %s after its result was stored", late.Round(time.Millisecond))
		case late > 0:
			c.report.Crossed++
		}
	}
	good := answers(r.calls)
	if good < 2 {
		return
	}
	c.report.Again += good - 1
	if !again {
		c.find(PaidTwice, r.id, "%d good answers, and it was never handed out again", good)
	}
}

// answers counts the good answers among calls.
func answers(calls []Call) int {
	good := 0
	for i := range calls {
		if calls[i].answered() {
			good++
		}
	}
	return good
}

// forgotten reports whether the server may have handed out a job anew without
// knowing that it did: one call began before it had forgotten, the last one after.
func (c *checker) forgotten(calls []Call) bool {
	first, last := calls[0].Time, calls[len(calls)-1].Time
	return slices.ContainsFunc(c.amnesia, func(s Span) bool { return first.Before(s.To) && last.After(s.From) })
}

// unknown explains the unknown outcomes of a job's trail.
func (c *checker) unknown(r *record, again bool) {
	trail := make([]job.Attempt, 0, len(r.result.Attempts))
	for _, a := range r.result.Attempts {
		if a.Outcome != job.OutcomeSkipped {
			trail = append(trail, a)
		}
	}
	slices.SortFunc(trail, func(a, b job.Attempt) int { return a.StartedAt.Compare(b.StartedAt) })
	for i, a := range trail {
		if a.Outcome != job.OutcomeUnknown {
			continue
		}
		if !again {
			c.find(UnexplainedUnknown, r.id, "attempt %d is unknown, and the job was never handed out again", a.N)
		}
		end := time.Time{} // of what can be this call: the start of the next
		if i+1 < len(trail) {
			end = trail[i+1].StartedAt
		}
		c.report.Unknown[fate(r.calls, a.StartedAt, end)]++
	}
}

// fate is what became of the call that began at a moment.
func fate(calls []Call, from, to time.Time) Fate {
	for i := range calls {
		call := &calls[i]
		if call.Time.Before(from.Truncate(time.Millisecond)) || !to.IsZero() && !call.Time.Before(to) {
			continue
		}
		switch {
		case call.answered():
			return Answered
		case call.Aborted:
			return Cut
		default:
			return Failed
		}
	}
	return NotMade
}
