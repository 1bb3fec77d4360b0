package breaker_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

// fake is the guarded backend: do decides each call, a nil do succeeds.
type fake struct {
	calls atomic.Int64
	do    func(ctx context.Context) (*backend.Response, error)
}

func (f *fake) Name() string { return "vllm" }

func (f *fake) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	f.calls.Add(1)
	if req.Started != nil {
		req.Started("m")
	}
	if f.do == nil {
		return &backend.Response{Status: 200}, nil
	}
	return f.do(ctx)
}

// limited is a fake behind a limiter.
type limited struct {
	fake
	ready time.Duration
}

func (l *limited) Ready() time.Duration { return l.ready }

// bench is a guard around a fake whose next results a test chooses.
type bench struct {
	*breaker.Guard
	t     *testing.T
	inner *fake

	mu      sync.Mutex
	changes []breaker.Change
}

func newBench(t *testing.T, cfg breaker.Config) *bench {
	t.Helper()
	b := &bench{t: t, inner: &fake{}}
	g, err := breaker.New(b.inner, cfg, func(c breaker.Change) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changes = append(b.changes, c)
	})
	require.NoError(t, err)
	b.Guard = g
	return b
}

// told returns the changes since the last call of told.
func (b *bench) told() []breaker.Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes := b.changes
	b.changes = nil
	return changes
}

// call makes one call that ends with class at once; an empty class succeeds.
func (b *bench) call(class backend.Class, hint time.Duration) error {
	b.inner.do = func(context.Context) (*backend.Response, error) { return result(class, hint) }
	_, err := b.Complete(b.t.Context(), &backend.Request{Model: "auto"})
	return err
}

// succeed makes one call that must be admitted and succeeds.
func (b *bench) succeed() {
	b.t.Helper()
	require.NoError(b.t, b.call("", 0))
}

// fail makes n calls that must be admitted and fail with class.
func (b *bench) fail(n int, class backend.Class) {
	b.t.Helper()
	for range n {
		require.ErrorIs(b.t, b.call(class, 0), class)
	}
}

// refused makes one call that must be refused for exactly wait.
func (b *bench) refused(wait time.Duration) *backend.Error {
	b.t.Helper()
	calls := b.inner.calls.Load()
	_, err := b.Complete(b.t.Context(), &backend.Request{Model: "auto", Started: func(string) {
		b.t.Error("a refused call was started")
	}})
	require.ErrorIs(b.t, err, backend.CircuitOpen)
	refusal := backend.AsError(err, "")
	require.Equal(b.t, wait, refusal.RetryAfter)
	require.Equal(b.t, wait, b.Ready())
	require.Equal(b.t, calls, b.inner.calls.Load())
	return refusal
}

// start begins a call that ends when the returned function says how.
func (b *bench) start() (end func(class backend.Class, hint time.Duration) error) {
	b.t.Helper()
	type ending struct {
		class backend.Class
		hint  time.Duration
	}
	endings, errs, begun := make(chan ending), make(chan error, 1), false
	b.inner.do = func(context.Context) (*backend.Response, error) {
		begun = true
		e := <-endings
		return result(e.class, e.hint)
	}
	go func() {
		_, err := b.Complete(b.t.Context(), &backend.Request{})
		errs <- err
	}()
	synctest.Wait()
	require.True(b.t, begun, "the call was not admitted")
	return func(class backend.Class, hint time.Duration) error {
		endings <- ending{class, hint}
		return <-errs
	}
}

func result(class backend.Class, hint time.Duration) (*backend.Response, error) {
	if class == "" {
		return &backend.Response{Status: 200}, nil
	}
	return nil, &backend.Error{Class: class, Backend: "vllm", RetryAfter: hint}
}

// change is a change of the fake's breaker.
func change(from, to breaker.State, class backend.Class, d time.Duration) breaker.Change {
	return breaker.Change{Backend: "vllm", From: from, To: to, Class: class, For: d}
}
