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
	run   *run
	at    int
	name  string
	since time.Time // the wait for it began then
	req   backend.Request

	left  bool // it has left: entry is its own
	entry job.Attempt
	ended time.Time
	resp  *backend.Response
	err   *backend.Error
	panic *Panic // what the backend panicked with
}

// newCall prepares the call of the position found.
func (r *run) newCall(found *look) *call {
	c := &call{run: r, at: found.at, name: r.sit.Chain[found.at].Name, since: r.since, req: r.task.Request}
	c.req.MaxWait = found.wait
	c.req.Started = c.leave
	if r.task.Chunk != nil {
		c.req.Chunk = c.chunk
	}
	return c
}

// chunk passes on what a streamed answer says.
func (c *call) chunk(data []byte) {
	if c.left {
		c.run.task.Chunk(c.entry.N, data)
	}
}

// attempt makes the call. Afterwards c.err is nil, or why it failed, and c.left
// tells whether it left.
func (c *call) attempt(ctx context.Context) {
	r := c.run
	resp, err := r.task.Plan.chain[c.at].Complete(ctx, &c.req)
	c.ended = r.world.over(c)
	if err != nil {
		c.err = backend.AsError(err, c.name)
		if c.err.Class != backend.CircuitOpen && ctx.Err() == nil {
			c.leave(c.err.Model) // it failed before it left: that must not be for nothing
		}
		return
	}
	c.leave(resp.Model) // an answer without a call, from a cache say
	c.resp = resp
	if r.sit.Policy.AcceptSchema && r.engine.accept != nil && !resp.Degraded {
		c.err = refused(r.engine.accept(&c.req, resp), c.name, resp)
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
	at, until := r.change(c.at), r.world.now().Add(pause)
	if errors.Is(c.err, backend.ErrNoTurn) {
		at.full = until
	} else {
		at.closed = until
	}
}

// leave begins the entry of the call, which leaves now.
func (c *call) leave(model string) {
	if c.left {
		return
	}
	if hold := c.begin(model); hold != nil {
		hold()
	}
}

// begin begins the entry of the call, and returns what is to be done before it leaves.
func (c *call) begin(model string) (hold func()) {
	r := c.run
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	now := r.world.now()
	a := &c.entry
	a.N, a.Backend, a.Model, a.StartedAt, a.WaitMS = r.n, c.name, model, now, max(now.Sub(c.since), 0).Milliseconds()
	c.left = true
	return r.task.Observer.Started(*a)
}

// succeed finishes the entry of a call whose answer is the job's.
func (r *run) succeed(c *call) {
	a := &c.entry
	a.Outcome, a.Status = job.OutcomeSucceeded, c.resp.Status
	if c.resp.Model != "" {
		a.Model = c.resp.Model
	}
	spent(a, c.resp.Usage, c.resp.CostUSD, c.resp.FirstToken)
	if f := r.engine.fit; f.any.Load() {
		f.fits(&r.task.Request, a.Backend)
	}
	r.finish(c)
}

// close finishes the entry of a failed call.
func (r *run) close(c *call, err *backend.Error, next job.Next) {
	a := &c.entry
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
	r.record(&c.entry)
}

// spent notes what a call consumed.
func spent(a *job.Attempt, usage *job.Usage, cost *float64, firstToken time.Duration) {
	if usage != nil {
		counts := &[2]int64{usage.InputTokens, usage.OutputTokens}
		a.InputTokens, a.OutputTokens = &counts[0], &counts[1]
	}
	a.CostUSD = cost
	if firstToken > 0 {
		a.FirstTokenMS = new(firstToken.Milliseconds())
	}
}
