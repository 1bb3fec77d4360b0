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

// play is one job, and what must become of it to the nanosecond.
type play struct {
	name     string
	backends []backend.Backend
	policy   func(p *fallback.Policy)
	hold     time.Duration
	retries  map[string]int
	job      job.Job
	budget   time.Duration
	calls    []string // backend@moment
	trail    []string // backend, class or outcome, next
	waits    []string // pauses outside the slot
	end      string   // the backend that answered, or !class backend
	at       time.Duration
}

func (c play) run(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: c.backends, policy: c.policy, hold: c.hold, retries: c.retries, job: c.job})
		var deadline time.Time
		if c.budget > 0 {
			deadline = st.began.Add(c.budget)
		}
		out, waits := st.run(t.Context(), deadline)
		if st.races {
			inOrderOfStart(st, out)
		}
		require.Equal(t, c.calls, st.calls)
		if c.trail != nil {
			require.Equal(t, c.trail, lines(out.Trail))
		}
		require.Equal(t, c.waits, waits)
		require.Equal(t, c.end, end(out))
		require.Equal(t, c.at, time.Since(st.began))
		if !st.races {
			requireTruth(t, out)
		}
	})
}

func model(name string, script ...step) *fake   { return &fake{name: name, script: script} }
func guarded(name string, script ...step) gated { return gated{model(name, script...)} }
func offline(script ...step) rules              { return rules{model("rules", script...)} }

// shut is a guarded backend that refuses calls at first.
func shut(name string, d time.Duration, script ...step) gated {
	g := guarded(name, script...)
	g.closed = d
	return g
}

func chain(backends ...backend.Backend) []backend.Backend { return backends }

func attempts(n int) func(*fallback.Policy) {
	return func(p *fallback.Policy) { p.MaxAttempts = n }
}

func TestTheTimesOfAChain(t *testing.T) {
	t.Parallel()
	timeout5, timeout10 := fails(backend.Timeout, 5*second), fails(backend.Timeout, 10*second)
	boom := fails(backend.ServerError, 0).http(500)
	for _, c := range []play{
		{
			name:     "OpenRouter is left at 5.0 s and vLLM's 7 s answer arrives at 12 s",
			backends: chain(model("openrouter", timeout5), model("vllm", answers(7*second))),
			calls:    []string{"openrouter@0s", "vllm@5s"},
			trail:    []string{"openrouter timeout fallback", "vllm succeeded"},
			end:      "vllm", at: 12 * second,
		},
		{
			name:     "one backend is called again after 1, 2 and 4 s",
			backends: chain(model("a", boom)), policy: attempts(4),
			calls: []string{"a@0s", "a@1s", "a@3s", "a@7s"},
			trail: []string{"a server_error retry", "a server_error retry", "a server_error wait", "a server_error stop"},
			waits: []string{"4s"}, end: "!server_error a", at: 7 * second,
		},
		{
			name:     "the exponential base and the cap of the delay",
			backends: chain(model("a", boom)), hold: hour,
			policy: func(p *fallback.Policy) {
				p.MaxAttempts, p.BaseDelay, p.ExponentialBase, p.MaxDelay = 5, 100*ms, 3, second
			},
			calls: []string{"a@0s", "a@100ms", "a@400ms", "a@1.3s", "a@2.3s"},
			trail: []string{"a server_error retry", "a server_error retry", "a server_error retry", "a server_error retry", "a server_error stop"},
			end:   "!server_error a", at: 2300 * ms,
		},
		{
			name:     "no cap",
			backends: chain(model("a", boom)), hold: 100 * hour,
			policy: func(p *fallback.Policy) { p.MaxAttempts, p.BaseDelay, p.MaxDelay, p.ExponentialBase = 4, hour, 0, 10 },
			calls:  []string{"a@0s", "a@1h0m0s", "a@11h0m0s", "a@35h0m0s"}, // a day is the most
			trail:  []string{"a server_error retry", "a server_error retry", "a server_error retry", "a server_error stop"},
			end:    "!server_error a", at: 35 * hour,
		},
		{
			name:     "no delay",
			backends: chain(model("a", boom)),
			policy:   func(p *fallback.Policy) { p.BaseDelay = 0 },
			calls:    []string{"a@0s", "a@0s", "a@0s"},
			trail:    []string{"a server_error retry", "a server_error retry", "a server_error stop"},
			end:      "!server_error a",
		},
		{
			name:     "only the call that wraps round waits, from the end of the last one",
			backends: chain(model("a", timeout5), model("b", timeout10)), policy: attempts(6), hold: minute,
			calls: []string{"a@0s", "b@5s", "a@16s", "b@21s", "a@33s", "b@38s"},
			trail: []string{
				"a timeout fallback", "b timeout fallback", "a timeout fallback",
				"b timeout fallback", "a timeout fallback", "b timeout stop",
			},
			end: "!timeout b", at: 48 * second,
		},
		{
			name:     "three fast failures are three calls at once",
			backends: chain(model("a", boom), model("b", boom), model("c", boom)),
			calls:    []string{"a@0s", "b@0s", "c@0s"},
			trail:    []string{"a server_error fallback", "b server_error fallback", "c server_error stop"},
			end:      "!server_error c",
		},
		{
			name:     "by default every backend of a long chain gets a call",
			backends: chain(model("a", boom), model("b", boom), model("c", boom), model("d", boom), model("e")),
			calls:    []string{"a@0s", "b@0s", "c@0s", "d@0s", "e@0s"},
			trail:    []string{"a server_error fallback", "b server_error fallback", "c server_error fallback", "d server_error fallback", "e succeeded"},
			end:      "e",
		},
		{
			name:     "max_attempts counts over all backends",
			backends: chain(model("a", boom), model("b", boom), model("c")), policy: attempts(2),
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a server_error fallback", "b server_error stop"},
			end:   "!server_error b",
		},
		{
			name: "a 429 goes on at once, and its hint replaces the backoff",
			backends: chain(
				model("a", fails(backend.RateLimit, 0).http(429).hinting(20*second), answers(0)),
				model("b", fails(backend.ServerError, second))),
			policy: attempts(5), hold: minute,
			calls: []string{"a@0s", "b@0s", "b@2s", "b@5s", "b@10s"},
			trail: []string{
				"a rate_limit fallback", "b server_error retry", "b server_error retry",
				"b server_error retry", "b server_error stop",
			},
			end: "!server_error b", at: 11 * second,
		},
		{
			name:     "a hint that is shorter than the backoff replaces it too",
			backends: chain(model("a", fails(backend.RateLimit, 0).http(429).hinting(200*ms), fails(backend.Overloaded, 0), answers(0))),
			calls:    []string{"a@0s", "a@200ms", "a@2.2s"},
			trail:    []string{"a rate_limit retry", "a overloaded retry", "a succeeded"},
			end:      "a", at: 2200 * ms,
		},
		{
			name:     "a hint that is longer is waited for outside the slot",
			backends: chain(model("a", fails(backend.RateLimit, 0).http(429).hinting(90*second), answers(0))),
			calls:    []string{"a@0s", "a@1m30s"},
			trail:    []string{"a rate_limit wait", "a succeeded"},
			waits:    []string{"1m30s"}, end: "a", at: 90 * second,
		},
		{
			name:     "a pause as long as the hold is spent in the slot",
			backends: chain(model("a", fails(backend.RateLimit, 0).hinting(fallback.DefaultHold), answers(0))),
			calls:    []string{"a@0s", "a@2s"},
			trail:    []string{"a rate_limit retry", "a succeeded"},
			end:      "a", at: 2 * second,
		},
		{
			name:     "with fallback off there is one call of the first backend",
			backends: chain(model("a", boom), model("b"), offline()),
			policy:   func(p *fallback.Policy) { *p = fallback.Policy{MaxAttempts: 7} },
			calls:    []string{"a@0s"},
			trail:    []string{"a server_error stop"},
			end:      "!server_error a",
		},
		{
			name:     "with fallback off the first backend is waited for",
			backends: chain(shut("a", 5*second), model("b")),
			policy:   func(p *fallback.Policy) { *p = fallback.Policy{} },
			calls:    []string{"a@5s"},
			trail:    []string{"a skipped wait", "a succeeded"},
			waits:    []string{"5s"}, end: "a", at: 5 * second,
		},
		{
			name:     "without a slot to wait in, what needs no pause is no wait",
			backends: chain(model("a", boom), model("b")), hold: -1,
			calls: []string{"a@0s", "b@0s"},
			trail: []string{"a server_error fallback", "b succeeded"},
			end:   "b",
		},
		{
			name:     "money that is spent stops the models, not the rules engine",
			backends: chain(model("a", boom.costing(0.4)), model("b", boom.costing(0.6)), model("c"), offline()),
			policy:   func(p *fallback.Policy) { p.MaxCostUSD = 1 },
			calls:    []string{"a@0s", "b@0s", "rules@0s"},
			trail:    []string{"a server_error fallback", "b server_error fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "money that is not spent stops nothing",
			backends: chain(model("a", boom.costing(0.4)), model("b", boom.costing(0.5)), model("c")),
			policy:   func(p *fallback.Policy) { p.MaxCostUSD = 1 },
			calls:    []string{"a@0s", "b@0s", "c@0s"},
			trail:    []string{"a server_error fallback", "b server_error fallback", "c succeeded"},
			end:      "c",
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

func TestTheRulesEngineIsAskedLastAndOnce(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0).http(500)
	noRule := fails(backend.Unsupported, 0)
	for _, c := range []play{
		{
			name:     "after a 400, and nobody else",
			backends: chain(model("a", fails(backend.InvalidRequest, 0).http(400)), model("b"), offline()),
			calls:    []string{"a@0s", "rules@0s"},
			trail:    []string{"a invalid_request fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "after a 404, wherever it stands in the chain",
			backends: chain(model("a", fails(backend.ModelNotFound, 0).http(404)), offline(), model("b")),
			calls:    []string{"a@0s", "rules@0s"},
			trail:    []string{"a model_not_found fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "after the last attempt, at no cost",
			backends: chain(model("a", boom), model("b", boom), model("c"), offline()), policy: attempts(2),
			calls: []string{"a@0s", "b@0s", "rules@0s"},
			trail: []string{"a server_error fallback", "b server_error fallback", "rules succeeded"},
			end:   "rules",
		},
		{
			name:     "instead of a backoff",
			backends: chain(model("a", boom), offline()),
			calls:    []string{"a@0s", "rules@0s"},
			trail:    []string{"a server_error fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "instead of waiting for breakers",
			backends: chain(shut("a", minute), shut("b", hour), offline()),
			calls:    []string{"rules@0s"},
			trail:    []string{"a skipped fallback", "b skipped fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "instead of waiting for a backend that refuses in its own words",
			backends: chain(model("a", refuses(minute)), offline()),
			calls:    []string{"rules@0s"},
			trail:    []string{"a skipped fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "when no rule matches, the job goes on as it would without",
			backends: chain(model("a", boom), offline(noRule)),
			calls:    []string{"a@0s", "rules@0s", "a@1s", "a@3s"},
			trail:    []string{"a server_error fallback", "rules unsupported fallback", "a server_error retry", "a server_error stop"},
			end:      "!server_error a", at: 3 * second,
		},
		{
			name:     "when it cannot read the request, the models are still asked",
			backends: chain(offline(fails(backend.InvalidRequest, 0)), model("a", boom, answers(0))),
			calls:    []string{"rules@0s", "a@0s", "a@1s"},
			trail:    []string{"rules invalid_request fallback", "a server_error retry", "a succeeded"},
			end:      "a", at: second,
		},
		{
			name:     "when no rule matches after a 400, the job failed with the 400",
			backends: chain(model("a", fails(backend.InvalidRequest, 0).http(400)), model("b"), offline(noRule)),
			calls:    []string{"a@0s", "rules@0s"},
			trail:    []string{"a invalid_request fallback", "rules unsupported stop"},
			end:      "!invalid_request a",
		},
		{
			name:     "two of them, once each",
			backends: chain(model("a", fails(backend.InvalidRequest, 0)), offline(noRule), rules{model("more", noRule)}),
			calls:    []string{"a@0s", "rules@0s", "more@0s"},
			trail:    []string{"a invalid_request fallback", "rules unsupported fallback", "more unsupported stop"},
			end:      "!invalid_request a",
		},
		{
			name:     "once though it says that it was cancelled, which nobody did, and though the job was handed back",
			backends: chain(shut("a", 5*second, boom, answers(0)), offline(fails(backend.Canceled, 0))),
			calls:    []string{"rules@0s", "a@5s", "a@6s"},
			trail:    []string{"a skipped fallback", "rules cancelled wait", "a server_error retry", "a succeeded"},
			waits:    []string{"5s"}, end: "a", at: 6 * second,
		},
		{
			name:     "alone",
			backends: chain(offline(noRule)),
			calls:    []string{"rules@0s"},
			trail:    []string{"rules unsupported stop"},
			end:      "!unsupported rules",
		},
		{
			name:     "it is not waited for",
			backends: chain(shutRules{rules{&fake{name: "rules", closed: minute}}}),
			trail:    []string{"rules skipped stop"},
			end:      "!circuit_open",
		},
		{
			name:     "a refusal of its own does not hold the job",
			backends: chain(model("a", fails(backend.InvalidRequest, 0)), offline(refuses(0))),
			calls:    []string{"a@0s"},
			trail:    []string{"a invalid_request fallback", "rules skipped stop"},
			end:      "!invalid_request a",
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

// TestTheOrderOfTheChainHoldsOnARealClock pins that backends which rest for the
// same time are called in order though the clock moves while they are looked at.
func TestTheOrderOfTheChainHoldsOnARealClock(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0)
	for range 20 {
		st := newStage(t, shape{
			backends: chain(model("a", boom), model("b", boom), model("c", boom)),
			policy:   func(p *fallback.Policy) { p.MaxAttempts, p.BaseDelay, p.MaxDelay = 9, ms, ms },
		})
		out := st.once(t.Context(), nil, time.Time{})
		for i, a := range out.Trail {
			require.Equal(t, string("abc"[i%3]), a.Backend)
		}
	}
}
