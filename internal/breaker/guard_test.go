package breaker_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

const (
	minute = time.Minute
	tick   = time.Nanosecond
	// recheck is what a call hears while the probes of a half-open breaker are out.
	recheck = 100 * time.Millisecond
)

func TestFailuresInARowOpenTheBreakerUntilAProbeSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{})
		require.Equal(t, "vllm", b.Name())

		b.fail(4, backend.Timeout)
		b.succeed() // starts the count again
		b.fail(2, backend.Timeout)
		time.Sleep(24 * time.Hour) // no window: what is long ago still counts
		b.fail(2, backend.ServerError)
		require.Equal(t, breaker.Closed, b.State())
		require.Empty(t, b.told())
		require.Zero(t, b.Ready())

		b.fail(1, backend.Overloaded)
		require.Equal(t, breaker.Open, b.State())
		require.Equal(t, []breaker.Change{change(breaker.Closed, breaker.Open, backend.Overloaded, minute)}, b.told())

		refusal := b.refused(minute)
		require.Equal(t, "breaker open, next probe in 1m0s", refusal.Message)
		require.Equal(t, "vllm", refusal.Backend)
		require.Equal(t, "auto", refusal.Model)
		require.Equal(t, "vllm: circuit_open", refusal.Error())
		time.Sleep(18 * time.Second)
		require.Equal(t, "breaker open, next probe in 42s", b.refused(42*time.Second).Message)
		time.Sleep(42*time.Second - tick)
		require.Equal(t, "breaker open, next probe in 1ms", b.refused(tick).Message)
		require.Equal(t, breaker.Open, b.State())
		require.Empty(t, b.told())

		time.Sleep(tick)
		end := b.start()
		require.Equal(t, breaker.HalfOpen, b.State())
		require.Equal(t, []breaker.Change{change(breaker.Open, breaker.HalfOpen, "", 0)}, b.told())
		b.refused(recheck)

		require.NoError(t, end("", 0))
		require.Equal(t, breaker.Closed, b.State())
		require.Equal(t, []breaker.Change{change(breaker.HalfOpen, breaker.Closed, "", 0)}, b.told())
		b.fail(4, backend.Timeout) // the count began anew
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestAFailedProbeOpensAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{Failures: 2, Cooldown: 10 * time.Second})
		b.fail(2, backend.Connection)
		for range 3 {
			time.Sleep(10 * time.Second)
			b.fail(1, backend.Truncated)
			b.refused(10 * time.Second)
		}
		time.Sleep(10 * time.Second)
		require.ErrorIs(t, b.call(backend.Quota, 200*time.Second), backend.Quota)
		b.refused(200 * time.Second)
		open, half := breaker.Open, breaker.HalfOpen
		require.Equal(t, []breaker.Change{
			change(breaker.Closed, open, backend.Connection, 10*time.Second),
			change(open, half, "", 0), change(half, open, backend.Truncated, 10*time.Second),
			change(open, half, "", 0), change(half, open, backend.Truncated, 10*time.Second),
			change(open, half, "", 0), change(half, open, backend.Truncated, 10*time.Second),
			change(open, half, "", 0), change(half, open, backend.Quota, 200*time.Second),
		}, b.told())
	})
}

// TestEveryClassHasItsEffect holds the effect of every class on a closed
// breaker: how many in a row open it, and for how long.
func TestEveryClassHasItsEffect(t *testing.T) {
	t.Parallel()
	type effect struct {
		opensAt      int // 0: never
		bare, hinted time.Duration
	}
	count := effect{5, minute, minute} // a hint does not change a counted failure
	trip := effect{1, minute, 90 * time.Second}
	cool := effect{1, time.Second, 90 * time.Second}
	ignore := effect{}
	want := map[backend.Class]effect{
		backend.Timeout: count, backend.Connection: count, backend.ServerError: count, backend.Overloaded: count,
		backend.BadResponse: count, backend.Truncated: count, backend.EmptyOutput: count,
		backend.RateLimit: cool,
		backend.Quota:     trip, backend.Auth: trip, backend.Permission: trip,
		backend.ContextLength: ignore, backend.TooLarge: ignore, backend.Unsupported: ignore,
		backend.ModelNotFound: ignore, backend.InvalidRequest: ignore, backend.ContentFilter: ignore,
		backend.Canceled: ignore, backend.Expired: ignore, backend.InvalidJob: ignore, backend.Poison: ignore,
		backend.CircuitOpen: ignore, "of another version": ignore,
	}
	for _, class := range append(backend.Classes(), "of another version") {
		for _, hint := range []time.Duration{0, 90 * time.Second} {
			t.Run(string(class)+"/"+hint.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					e, ok := want[class]
					require.True(t, ok)
					hold := e.bare
					if hint > 0 {
						hold = e.hinted
					}
					b := newBench(t, breaker.Config{})
					for n := 1; n <= 20; n++ {
						require.ErrorIs(t, b.call(class, hint), class)
						if n == e.opensAt {
							b.refused(hold)
							require.Equal(t, []breaker.Change{change(breaker.Closed, breaker.Open, class, hold)}, b.told())
							return
						}
						require.Equal(t, breaker.Closed, b.State())
					}
					require.Zero(t, e.opensAt)
					require.Empty(t, b.told())
				})
			})
		}
	}
}

func TestIgnoredFailuresNeitherCountNorStartTheCountAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{})
		b.fail(4, backend.Timeout)
		b.fail(6, backend.Canceled) // six hedge losers
		b.fail(6, backend.ContextLength)
		require.Equal(t, breaker.Closed, b.State())
		b.fail(1, backend.Timeout)
		require.Equal(t, breaker.Open, b.State())
	})
}

func TestAProbeThatHangsHoldsItsPlaceUntilItIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{})
		b.fail(5, backend.Timeout)
		time.Sleep(minute)
		end := b.start()
		time.Sleep(24 * time.Hour)
		b.refused(recheck)
		require.ErrorIs(t, end(backend.Canceled, 0), backend.Canceled)

		require.Equal(t, breaker.HalfOpen, b.State())
		require.Zero(t, b.Ready())
		for range 10 { // excluded probes never use up the places
			b.fail(1, backend.InvalidRequest)
			require.Equal(t, breaker.HalfOpen, b.State())
		}
		b.succeed()
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestExactlyTheConfiguredProbesAreAdmittedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{Probes: 3})
		b.fail(5, backend.Timeout)
		time.Sleep(minute)
		first, second, third := b.start(), b.start(), b.start()
		b.refused(recheck)
		require.NoError(t, first("", 0))
		require.ErrorIs(t, second(backend.Canceled, 0), backend.Canceled) // frees one place
		require.Equal(t, breaker.HalfOpen, b.State())
		fourth := b.start()
		b.refused(recheck)
		require.NoError(t, third("", 0))
		require.Equal(t, breaker.HalfOpen, b.State())
		require.NoError(t, fourth("", 0))
		require.Equal(t, breaker.Closed, b.State())
	})
}

func TestAPanicOfTheBackendCountsAndGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{Failures: 2})
		explode := func() {
			b.inner.do = func(context.Context) (*backend.Response, error) { panic("boom") }
			require.PanicsWithValue(t, "boom", func() { _, _ = b.Complete(t.Context(), &backend.Request{}) })
		}
		explode()
		require.Equal(t, breaker.Closed, b.State())
		explode()
		b.refused(minute)
		time.Sleep(minute)
		explode() // a probe too
		b.refused(minute)
		require.Equal(t, change(breaker.HalfOpen, breaker.Open, backend.ServerError, minute), b.told()[2])
	})
}

func TestUnhintedRateLimitsGrowUntilASuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{})
		grow := func(want ...int) {
			t.Helper()
			for _, seconds := range want {
				hold := time.Duration(seconds) * time.Second
				b.fail(1, backend.RateLimit)
				b.refused(hold)
				time.Sleep(hold)
			}
		}
		grow(1, 2, 4, 8)
		require.ErrorIs(t, b.call(backend.RateLimit, 7*time.Second), backend.RateLimit) // hinted: no step
		b.refused(7 * time.Second)
		time.Sleep(7 * time.Second)
		b.fail(1, backend.Timeout) // another failure: no step, no reset
		time.Sleep(minute)
		grow(16, 32, 64, 128, 256, 300, 300)
		b.succeed()
		grow(1, 2)
	})
}

func TestHoldsAreCapped(t *testing.T) {
	t.Parallel()
	type row struct {
		cfg   breaker.Config
		class backend.Class
		hint  time.Duration
		want  time.Duration
	}
	for name, r := range map[string]row{
		"hinted rate limit":           {breaker.Config{}, backend.RateLimit, time.Hour, 300 * time.Second},
		"hinted quota":                {breaker.Config{}, backend.Quota, 48 * time.Hour, 300 * time.Second},
		"own cap":                     {breaker.Config{MaxCooldown: 5 * time.Second}, backend.Auth, minute, 5 * time.Second},
		"cap below the first step":    {breaker.Config{MaxCooldown: 5 * time.Millisecond}, backend.RateLimit, 0, 5 * time.Millisecond},
		"cool-down is not capped":     {breaker.Config{Cooldown: time.Hour}, backend.Auth, 0, time.Hour},
		"negative hint is none":       {breaker.Config{}, backend.RateLimit, -time.Hour, time.Second},
		"negative hint of a quota":    {breaker.Config{}, backend.Quota, -1, minute},
		"hint below the shortest":     {breaker.Config{}, backend.RateLimit, 1, time.Millisecond},
		"cool-down below the minimum": {breaker.Config{Cooldown: 1}, backend.Quota, 0, time.Millisecond},
		"odd hint stays exact":        {breaker.Config{}, backend.RateLimit, 18600001 * time.Microsecond, 18600001 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, r.cfg)
				require.ErrorIs(t, b.call(r.class, r.hint), r.class)
				b.refused(r.want)
				require.Equal(t, r.want, b.told()[0].For)
				time.Sleep(r.want)
				b.succeed()
			})
		})
	}
}

func TestGrowthWithoutACapDoesNotOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{MaxCooldown: math.MaxInt64})
		for range 33 {
			b.fail(1, backend.RateLimit)
			b.Open(time.Millisecond) // shortens, but is no success
			time.Sleep(time.Millisecond)
		}
		b.fail(1, backend.RateLimit)
		b.refused(1 << 33 * time.Second)
		b.Open(time.Millisecond)
		time.Sleep(time.Millisecond)
		b.fail(1, backend.RateLimit)
		b.refused(math.MaxInt64)
	})
}

func TestReadyIsTheLongerOfBothGates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := &limited{ready: 5 * time.Second}
		g, err := breaker.New(inner, breaker.Config{}, nil)
		require.NoError(t, err)
		var _ backend.Gate = g
		require.Equal(t, 5*time.Second, g.Ready())
		g.Open(3 * time.Second)
		require.Equal(t, 5*time.Second, g.Ready())
		g.Open(7 * time.Second)
		require.Equal(t, 7*time.Second, g.Ready())
	})
}

func TestResultsOfTheBackendPassUnchanged(t *testing.T) {
	t.Parallel()
	b := newBench(t, breaker.Config{})
	answer := &backend.Response{Status: 200, Body: []byte(`{}`)}
	failure := &backend.Error{Class: backend.InvalidRequest, Backend: "inner", Status: 400}
	b.inner.do = func(context.Context) (*backend.Response, error) { return answer, nil }
	var models []string
	resp, err := b.Complete(t.Context(), &backend.Request{Started: func(m string) { models = append(models, m) }})
	require.NoError(t, err)
	require.Same(t, answer, resp)
	require.Equal(t, []string{"m"}, models)

	b.inner.do = func(context.Context) (*backend.Response, error) { return nil, failure }
	_, err = b.Complete(t.Context(), &backend.Request{})
	require.Same(t, failure, err)

	plain := errors.New("no class")
	b.inner.do = func(context.Context) (*backend.Response, error) { return nil, plain }
	for range 5 {
		_, err = b.Complete(t.Context(), &backend.Request{})
		require.ErrorIs(t, err, plain)
		require.ErrorIs(t, err, backend.ServerError)
	}
	require.Equal(t, breaker.Open, b.State())
}

func TestNewNamesEveryFieldThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	_, err := breaker.New(nil, breaker.Config{}, nil)
	require.EqualError(t, err, "breaker: no backend to guard")
	_, err = breaker.New(&fake{}, breaker.Config{
		Failures: -1, Cooldown: -time.Second, MaxCooldown: -1, Probes: math.MaxInt32 + 1,
	}, nil)
	require.EqualError(t, err, `breaker: Failures is -1; use 0 for the default, or 1 to 2147483647
breaker: Probes is 2147483648; use 0 for the default, or 1 to 2147483647
breaker: Cooldown is -1s; use 0 for the default, or more
breaker: MaxCooldown is -1ns; use 0 for the default, or more`)
}
