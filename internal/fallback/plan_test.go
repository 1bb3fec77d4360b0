package fallback_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// plans is an engine with the backends a, b, c and the routes default, qa, off.
func plans(t *testing.T) *fallback.Engine {
	t.Helper()
	qa := fallback.Route{Name: "qa", Chain: []string{"b", "c"}, Policy: fallback.DefaultPolicy()}
	qa.MaxAttempts, qa.Timeout, qa.OnErrors = 5, minute, []backend.Class{backend.Timeout}
	e, err := fallback.New(fallback.Config{
		Backends: chain(model("a"), model("b"), model("c")),
		Routes:   []fallback.Route{qa, {Name: "off"}},
		Strategies: map[string]fallback.NewStrategy{
			fallback.Sequential: fallback.Strategies()[fallback.Sequential],
			"conditional": func(p *fallback.Policy) (fallback.Strategy, error) {
				if len(p.Conditions) != 1 {
					return nil, errors.New("conditions: give one")
				}
				return nil, nil //nolint:nilnil // never asked here
			},
		},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"default", "off", "qa"}, e.Routes())
	return e
}

func TestThePlanOfAJob(t *testing.T) {
	t.Parallel()
	e := plans(t)
	qaPolicy := fallback.DefaultPolicy()
	qaPolicy.MaxAttempts, qaPolicy.Timeout, qaPolicy.OnErrors = 5, minute, []backend.Class{backend.Timeout}
	own := fallback.Policy{
		Enabled: true, Strategy: "conditional", MaxAttempts: 2, BaseDelay: 250 * ms, MaxDelay: 2 * second,
		ExponentialBase: 3, Jitter: false, OnStatusCodes: []int{404}, OnErrors: []backend.Class{backend.RateLimit},
		ErrorMappings: map[backend.Class][]string{backend.RateLimit: {"c", "a"}}, Conditions: []string{"on_timeout"},
		Weights: map[string]float64{"a": 2}, HedgeDelay: 300 * ms, Timeout: 9 * second, MaxCostUSD: 0.5,
	}
	for _, c := range []struct {
		name   string
		job    job.Job
		route  string
		chain  []string
		policy fallback.Policy
		budget time.Duration
	}{
		{"a job that names nothing", job.Job{}, "default", []string{"a", "b", "c"}, fallback.DefaultPolicy(), 0},
		{"a route", job.Job{Route: "qa"}, "qa", []string{"b", "c"}, qaPolicy, minute},
		{"a model that is a route's name", job.Job{Model: "qa"}, "qa", []string{"b", "c"}, qaPolicy, minute},
		{"a model that is none", job.Job{Model: "gpt-x"}, "default", []string{"a", "b", "c"}, fallback.DefaultPolicy(), 0},
		{"the route beats the model", job.Job{Route: "default", Model: "qa"}, "default", []string{"a", "b", "c"}, fallback.DefaultPolicy(), 0},
		{"a chain", job.Job{Route: "qa", Chain: []string{"c", "a"}}, "qa", []string{"c", "a"}, qaPolicy, minute},
		{"a primary of the chain", job.Job{Primary: "c"}, "default", []string{"c", "a", "b"}, fallback.DefaultPolicy(), 0},
		{"a primary from outside the chain", job.Job{Route: "qa", Primary: "a"}, "qa", []string{"a", "b", "c"}, qaPolicy, minute},
		{"a chain and a primary", job.Job{Chain: []string{"c", "a"}, Primary: "a"}, "default", []string{"a", "c"}, fallback.DefaultPolicy(), 0},
		{"a timeout", job.Job{Route: "qa", Timeout: second}, "qa", []string{"b", "c"}, qaPolicy, second},
		{"fallback off", job.Job{Route: "off"}, "off", []string{"a"}, fallback.Policy{Strategy: fallback.Sequential}, 0},
		{"fallback off with a primary", job.Job{Route: "off", Primary: "c"}, "off", []string{"c"}, fallback.Policy{Strategy: fallback.Sequential}, 0},
		{"a policy of its own", job.Job{Route: "qa", Policy: &job.Policy{
			Enabled: new(true), Strategy: new("conditional"), MaxAttempts: new(2), BaseDelayMS: new(int64(250)), MaxDelayMS: new(int64(2000)),
			ExponentialBase: new(3.0), Jitter: new(false), OnStatusCodes: []int{404}, OnErrors: []string{"RateLimitError"},
			ErrorMappings: map[string][]string{"RateLimitError": {"c"}, "rate_limit": {"c", "a"}}, Conditions: []string{"on_timeout"},
			Weights: map[string]float64{"a": 2}, HedgeDelayMS: new(int64(300)), TimeoutMS: new(int64(9000)), MaxCostUSD: new(0.5),
		}}, "qa", []string{"b", "c"}, own, 9 * second},
		{"an empty policy changes nothing", job.Job{Route: "qa", Policy: &job.Policy{}}, "qa", []string{"b", "c"}, qaPolicy, minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := e.Plan(&c.job)
			require.NoError(t, err)
			require.Equal(t, c.route, p.Route)
			require.Equal(t, c.chain, p.Chain())
			require.Equal(t, asJSON(t, c.policy), asJSON(t, p.Policy))
			require.Equal(t, c.budget, p.Budget)
		})
	}
}

func TestAJobThatNamesWhatDoesNotExistIsToldWhatDoes(t *testing.T) {
	t.Parallel()
	e := plans(t)
	for _, c := range []struct {
		job  job.Job
		want string
	}{
		{job.Job{Route: "nope"}, `route: no route is called "nope"; there are: default, off, qa`},
		{job.Job{Chain: []string{"a", "x"}}, `chain[1]: no backend is called "x"; there are: a, b, c`},
		{job.Job{Chain: []string{"a", "x"}, Primary: "b"}, `chain[1]: no backend is called "x"; there are: a, b, c`},
		{job.Job{Chain: []string{"a", "b", "a"}}, `chain[2]: names "a" a second time; a chain wraps round by itself`},
		{job.Job{Primary: "y"}, `primary: no backend is called "y"; there are: a, b, c`},
		{job.Job{Policy: &job.Policy{Strategy: new("parallel")}}, `policy.strategy: "parallel" is not available; there are: conditional, sequential`},
		{job.Job{Policy: &job.Policy{Strategy: new("conditional")}}, `policy.strategy: conditions: give one`},
		{job.Job{Policy: &job.Policy{Weights: map[string]float64{"a": 1, "z": 1}}}, `policy.weights.z: no backend is called "z"; there are: a, b, c`},
		{
			job.Job{Policy: &job.Policy{ErrorMappings: map[string][]string{"timeout": {"a", "z"}}}},
			`policy.error_mappings.timeout[1]: no backend is called "z"; there are: a, b, c`,
		},
		{
			job.Job{Policy: &job.Policy{OnErrors: []string{"timeout", "bad luck"}}},
			`policy.on_errors[1]: unknown error class "bad luck"; there are: timeout, connection, server_error, overloaded, rate_limit, quota, auth, ` +
				`permission, context_length, too_large, unsupported, bad_response, truncated, empty_output, model_not_found, invalid_request, ` +
				`content_filter, cancelled, expired, invalid_job, poison, circuit_open`,
		},
		{
			job.Job{Policy: &job.Policy{ErrorMappings: map[string][]string{"misfortune": {"a"}}}},
			`policy.error_mappings: unknown error class "misfortune"; there are: timeout, connection, server_error, overloaded, rate_limit, quota, auth, ` +
				`permission, context_length, too_large, unsupported, bad_response, truncated, empty_output, model_not_found, invalid_request, ` +
				`content_filter, cancelled, expired, invalid_job, poison, circuit_open`,
		},
	} {
		_, err := e.Plan(&c.job)
		require.EqualError(t, err, c.want)
		_, ok := errors.AsType[*job.FieldError](err)
		require.True(t, ok, "%T", err)
	}
}

func TestAConfigurationIsCheckedWhole(t *testing.T) {
	t.Parallel()
	bad := fallback.Route{Name: "bad", Chain: []string{"a", "x", "a"}, Policy: fallback.Policy{
		Enabled: true, MaxAttempts: 1001, BaseDelay: -1, ExponentialBase: 0.5, HedgeDelay: -1, MaxCostUSD: -1, OnStatusCodes: []int{99, 200, 600},
		Weights: map[string]float64{"a": -1, "y": 1}, ErrorMappings: map[backend.Class][]string{backend.Timeout: {"z"}},
	}}
	worse := fallback.Route{Name: "worse", Policy: fallback.DefaultPolicy()}
	worse.ExponentialBase, worse.MaxCostUSD, worse.Strategy, worse.MaxAttempts = math.NaN(), math.Inf(1), "chance", -1
	odd := fallback.Route{Name: "odd", Policy: fallback.Policy{Strategy: "picky"}}
	strategies := fallback.Strategies()
	strategies["picky"] = func(*fallback.Policy) (fallback.Strategy, error) { return nil, errors.New("CONDITIONS: none given") }
	_, err := fallback.New(fallback.Config{
		Backends: chain(model("a"), model("b"), model("a")), Routes: []fallback.Route{bad, worse, odd, odd, {}}, Strategies: strategies,
	})
	require.EqualError(t, err, `backend a is configured twice
route odd is configured twice
a route has no name
route bad: MAX_ATTEMPTS: 1001 is not between 0 and 1000
route bad: BASE_DELAY, MAX_DELAY: must not be negative
route bad: EXPONENTIAL_BASE: 0.5 is not 1 or more
route bad: HEDGE_DELAY, TIMEOUT: must not be negative
route bad: MAX_COST_USD: -1 is not 0 or more
route bad: WEIGHTS: a: -1 is not 0 or more
route bad: ON_STATUS_CODES: 99 is no HTTP status
route bad: ON_STATUS_CODES: 600 is no HTTP status
route bad: CHAIN: names "a" twice
route bad: CHAIN: no backend is called "x"; there are: a, b
route bad: ERROR_MAPPINGS: no backend is called "z"; there are: a, b
route bad: WEIGHTS: no backend is called "y"; there are: a, b
route odd: STRATEGY: CONDITIONS: none given
route worse: MAX_ATTEMPTS: -1 is not between 0 and 1000
route worse: EXPONENTIAL_BASE: NaN is not 1 or more
route worse: MAX_COST_USD: +Inf is not 0 or more
route worse: STRATEGY: "chance" is not available; there are: conditional, error_type, parallel, picky, priority, random, sequential`)
	_, err = fallback.New(fallback.Config{})
	require.EqualError(t, err, "no backend is configured")
}

func TestTheDefaultsOfAPolicy(t *testing.T) {
	t.Parallel()
	require.Equal(t, fallback.Policy{
		Enabled: true, Strategy: "sequential", Jitter: true,
		BaseDelay: second, MaxDelay: minute, ExponentialBase: 2,
	}, fallback.DefaultPolicy())
	require.Equal(t, 3, fallback.DefaultMaxAttempts)
}

// asJSON is a policy without what an engine made of its conditions.
func asJSON(tb testing.TB, p fallback.Policy) string {
	tb.Helper()
	data, err := json.Marshal(p)
	require.NoError(tb, err)
	return string(data)
}
