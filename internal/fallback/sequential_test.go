package fallback_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
)

// strategies are all of them, with what makes each walk a chain of a and b over
// and over while both fail with server_error.
func strategies() map[string]func(*fallback.Policy) {
	return map[string]func(*fallback.Policy){
		fallback.Sequential: func(*fallback.Policy) {},
		fallback.Priority:   func(*fallback.Policy) {},
		fallback.ErrorType: func(p *fallback.Policy) {
			p.ErrorMappings = map[backend.Class][]string{backend.ServerError: {"a", "b"}}
		},
		fallback.Random:      func(*fallback.Policy) {},
		fallback.Parallel:    func(*fallback.Policy) {},
		fallback.Conditional: func(p *fallback.Policy) { p.Conditions = []string{"on_any_error"} },
	}
}

// TestEveryStrategyPausesAlike pins that the pauses are the engine's: whatever the
// order, a round begins one backoff after the last call of the round before.
func TestEveryStrategyPausesAlike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base, limit time.Duration
		exponential float64
		pauses      []time.Duration // before the second round, the third, ...
	}{
		{second, minute, 2, []time.Duration{second, 2 * second, 4 * second, 8 * second, 16 * second, 32 * second, minute, minute}},
		{second, minute, 1, []time.Duration{second, second, second, second}},
		{second, 5 * second, 3, []time.Duration{second, 3 * second, 5 * second, 5 * second}},
		{250 * ms, 0, 10, []time.Duration{250 * ms, 2500 * ms, 25 * second, 250 * second}},
		{0, minute, 2, []time.Duration{0, 0, 0}},
		{hour, minute, 2, []time.Duration{minute, minute}},
		{30 * second, 0, 1.5, []time.Duration{30 * second, 45 * second, 67500 * ms}},
	} {
		for name, setUp := range strategies() {
			for _, takes := range []time.Duration{0, 300 * ms} {
				t.Run(fmt.Sprintf("%s %s x %g up to %s, calls of %s", name, c.base, c.exponential, c.limit, takes), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						boom := fails(backend.ServerError, takes)
						st := newStage(t, shape{
							backends: chain(model("a", boom), model("b", boom)), hold: 100 * hour,
							policy: func(p *fallback.Policy) {
								p.Strategy, p.BaseDelay, p.MaxDelay, p.ExponentialBase = name, c.base, c.limit, c.exponential
								p.MaxAttempts = 2 * (len(c.pauses) + 1)
								setUp(p)
							},
						})
						out := st.once(t.Context(), nil, time.Time{})
						var want, got []time.Duration
						at := time.Duration(0)
						for round := range len(c.pauses) + 1 {
							if round > 0 {
								at += c.pauses[round-1]
							}
							want = append(want, at)
							if name != fallback.Parallel {
								at += takes
							}
							want = append(want, at)
							at += takes
						}
						asked := map[string]int{}
						for _, a := range out.Trail {
							got = append(got, a.StartedAt.Sub(st.began))
							asked[a.Backend]++
						}
						require.Equal(t, want, got)
						require.Equal(t, map[string]int{"a": len(c.pauses) + 1, "b": len(c.pauses) + 1}, asked)
						require.Equal(t, at, time.Since(st.began))
						require.Equal(t, backend.ServerError, out.Err.Class)
					})
				})
			}
		}
	}
}

// TestEveryStrategyJittersAlike pins that a pause is drawn from [0.5, 1) of its
// length, and is the same for the worker that takes the job up.
func TestEveryStrategyJittersAlike(t *testing.T) {
	t.Parallel()
	nominal := []time.Duration{4 * second, 8 * second, 16 * second, 20 * second}
	for name, setUp := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := map[time.Duration]bool{}
			for i := range 20 {
				play := func(hold time.Duration) (pauses []time.Duration) {
					synctest.Test(t, func(t *testing.T) {
						time.Sleep(time.Duration(i) * 37 * ms)
						boom := fails(backend.ServerError, 0)
						st := newStage(t, shape{
							backends: chain(model("a", boom), model("b", boom)), hold: hold,
							policy: func(p *fallback.Policy) {
								p.Strategy, p.Jitter, p.BaseDelay, p.MaxDelay, p.MaxAttempts = name, true, 4*second, 20*second, 10
								setUp(p)
							},
						})
						st.request.JobID = fmt.Sprint("job-", i)
						out, waits := st.run(t.Context(), time.Time{})
						require.Len(t, out.Trail, 10)
						if hold < 0 {
							require.Len(t, waits, 4)
						}
						for j := 2; j < 10; j += 2 {
							pauses = append(pauses, out.Trail[j].StartedAt.Sub(out.Trail[j-1].StartedAt))
							require.Equal(t, pauses[len(pauses)-1].Milliseconds(), out.Trail[j].WaitMS)
						}
					})
					return pauses
				}
				pauses := play(hour)
				for j, pause := range pauses {
					require.GreaterOrEqual(t, pause, nominal[j]/2)
					require.Less(t, pause, nominal[j])
					seen[pause] = true
				}
				require.Equal(t, pauses, play(-1), "handed back at every pause")
			}
			require.Greater(t, len(seen), 70, "every pause is a draw of its own")
		})
	}
}

func TestARetryAfterReplacesTheBackoff(t *testing.T) {
	t.Parallel()
	limited := fails(backend.RateLimit, 0).http(429)
	for _, c := range []play{
		{
			name:     "shorter, in the slot",
			backends: chain(model("a", limited.hinting(500*ms), answers(0))),
			calls:    []string{"a@0s", "a@500ms"},
			trail:    []string{"a rate_limit retry", "a succeeded"},
			end:      "a", at: 500 * ms,
		},
		{
			name:     "shorter, and handed back",
			backends: chain(model("a", limited.hinting(3*second), answers(0))), policy: func(p *fallback.Policy) { p.BaseDelay = 10 * second },
			calls: []string{"a@0s", "a@3s"},
			trail: []string{"a rate_limit wait", "a succeeded"},
			waits: []string{"3s"}, end: "a", at: 3 * second,
		},
		{
			name:     "longer, in the slot",
			backends: chain(model("a", limited.hinting(1700*ms), answers(0))),
			calls:    []string{"a@0s", "a@1.7s"},
			trail:    []string{"a rate_limit retry", "a succeeded"},
			end:      "a", at: 1700 * ms,
		},
		{
			name:     "longer than the longest delay, and handed back",
			backends: chain(model("a", limited.hinting(10*minute), answers(0))),
			calls:    []string{"a@0s", "a@10m0s"},
			trail:    []string{"a rate_limit wait", "a succeeded"},
			waits:    []string{"10m0s"}, end: "a", at: 10 * minute,
		},
		{
			name:     "of one does not hold up the other, whose backoff counts from the last call",
			backends: chain(model("a", limited.hinting(90*second)), model("b", fails(backend.Timeout, 10*second))), policy: attempts(4), hold: minute,
			calls: []string{"a@0s", "b@0s", "b@11s", "b@23s"},
			trail: []string{"a rate_limit fallback", "b timeout retry", "b timeout retry", "b timeout stop"},
			end:   "!timeout b", at: 33 * second,
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}
