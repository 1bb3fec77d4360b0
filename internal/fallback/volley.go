package fallback

import (
	"context"
	"fmt"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// errRaceLost is the cause with which the calls end that another one beat. It
// wraps context.Canceled: breakers do not count them.
var errRaceLost = fmt.Errorf("another backend answered first: %w", context.Canceled)

// Panic is what a call that ran beside others panicked with. [Engine.Run] panics
// with it when the others have ended.
type Panic struct {
	// Value is the backend's own, Stack that of its goroutine.
	Value any
	Stack []byte
}

// volley is calls of several backends that run at once.
//
//	first call -> one more, at once or every stagger -> ... -> nobody left to start
//	     success: the others are cancelled, and their ends awaited
//	     failure: one more starts at once
//
// Everything but the calls themselves happens in the goroutine of the job.
type volley struct {
	run     *run
	racing  context.Context //nolint:containedctx // of every call of the volley
	lose    context.CancelCauseFunc
	stagger time.Duration
	race    race // ticks when the next call is to start

	won    *call
	final  *backend.Error // the job has ended
	broken *Panic
	over   time.Time // when the first of won and broken came
}

// volley makes calls that run at once, the first of the position found, until one
// succeeds, all have failed, or the job has ended. No call is left when it
// returns.
func (r *run) volley(ctx context.Context, found *look) (won *call, final *backend.Error) {
	racing, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	stagger := r.next().Stagger
	v := &volley{run: r, racing: racing, lose: lose, stagger: stagger, race: r.world.race(racing, stagger)}
	defer v.race.stop()
	for i := range r.sit.Chain {
		r.change(i).flown = false
	}
	r.round = r.sit.Chain[found.at].Rounds
	v.start(found)
	if v.stagger <= 0 {
		v.more()
	}
	for r.running > 0 {
		c := v.race.wait()
		if c == nil {
			v.more()
			continue
		}
		r.running--
		v.end(ctx, c)
	}
	if v.broken != nil {
		panic(v.broken) // in the goroutine of the job, whose slot recovers
	}
	return v.won, v.final
}

// start starts the call of the position found.
func (v *volley) start(found *look) {
	r := v.run
	r.change(found.at).flown = true
	r.running++
	c := r.newCall(found)
	v.race.start(c, func() { c.attempt(v.racing) })
}

// more starts the next call, or all of them where nothing is between them.
func (v *volley) more() {
	for v.won == nil && v.final == nil && v.broken == nil && v.startNext() {
		if v.stagger > 0 {
			v.race.reset(v.stagger)
			return
		}
	}
}

// startNext starts the call of the most wanted backend that can be called now
// and had none in this volley. It reports whether there was one.
func (v *volley) startNext() bool {
	r := v.run
	if r.running == 0 || r.running >= r.next().Fan || r.interrupted(v.racing) != nil {
		return false
	}
	found := r.look()
	if found.at < 0 || found.pause > 0 {
		return false
	}
	r.skip(found.passed, job.NextFallback)
	v.start(&found)
	return true
}

// end takes the end of a call.
func (v *volley) end(ctx context.Context, c *call) {
	r := v.run
	switch {
	case v.won != nil || v.broken != nil:
		v.lost(c)
	case c.panic != nil:
		v.broken, v.over = c.panic, r.world.now()
		v.lose(errRaceLost)
	case c.err == nil:
		v.won, v.over = c, r.world.now()
		v.lose(errRaceLost)
		r.succeed(c)
	default:
		if v.final = r.settle(ctx, c); v.final == nil {
			v.more()
		}
	}
}

// lost records a call that another one beat, whatever it made of that. What it
// cost is kept.
func (v *volley) lost(c *call) {
	if !c.left {
		return
	}
	err := &backend.Error{Class: backend.Canceled, Message: "another backend answered first"}
	if v.broken != nil {
		err.Message = "another call broke the job off"
	}
	switch {
	case c.err != nil && c.ended.Before(v.over): // it failed before it was told
		err = c.err
	case c.err != nil:
		err.Status, err.Usage, err.CostUSD, err.FirstToken = c.err.Status, c.err.Usage, c.err.CostUSD, c.err.FirstToken
	case c.resp != nil:
		err.Status, err.Usage, err.CostUSD, err.FirstToken = c.resp.Status, c.resp.Usage, c.resp.CostUSD, c.resp.FirstToken
	}
	v.run.close(c, err, job.NextStop)
}
