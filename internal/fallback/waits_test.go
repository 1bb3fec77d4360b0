package fallback_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

func TestABackendThatRefusesCallsIsSkippedAndWaitedFor(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0).http(500)
	for _, c := range []play{
		{
			name:     "skipped, at no cost",
			backends: chain(shut("a", minute), guarded("b", boom), guarded("c")), policy: attempts(2),
			calls: []string{"b@0s", "c@0s"},
			trail: []string{"a skipped fallback", "b server_error fallback", "c succeeded"},
			end:   "c",
		},
		{
			name:     "skipped once, however often it is passed over",
			backends: chain(shut("a", minute), guarded("b", boom)), hold: minute,
			calls: []string{"b@0s", "b@1s", "b@3s"},
			trail: []string{"a skipped fallback", "b server_error retry", "b server_error retry", "b server_error stop"},
			end:   "!server_error b", at: 3 * second,
		},
		{
			name:     "skipped again after it was called",
			backends: chain(guarded("a", boom.opening(minute)), guarded("b", boom.opening(3*second), boom.opening(minute), answers(0))), policy: attempts(9), hold: hour,
			calls: []string{"a@0s", "b@0s", "b@3s", "a@1m0s", "b@1m3s"},
			trail: []string{
				"a server_error fallback", "b server_error retry", "a skipped wait", "b skipped wait",
				"b server_error fallback", "b skipped wait",
				"a server_error fallback", "a skipped wait", "b succeeded",
			},
			end: "b", at: 63 * second,
		},
		{
			name:     "those behind the one that is called are not mentioned",
			backends: chain(guarded("a"), shut("b", minute)),
			calls:    []string{"a@0s"},
			trail:    []string{"a succeeded"},
			end:      "a",
		},
		{
			name:     "all shut for a moment: the job waits in its slot for the first that opens",
			backends: chain(shut("a", 2*second), shut("b", 1500*ms)),
			calls:    []string{"b@1.5s"},
			trail:    []string{"a skipped wait", "b skipped wait", "b succeeded"},
			end:      "b", at: 1500 * ms,
		},
		{
			name:     "all shut for longer: the job is handed back",
			backends: chain(shut("a", minute), shut("b", 40*second)),
			calls:    []string{"b@40s"},
			trail:    []string{"a skipped wait", "b skipped wait", "b succeeded"},
			waits:    []string{"40s"}, end: "b", at: 40 * second,
		},
		{
			name:     "without a slot to wait in, every pause is a hand-back of a second or more",
			backends: chain(model("a", boom)), hold: -1, policy: func(p *fallback.Policy) { p.BaseDelay = 300 * ms },
			calls: []string{"a@0s", "a@1s", "a@2s"},
			trail: []string{"a server_error wait", "a server_error wait", "a server_error stop"},
			waits: []string{"1s", "1s"}, end: "!server_error a", at: 2 * second,
		},
		{
			name:     "a refusal in the backend's own words is a skip for the time it tells",
			backends: chain(model("a", refuses(30*second), answers(0)), model("b", boom)), hold: hour, policy: attempts(9),
			calls: []string{"b@0s", "b@1s", "b@3s", "b@7s", "b@15s", "a@30s"},
			trail: []string{
				"a skipped fallback", "b server_error retry", "b server_error retry", "b server_error retry",
				"b server_error retry", "b server_error fallback", "a succeeded",
			},
			end: "a", at: 30 * second,
		},
		{
			name:     "a refusal without a time is one of a second, and does not keep the slot",
			backends: chain(model("a", refuses(0), refuses(0), refuses(0), answers(0))),
			calls:    []string{"a@4s"},
			trail:    []string{"a skipped wait", "a succeeded"},
			waits:    []string{"2s"}, end: "a", at: 4 * second,
		},
		{
			name:     "pauses outside the slot grow with the time waited, to 15 s",
			backends: chain(model("a", append(times(8, refuses(second)), answers(0))...)),
			hold:     -1,
			calls:    []string{"a@1m1s"},
			trail:    []string{"a skipped wait", "a succeeded"},
			waits:    []string{"1s", "1s", "2s", "4s", "8s", "15s", "15s", "15s"}, end: "a", at: 61 * second,
		},
		{
			name:     "a failure before the call leaves costs an attempt all the same",
			backends: chain(model("a", step{class: backend.BadResponse, early: true})),
			trail:    []string{"a bad_response retry", "a bad_response retry", "a bad_response stop"},
			end:      "!bad_response a", at: 3 * second,
		},
		{
			name:     "circuit_open after the call left is a failure that stops the chain",
			backends: chain(model("a", fails(backend.CircuitOpen, 0)), model("b")),
			calls:    []string{"a@0s"},
			trail:    []string{"a circuit_open stop"},
			end:      "!circuit_open a",
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

func TestAnOutageOfEveryModelIsWaitedForAtNoCost(t *testing.T) {
	t.Parallel()
	down := fails(backend.Connection, 0).opening(minute)
	boom := fails(backend.ServerError, 0)
	for _, c := range []play{
		{
			name:     "the exhausted job probes once an open time until the backend is back",
			backends: chain(guarded("a", down, down, down, down, answers(0))), policy: attempts(2),
			calls: []string{"a@0s", "a@1m0s", "a@2m0s", "a@3m0s", "a@4m0s"},
			trail: []string{
				"a connection wait", "a skipped wait", "a connection wait", "a skipped wait",
				"a connection wait", "a skipped wait", "a connection wait", "a skipped wait", "a succeeded",
			},
			waits: []string{"1m0s", "1m0s", "1m0s", "1m0s"}, end: "a", at: 4 * minute,
		},
		{
			name:     "one more call is allowed afterwards, and only one",
			backends: chain(guarded("a", down, boom)), policy: attempts(1),
			calls: []string{"a@0s", "a@1m0s"},
			trail: []string{"a connection wait", "a skipped wait", "a server_error stop"},
			waits: []string{"1m0s"}, end: "!server_error a", at: minute,
		},
		{
			name:     "one backend that takes calls is no outage",
			backends: chain(guarded("a", down), guarded("b", boom)), policy: attempts(2),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a connection fallback", "b server_error stop"},
			end:   "!server_error b",
		},
		{
			name:     "a failure that stops the chain is no outage",
			backends: chain(guarded("a", fails(backend.InvalidRequest, 0).opening(minute))), policy: attempts(1),
			calls: []string{"a@0s"},
			trail: []string{"a invalid_request stop"},
			end:   "!invalid_request a",
		},
		{
			name:     "money that is spent ends an outage",
			backends: chain(guarded("a", down.costing(2))),
			policy:   func(p *fallback.Policy) { p.MaxAttempts, p.MaxCostUSD = 1, 1 },
			calls:    []string{"a@0s"},
			trail:    []string{"a connection stop"},
			end:      "!connection a",
		},
		{
			name:     "a rules engine that answers ends it",
			backends: chain(guarded("a", down), offline()), policy: attempts(1),
			calls: []string{"a@0s", "rules@0s"},
			trail: []string{"a connection fallback", "rules succeeded"},
			end:   "rules",
		},
		{
			name:     "a rules engine that has no answer does not",
			backends: chain(guarded("a", down, answers(0)), offline(fails(backend.Unsupported, 0))), policy: attempts(1),
			calls: []string{"a@0s", "rules@0s", "a@1m0s"},
			trail: []string{"a connection fallback", "rules unsupported wait", "a skipped wait", "a succeeded"},
			waits: []string{"1m0s"}, end: "a", at: minute,
		},
		{
			name:     "a short one is waited for in the slot",
			backends: chain(guarded("a", fails(backend.Connection, 0).opening(1500*ms), answers(0))), policy: attempts(1),
			calls: []string{"a@0s", "a@1.5s"},
			trail: []string{"a connection wait", "a skipped wait", "a succeeded"},
			end:   "a", at: 1500 * ms,
		},
		{
			name:     "one that outlasts the job's time ends it",
			backends: chain(guarded("a", down)), policy: attempts(1), budget: 30 * second,
			calls: []string{"a@0s"},
			trail: []string{"a connection stop"},
			end:   "!expired",
		},
		{
			name: "a backend that is shut until this very moment is not back, and gets the probe",
			backends: chain(
				guarded("a", down, answers(0)),
				guarded("b", fails(backend.Connection, 0).opening(30*second), fails(backend.Timeout, 30*second).opening(minute))),
			policy: attempts(2),
			calls:  []string{"a@0s", "b@0s", "b@30s", "a@1m0s"},
			trail: []string{
				"a connection fallback", "b connection wait", "a skipped wait", "b skipped wait",
				"b timeout fallback", "a succeeded",
			},
			waits: []string{"30s"}, end: "a", at: minute,
		},
		{
			name: "if the probe fails and the breaker stays closed, it was the last call",
			backends: chain(
				guarded("a", down, fails(backend.ServerError, 0)),
				guarded("b", fails(backend.Connection, 0).opening(30*second), fails(backend.Timeout, 30*second).opening(minute))),
			policy: attempts(2),
			calls:  []string{"a@0s", "b@0s", "b@30s", "a@1m0s"},
			trail: []string{
				"a connection fallback", "b connection wait", "a skipped wait", "b skipped wait",
				"b timeout fallback", "a server_error stop",
			},
			waits: []string{"30s"}, end: "!server_error a", at: minute,
		},
		{
			name:     "a wrong key is waited for like an outage",
			backends: chain(guarded("a", fails(backend.Auth, 0).opening(minute), fails(backend.Auth, 0).opening(minute), answers(0))), policy: attempts(1),
			calls: []string{"a@0s", "a@1m0s", "a@2m0s"},
			trail: []string{"a auth wait", "a skipped wait", "a auth wait", "a skipped wait", "a succeeded"},
			waits: []string{"1m0s", "1m0s"}, end: "a", at: 2 * minute,
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

func TestTheTimeBudget(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0)
	for _, c := range []play{
		{
			name:     "ends a running call",
			backends: chain(model("a", fails(backend.Timeout, 5*second)), model("b", answers(hour))), budget: 8 * second,
			calls: []string{"a@0s", "b@5s"},
			trail: []string{"a timeout fallback", "b expired stop"},
			end:   "!expired", at: 8 * second,
		},
		{
			name:     "is not waited out when the pause is longer",
			backends: chain(model("a", boom)), budget: 2 * second,
			calls: []string{"a@0s", "a@1s"},
			trail: []string{"a server_error retry", "a server_error stop"},
			end:   "!expired", at: second,
		},
		{
			name:     "is not waited out when the pause is as long",
			backends: chain(model("a", boom)), budget: second,
			calls: []string{"a@0s"},
			trail: []string{"a server_error stop"},
			end:   "!expired",
		},
		{
			name:     "is not waited out for a breaker",
			backends: chain(shut("a", minute), shut("b", hour)), budget: minute,
			trail: []string{"a skipped stop", "b skipped stop"},
			end:   "!expired",
		},
		{
			name:     "that is up costs no call, not even of the rules engine",
			backends: chain(model("a"), offline()), budget: -second,
			trail: []string{},
			end:   "!expired",
		},
		{
			name:     "that ends a call leaves none to the rules engine",
			backends: chain(model("a", answers(hour)), offline()), budget: second,
			calls: []string{"a@0s"},
			trail: []string{"a expired stop"},
			end:   "!expired", at: second,
		},
		{
			name:     "leaves time to come back for a breaker that opens in it",
			backends: chain(model("a", times(20, refuses(second))...)), hold: -1, budget: 20 * second,
			trail: []string{"a skipped wait"},
			waits: []string{"1s", "1s", "2s", "4s", "6s", "3s", "1.5s", "1s"},
			end:   "!expired", at: 19500 * ms,
		},
		{
			name:     "is no reason to refuse an answer that came",
			backends: chain(model("a", step{takes: 2 * second, deaf: true})), budget: second,
			calls: []string{"a@0s"},
			trail: []string{"a succeeded"},
			end:   "a", at: 2 * second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.budget >= 0 {
				c.run(t)
				return
			}
			synctest.Test(t, func(t *testing.T) {
				st := newStage(t, shape{backends: c.backends})
				out := st.once(t.Context(), nil, st.began.Add(c.budget))
				require.Equal(t, c.end, end(out))
				require.Empty(t, st.calls)
				require.ErrorIs(t, out.Err, fallback.ErrBudget)
			})
		})
	}
}

func TestAPauseSpreadsAndIsTheSameForWhoeverTakesTheJobUp(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for i := range 60 {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Duration(i) * 17 * ms) // another start, another draw
			st := newStage(t, shape{
				backends: chain(model("a", fails(backend.ServerError, 0), answers(0))),
				policy:   func(p *fallback.Policy) { p.Jitter, p.BaseDelay = true, 10*second },
			})
			out := st.once(t.Context(), nil, time.Time{})
			require.Equal(t, []string{"a server_error wait"}, lines(out.Trail))
			pause := time.Until(out.Wait.Until)
			require.GreaterOrEqual(t, pause, 5*second)
			require.Less(t, pause, 10*second)
			seen[pause] = true
			again := st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
			require.Equal(t, out.Wait.Until, again.Wait.Until)
			time.Sleep(pause)
			out = st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
			require.Equal(t, "a", end(out))
			require.Equal(t, pause.Milliseconds(), out.Trail[1].WaitMS)
		})
	}
	require.Greater(t, len(seen), 50)
}

func TestJitterKeepsTheOrderOfTheChain(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0)
	for i := range 20 {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Duration(i) * 97 * ms) // another start, other draws
			st := newStage(t, shape{
				backends: chain(model("a", boom), model("b", boom), model("c", boom)), hold: hour,
				policy: func(p *fallback.Policy) { p.Jitter, p.MaxAttempts = true, 12 },
			})
			out := st.once(t.Context(), nil, time.Time{})
			for i, a := range out.Trail {
				require.Equal(t, string("abc"[i%3]), a.Backend)
				require.Equal(t, i%3 == 0 && i > 0, a.WaitMS > 0, "only the first of a round waits: %d", i)
			}
		})
	}
}

func TestABackendThatJoinsLateRestsToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		boom := fails(backend.ServerError, 0)
		st := newStage(t, shape{
			backends: chain(shut("a", 1500*ms, boom), guarded("b", boom)), hold: hour, policy: attempts(6),
		})
		st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []string{"b@0s", "b@1s", "a@1.5s", "a@2.5s", "a@4.5s", "b@4.5s"}, st.calls)
	})
}

func TestAnEntryTellsAllThatIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(
			shut("s", 1234567*time.Microsecond),
			model("a", fails(backend.RateLimit, 1500*ms).http(429).hinting(2500*time.Microsecond).costing(0.25), step{takes: 2 * second, cost: 0.5}),
		)})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []job.Attempt{
			{
				N: 1, Backend: "s", Outcome: job.OutcomeSkipped, Class: new("circuit_open"), Error: new("the breaker is open for 1.235s"),
				StartedAt: st.began, RetryAfterMS: new(int64(1234)), Next: new(job.NextFallback),
			},
			{
				N: 2, Backend: "a", Model: "a-model", Outcome: job.OutcomeFailed, Class: new("rate_limit"), Status: 429,
				Error: new("scripted rate_limit"), StartedAt: st.began, DurationMS: 1500, RetryAfterMS: new(int64(3)),
				InputTokens: new(int64(3)), OutputTokens: new(int64(5)), CostUSD: new(0.25), Next: new(job.NextFallback),
			},
			{
				N: 3, Backend: "s", Model: "s-model", Outcome: job.OutcomeSucceeded, Status: 200,
				StartedAt: st.began.Add(1500 * ms),
			},
		}, out.Trail)
		require.Equal(t, []string{"1 skipped s", "2 started a", "2 failed a", "3 started s", "3 succeeded s"}, st.heard)
	})
}

// moody is a gate that opens before it said it would, after half a second.
type moody struct{ *fake }

// Ready implements backend.Gate.
func (m moody) Ready() time.Duration {
	if time.Since(m.stage.began) < 500*ms {
		return hour
	}
	return 0
}

func TestWhatWasPromisedIsKeptThoughAnotherBackendCameBackMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(moody{model("a")}, model("b", fails(backend.ServerError, 0)))})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []string{"a skipped fallback", "b server_error retry", "b server_error fallback", "a succeeded"}, lines(out.Trail))
		requireTruth(t, out)
	})
}
