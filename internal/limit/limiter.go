package limit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

const (
	// forever stands for a wait whose end only another call can bring.
	forever = time.Duration(math.MaxInt64)
	// longest is the longest that a provider's word keeps every call away, and the
	// longest time for which a job is deferred. Words may be wrong or outdated: a
	// call each five minutes finds out. It is also what breakers are capped at.
	longest = 5 * time.Minute
	// firstOutput is how many tokens an answer is taken for until answers have told.
	firstOutput = 500
	// weight is the share of the latest call in what is learned of calls.
	weight = 0.03
)

// Limiter is a [backend.Limited] that makes calls wait for their turn. Use
// [New]. A Limiter is safe for concurrent use.
//
//	Complete - room? - yes ----------------------> reserve - call - correct
//	             \ no: wait in line, first come first served  /       |
//	              \           ^-- look again <-------- give back <----'
//	               too far away: refuse
//
// Whoever gives something back lets the first in line go on, and only the first
// keeps a timer, for the moment when there will be room for it.
type Limiter struct {
	inner  backend.Backend
	gate   backend.Gate   // inner, or nil
	health backend.Health // inner, or nil
	name   string
	cfg    Config

	active   atomic.Bool  // there is a limit to keep
	counting atomic.Bool  // tokens are limited, so that requests are read
	loose    atomic.Int64 // calls under way that began before there was a limit

	mu       sync.Mutex // guards everything below
	line     line
	inflight int
	requests meter
	tokens   meter
	blocked  time.Time // no call starts before
	last     time.Time // when the latest call started
	took     mean      // seconds of a call
	output   mean      // tokens of an answer
	input    mean      // tokens of a prompt, as a share of the estimate
	spent    mean      // tokens used, as a share of those reserved
	away     away
	first    time.Time // when the first call started
	heard    bool      // an answer has come
}

// New returns a limiter around inner. It fails when inner is nil or cfg holds a
// value that cannot be used, naming every such field.
func New(inner backend.Backend, cfg Config) (*Limiter, error) {
	if inner == nil {
		return nil, errors.New("limit: no backend to limit")
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Limiter{inner: inner, name: inner.Name(), cfg: cfg}
	l.gate, _ = inner.(backend.Gate)
	l.health, _ = inner.(backend.Health)
	now := time.Now()
	l.requests.own = newBucket(cfg.RPM, now)
	l.tokens.own = newBucket(cfg.TPM, now)
	l.requests.theirs.scouts, l.tokens.theirs.scouts = -1, -1
	l.active.Store(cfg != Config{})
	l.counting.Store(cfg.TPM > 0)
	return l, nil
}

// Name is the name of the limited backend.
func (l *Limiter) Name() string { return l.name }

// Ready implements [backend.Gate]: it is what the limited backend says, 0 if it
// says nothing. The limits are not part of it: see [Limiter.Room].
func (l *Limiter) Ready() time.Duration {
	if l.gate == nil {
		return 0
	}
	return l.gate.Ready()
}

// Failing implements [backend.Health]: it is what the limited backend says,
// false if it says nothing.
func (l *Limiter) Failing() bool { return l.health != nil && l.health.Failing() }

// Complete waits for its turn, first come first served, and then calls the
// limited backend. When ctx ends before that, it returns an *[backend.Error] of
// class [backend.Canceled] with the context's cause, and nothing was used. A
// call that the limited backend refuses uses nothing either, and no more does one
// that is refused because its turn is further away than req.MaxWait.
func (l *Limiter) Complete(ctx context.Context, req *backend.Request) (resp *backend.Response, err error) {
	if ctx.Err() != nil {
		return nil, l.canceled(ctx, req)
	}
	if !l.active.Load() {
		return l.free(ctx, req)
	}
	t := turn{price: l.estimate(req)}
	w, far := l.enter(&t, req.MaxWait)
	switch {
	case far > 0:
		return nil, l.noTurn(far, req)
	case w != nil:
		if !l.await(ctx, w) {
			return nil, l.canceled(ctx, req)
		}
		t = w.turn
	}
	panicked := true
	defer func() { l.settle(&t, resp, err, panicked) }()
	resp, err = l.inner.Complete(ctx, req)
	panicked = false
	return resp, err
}

// free makes a call of a backend of which no limit is known, and learns whether
// there is one.
func (l *Limiter) free(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	l.loose.Add(1)
	defer l.loose.Add(-1)
	start := time.Now()
	resp, err := l.inner.Complete(ctx, req)
	if err == nil && (resp == nil || resp.Left == (backend.Allowances{})) {
		return resp, nil
	}
	l.firstWord(req, start, resp, err)
	return resp, err
}

// firstWord learns from the end of a call of which no limit was known whether
// there is one.
func (l *Limiter) firstWord(req *backend.Request, start time.Time, resp *backend.Response, err error) {
	var out outcome
	out.read(resp, err, l.name)
	if out.left == (backend.Allowances{}) && (out.class != backend.RateLimit || out.retry <= 0) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := turn{price: l.estimate(req), start: start}
	t.cost = l.cost(t.price)
	l.learn(&t, &out, time.Now())
}

// canceled is the error of a call that did not get its turn.
func (l *Limiter) canceled(ctx context.Context, req *backend.Request) error {
	return &backend.Error{
		Class: backend.Canceled, Backend: l.name, Model: req.Model,
		Message: "given up while waiting for a turn", Cause: context.Cause(ctx),
	}
}

// noTurn is the error of a call that does not wait for its turn.
func (l *Limiter) noTurn(far time.Duration, req *backend.Request) error {
	return &backend.Error{
		Class: backend.CircuitOpen, Backend: l.name, Model: req.Model, RetryAfter: far,
		Message: fmt.Sprintf("its limits leave no room for %s", far.Round(time.Millisecond)), Cause: backend.ErrNoTurn,
	}
}

// price is what is known of a request before its call.
type price struct {
	backend.Estimate
	silent bool // its answer has no tokens
}

// estimate reads the request, if tokens matter.
func (l *Limiter) estimate(req *backend.Request) price {
	if !l.counting.Load() {
		return price{}
	}
	return price{Estimate: req.Estimate(), silent: req.URL == job.URLEmbeddings}
}

// cost is how many tokens are reserved for a request. l.mu is held.
func (l *Limiter) cost(p price) float64 {
	if !l.counting.Load() {
		return 0
	}
	tokens := float64(p.Input) * min(max(l.input.or(1), 0.25), 4)
	switch {
	case p.silent:
	case p.Output > 0:
		tokens += float64(p.Output)
	default:
		tokens += l.output.or(firstOutput)
	}
	return math.Ceil(max(tokens, 1))
}

// mean is a mean of values in which the latest weigh most.
type mean struct {
	value float64
	known bool
}

// add takes one more value.
func (m *mean) add(v float64) {
	if !m.known {
		m.value, m.known = v, true
		return
	}
	m.value += weight * (v - m.value)
}

// or is the mean, or v when nothing is known.
func (m *mean) or(v float64) float64 {
	if !m.known {
		return v
	}
	return m.value
}
