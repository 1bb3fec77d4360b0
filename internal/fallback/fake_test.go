package fallback_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

const (
	ms     = time.Millisecond
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
)

// step is what a scripted backend does with one call.
type step struct {
	class  backend.Class // empty: it answers
	status int
	takes  time.Duration
	hint   time.Duration
	opens  time.Duration // afterwards it refuses calls for so long
	cost   float64
	refuse bool // no call: its breaker opened just before
	early  bool // it fails before the call leaves
	deaf   bool // it does not heed the context
	boom   any  // it panics instead
	says   string
	code   string
	kind   string
	text   string // instead of the scripted message
	limit  int64  // how many tokens it takes, and was asked for
	needs  int64
}

func answers(takes time.Duration) step { return step{takes: takes} }

func fails(class backend.Class, takes time.Duration) step { return step{class: class, takes: takes} }

func (s step) http(status int) step         { s.status = status; return s }
func (s step) hinting(d time.Duration) step { s.hint = d; return s }
func (s step) opening(d time.Duration) step { s.opens = d; return s }
func (s step) costing(usd float64) step     { s.cost = usd; return s }
func refuses(retryAfter time.Duration) step { return step{refuse: true, hint: retryAfter} }

// times is a step n times.
func times(n int, s step) []step { return slices.Repeat([]step{s}, n) }

// fake is a backend that follows a script; when that is over, the last step
// repeats. It is a Gate only inside a gated.
type fake struct {
	name   string
	script []step
	stage  *stage
	made   int // calls that left
	asked  int
	open   time.Time
	closed time.Duration // closed at the start for so long
}

// gated is a fake that tells beforehand when it refuses calls.
type gated struct{ *fake }

// Ready implements backend.Gate.
func (g gated) Ready() time.Duration { return max(time.Until(g.open), 0) }

// rules is a fake that answers without a model.
type rules struct{ *fake }

// Degraded implements backend.Degrader.
func (rules) Degraded() bool { return true }

// Complete implements backend.Backend.
func (r rules) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	resp, err := r.fake.Complete(ctx, req)
	if resp != nil {
		resp.Degraded = true
	}
	return resp, err
}

// shutRules is a rules that can refuse calls.
type shutRules struct{ rules }

// Ready implements backend.Gate.
func (g shutRules) Ready() time.Duration { return max(time.Until(g.open), 0) }

func (f *fake) Name() string { return f.name }

func (f *fake) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	s := f.stage.enters(f)
	defer f.stage.leaves()
	model := f.name + "-model"
	failure := &backend.Error{Class: s.class, Backend: f.name, Model: model, Status: s.status, RetryAfter: s.hint, Message: "scripted " + string(s.class)}
	failure.Code, failure.Type, failure.Limit, failure.Requested = s.code, s.kind, s.limit, s.needs
	if s.text != "" {
		failure.Message = s.text
	}
	if s.cost > 0 {
		failure.CostUSD, failure.Usage = new(s.cost), &job.Usage{InputTokens: 3, OutputTokens: 5}
	}
	if s.refuse || time.Now().Before(f.open) {
		failure.Class = backend.CircuitOpen
		if !s.refuse {
			failure.RetryAfter = time.Until(f.open)
		}
		return nil, failure
	}
	if s.early {
		return nil, failure
	}
	f.stage.called(f)
	req.Started(model)
	if s.says != "" {
		req.Chunk([]byte(s.says))
	}
	if s.takes > 0 {
		timer := time.NewTimer(s.takes)
		defer timer.Stop()
		done := ctx.Done()
		if s.deaf {
			done = nil
		}
		select {
		case <-timer.C:
		case <-done:
			f.stage.unasked(f) // as if it had not happened
			failure.Class, failure.Message, failure.Cause = backend.Connection, "cut", context.Cause(ctx)
			return nil, failure
		}
	}
	if s.boom != nil {
		panic(s.boom)
	}
	f.stage.mu.Lock()
	defer f.stage.mu.Unlock()
	f.open = time.Now().Add(s.opens)
	if s.class != "" {
		return nil, failure
	}
	return &backend.Response{
		Status: 200, Model: model, Usage: failure.Usage, CostUSD: failure.CostUSD, FirstToken: s.takes / 2,
		Body: []byte(`"` + f.name + `"`),
	}, nil
}

// stage is one job among scripted backends.
type stage struct {
	t       testing.TB
	began   time.Time
	engine  *fallback.Engine
	plan    *fallback.Plan
	renew   func() // another worker's engine and plan
	request backend.Request
	chunk   func(n int, data []byte)
	heard   []string
	hearing atomic.Bool
	before  func(a job.Attempt) // called when an entry ends, first
	races   bool                // calls may run at once

	mu      sync.Mutex // guards what fakes that run at once share
	calls   []string
	running int
	most    int // calls at once
}

// enters begins a call of f and returns its step.
func (st *stage) enters(f *fake) (s step) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.running++
	if st.most = max(st.most, st.running); st.running > 1 && !st.races {
		st.t.Error("two calls at once")
	}
	if len(f.script) > 0 {
		s = f.script[min(f.asked, len(f.script)-1)]
	}
	f.asked++
	return s
}

func (st *stage) leaves() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.running--
}

func (st *stage) called(f *fake) {
	st.mu.Lock()
	defer st.mu.Unlock()
	f.made++
	st.calls = append(st.calls, fmt.Sprintf("%s@%s", f.name, time.Since(st.began)))
}

func (st *stage) unasked(f *fake) {
	st.mu.Lock()
	defer st.mu.Unlock()
	f.asked--
}

// hears requires that the observer is called by one goroutine at a time.
func (st *stage) hears() func() {
	if !st.hearing.CompareAndSwap(false, true) {
		st.t.Error("the observer is called twice at once")
	}
	return func() { st.hearing.Store(false) }
}

// shape says how a stage is set up.
type shape struct {
	backends []backend.Backend
	policy   func(p *fallback.Policy) // on top of the default policy without jitter
	hold     time.Duration
	retries  map[string]int
	accept   func(*backend.Request, *backend.Response) *backend.Error
	job      job.Job
}

// newStage builds the engine and the plan, and starts the clock.
func newStage(tb testing.TB, s shape) *stage {
	tb.Helper()
	st := &stage{t: tb, began: time.Now()}
	policy := fallback.DefaultPolicy()
	policy.Jitter = false
	if s.policy != nil {
		s.policy(&policy)
	}
	st.races = policy.Strategy == fallback.Parallel
	st.request = backend.Request{JobID: "job-1", Body: []byte(`{}`)}
	for _, b := range s.backends {
		f := inner(b)
		f.stage = st
		if f.closed > 0 {
			f.open = st.began.Add(f.closed)
		}
		if l, ok := b.(*limited); ok {
			l.free = st.began.Add(l.full)
		}
	}
	st.renew = func() {
		var err error
		st.engine, err = fallback.New(fallback.Config{
			Backends: s.backends, Hold: s.hold, Retries: s.retries, Accept: s.accept,
			Routes: []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
		})
		require.NoError(tb, err)
		st.plan, err = st.engine.Plan(&s.job)
		require.NoError(tb, err)
	}
	st.renew()
	return st
}

func inner(b backend.Backend) *fake {
	switch b := b.(type) {
	case *fake:
		return b
	case gated:
		return b.fake
	case rules:
		return b.fake
	case shutRules:
		return b.fake
	case *limited:
		return b.fake
	case *watched:
		return b.fake
	case moody:
		return b.fake
	}
	panic(fmt.Sprintf("%T", b))
}

// Started implements fallback.Observer.
func (st *stage) Started(a job.Attempt) func() {
	defer st.hears()()
	st.heard = append(st.heard, fmt.Sprintf("%d started %s", a.N, a.Backend))
	if a.Outcome != "" || a.Next != nil {
		st.t.Errorf("an attempt that starts has ended: %+v", a)
	}
	return nil
}

// Ended implements fallback.Observer.
func (st *stage) Ended(a job.Attempt) {
	defer st.hears()()
	st.heard = append(st.heard, fmt.Sprintf("%d %s %s", a.N, a.Outcome, a.Backend))
	if (a.Next == nil) != (a.Outcome == job.OutcomeSucceeded) {
		st.t.Errorf("what follows is not told: %+v", a)
	}
	if st.before != nil {
		st.before(a)
	}
}

// once runs the job until it ends or is handed back.
func (st *stage) once(ctx context.Context, trail []job.Attempt, deadline time.Time) fallback.Outcome {
	out := st.engine.Run(ctx, fallback.Task{
		Plan: st.plan, Trail: trail, Deadline: deadline, Observer: st, Chunk: st.chunk, Request: st.request,
	})
	ends := 0
	for _, set := range []bool{out.Response != nil, out.Err != nil, out.Wait != nil} {
		if set {
			ends++
		}
	}
	require.Equal(st.t, 1, ends, "exactly one of Response, Err and Wait: %+v", out)
	return out
}

// run runs the job to its end, giving the trail back after every hand-back, as
// JSON, at the moment asked for. waits are those moments.
func (st *stage) run(ctx context.Context, deadline time.Time) (out fallback.Outcome, waits []string) {
	for {
		out = st.once(ctx, roundTrip(st.t, out.Trail), deadline)
		if out.Wait == nil {
			return out, waits
		}
		waits = append(waits, time.Until(out.Wait.Until).String())
		if len(waits) > 1000 {
			require.FailNow(st.t, "the job waits for ever")
		}
		time.Sleep(time.Until(out.Wait.Until))
	}
}

// roundTrip is the trail as it comes back from the events.
func roundTrip(tb testing.TB, trail []job.Attempt) (back []job.Attempt) {
	tb.Helper()
	data, err := json.Marshal(trail)
	require.NoError(tb, err)
	require.NoError(tb, json.Unmarshal(data, &back))
	return back
}

// lines is a trail, a line an entry: backend, class or outcome, and what followed.
func lines(trail []job.Attempt) []string {
	out := make([]string, 0, len(trail))
	for _, a := range trail {
		what := string(a.Outcome)
		if a.Outcome == job.OutcomeFailed && a.Class != nil {
			what = *a.Class
		}
		line := a.Backend + " " + what
		if a.Next != nil {
			line += " " + string(*a.Next)
		}
		out = append(out, line)
	}
	return out
}

// end is how a job ended, in a word.
func end(out fallback.Outcome) string {
	switch {
	case out.Response != nil:
		return out.Backend
	case out.Err != nil:
		return strings.TrimSpace("!" + string(out.Err.Class) + " " + out.Err.Backend)
	default:
		return "waits"
	}
}
