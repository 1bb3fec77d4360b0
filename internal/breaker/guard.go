package breaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"understudy/internal/backend"
)

const (
	// recheck is what a call is told to wait for while the probes of a half-open
	// breaker are out: when they come back is not known. Most calls take longer,
	// and a look costs nothing.
	recheck = 100 * time.Millisecond
	// minHold is the shortest open time, so that the tick of gobreaker's own
	// timeout has always passed when ours has.
	minHold = time.Millisecond
)

// What gobreaker is told of a call that did not succeed.
var (
	errFailed   = errors.New("failed")
	errExcluded = errors.New("excluded")
)

// verdict is what the last settled call, or the last word by hand, asks for:
// how long to stay open if the breaker opens, and whether it opens at once.
type verdict struct {
	class backend.Class
	hold  time.Duration
	trip  bool
}

// Guard is a [backend.Gate] that keeps calls from a failing backend. Use [New].
// A Guard is safe for concurrent use; no method blocks but Complete, which
// takes as long as the inner call.
//
//	closed ----- Failures in a row, or one that opens at once -----> open
//	closed <---- Probes successes in a row ---- half-open <- time -- open
//	                                            half-open - failure -> open
//
// A result counts only in the state in which its call began. A later one is
// dropped, except that a failure which opens at once may lengthen the time of
// an open breaker. Nothing shortens it but [Guard.Open], [Guard.Reset] and a
// peer's closing.
type Guard struct {
	inner    backend.Backend
	name     string
	cfg      Config
	onChange func(Change)

	mu         sync.Mutex // guards everything below, and every call of circuit
	circuit    *gobreaker.TwoStepCircuitBreaker[struct{}]
	state      State
	generation uint64    // counts changes of state, and resets
	until      time.Time // the end of the open time, when state is Open
	unhinted   int       // rate limits without a hint since the last success
	last       verdict   // for gobreaker's callbacks
	peer       bool      // a peer's change is being applied
	pending    []Change  // not told yet
	telling    bool      // somebody is telling pending
}

// New returns a closed guard around inner. It fails when inner is nil or cfg
// holds a value that cannot be used, naming every such field.
//
// onChange may be nil. It is called after each change of state, in order, one
// call at a time, outside every lock, on the goroutine of whichever caller came
// upon the change. It may call the guard, and must neither block nor panic.
func New(inner backend.Backend, cfg Config, onChange func(Change)) (*Guard, error) {
	if inner == nil {
		return nil, errors.New("breaker: no backend to guard")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Guard{inner: inner, name: inner.Name(), cfg: cfg, onChange: onChange, state: Closed}
	g.circuit = g.newCircuit()
	return g, nil
}

// newCircuit returns a closed gobreaker. Its own timeout is one tick: it is not
// asked anything before g.until, and then turns half-open. Its callbacks run
// under its lock and ours and touch nothing but our fields.
func (g *Guard) newCircuit() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        g.name,
		MaxRequests: uint32(g.cfg.Probes),
		Timeout:     time.Nanosecond,
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			return g.last.trip || counts.ConsecutiveFailures >= uint32(g.cfg.Failures)
		},
		IsExcluded:    func(err error) bool { return errors.Is(err, errExcluded) },
		OnStateChange: func(_ string, _, to gobreaker.State) { g.turn(State(to.String())) },
	})
}

// Name is the name of the guarded backend.
func (g *Guard) Name() string { return g.name }

// Complete calls the guarded backend if the breaker admits the call. Otherwise
// it returns at once an *[backend.Error] of class [backend.CircuitOpen] whose
// RetryAfter is the time until a call would be admitted, exact while the breaker
// is open, a tenth of a second while it is half-open and all its probes are out.
//
// Every admitted call is settled once, whatever becomes of it: a panic counts
// as a failure and goes on, a call that says nothing about the backend (see
// [backend.Ignore]) gives its place as a probe to the next.
func (g *Guard) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	done, generation, wait := g.admit()
	if wait > 0 {
		return nil, g.refusal(req, wait)
	}
	var failure *backend.Error
	returned := false
	defer func() {
		if !returned { // inner panics
			failure = &backend.Error{Class: backend.ServerError, Backend: g.name}
		}
		g.settle(done, generation, failure)
	}()

	resp, err := g.inner.Complete(ctx, req)
	returned = true
	if err == nil {
		return resp, nil
	}
	failure = backend.AsError(err, g.name)
	return resp, failure
}

// refusal is the error of a call that is not admitted.
func (g *Guard) refusal(req *backend.Request, wait time.Duration) *backend.Error {
	return &backend.Error{
		Class: backend.CircuitOpen, Backend: g.name, Model: req.Model, RetryAfter: wait,
		Message: fmt.Sprintf("breaker open, next probe in %s", (wait + time.Millisecond - 1).Truncate(time.Millisecond)),
	}
}

// Ready returns how long until a call would be admitted, 0 for now, as a hint.
// If the guarded backend is a [backend.Gate] too, the longer wait counts.
func (g *Guard) Ready() time.Duration {
	g.mu.Lock()
	wait := g.wait()
	g.unlock()
	if gate, ok := g.inner.(backend.Gate); ok {
		wait = max(wait, gate.Ready())
	}
	return wait
}

// State is the state a call would meet now. As nothing runs in the background,
// it may be the one that turns an open breaker half-open.
func (g *Guard) State() State {
	g.mu.Lock()
	defer g.unlock()
	g.wait()
	return g.state
}

// Failing implements [backend.Health]: it reports whether counted failures
// opened the breaker or, while it is closed, whether the latest call that
// counted failed. One opened for a rate limit or a bad key is not failing.
func (g *Guard) Failing() bool {
	g.mu.Lock()
	defer g.unlock()
	if g.state == Closed {
		return g.circuit.Counts().ConsecutiveFailures > 0
	}
	return g.last.class.Effect() == backend.Count
}

// admit takes a place for one call, or returns how long to wait for one.
func (g *Guard) admit() (done func(error), generation uint64, wait time.Duration) {
	g.mu.Lock()
	defer g.unlock()
	if wait = g.wait(); wait > 0 {
		return nil, 0, wait
	}
	done, err := g.circuit.Allow()
	if err != nil {
		return nil, 0, recheck // not reached: wait has asked the same circuit
	}
	return done, g.generation, 0
}

// wait turns an open breaker half-open when its time is over, and returns how
// long until a call would be admitted. g.mu is held.
func (g *Guard) wait() time.Duration {
	if g.state == Open {
		if left := time.Until(g.until); left > 0 {
			return left
		}
		g.circuit.State() // calls turn
	}
	if g.state == HalfOpen {
		counts := g.circuit.Counts()
		if int64(counts.Requests)-int64(counts.TotalExclusions) >= int64(g.cfg.Probes) {
			return recheck
		}
	}
	return 0
}

// settle takes the result of one admitted call: failure is nil for a success.
func (g *Guard) settle(done func(error), generation uint64, failure *backend.Error) {
	g.mu.Lock()
	defer g.unlock()
	if generation != g.generation {
		g.settleStale(failure)
		return
	}
	if failure == nil {
		g.unhinted = 0
		done(nil)
		return
	}
	switch failure.Class.Effect() {
	case backend.Ignore:
		done(errExcluded)
		return
	case backend.Count:
		g.last = verdict{class: failure.Class, hold: g.cfg.Cooldown}
	case backend.Trip:
		g.last = verdict{class: failure.Class, hold: g.hold(failure), trip: true}
	case backend.Cool:
		if failure.RetryAfter <= 0 {
			g.unhinted++
		}
		g.last = verdict{class: failure.Class, hold: g.hold(failure), trip: true}
	}
	done(errFailed)
}

// settleStale takes the result of a call that began before the last change of
// state. It tells nothing about now, except that a failure which opens at once
// may lengthen the time that is left. g.mu is held.
func (g *Guard) settleStale(failure *backend.Error) {
	if failure == nil {
		return
	}
	switch failure.Class.Effect() {
	case backend.Trip, backend.Cool:
		g.lengthen(g.hold(failure))
	case backend.Count, backend.Ignore:
	}
}

// lengthen keeps an open breaker open for hold from now, if that is later than
// it would be anyway. g.mu is held.
func (g *Guard) lengthen(hold time.Duration) {
	now := time.Now()
	until := now.Add(hold)
	if g.state == Open && now.Before(g.until) && until.After(g.until) {
		g.until = until
	}
}

// hold is how long the breaker opens for a failure that opens it at once. g.mu
// is held.
func (g *Guard) hold(failure *backend.Error) time.Duration {
	switch {
	case failure.RetryAfter > 0:
		return min(failure.RetryAfter, g.cfg.MaxCooldown)
	case failure.Class.Effect() != backend.Cool:
		return g.cfg.Cooldown
	}
	hold := FirstCool
	for range g.unhinted - 1 {
		if hold > g.cfg.MaxCooldown/2 {
			return g.cfg.MaxCooldown
		}
		hold *= 2
	}
	return min(hold, g.cfg.MaxCooldown)
}
