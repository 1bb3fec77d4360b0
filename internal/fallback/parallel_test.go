package fallback_test

import (
	"testing"
	"time"

	"understudy/internal/backend"
	"understudy/internal/fallback"
)

// racing is the policy parallel, with a hedge delay and a cap on calls.
func racing(hedge time.Duration, limit int) tweak {
	return func(p *fallback.Policy) { p.Strategy, p.HedgeDelay, p.MaxAttempts = fallback.Parallel, hedge, limit }
}

func TestTheTimesOfARace(t *testing.T) {
	t.Parallel()
	boom, slow := fails(backend.ServerError, 0), fails(backend.Timeout, 5*second)
	bad := fails(backend.InvalidRequest, second).http(400)
	noRule := fails(backend.Unsupported, 0)
	for _, c := range []play{
		{
			name:     "all at once, the first answer wins and the others are cancelled in that moment",
			backends: chain(model("a", answers(5*second)), model("b", answers(2*second)), model("c", slow)), policy: racing(0, 0),
			calls: []string{"a@0s", "b@0s", "c@0s"},
			trail: []string{"a cancelled stop", "b succeeded", "c cancelled stop"},
			end:   "b", at: 2 * second,
		},
		{
			name:     "one more every hedge delay",
			backends: chain(model("a", answers(minute)), model("b", answers(minute)), model("c", answers(second)), model("d")), policy: racing(300*ms, 0),
			calls: []string{"a@0s", "b@300ms", "c@600ms", "d@900ms"},
			trail: []string{"a cancelled stop", "b cancelled stop", "c cancelled stop", "d succeeded"},
			end:   "d", at: 900 * ms,
		},
		{
			name:     "no more than needed",
			backends: chain(model("a", answers(200*ms)), model("b"), model("c")), policy: racing(300*ms, 0),
			calls: []string{"a@0s"},
			trail: []string{"a succeeded"},
			end:   "a", at: 200 * ms,
		},
		{
			name:     "a failure starts the next at once, and the hedge delay counts from there",
			backends: chain(model("a", fails(backend.ServerError, second)), model("b", answers(minute)), model("c", answers(minute)), model("d")), policy: racing(3*second, 0),
			calls: []string{"a@0s", "b@1s", "c@4s", "d@7s"},
			trail: []string{"a server_error fallback", "b cancelled stop", "c cancelled stop", "d succeeded"},
			end:   "d", at: 7 * second,
		},
		{
			name:     "a failure beside others starts the next at once too",
			backends: chain(model("a", answers(minute)), model("b", fails(backend.ServerError, second)), model("c", answers(second))), policy: racing(3*second, 0),
			calls: []string{"a@0s", "b@3s", "c@4s"},
			trail: []string{"a cancelled stop", "b server_error fallback", "c succeeded"},
			end:   "c", at: 5 * second,
		},
		{
			name:     "the cap on calls holds",
			backends: chain(model("a", slow), model("b", fails(backend.Timeout, 6*second)), model("c")), policy: racing(0, 2),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a timeout fallback", "b timeout stop"},
			end:   "!timeout b", at: 6 * second,
		},
		{
			name:     "an open breaker is passed over at no cost",
			backends: chain(shut("a", minute), guarded("b", slow), guarded("c", answers(second))), policy: racing(0, 2),
			calls: []string{"b@0s", "c@0s"},
			trail: []string{"a skipped fallback", "b cancelled stop", "c succeeded"},
			end:   "c", at: second,
		},
		{
			name:     "one that refuses in its own words makes room for the next",
			backends: chain(model("a", refuses(minute)), model("b", answers(second)), model("c", answers(minute))), policy: racing(10*second, 2),
			calls: []string{"b@0s"},
			trail: []string{"a skipped fallback", "b succeeded"},
			end:   "b", at: second,
		},
		{
			name:     "when all have failed it wraps round, until the attempts are used up",
			backends: chain(model("a", fails(backend.ServerError, second)), model("b", fails(backend.ServerError, 3*second))), policy: racing(0, 5), hold: minute,
			calls: []string{"a@0s", "b@0s", "a@4s", "b@4s", "a@9s"},
			trail: []string{
				"a server_error fallback", "b server_error fallback",
				"a server_error fallback", "b server_error fallback", "a server_error stop",
			},
			end: "!server_error a", at: 10 * second,
		},
		{
			name:     "it wraps round when it is handed back too",
			backends: chain(model("a", fails(backend.ServerError, second)), model("b", fails(backend.ServerError, 3*second)), model("c", fails(backend.ServerError, 2*second))), policy: racing(0, 6), hold: -1,
			calls: []string{"a@0s", "b@0s", "c@0s", "a@4s", "b@4s", "c@4s"},
			trail: []string{
				"a server_error fallback", "b server_error wait", "c server_error fallback",
				"a server_error fallback", "b server_error stop", "c server_error fallback",
			},
			waits: []string{"1s"}, end: "!server_error b", at: 7 * second,
		},
		{
			name:     "retries are none: the other backends are the retry",
			backends: chain(model("a", boom), model("b", fails(backend.ServerError, second))), policy: racing(0, 4), retries: map[string]int{"a": 3, "b": 3}, hold: minute,
			calls: []string{"a@0s", "b@0s", "a@2s", "b@2s"},
			trail: []string{"a server_error fallback", "b server_error fallback", "a server_error fallback", "b server_error stop"},
			end:   "!server_error b", at: 3 * second,
		},
		{
			name:     "and they do not shorten the backoff",
			backends: chain(model("a", fails(backend.ServerError, 2*second)), model("b", fails(backend.ServerError, second))), policy: racing(0, 6), retries: map[string]int{"a": 3, "b": 3}, hold: minute,
			calls: []string{"a@0s", "b@0s", "a@3s", "b@3s", "a@7s", "b@7s"},
			trail: []string{
				"a server_error retry", "b server_error fallback", "a server_error retry",
				"b server_error fallback", "a server_error stop", "b server_error fallback",
			},
			end: "!server_error a", at: 9 * second,
		},
		{
			name: "also when the last to fail is the first to fail in the next round",
			backends: chain(
				model("a", fails(backend.ServerError, 2*second), fails(backend.ServerError, second)),
				model("b", fails(backend.ServerError, second), fails(backend.ServerError, 2*second))),
			policy: racing(0, 6), retries: map[string]int{"a": 3, "b": 3}, hold: minute,
			calls: []string{"a@0s", "b@0s", "a@3s", "b@3s", "a@7s", "b@7s"},
			trail: []string{
				"a server_error retry", "b server_error fallback", "a server_error fallback",
				"b server_error fallback", "a server_error fallback", "b server_error stop",
			},
			end: "!server_error b", at: 9 * second,
		},
		{
			name:     "a failure that would stop a chain does not stop those that run",
			backends: chain(model("a", bad), model("b", answers(3*second)), model("c")), policy: racing(1500*ms, 0),
			calls: []string{"a@0s"},
			trail: []string{"a invalid_request stop"},
			end:   "!invalid_request a", at: second,
		},
		{
			name:     "they may still win",
			backends: chain(model("a", answers(3*second)), model("b", bad), model("c")), policy: racing(0, 2),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a succeeded", "b invalid_request fallback"},
			end:   "a", at: 3 * second,
		},
		{
			name:     "but nobody is started after it",
			backends: chain(model("a", slow), model("b", bad), model("c")), policy: racing(1500*ms, 9),
			calls: []string{"a@0s", "b@1.5s"},
			trail: []string{"a timeout stop", "b invalid_request fallback"},
			end:   "!timeout a", at: 5 * second,
		},
		{
			name:     "stopped: the rules engine is asked, alone",
			backends: chain(offline(), model("a", fails(backend.InvalidRequest, 2*second)), model("b", fails(backend.Timeout, 5*second))), policy: racing(0, 9),
			calls: []string{"a@0s", "b@0s", "rules@5s"},
			trail: []string{"a invalid_request fallback", "b timeout fallback", "rules succeeded"},
			end:   "rules", at: 5 * second,
		},
		{
			name:     "the rules engine never races, and is asked when every model has failed",
			backends: chain(offline(), model("a", slow), model("b", fails(backend.ServerError, second))), policy: racing(300*ms, 9),
			calls: []string{"a@0s", "b@300ms", "rules@5s"},
			trail: []string{"a timeout fallback", "b server_error fallback", "rules succeeded"},
			end:   "rules", at: 5 * second,
		},
		{
			name:     "a rules engine without an answer lets the race start again",
			backends: chain(model("a", boom, answers(second)), model("b", boom, answers(minute)), offline(noRule)), policy: racing(0, 9),
			calls: []string{"a@0s", "b@0s", "rules@0s", "a@1s", "b@1s"},
			trail: nil, end: "a", at: 2 * second,
		},
		{
			name:     "money that is spent starts nobody",
			backends: chain(model("a", boom.costing(2)), model("b", answers(second)), model("c")),
			policy:   racing(300*ms, 0).and(func(p *fallback.Policy) { p.MaxCostUSD = 1 }),
			calls:    []string{"a@0s"},
			trail:    []string{"a server_error stop"},
			end:      "!server_error a",
		},
		{
			name:     "money that is spent while others run lets them go on, and starts nobody",
			backends: chain(model("a", answers(3*second)), model("b", fails(backend.ServerError, second).costing(2)), model("c")),
			policy:   racing(1200*ms, 0).and(func(p *fallback.Policy) { p.MaxCostUSD = 1 }),
			calls:    []string{"a@0s", "b@1.2s"},
			trail:    []string{"a succeeded", "b server_error fallback"},
			end:      "a", at: 3 * second,
		},
		{
			name:     "with fallback off there is one call",
			backends: chain(model("a", boom), model("b")), policy: racing(0, 5).and(func(p *fallback.Policy) { p.Enabled = false }),
			calls: []string{"a@0s"},
			trail: []string{"a server_error stop"},
			end:   "!server_error a",
		},
		{
			name:     "a round that has begun is not joined by those who had their turn in it",
			backends: chain(model("a", fails(backend.ServerError, 100*ms)), model("b", answers(10*second))), policy: racing(2*second, 5),
			calls: []string{"a@0s", "b@100ms"},
			trail: []string{"a server_error fallback", "b succeeded"},
			end:   "b", at: 10100 * ms,
		},
		{
			name:     "the deadline ends every call",
			backends: chain(model("a", answers(minute)), model("b", answers(minute)), model("c", answers(minute))), policy: racing(2*second, 0), budget: 3 * second,
			calls: []string{"a@0s", "b@2s"},
			trail: []string{"a expired stop", "b expired stop"},
			end:   "!expired", at: 3 * second,
		},
		{
			name:     "a retry hint keeps one out of the next round only until then",
			backends: chain(model("a", fails(backend.RateLimit, 0).hinting(4*second), answers(0)), model("b", boom, fails(backend.ServerError, minute))), policy: racing(0, 9), hold: minute,
			calls: []string{"a@0s", "b@0s", "b@1s", "a@1m1s"},
			trail: nil, end: "a", at: 61 * second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

// tweak changes a policy.
type tweak func(*fallback.Policy)

// and lays one change of a policy over another.
func (f tweak) and(g tweak) tweak {
	return func(p *fallback.Policy) { f(p); g(p) }
}
