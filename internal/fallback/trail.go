package fallback

import (
	"context"
	"fmt"
	"slices"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// maxTrail caps the entries of a job's trail, or its max_attempts where that is
// more. Only a job that waits through a very long outage comes near it; then
// entries are dropped, those first that cost no attempt, and the numbering shows
// the gap. What is left still tells that the attempts are used up.
const maxTrail = 200

// attempt calls position i once. The error is nil or the failure; r.current is
// nil afterwards unless the call left.
func (r *run) attempt(ctx context.Context, i int) (*backend.Response, *backend.Error) {
	name := r.sit.Chain[i].Name
	req := r.task.Request
	r.current = nil
	req.Started = func(model string) {
		if r.current != nil {
			return
		}
		r.current = &job.Attempt{
			N: r.nextN(), Backend: name, Model: model, StartedAt: time.Now(),
			WaitMS: max(time.Since(r.since), 0).Milliseconds(),
		}
		r.paused = 0
		r.task.Observer.Started(*r.current)
	}
	resp, err := r.task.Plan.chain[i].Complete(ctx, &req)
	if err != nil {
		failure := backend.AsError(err, name)
		if failure.Class != backend.CircuitOpen && ctx.Err() == nil {
			req.Started(failure.Model) // it failed before it left: that must not be for nothing
		}
		return nil, failure
	}
	req.Started(resp.Model) // an answer without a call, from a cache say
	a := r.current
	a.Outcome, a.Status = job.OutcomeSucceeded, resp.Status
	if resp.Model != "" {
		a.Model = resp.Model
	}
	spent(a, resp.Usage, resp.CostUSD, resp.FirstToken)
	r.ending(a)
	return resp, nil
}

// close finishes the entry of a failed call.
func (r *run) close(err *backend.Error, next job.Next) {
	a := r.current
	class, message := string(err.Class), err.Message
	a.Outcome, a.Status, a.Class, a.Error, a.Next = job.OutcomeFailed, err.Status, &class, &message, &next
	if err.RetryAfter > 0 {
		a.RetryAfterMS = new((err.RetryAfter + time.Millisecond - 1).Milliseconds())
	}
	spent(a, err.Usage, err.CostUSD, err.FirstToken)
	r.ending(a)
}

// ending records the entry of a call that has just ended.
func (r *run) ending(a *job.Attempt) {
	r.since = time.Now()
	a.DurationMS = r.since.Sub(a.StartedAt).Milliseconds()
	r.record(*a)
}

// skip records every candidate that is passed over because it refuses calls,
// once until it is called. Nothing follows the failure with which a job stopped.
func (r *run) skip(refusing []refusal, next job.Next) {
	if n := len(r.trail); next == job.NextStop && n > 0 && counts(r.trail[n-1]) && stops(r.trail[n-1]) {
		return
	}
	for _, refused := range refusing {
		c := &r.sit.Chain[refused.at]
		if c.skipped {
			continue
		}
		c.skipped = true
		class := string(backend.CircuitOpen)
		message := fmt.Sprintf("the breaker is open for %s", refused.closed.Round(time.Millisecond))
		r.record(job.Attempt{
			N: r.nextN(), Backend: c.Name, Outcome: job.OutcomeSkipped, Class: &class, Error: &message,
			StartedAt: time.Now(), RetryAfterMS: new(refused.closed.Milliseconds()), Next: &next,
		})
	}
}

// record adds an entry to the trail and tells the observer.
func (r *run) record(a job.Attempt) {
	r.trail = append(r.trail, a)
	for len(r.trail) > max(maxTrail, r.task.Plan.maxAttempts()) {
		drop := 1 + slices.IndexFunc(r.trail[1:], func(a job.Attempt) bool { return !counts(a) })
		if drop == 0 || drop == len(r.trail)-1 {
			drop = len(r.trail) / 2
		}
		r.trail = slices.Delete(r.trail, drop, drop+1)
	}
	r.task.Observer.Ended(a)
}

// counts reports whether an entry is a failed call that may cost an attempt. One
// that was cancelled (the worker was stopped) costs none and says nothing about
// the backend, and no more does one that a crash made unknowable.
func counts(a job.Attempt) bool {
	cancelled := a.Class != nil && backend.Class(*a.Class) == backend.Canceled
	return a.Outcome == job.OutcomeFailed && (!cancelled || !stops(a))
}

// stops reports whether the job ended with an entry, or its worker did.
func stops(a job.Attempt) bool { return a.Next == nil || *a.Next == job.NextStop }

// nextN numbers the next entry.
func (r *run) nextN() int {
	n := 0
	for _, a := range r.trail {
		n = max(n, a.N)
	}
	return n + 1
}

// replay brings the run to where earlier deliveries left the job.
func (r *run) replay(trail []job.Attempt) {
	r.trail = slices.Clone(trail)
	for _, a := range r.trail {
		i := slices.IndexFunc(r.sit.Chain, func(c Candidate) bool { return c.Name == a.Backend })
		if i >= 0 {
			r.sit.Chain[i].skipped = a.Outcome == job.OutcomeSkipped
		}
		if a.CostUSD != nil {
			r.cost += *a.CostUSD
		}
		if counts(a) {
			r.replayFailure(i, a)
		}
	}
	for _, a := range slices.Backward(r.trail) {
		if a.Next == nil || *a.Next != job.NextWait {
			break
		}
		r.since = ended(a)
		if a.Outcome != job.OutcomeSkipped {
			break
		}
	}
}

// replayFailure takes one failed call into account.
func (r *run) replayFailure(i int, a job.Attempt) {
	err := &backend.Error{Backend: a.Backend, Status: a.Status, Model: a.Model}
	if a.Class != nil {
		err.Class = backend.Class(*a.Class)
	}
	if a.Error != nil {
		err.Message = *a.Error
	}
	if a.RetryAfterMS != nil {
		err.RetryAfter = time.Duration(*a.RetryAfterMS) * time.Millisecond
	}
	r.note(i, err, a.StartedAt, ended(a))
	if limit := r.task.Plan.maxAttempts(); a.Next != nil && *a.Next == job.NextWait && r.calls >= limit {
		r.calls = limit - 1 // see relieve: only an outage makes an exhausted job wait
	}
}

// ended is when the call of an entry ended.
func ended(a job.Attempt) time.Time {
	return a.StartedAt.Add(time.Duration(a.DurationMS) * time.Millisecond)
}

// spent notes what a call consumed.
func spent(a *job.Attempt, usage *job.Usage, cost *float64, firstToken time.Duration) {
	if usage != nil {
		a.InputTokens, a.OutputTokens = new(usage.InputTokens), new(usage.OutputTokens)
	}
	a.CostUSD = cost
	if firstToken > 0 {
		a.FirstTokenMS = new(firstToken.Milliseconds())
	}
}

// failures returns the first and the last failed call of a trail, cancelled ones
// left out, nil without one.
func failures(trail []job.Attempt) (first, last *job.Failure) {
	for _, a := range trail {
		if !counts(a) {
			continue
		}
		f := &job.Failure{Backend: a.Backend, Status: a.Status}
		if a.Class != nil {
			f.Class = *a.Class
		}
		if a.Error != nil {
			f.Message = *a.Error
		}
		if first == nil {
			first = f
		}
		last = f
	}
	return first, last
}
