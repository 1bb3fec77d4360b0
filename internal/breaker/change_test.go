package breaker_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

func TestAListenerMayCallTheGuard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g *breaker.Guard
		var seen []breaker.Change
		inner := &fake{}
		g, err := breaker.New(inner, breaker.Config{}, func(c breaker.Change) {
			seen = append(seen, c)
			switch c.To {
			case breaker.Open:
				g.Reset() // told after this one, not inside it
			case breaker.Closed:
				if len(seen) < 4 {
					g.Open(0)
				}
			case breaker.HalfOpen:
			}
			g.State()
			g.Ready()
		})
		require.NoError(t, err)
		g.Open(time.Second)
		opened, closed := change(breaker.Closed, breaker.Open, "", minute), change(breaker.Open, breaker.Closed, "", 0)
		first := opened
		first.For = time.Second
		require.Equal(t, []breaker.Change{first, closed, opened, closed}, seen)
	})
}

func TestASlowListenerDelaysOnlyWhoCalledIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held, release := make(chan struct{}), make(chan struct{})
		var seen []breaker.State
		inner := &fake{}
		g, err := breaker.New(inner, breaker.Config{}, func(c breaker.Change) {
			if len(seen) == 0 {
				close(held)
				<-release
			}
			seen = append(seen, c.To)
		})
		require.NoError(t, err)
		done := make(chan struct{})
		go func() { defer close(done); g.Open(0) }()
		<-held
		g.Reset()
		_, err = g.Complete(t.Context(), &backend.Request{})
		require.NoError(t, err)
		g.Open(0)
		require.Equal(t, breaker.Open, g.State())
		close(release)
		<-done
		require.Equal(t, []breaker.State{breaker.Open, breaker.Closed, breaker.Open}, seen)
	})
}

// TestAThousandCallersSeeOneBreaker runs callers, operators, peers and gauges at
// once: every call is either admitted or refused, and the changes form one chain.
func TestAThousandCallersSeeOneBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers, probes = 1000, 3
		var seen []breaker.Change // never called by two at once: the race detector would tell
		inner := &fake{}
		g, err := breaker.New(inner, breaker.Config{Probes: probes, Cooldown: 3 * time.Second}, func(c breaker.Change) { seen = append(seen, c) })
		require.NoError(t, err)
		classes := append(backend.Classes(), "", "", "", "", "", "", "", "")
		inner.do = func(context.Context) (*backend.Response, error) {
			time.Sleep(time.Duration(1+rand.IntN(400)) * time.Millisecond)
			return result(classes[rand.IntN(len(classes))], time.Duration(rand.IntN(3))*time.Second)
		}
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range 20 {
					started := false
					_, err := g.Complete(t.Context(), &backend.Request{Started: func(string) { started = true }})
					if started {
						admitted.Add(1)
					} else {
						refused.Add(1)
						refusal := backend.AsError(err, "")
						if refusal.Class != backend.CircuitOpen || refusal.RetryAfter <= 0 {
							t.Errorf("refused with %+v", refusal)
						}
						time.Sleep(refusal.RetryAfter)
					}
					switch (admitted.Load() + refused.Load()) % 1000 {
					case 0:
						g.Open(time.Second)
					case 1:
						g.Reset()
					case 2:
						g.Apply(change(breaker.Closed, breaker.Open, backend.Quota, time.Second))
					default:
						g.Ready()
						g.State()
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(callers*20), admitted.Load()+refused.Load())
		require.Equal(t, inner.calls.Load(), admitted.Load())
		require.NotEmpty(t, seen)
		from := breaker.Closed
		for _, c := range seen {
			require.Equal(t, from, c.From)
			require.NotEqual(t, c.From, c.To)
			require.Equal(t, c.To == breaker.Open, c.For > 0)
			from = c.To
		}
		require.Equal(t, g.State(), seen[len(seen)-1].To)
	})
}

func TestAThousandCallersAtTheDoorOfAHalfOpenBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{Probes: 4})
		b.fail(5, backend.Timeout)
		time.Sleep(minute)
		calls := b.inner.calls.Load()
		b.inner.do = func(context.Context) (*backend.Response, error) {
			time.Sleep(time.Second)
			return result("", 0)
		}
		var refused atomic.Int64
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if _, err := b.Complete(t.Context(), &backend.Request{}); err != nil {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(4), b.inner.calls.Load()-calls)
		require.Equal(t, int64(996), refused.Load())
		require.Equal(t, breaker.Closed, b.State())
	})
}
