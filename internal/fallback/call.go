package fallback

import (
	"context"
	"errors"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// call is one call of one backend. It belongs to the goroutine that makes it
// until that is over.
type call struct {
	at    int
	since time.Time     // the wait for it began then
	wait  time.Duration // the longest for its turn, as in backend.Request

	entry *job.Attempt // nil until the call leaves
	ended time.Time
	resp  *backend.Response
	err   *backend.Error
	panic *Panic // what the backend panicked with
}

// attempt makes a call. Afterwards c.err is nil, or why it failed, and c.entry is
// nil unless it left.
func (r *run) attempt(ctx context.Context, c *call) {
	name := r.sit.Chain[c.at].Name
	req := r.task.Request
	req.MaxWait = c.wait
	req.Started = func(model string) { r.leave(c, name, model) }
	if chunk := r.task.Chunk; chunk != nil {
		req.Chunk = func(data []byte) {
			if c.entry != nil {
				chunk(c.entry.N, data)
			}
		}
	}
	resp, err := r.task.Plan.chain[c.at].Complete(ctx, &req)
	c.ended = r.world.over(c)
	if err != nil {
		c.err = backend.AsError(err, name)
		if c.err.Class != backend.CircuitOpen && ctx.Err() == nil {
			req.Started(c.err.Model) // it failed before it left: that must not be for nothing
		}
		return
	}
	req.Started(resp.Model) // an answer without a call, from a cache say
	c.resp = resp
	if r.sit.Policy.AcceptSchema && r.engine.accept != nil && !resp.Degraded {
		c.err = refused(r.engine.accept(&req, resp), name, resp)
	}
}

// refused is the failure of a call whose answer was not accepted: why, with what
// is known of the answer.
func refused(why *backend.Error, name string, resp *backend.Response) *backend.Error {
	if why == nil {
		return nil
	}
	err := *why
	err.Backend, err.Status, err.Model, err.RequestID, err.Body = name, resp.Status, resp.Model, resp.RequestID, resp.Body
	err.Usage, err.CostUSD, err.FirstToken = resp.Usage, resp.CostUSD, resp.FirstToken
	return &err
}

// refusalPause is how long a backend is left alone that refused a call without
// saying for how long.
const refusalPause = time.Second

// turnedAway takes notice of a call that did not leave: its backend refused it
// between the look and the call, for its breaker or for its limits.
func (r *run) turnedAway(c *call) {
	pause := refusalPause
	if c.err.RetryAfter > 0 {
		pause = max(c.err.RetryAfter, time.Millisecond)
	}
	until := &r.sit.Chain[c.at].closed
	if errors.Is(c.err, backend.ErrNoTurn) {
		until = &r.sit.Chain[c.at].full
	}
	*until = r.world.now().Add(pause)
}

// leave begins the entry of a call that leaves now.
func (r *run) leave(c *call, name, model string) {
	if c.entry != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	now := r.world.now()
	c.entry = &job.Attempt{
		N: r.n, Backend: name, Model: model, StartedAt: now, WaitMS: max(now.Sub(c.since), 0).Milliseconds(),
	}
	r.task.Observer.Started(*c.entry)
}

// succeed finishes the entry of a call whose answer is the job's.
func (r *run) succeed(c *call) {
	a := c.entry
	a.Outcome, a.Status = job.OutcomeSucceeded, c.resp.Status
	if c.resp.Model != "" {
		a.Model = c.resp.Model
	}
	spent(a, c.resp.Usage, c.resp.CostUSD, c.resp.FirstToken)
	r.engine.fit.fits(r.task, a.Backend)
	r.finish(c)
}

// close finishes the entry of a failed call.
func (r *run) close(c *call, err *backend.Error, next job.Next) {
	a := c.entry
	class, message := string(err.Class), err.Message
	a.Outcome, a.Status, a.Class, a.Error, a.Next = job.OutcomeFailed, err.Status, &class, &message, &next
	a.Code, a.Type = err.Code, err.Type
	if err.RetryAfter > 0 {
		a.RetryAfterMS = new((err.RetryAfter + time.Millisecond - 1).Milliseconds())
	}
	spent(a, err.Usage, err.CostUSD, err.FirstToken)
	r.finish(c)
}

// finish records the entry of a call that is over.
func (r *run) finish(c *call) {
	r.since, r.paused = c.ended, 0
	c.entry.DurationMS = c.ended.Sub(c.entry.StartedAt).Milliseconds()
	r.record(*c.entry)
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
