package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

// TestALateResultMeetsAnotherState begins a call while the breaker is closed,
// and ends it in every later state: what must not move does not move.
func TestALateResultMeetsAnotherState(t *testing.T) {
	t.Parallel()
	type row struct {
		class backend.Class
		hint  time.Duration
		left  time.Duration // of an open breaker with 40 s left
	}
	for name, r := range map[string]row{
		"success":                 {"", 0, 40 * time.Second},
		"counted":                 {backend.Timeout, 0, 40 * time.Second},
		"ignored":                 {backend.Canceled, 0, 40 * time.Second},
		"short rate limit":        {backend.RateLimit, 39 * time.Second, 40 * time.Second},
		"rate limit without hint": {backend.RateLimit, 0, 40 * time.Second},
		"long rate limit":         {backend.RateLimit, 41 * time.Second, 41 * time.Second},
		"endless rate limit":      {backend.RateLimit, time.Hour, 300 * time.Second},
		"quota":                   {backend.Quota, 0, minute},
		"quota with a short hint": {backend.Quota, time.Second, 40 * time.Second},
		"permission with a hint":  {backend.Permission, 2 * minute, 2 * minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, breaker.Config{})
				inOpen, inHalfOpen, inProbe, inClosed := b.start(), b.start(), b.start(), b.start()
				b.fail(5, backend.Timeout)
				time.Sleep(20 * time.Second)
				require.Len(t, b.told(), 1)

				_ = inOpen(r.class, r.hint)
				b.refused(r.left)
				require.Empty(t, b.told())

				time.Sleep(r.left)
				_ = inHalfOpen(r.class, r.hint) // the time is over, but nobody has asked
				require.Equal(t, breaker.HalfOpen, b.State())
				require.Zero(t, b.Ready())
				probe := b.start()
				_ = inProbe(r.class, r.hint)
				b.refused(recheck) // a late result frees no place and takes none
				require.Equal(t, breaker.HalfOpen, b.State())
				require.NoError(t, probe("", 0))

				require.Equal(t, breaker.Closed, b.State())
				b.fail(4, backend.Timeout)
				_ = inClosed(r.class, r.hint)
				require.Equal(t, breaker.Closed, b.State())
				b.fail(1, backend.Timeout) // a late success has not started the count again
				require.Equal(t, breaker.Open, b.State())
			})
		})
	}
}

func TestABurstOfUnhintedRateLimitsIsOneStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{})
		burst := []func(backend.Class, time.Duration) error{}
		for range 64 {
			burst = append(burst, b.start())
		}
		success := b.start()
		for _, end := range burst {
			require.ErrorIs(t, end(backend.RateLimit, 0), backend.RateLimit)
		}
		b.refused(time.Second)
		require.NoError(t, success("", 0)) // began before the first limit: no reset
		time.Sleep(time.Second)
		b.fail(1, backend.RateLimit)
		b.refused(2 * time.Second)
	})
}

func TestALateProbeOfAnEarlierHalfOpenIsStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{Probes: 2})
		b.fail(5, backend.Timeout)
		time.Sleep(minute)
		late, failing := b.start(), b.start()
		require.ErrorIs(t, failing(backend.Timeout, 0), backend.Timeout)
		time.Sleep(minute)
		require.Equal(t, breaker.HalfOpen, b.State())
		require.NoError(t, late("", 0))
		b.succeed() // one of two: the late one did not count
		require.Equal(t, breaker.HalfOpen, b.State())
		b.succeed()
		require.Equal(t, breaker.Closed, b.State())
	})
}
