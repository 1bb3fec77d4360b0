package fallback_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

func conditions(texts ...string) func(*fallback.Policy) {
	return func(p *fallback.Policy) { p.Strategy, p.Conditions = fallback.Conditional, texts }
}

func TestConditionalGoesOnOnlyWhileAConditionHolds(t *testing.T) {
	t.Parallel()
	boom, slow, full := fails(backend.ServerError, 0).http(500), fails(backend.Timeout, 5*second), fails(backend.RateLimit, 0).http(429)
	tenant := job.Job{Metadata: json.RawMessage(`{"tenant": "acme", "tier": 2}`)}
	stop := []string{"a server_error stop"}
	goOn := []string{"a server_error fallback", "b succeeded"}
	at0, both := []string{"a@0s"}, []string{"a@0s", "b@0s"}
	for _, c := range []play{
		{
			name: "the first that holds is enough", policy: conditions("on_timeout", "on_service_unavailable"),
			backends: chain(model("a", boom), model("b")), calls: both, trail: goOn, end: "b",
		},
		{
			name: "none holds, though the class falls back by default", policy: conditions("on_timeout", "on_rate_limit"),
			backends: chain(model("a", boom), model("b")), calls: at0, trail: stop, end: "!server_error a",
		},
		{
			name: "each failure by itself", policy: conditions("on_timeout"),
			backends: chain(model("a", slow), model("b", full), model("c")),
			calls:    []string{"a@0s", "b@5s"}, trail: []string{"a timeout fallback", "b rate_limit stop"},
			end: "!rate_limit b", at: 5 * second,
		},
		{
			name: "a class that stops by default goes on", policy: conditions("on_model_not_found"),
			backends: chain(model("a", fails(backend.ModelNotFound, 0).http(404)), model("b")),
			calls:    both, trail: []string{"a model_not_found fallback", "b succeeded"}, end: "b",
		},
		{
			name: "neither ON_ERRORS nor ON_STATUS_CODES is a condition",
			policy: func(p *fallback.Policy) {
				conditions("on_timeout")(p)
				p.OnErrors, p.OnStatusCodes = []backend.Class{backend.ServerError}, []int{500}
			},
			backends: chain(model("a", boom), model("b")), calls: at0, trail: stop, end: "!server_error a",
		},
		{
			name: "the rules engine is asked after a stop", policy: conditions("on_timeout"),
			backends: chain(model("a", boom), model("b"), offline()),
			calls:    []string{"a@0s", "rules@0s"}, trail: []string{"a server_error fallback", "rules succeeded"}, end: "rules",
		},
		{
			name: "the status, and the backend", policy: conditions(`error.status >= 500 && error.backend == "a"`),
			backends: chain(model("a", boom), model("b", boom), model("c")),
			calls:    both, trail: []string{"a server_error fallback", "b server_error stop"}, end: "!server_error b",
		},
		{
			name: "the message", policy: conditions(`error.message contains "overloaded"`),
			backends: chain(model("a", step{class: backend.InvalidRequest, text: "the model is overloaded now"}), model("b")),
			calls:    both, trail: []string{"a invalid_request fallback", "b succeeded"}, end: "b",
		},
		{
			name: "the metadata of the job", policy: conditions(`job.metadata.tenant == "acme" && job.metadata.tier > 1`), job: tenant,
			backends: chain(model("a", boom), model("b")), calls: both, trail: goOn, end: "b",
		},
		{
			name: "other metadata", policy: conditions(`job.metadata.tenant == "acme"`), job: job.Job{Metadata: json.RawMessage(`{"tenant": "evil"}`)},
			backends: chain(model("a", boom), model("b")), calls: at0, trail: stop, end: "!server_error a",
		},
		{
			name: "no metadata", policy: conditions(`job.metadata.tenant == "acme"`),
			backends: chain(model("a", boom), model("b")), calls: at0, trail: stop, end: "!server_error a",
		},
		{
			name: "metadata of another type do not hold", policy: conditions(`job.metadata.tier > 1`), job: job.Job{Metadata: json.RawMessage(`{"tier": {"gold": true}}`)},
			backends: chain(model("a", boom), model("b")), calls: at0, trail: stop, end: "!server_error a",
		},
		{
			name: "and do not keep another condition from holding", policy: conditions(`job.metadata.tier > 1`, "on_any_error"),
			job:      job.Job{Metadata: json.RawMessage(`{"tier": "gold"}`)},
			backends: chain(model("a", boom), model("b")), calls: both, trail: goOn, end: "b",
		},
		{
			name: "the queue and the route that the job took, though it named none", policy: conditions(`job.queue == "high" && job.route == "default"`),
			job:      job.Job{Queue: "high"},
			backends: chain(model("a", boom), model("b")), calls: both, trail: goOn, end: "b",
		},
		{
			name: "the number of the attempt", policy: func(p *fallback.Policy) { conditions("job.attempt < 3")(p); p.MaxAttempts = 9 }, hold: minute,
			backends: chain(model("a", boom), model("b", boom)),
			calls:    []string{"a@0s", "b@0s", "a@1s"}, trail: []string{"a server_error fallback", "b server_error fallback", "a server_error stop"},
			end: "!server_error a", at: second,
		},
		{
			name: "the number of the attempt, over hand-backs", policy: func(p *fallback.Policy) { conditions("job.attempt < 3")(p); p.MaxAttempts = 9 }, hold: -1,
			backends: chain(model("a", boom), model("b", boom)),
			calls:    []string{"a@0s", "b@0s", "a@1s"}, trail: []string{"a server_error fallback", "b server_error wait", "a server_error stop"},
			waits: []string{"1s"}, end: "!server_error a", at: second,
		},
		{
			name: "it does not keep a job that has ended", policy: conditions("on_any_error"),
			backends: chain(model("a", fails(backend.InvalidJob, 0)), model("b")),
			calls:    at0, trail: []string{"a invalid_job stop"}, end: "!invalid_job a",
		},
		{
			name: "it wraps round like the chain", policy: conditions("on_any_error"), hold: minute,
			backends: chain(model("a", boom), model("b", boom)),
			calls:    []string{"a@0s", "b@0s", "a@1s"}, trail: []string{"a server_error fallback", "b server_error fallback", "a server_error stop"},
			end: "!server_error a", at: second,
		},
		{
			name: "with fallback off there is one call",
			policy: func(p *fallback.Policy) {
				conditions("on_any_error")(p)
				p.Enabled = false
			},
			backends: chain(model("a", boom), model("b")), calls: at0, trail: stop, end: "!server_error a",
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

// TestAConditionHoldsTheSameForWhoeverTakesTheJobUp cuts a job after its first
// call: what the condition is about must come with the trail.
func TestAConditionHoldsTheSameForWhoeverTakesTheJobUp(t *testing.T) {
	t.Parallel()
	failure := step{class: backend.InvalidRequest, status: 400, code: "engine_overloaded", kind: "capacity", text: "please come back"}
	for text, holds := range map[string]bool{
		`error.code == "engine_overloaded"`:             true,
		`error.code == "other"`:                         false,
		`error.type == "capacity"`:                      true,
		`error.type == ""`:                              false,
		`error.message contains "come back"`:            true,
		`error.class == "invalid_request"`:              true,
		`error.status == 400 && error.backend == "a"`:   true,
		`error.status == 0`:                             false,
		`job.attempt == 1`:                              true,
		`job.attempt == 2`:                              false,
		`job.metadata.n == 1 && job.route == "default"`: true,
	} {
		synctest.Test(t, func(t *testing.T) {
			st := newStage(t, shape{
				backends: chain(model("a", failure), model("b")), policy: conditions(text),
				job: job.Job{Metadata: json.RawMessage(`{"n": 1}`)},
			})
			whole := st.once(t.Context(), nil, time.Time{})
			again := st.once(t.Context(), roundTrip(t, whole.Trail[:1]), time.Time{})
			require.Equal(t, lines(whole.Trail), lines(again.Trail), text)
			require.Equal(t, end(whole), end(again), text)
			require.Equal(t, holds, whole.Response != nil, text)
		})
	}
}

func TestConditionalWithoutAUsableConditionIsRefused(t *testing.T) {
	t.Parallel()
	policy := fallback.DefaultPolicy()
	policy.Strategy = fallback.Conditional
	const none = "conditional needs conditions: without one no failure leads to another backend"
	_, err := fallback.New(fallback.Config{Backends: chain(model("a")), Routes: []fallback.Route{{Name: "r", Policy: policy}}})
	require.EqualError(t, err, "route r: STRATEGY: "+none)
	policy.Conditions = []string{"on_timeout", "error.clas == 1"}
	_, err = fallback.New(fallback.Config{Backends: chain(model("a")), Routes: []fallback.Route{{Name: "r", Policy: policy}}})
	require.ErrorContains(t, err, "route r: CONDITIONS: condition 2: ")

	e, err := fallback.New(fallback.Config{Backends: chain(model("a"))})
	require.NoError(t, err)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("conditional")}})
	require.EqualError(t, err, "policy.strategy: "+none)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("conditional"), Conditions: []string{"on_timeout", "nonsense("}}})
	wrong := new(job.FieldError)
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "policy.conditions[1]", wrong.Field)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("conditional"), Conditions: []string{strings.Repeat("(", 500)}}})
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "policy.conditions[0]", wrong.Field)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("conditional"), Conditions: []string{"on_timeout"}}})
	require.NoError(t, err)
}
