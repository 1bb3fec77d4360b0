package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

// inState returns a bench whose breaker has been brought into the state, with
// 40 s left when open and its only probe out when half-open.
func inState(t *testing.T, state breaker.State) *bench {
	t.Helper()
	b := newBench(t, breaker.Config{})
	switch state {
	case breaker.Closed:
		b.fail(4, backend.Timeout)
	case breaker.Open:
		b.fail(5, backend.Timeout)
		time.Sleep(20 * time.Second)
	case breaker.HalfOpen:
		b.fail(5, backend.Timeout)
		time.Sleep(minute)
		end := b.start()
		t.Cleanup(func() { _ = end("", 0) })
	}
	require.Equal(t, state, b.State())
	b.told()
	return b
}

func TestOpeningByHand(t *testing.T) {
	t.Parallel()
	for _, state := range []breaker.State{breaker.Closed, breaker.Open, breaker.HalfOpen} {
		for d, want := range map[time.Duration]time.Duration{
			0: minute, -1: minute, 1: time.Millisecond, 10 * time.Second: 10 * time.Second, time.Hour: time.Hour,
		} {
			t.Run(string(state)+"/"+d.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					if state == breaker.Open && d == 1 {
						want = 1 // nothing to turn: the new end is exact
					}
					b := inState(t, state)
					b.Open(d)
					b.refused(want)
					if state == breaker.Open {
						require.Empty(t, b.told())
					} else {
						require.Equal(t, []breaker.Change{change(state, breaker.Open, "", want)}, b.told())
					}
					time.Sleep(want)
					b.succeed()
					require.Equal(t, breaker.Closed, b.State())
				})
			})
		}
	}
}

func TestResetting(t *testing.T) {
	t.Parallel()
	for _, state := range []breaker.State{breaker.Closed, breaker.Open, breaker.HalfOpen} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := inState(t, state)
				b.Reset()
				require.Equal(t, breaker.Closed, b.State())
				require.Zero(t, b.Ready())
				if state == breaker.Closed {
					require.Empty(t, b.told())
				} else {
					require.Equal(t, []breaker.Change{change(state, breaker.Closed, "", 0)}, b.told())
				}
				b.fail(4, backend.Timeout)
				require.Equal(t, breaker.Closed, b.State())
			})
		})
	}
}

func TestResettingForgetsCallsUnderWayAndTheGrowth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, breaker.Config{})
		b.fail(1, backend.RateLimit)
		time.Sleep(time.Second)
		b.fail(1, backend.RateLimit)
		b.refused(2 * time.Second)
		b.Reset()
		end := b.start()
		b.Reset()
		require.ErrorIs(t, end(backend.Quota, 0), backend.Quota)
		require.Equal(t, breaker.Closed, b.State())
		b.fail(1, backend.RateLimit)
		b.refused(time.Second)
	})
}

func TestAPeersChangeIsApplied(t *testing.T) {
	t.Parallel()
	type row struct {
		state  breaker.State
		change breaker.Change
		left   time.Duration // 0: a call is admitted
		told   []breaker.Change
	}
	peer := func(from, to breaker.State, class backend.Class, d time.Duration) []breaker.Change {
		c := change(from, to, class, d)
		c.Peer = true
		return []breaker.Change{c}
	}
	opened := func(class backend.Class, d time.Duration) breaker.Change {
		return change(breaker.Closed, breaker.Open, class, d)
	}
	closed := change(breaker.HalfOpen, breaker.Closed, "", 0)
	foreign := breaker.Change{Backend: "openrouter", From: breaker.Closed, To: breaker.Open, For: minute}
	for name, r := range map[string]row{
		"opening a closed one":       {breaker.Closed, opened(backend.Quota, 90*time.Second), 90 * time.Second, peer(breaker.Closed, breaker.Open, backend.Quota, 90*time.Second)},
		"opening a half-open one":    {breaker.HalfOpen, opened(backend.Timeout, minute), minute, peer(breaker.HalfOpen, breaker.Open, backend.Timeout, minute)},
		"lengthening":                {breaker.Open, opened(backend.Quota, 90*time.Second), 90 * time.Second, nil},
		"never shortening":           {breaker.Open, opened("", time.Second), 40 * time.Second, nil},
		"capped with a class":        {breaker.Closed, opened(backend.Quota, time.Hour), 300 * time.Second, peer(breaker.Closed, breaker.Open, backend.Quota, 300*time.Second)},
		"lengthening is capped":      {breaker.Open, opened(backend.Quota, time.Hour), 300 * time.Second, nil},
		"not capped by hand":         {breaker.Closed, opened("", time.Hour), time.Hour, peer(breaker.Closed, breaker.Open, "", time.Hour)},
		"without a time":             {breaker.Closed, opened(backend.Auth, 0), minute, peer(breaker.Closed, breaker.Open, backend.Auth, minute)},
		"closing an open one":        {breaker.Open, closed, 0, peer(breaker.Open, breaker.Closed, "", 0)},
		"closing a half-open one":    {breaker.HalfOpen, closed, 0, peer(breaker.HalfOpen, breaker.Closed, "", 0)},
		"closing a closed one":       {breaker.Closed, closed, 0, nil},
		"half-open says nothing":     {breaker.Open, change(breaker.Open, breaker.HalfOpen, "", 0), 40 * time.Second, nil},
		"another backend's":          {breaker.Closed, foreign, 0, nil},
		"a state of another version": {breaker.Closed, breaker.Change{Backend: "vllm", To: "ajar"}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := inState(t, r.state)
				b.Apply(r.change)
				require.Equal(t, r.told, b.told())
				require.Equal(t, r.left, b.Ready())
				if r.left > 0 {
					b.refused(r.left)
					return
				}
				b.fail(1, backend.Timeout) // admitted, and an untouched count is at five now
				require.Equal(t, r.state == breaker.Closed, b.State() == breaker.Open)
			})
		})
	}
}

func TestOwnChangesAfterAPeersAreOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := inState(t, breaker.Closed)
		b.Apply(change(breaker.Closed, breaker.Open, backend.Auth, minute))
		time.Sleep(minute)
		b.Apply(change(breaker.Open, breaker.Open, backend.Auth, minute)) // its time was over before
		time.Sleep(minute)
		b.succeed()
		open, half := breaker.Open, breaker.HalfOpen
		first, third := change(breaker.Closed, open, backend.Auth, minute), change(half, open, backend.Auth, minute)
		first.Peer, third.Peer = true, true
		require.Equal(t, []breaker.Change{
			first, change(open, half, "", 0), third, change(open, half, "", 0), change(half, breaker.Closed, "", 0),
		}, b.told())
	})
}
