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

// mapping sets a strategy with error mappings and a cap on calls.
func mapping(strategy string, limit int, to map[backend.Class][]string) func(*fallback.Policy) {
	return func(p *fallback.Policy) { p.Strategy, p.MaxAttempts, p.ErrorMappings = strategy, limit, to }
}

type to = map[backend.Class][]string

// TestOnlyMappingStrategiesAskOutsideTheChain pins that the other strategies do not
// ask the backends that only ERROR_MAPPINGS name.
func TestOnlyMappingStrategiesAskOutsideTheChain(t *testing.T) {
	t.Parallel()
	for name, setUp := range strategies() {
		want := 0
		if name == fallback.Priority || name == fallback.ErrorType {
			want = 1
		}
		synctest.Test(t, func(t *testing.T) {
			boom, x := fails(backend.ServerError, 0), model("x")
			st := newStage(t, shape{
				backends: chain(model("a", boom), model("b", boom), x), job: job.Job{Chain: []string{"a", "b"}},
				policy: func(p *fallback.Policy) {
					setUp(p)
					p.Strategy, p.MaxAttempts, p.ErrorMappings = name, 6, to{backend.ServerError: {"x"}}
				},
				hold: hour,
			})
			st.once(t.Context(), nil, time.Time{})
			require.Equal(t, want, x.made, name)
		})
	}
}

func TestThePriorityOfAClassComesBeforeTheRestOfTheChain(t *testing.T) {
	t.Parallel()
	boom, slow, full := fails(backend.ServerError, 0), fails(backend.Timeout, 5*second), fails(backend.RateLimit, 0).http(429)
	gone := fails(backend.ModelNotFound, 0).http(404)
	abc := job.Job{Chain: []string{"a", "b", "c"}}
	for _, c := range []play{
		{
			name:     "the mapped one first, in the order of the mapping, then the rest",
			backends: chain(model("a", slow), model("b"), model("c", slow), model("d", slow)),
			policy:   mapping(fallback.Priority, 9, to{backend.Timeout: {"d", "c"}}),
			calls:    []string{"a@0s", "d@5s", "c@10s", "b@15s"},
			trail:    []string{"a timeout fallback", "d timeout fallback", "c timeout fallback", "b succeeded"},
			end:      "b", at: 15 * second,
		},
		{
			name:     "a mapped one from outside the chain",
			backends: chain(model("a", full), model("b"), model("c"), model("x")), job: abc,
			policy: mapping(fallback.Priority, 0, to{backend.RateLimit: {"x"}}),
			calls:  []string{"a@0s", "x@0s"},
			trail:  []string{"a rate_limit fallback", "x succeeded"},
			end:    "x",
		},
		{
			name:     "one from outside the chain is asked for its class only",
			backends: chain(model("a", boom), model("b", boom), model("c", boom), model("x")), job: abc,
			policy: mapping(fallback.Priority, 0, to{backend.RateLimit: {"x"}}),
			calls:  []string{"a@0s", "b@0s", "c@0s"},
			trail:  []string{"a server_error fallback", "b server_error fallback", "c server_error stop"},
			end:    "!server_error c",
		},
		{
			name:     "whom to ask follows from the last failure, not from the first",
			backends: chain(model("a", slow), model("b", full), model("c"), model("d")),
			policy:   mapping(fallback.Priority, 0, to{backend.Timeout: {"b"}, backend.RateLimit: {"d"}}),
			calls:    []string{"a@0s", "b@5s", "d@5s"},
			trail:    []string{"a timeout fallback", "b rate_limit fallback", "d succeeded"},
			end:      "d", at: 5 * second,
		},
		{
			name:     "when it wraps round, the mapped ones come first again",
			backends: chain(model("a", slow), model("b", slow), model("c", slow)),
			policy:   mapping(fallback.Priority, 7, to{backend.Timeout: {"c"}}), hold: minute,
			calls: []string{"a@0s", "c@5s", "b@10s", "c@16s", "a@21s", "b@26s", "c@33s"},
			trail: []string{
				"a timeout fallback", "c timeout fallback", "b timeout fallback",
				"c timeout fallback", "a timeout fallback", "b timeout fallback", "c timeout stop",
			},
			end: "!timeout c", at: 38 * second,
		},
		{
			name:     "nobody is asked a second time while another was not asked",
			backends: chain(model("a", slow), model("b")),
			policy:   mapping(fallback.Priority, 0, to{backend.Timeout: {"a"}}),
			calls:    []string{"a@0s", "b@5s"},
			trail:    []string{"a timeout fallback", "b succeeded"},
			end:      "b", at: 5 * second,
		},
		{
			name:     "a class that would stop goes on when it is mapped",
			backends: chain(model("a", gone), model("b"), model("c")),
			policy:   mapping(fallback.Priority, 0, to{backend.ModelNotFound: {"c"}}),
			calls:    []string{"a@0s", "c@0s"},
			trail:    []string{"a model_not_found fallback", "c succeeded"},
			end:      "c",
		},
		{
			name:     "and to the rest of the chain after the mapped ones",
			backends: chain(model("a", gone), model("b"), model("c", gone)),
			policy:   mapping(fallback.Priority, 0, to{backend.ModelNotFound: {"c"}}),
			calls:    []string{"a@0s", "c@0s", "b@0s"},
			trail:    []string{"a model_not_found fallback", "c model_not_found fallback", "b succeeded"},
			end:      "b",
		},
		{
			name:     "a class that would stop and is not mapped stops",
			backends: chain(model("a", gone), model("b"), offline()),
			policy:   mapping(fallback.Priority, 0, to{backend.Timeout: {"b"}}),
			calls:    []string{"a@0s", "rules@0s"},
			trail:    []string{"a model_not_found fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "ON_ERRORS rules the classes that are not mapped: stop",
			backends: chain(model("a", boom), model("b")),
			policy: func(p *fallback.Policy) {
				mapping(fallback.Priority, 0, to{backend.Timeout: {"b"}})(p)
				p.OnErrors = []backend.Class{backend.RateLimit}
			},
			calls: []string{"a@0s"},
			trail: []string{"a server_error stop"},
			end:   "!server_error a",
		},
		{
			name:     "ON_ERRORS does not rule those that are",
			backends: chain(model("a", slow), model("b")),
			policy: func(p *fallback.Policy) {
				mapping(fallback.Priority, 0, to{backend.Timeout: {"b"}})(p)
				p.OnErrors = []backend.Class{backend.RateLimit}
			},
			calls: []string{"a@0s", "b@5s"},
			trail: []string{"a timeout fallback", "b succeeded"},
			end:   "b", at: 5 * second,
		},
		{
			name:     "a mapping does not keep a job that has ended",
			backends: chain(model("a", fails(backend.Poison, 0)), model("b")),
			policy:   mapping(fallback.Priority, 0, to{backend.Poison: {"b"}}),
			calls:    []string{"a@0s"},
			trail:    []string{"a poison stop"},
			end:      "!poison a",
		},
		{
			name:     "a mapped one whose breaker is open is skipped for the rest",
			backends: chain(model("a", slow), model("b"), shut("c", minute)),
			policy:   mapping(fallback.Priority, 0, to{backend.Timeout: {"c"}}),
			calls:    []string{"a@0s", "b@5s"},
			trail:    []string{"a timeout fallback", "c skipped fallback", "b succeeded"},
			end:      "b", at: 5 * second,
		},
		{
			name:     "the rules engine can be mapped, and is asked once",
			backends: chain(model("a", full), model("b"), offline(fails(backend.Unsupported, 0))),
			policy:   mapping(fallback.Priority, 0, to{backend.RateLimit: {"rules"}}),
			calls:    []string{"a@0s", "rules@0s", "b@0s"},
			trail:    []string{"a rate_limit fallback", "rules unsupported fallback", "b succeeded"},
			end:      "b",
		},
		{
			name:     "one from outside the chain that takes calls is no outage",
			backends: chain(guarded("a", slow.opening(minute)), model("x")), job: job.Job{Chain: []string{"a"}},
			policy: mapping(fallback.Priority, 1, to{backend.Timeout: {"x"}}),
			calls:  []string{"a@0s"},
			trail:  []string{"a timeout stop"},
			end:    "!timeout a", at: 5 * second,
		},
		{
			name:     "and counts for nothing where nobody asks for it",
			backends: chain(guarded("a", boom.opening(minute), answers(0)), shut("x", hour)), job: job.Job{Chain: []string{"a"}},
			policy: mapping(fallback.Priority, 1, to{backend.Timeout: {"x"}}),
			calls:  []string{"a@0s", "a@1m0s"},
			trail:  []string{"a server_error wait", "a skipped wait", "a succeeded"},
			waits:  []string{"1m0s"}, end: "a", at: minute,
		},
		{
			name:     "the primary of the job comes first",
			backends: chain(model("a"), model("b", slow), model("c")), job: job.Job{Primary: "b"},
			policy: mapping(fallback.Priority, 0, to{backend.Timeout: {"c"}}),
			calls:  []string{"b@0s", "c@5s"},
			trail:  []string{"b timeout fallback", "c succeeded"},
			end:    "c", at: 5 * second,
		},
		{
			name:     "with fallback off there is one call",
			backends: chain(model("a", slow), model("b")),
			policy: func(p *fallback.Policy) {
				mapping(fallback.Priority, 5, to{backend.Timeout: {"b"}})(p)
				p.Enabled = false
			},
			calls: []string{"a@0s"},
			trail: []string{"a timeout stop"},
			end:   "!timeout a", at: 5 * second,
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}
