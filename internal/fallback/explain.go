package fallback

import (
	"context"
	"slices"
	"time"

	"understudy/internal/backend"
)

// Answer is how a call is assumed to end.
type Answer struct {
	// Err is the failure; nil means that the backend answers.
	Err *backend.Error
	// Model is the model that is asked.
	Model string
	// Takes is how long the call takes.
	Takes time.Duration
	// Refuses is for how long the backend refuses calls afterwards.
	Refuses time.Duration
}

// Explanation is the path that a job would take.
type Explanation struct {
	// Outcome has the trail; there are no bodies in it. Its times count from Start.
	Outcome Outcome
	Start   time.Time
	// Waits are the hand-backs on the way.
	Waits []Wait
}

// maxWaits bounds the hand-backs of an explanation: a job whose backends are
// never back would wait for ever.
const maxWaits = 5

// Explain carries out a plan without a call and without waiting. answer says how
// the nth call of a backend ends, n counting from 1. At the start every backend
// takes calls; no limit is reached, and nothing is remembered. A job that would
// still wait after 5 hand-backs is left waiting.
func (e *Engine) Explain(ctx context.Context, t Task, answer func(name string, n int) Answer) Explanation {
	alone := *e
	alone.fit, alone.accept = newFit(), nil
	w := &pretended{clock: time.Now(), deadline: t.Deadline}
	plan, pretend := *t.Plan, *t.Plan.lineup
	pretend.chain = slices.Clone(pretend.chain)
	for i, c := range pretend.candidates {
		pretend.chain[i] = &pretender{name: c.Name, degraded: c.Degraded, world: w, answer: answer}
	}
	plan.lineup = &pretend
	t.Plan = &plan
	x := Explanation{Start: w.clock}
	for {
		r, err := newRun(&alone, &t, w)
		if err != nil {
			x.Outcome = Outcome{Err: &backend.Error{Class: backend.InvalidJob, Message: err.Error(), Cause: err}}
			return x
		}
		x.Outcome = *r.loop(ctx)
		if x.Outcome.Wait == nil || len(x.Waits) == maxWaits {
			return x
		}
		x.Waits = append(x.Waits, *x.Outcome.Wait)
		w.clock, t.Trail = x.Outcome.Wait.Until, x.Outcome.Trail
	}
}

// pretender is a backend that is not called.
type pretender struct {
	name     string
	degraded bool
	world    *pretended
	answer   func(string, int) Answer
	calls    int
	failing  bool
	refuses  time.Time // until then
}

// Ready implements [backend.Gate].
func (p *pretender) Ready() time.Duration { return max(p.refuses.Sub(p.world.clock), 0) }

// Failing implements [backend.Health].
func (p *pretender) Failing() bool { return p.failing }

// Name implements [backend.Backend].
func (p *pretender) Name() string { return p.name }

// Degraded implements [backend.Degrader].
func (p *pretender) Degraded() bool { return p.degraded }

// Complete implements [backend.Backend].
func (p *pretender) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	p.calls++
	a := p.answer(p.name, p.calls)
	req.Started(a.Model)
	p.world.takes = a.Takes
	if end := p.world.deadline; !end.IsZero() && p.world.clock.Add(a.Takes).After(end) {
		return nil, &backend.Error{Class: backend.Expired, Message: "the job's time is up"}
	}
	p.refuses = p.world.clock.Add(a.Takes + a.Refuses)
	p.failing = a.Err != nil && a.Err.Class.Effect() == backend.Count
	if a.Err != nil {
		return nil, a.Err
	}
	return &backend.Response{Status: 200, Model: a.Model, Degraded: p.degraded}, nil
}

// pretended is a world in which nothing takes time.
type pretended struct {
	clock    time.Time
	deadline time.Time
	takes    time.Duration // the call that was just made
	racing   bool
}

func (w *pretended) now() time.Time { return w.clock }

func (w *pretended) sleep(_ context.Context, d time.Duration) bool {
	w.clock = w.clock.Add(d)
	return true
}

func (w *pretended) interrupted(context.Context) error {
	if w.deadline.IsZero() || w.clock.Before(w.deadline) {
		return nil
	}
	return ErrBudget
}

// over is the end of a call, or of the job's time.
func (w *pretended) over(*call) time.Time {
	end := w.clock.Add(w.takes)
	if !w.deadline.IsZero() && end.After(w.deadline) {
		end = w.deadline
	}
	if !w.racing {
		w.clock = end
	}
	return end
}

func (w *pretended) race(ctx context.Context, pause time.Duration) race {
	w.racing = true
	return &pretendedRace{world: w, ctx: ctx, tick: w.clock.Add(pause)}
}

// pretendedRace moves the clock from one end of a call to the next.
type pretendedRace struct {
	world *pretended
	ctx   context.Context //nolint:containedctx // of its calls, as in the real world
	calls []*call
	tick  time.Time // zero when it has passed
}

func (p *pretendedRace) start(c *call, attempt func()) {
	attempt()
	p.calls = append(p.calls, c)
}

// wait is asked only while there are calls. The end of one comes before the tick
// of the same moment, as it lets the next call start just so.
func (p *pretendedRace) wait() *call {
	i := 0
	for j, c := range p.calls {
		if c.ended.Before(p.calls[i].ended) {
			i = j
		}
	}
	c := p.calls[i]
	if p.ctx.Err() != nil { // it would have gone on
		p.calls = slices.Delete(p.calls, i, i+1)
		c.resp, c.err, c.ended = nil, &backend.Error{Class: backend.Canceled}, p.world.clock
		return c
	}
	if !p.tick.IsZero() && p.tick.Before(c.ended) {
		p.world.clock, p.tick = p.tick, time.Time{}
		return nil
	}
	p.calls = slices.Delete(p.calls, i, i+1)
	if c.ended.After(p.world.clock) {
		p.world.clock = c.ended
	}
	return c
}

func (p *pretendedRace) reset(pause time.Duration) { p.tick = p.world.clock.Add(pause) }

func (p *pretendedRace) stop() { p.world.racing = false }
