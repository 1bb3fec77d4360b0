package fallback_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
)

// again says how often a backend is called again.
type again = map[string]int

func TestRetriesComeBeforeTheNextBackend(t *testing.T) {
	t.Parallel()
	boom, slow := fails(backend.ServerError, 0), fails(backend.Timeout, 5*second)
	full := fails(backend.RateLimit, 0).http(429)
	noRule := fails(backend.Unsupported, 0)
	for _, c := range []play{
		{
			name:     "the pause is the backoff by the number in the row, from the end of the call",
			backends: chain(model("a", slow), model("b")), retries: again{"a": 2}, hold: minute, policy: attempts(9),
			calls: []string{"a@0s", "a@6s", "a@13s", "b@18s"},
			trail: []string{"a timeout retry", "a timeout retry", "a timeout fallback", "b succeeded"},
			end:   "b", at: 18 * second,
		},
		{
			name:     "a retry that answers is the end",
			backends: chain(model("a", boom, answers(second)), model("b")), retries: again{"a": 2},
			calls: []string{"a@0s", "a@1s"},
			trail: []string{"a server_error retry", "a succeeded"},
			end:   "a", at: 2 * second,
		},
		{
			name:     "they count: with three attempts the second backend gets one",
			backends: chain(model("a", boom), model("b", boom)), retries: again{"a": 2}, policy: attempts(3),
			calls: []string{"a@0s", "a@1s", "b@1s"},
			trail: []string{"a server_error retry", "a server_error fallback", "b server_error stop"},
			end:   "!server_error b", at: second,
		},
		{
			name:     "with two there is none",
			backends: chain(model("a", boom), model("b", boom)), retries: again{"a": 2}, policy: attempts(2),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a server_error fallback", "b server_error stop"},
			end:   "!server_error b",
		},
		{
			name:     "each backend has its own",
			backends: chain(model("a", boom), model("b", boom), model("c", boom)), retries: again{"b": 1, "c": 2}, policy: attempts(9), hold: minute,
			calls: []string{"a@0s", "b@0s", "b@1s", "c@1s", "c@2s", "c@4s", "a@5s", "b@5s", "b@6s"},
			trail: []string{
				"a server_error fallback", "b server_error retry", "b server_error fallback",
				"c server_error retry", "c server_error retry", "c server_error fallback",
				"a server_error fallback", "b server_error retry", "b server_error stop",
			},
			end: "!server_error b", at: 6 * second,
		},
		{
			name:     "a hint takes the place of the backoff",
			backends: chain(model("a", full.hinting(1500*ms), full.hinting(200*ms), answers(0)), model("b")), retries: again{"a": 2}, policy: attempts(9),
			calls: []string{"a@0s", "a@1.5s", "a@1.7s"},
			trail: []string{"a rate_limit retry", "a rate_limit retry", "a succeeded"},
			end:   "a", at: 1700 * ms,
		},
		{
			name:     "a hint that is longer than the hold falls back",
			backends: chain(model("a", full.hinting(3*second)), model("b")), retries: again{"a": 2}, policy: attempts(9),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a rate_limit fallback", "b succeeded"},
			end:   "b",
		},
		{
			name:     "so does a backoff",
			backends: chain(model("a", boom), model("b")), retries: again{"a": 3}, policy: attempts(9),
			calls: []string{"a@0s", "a@1s", "a@3s", "b@3s"},
			trail: []string{"a server_error retry", "a server_error retry", "a server_error fallback", "b succeeded"},
			end:   "b", at: 3 * second,
		},
		{
			name:     "and a breaker that opened for longer",
			backends: chain(guarded("a", boom.opening(minute)), model("b")), retries: again{"a": 3}, policy: attempts(9),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a server_error fallback", "b succeeded"},
			end:   "b",
		},
		{
			name:     "it is waited for when nobody else may be asked",
			backends: chain(model("a", full.hinting(3*second), answers(0)), model("b")), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes = []backend.Class{}, []int{} },
			calls:  []string{"a@0s", "a@3s"},
			trail:  []string{"a rate_limit wait", "a succeeded"},
			waits:  []string{"3s"}, end: "a", at: 3 * second,
		},
		{
			name:     "also for a breaker",
			backends: chain(guarded("a", boom.opening(minute), answers(0)), model("b")), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes = []backend.Class{}, []int{} },
			calls:  []string{"a@0s", "a@1m0s"},
			trail:  []string{"a server_error wait", "a skipped wait", "a succeeded"},
			waits:  []string{"1m0s"}, end: "a", at: minute,
		},
		{
			name:     "but not before the rules engine, which answers rather than waits",
			backends: chain(guarded("a", boom.opening(minute), answers(0)), model("b"), offline()), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes = []backend.Class{}, []int{} },
			calls:  []string{"a@0s", "rules@0s"},
			trail:  []string{"a server_error fallback", "a skipped fallback", "rules succeeded"},
			end:    "rules",
		},
		{
			name:     "a rules engine without an answer lets it wait",
			backends: chain(model("a", boom.hinting(minute), answers(0)), model("b"), offline(noRule)), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes = []backend.Class{}, []int{} },
			calls:  []string{"a@0s", "rules@0s", "a@1m0s"},
			trail:  []string{"a server_error fallback", "rules unsupported wait", "a succeeded"},
			waits:  []string{"1m0s"}, end: "a", at: minute,
		},
		{
			name:     "when the retries have failed, the stop stops",
			backends: chain(model("a", boom), model("b"), offline(noRule)), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes, p.MaxAttempts = []backend.Class{}, []int{}, 9 },
			calls:  []string{"a@0s", "a@1s", "rules@1s"},
			trail:  []string{"a server_error retry", "a server_error fallback", "rules unsupported stop"},
			end:    "!server_error a", at: second,
		},
		{
			name:     "with fallback off they are all that is left",
			backends: chain(model("a", boom), model("b"), offline()), retries: again{"a": 2},
			policy: func(p *fallback.Policy) { p.Enabled = false },
			calls:  []string{"a@0s", "a@1s", "a@3s"},
			trail:  []string{"a server_error retry", "a server_error retry", "a server_error stop"},
			end:    "!server_error a", at: 3 * second,
		},
		{
			name:     "with fallback off MAX_ATTEMPTS caps them",
			backends: chain(model("a", boom), model("b")), retries: again{"a": 5},
			policy: func(p *fallback.Policy) { p.Enabled, p.MaxAttempts = false, 2 },
			calls:  []string{"a@0s", "a@1s"},
			trail:  []string{"a server_error retry", "a server_error stop"},
			end:    "!server_error a", at: second,
		},
		{
			name:     "with fallback off a failure that stays is not repeated",
			backends: chain(model("a", fails(backend.Auth, 0)), model("b")), retries: again{"a": 5},
			policy: func(p *fallback.Policy) { p.Enabled = false },
			calls:  []string{"a@0s"},
			trail:  []string{"a auth stop"},
			end:    "!auth a",
		},
		{
			name:     "a conditional stop lets the retries be",
			backends: chain(model("a", boom, slow), model("b")), retries: again{"a": 1}, policy: conditions("on_rate_limit"),
			calls: []string{"a@0s", "a@1s"},
			trail: []string{"a server_error retry", "a timeout stop"},
			end:   "!timeout a", at: 6 * second,
		},
		{
			name:     "one whose class is not mapped too",
			backends: chain(model("a", boom), model("b")), retries: again{"a": 1}, policy: mapping(fallback.ErrorType, 5, to{backend.Timeout: {"b"}}),
			calls: []string{"a@0s", "a@1s"},
			trail: []string{"a server_error retry", "a server_error stop"},
			end:   "!server_error a", at: second,
		},
		{
			name:     "they come before the mapped ones",
			backends: chain(model("a", slow), model("b"), model("c")), retries: again{"a": 1}, policy: mapping(fallback.Priority, 5, to{backend.Timeout: {"c"}}),
			calls: []string{"a@0s", "a@6s", "c@11s"},
			trail: []string{"a timeout retry", "a timeout fallback", "c succeeded"},
			end:   "c", at: 11 * second,
		},
		{
			name:     "money that is spent makes none",
			backends: chain(model("a", boom.costing(2)), model("b")), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { p.MaxCostUSD, p.MaxAttempts = 1, 9 },
			calls:  []string{"a@0s"},
			trail:  []string{"a server_error stop"},
			end:    "!server_error a",
		},
		{
			name:     "one that would come after the job's time ends the job, when nobody else is there",
			backends: chain(model("a", boom)), retries: again{"a": 3}, budget: 2500 * ms,
			calls: []string{"a@0s", "a@1s"},
			trail: []string{"a server_error retry", "a server_error stop"},
			end:   "!expired", at: second,
		},
		{
			name:     "without a hold a pause falls back",
			backends: chain(model("a", boom), model("b")), retries: again{"a": 3}, hold: -1, policy: attempts(9),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a server_error fallback", "b succeeded"},
			end:   "b",
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

// TestOnlyWhatMayPassIsRetried goes through the classes: what stays as it is is
// not repeated, whatever follows.
func TestOnlyWhatMayPassIsRetried(t *testing.T) {
	t.Parallel()
	passing := []backend.Class{
		backend.Timeout, backend.Connection, backend.ServerError, backend.Overloaded, backend.RateLimit,
		backend.BadResponse, backend.Truncated, backend.EmptyOutput,
	}
	for _, class := range backend.Classes() {
		for _, goOn := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				st := newStage(t, shape{
					backends: chain(model("a", fails(class, 0)), model("b")), retries: again{"a": 1},
					policy: func(p *fallback.Policy) {
						p.MaxAttempts, p.OnErrors, p.OnStatusCodes = 9, []backend.Class{}, []int{}
						if goOn {
							p.OnErrors = backend.Classes()
						}
					},
				})
				st.once(t.Context(), nil, time.Time{})
				want := []string{"a@0s"}
				at := "0s"
				if slices.Contains(passing, class) {
					want, at = append(want, "a@1s"), "1s"
				}
				if goOn && !slices.Contains(endings(), class) {
					want = append(want, "b@"+at)
				}
				require.Equal(t, want, st.calls, class)
			})
		}
	}
}

func TestRetriesDoNotStartAnewAfterARedelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		boom := fails(backend.ServerError, second)
		st := newStage(t, shape{
			backends: chain(model("a", boom), model("b", boom)), retries: again{"a": 2, "b": 1}, hold: minute, policy: attempts(9),
		})
		whole := st.once(t.Context(), nil, time.Time{})
		want := []string{
			"a server_error retry", "a server_error retry", "a server_error fallback", "b server_error retry", "b server_error fallback",
			"a server_error retry", "a server_error retry", "a server_error fallback", "b server_error stop",
		}
		require.Equal(t, want, lines(whole.Trail))
		for cut := range len(whole.Trail) {
			st.calls = nil
			trail := roundTrip(t, whole.Trail[:cut])
			if cut > 0 { // as if it had ended just now
				shift := time.Since(endOf(trail[cut-1]))
				for i := range trail {
					trail[i].StartedAt = trail[i].StartedAt.Add(shift)
				}
			}
			out := st.once(t.Context(), trail, time.Time{})
			require.Equal(t, want, lines(out.Trail), "cut after %d", cut)
			for i := range out.Trail {
				require.Equal(t, whole.Trail[i].WaitMS, out.Trail[i].WaitMS, "cut after %d, entry %d", cut, i)
			}
		}
	})
}

// TestRetriesNeverMultiply runs random chains: all calls stay within the one cap,
// and no retry is made for which a backend went unasked.
func TestRetriesNeverMultiply(t *testing.T) {
	t.Parallel()
	retried := 0
	for seed := range uint64(400) {
		synctest.Test(t, func(t *testing.T) {
			d := seeded(seed)
			retries, backends := again{}, []backend.Backend{}
			for i := range 1 + d(5) {
				name := string(rune('a' + i))
				retries[name] = d(5)
				var script []step
				for range 1 + d(6) {
					s := fails(pick(d, backend.Timeout, backend.ServerError, backend.RateLimit, backend.Overloaded), pick(d, 0, second))
					script = append(script, s.hinting(pick(d, 0, 0, second, 10*second)))
				}
				backends = append(backends, model(name, script...))
			}
			limit := 1 + d(8)
			st := newStage(t, shape{
				backends: backends, retries: retries, hold: pick(d, 0, 0, -1, hour),
				policy: func(p *fallback.Policy) { p.MaxAttempts, p.Jitter = limit, d(2) == 0 },
			})
			out, _ := st.run(t.Context(), time.Time{})
			require.Len(t, st.calls, limit, "%v", lines(out.Trail))
			asked := map[string]bool{}
			for _, a := range out.Trail {
				asked[a.Backend] = true
				if a.Next != nil && *a.Next == "retry" {
					retried++
				}
			}
			require.Len(t, asked, min(limit, len(backends)), "%d attempts: %v", limit, lines(out.Trail))
			if out.Wait == nil {
				requireTruth(t, out)
			}
			inARow, before := 0, ""
			for i, a := range out.Trail { // more in a row than retries only where the chain has nobody else
				if a.Backend != before {
					inARow, before = 0, a.Backend
				}
				if inARow++; len(backends) > 1 && i < len(backends) {
					require.LessOrEqual(t, inARow, 1+retries[a.Backend], "%v", lines(out.Trail))
				}
			}
		})
	}
	require.Greater(t, retried, 300)
}

func TestRetriesOfABackendThatDoesNotExistAreRefused(t *testing.T) {
	t.Parallel()
	_, err := fallback.New(fallback.Config{Backends: chain(model("a")), Retries: again{"a": 1, "x": 1}})
	require.EqualError(t, err, fmt.Sprintf("RETRIES: no backend is called %q; there are: a", "x"))
}
