package fallback_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

func TestErrorTypeAsksOnlyWhomTheClassIsMappedTo(t *testing.T) {
	t.Parallel()
	boom, slow, full := fails(backend.ServerError, 0), fails(backend.Timeout, 5*second), fails(backend.RateLimit, 0).http(429)
	for _, c := range []play{
		{
			name:     "the mapped ones, and not the rest of the chain",
			backends: chain(model("a", slow), model("b"), model("c", slow)),
			policy:   mapping(fallback.ErrorType, 3, to{backend.Timeout: {"c"}}), hold: minute,
			calls: []string{"a@0s", "c@5s", "c@11s"},
			trail: []string{"a timeout fallback", "c timeout retry", "c timeout stop"},
			end:   "!timeout c", at: 16 * second,
		},
		{
			name:     "a class that is not mapped stops, though it falls back by default",
			backends: chain(model("a", boom), model("b"), model("c")),
			policy:   mapping(fallback.ErrorType, 0, to{backend.Timeout: {"c"}}),
			calls:    []string{"a@0s"},
			trail:    []string{"a server_error stop"},
			end:      "!server_error a",
		},
		{
			name:     "an empty mapping is none",
			backends: chain(model("a", boom), model("b")),
			policy:   mapping(fallback.ErrorType, 0, to{backend.Timeout: {"b"}, backend.ServerError: {}}),
			calls:    []string{"a@0s"},
			trail:    []string{"a server_error stop"},
			end:      "!server_error a",
		},
		{
			name:     "neither ON_ERRORS nor ON_STATUS_CODES maps a class",
			backends: chain(model("a", boom.http(500)), model("b")),
			policy: func(p *fallback.Policy) {
				mapping(fallback.ErrorType, 0, to{backend.Timeout: {"b"}})(p)
				p.OnErrors, p.OnStatusCodes = []backend.Class{backend.ServerError}, []int{500}
			},
			calls: []string{"a@0s"},
			trail: []string{"a server_error stop"},
			end:   "!server_error a",
		},
		{
			name:     "the rules engine is asked after the stop",
			backends: chain(model("a", boom), model("b"), offline()),
			policy:   mapping(fallback.ErrorType, 0, to{backend.Timeout: {"b"}}),
			calls:    []string{"a@0s", "rules@0s"},
			trail:    []string{"a server_error fallback", "rules succeeded"},
			end:      "rules",
		},
		{
			name:     "a class that stops by default goes on when it is mapped, also outside the chain",
			backends: chain(model("a", fails(backend.ContentFilter, 0)), model("x")), job: job.Job{Chain: []string{"a"}},
			policy: mapping(fallback.ErrorType, 0, to{backend.ContentFilter: {"x"}}),
			calls:  []string{"a@0s", "x@0s"},
			trail:  []string{"a content_filter fallback", "x succeeded"},
			end:    "x",
		},
		{
			name:     "it wraps round over the mapped ones until the attempts are used up",
			backends: chain(model("a", full), model("b", full), model("c", full), model("d")),
			policy:   mapping(fallback.ErrorType, 6, to{backend.RateLimit: {"c", "b"}}), hold: minute,
			calls: []string{"a@0s", "c@0s", "b@0s", "c@1s", "b@1s", "c@3s"},
			trail: []string{
				"a rate_limit fallback", "c rate_limit fallback", "b rate_limit fallback",
				"c rate_limit fallback", "b rate_limit fallback", "c rate_limit stop",
			},
			end: "!rate_limit c", at: 3 * second,
		},
		{
			name:     "each failure by its own class",
			backends: chain(model("a", full), model("b", slow), model("c", boom), model("d")),
			policy:   mapping(fallback.ErrorType, 9, to{backend.RateLimit: {"b"}, backend.Timeout: {"c"}}),
			calls:    []string{"a@0s", "b@0s", "c@5s"},
			trail:    []string{"a rate_limit fallback", "b timeout fallback", "c server_error stop"},
			end:      "!server_error c", at: 5 * second,
		},
		{
			name:     "at first the chain is walked, past breakers too",
			backends: chain(shut("a", minute), model("b", full), model("c")),
			policy:   mapping(fallback.ErrorType, 0, to{backend.RateLimit: {"c"}}),
			calls:    []string{"b@0s", "c@0s"},
			trail:    []string{"a skipped fallback", "b rate_limit fallback", "c succeeded"},
			end:      "c",
		},
		{
			name:     "a mapped one that is closed is waited for",
			backends: chain(model("a", full), model("b"), shut("c", 10*second)),
			policy:   mapping(fallback.ErrorType, 0, to{backend.RateLimit: {"c"}}),
			calls:    []string{"a@0s", "c@10s"},
			trail:    []string{"a rate_limit wait", "c skipped wait", "c succeeded"},
			waits:    []string{"10s"}, end: "c", at: 10 * second,
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

func TestErrorTypeWithoutAMappingIsRefused(t *testing.T) {
	t.Parallel()
	policy := fallback.DefaultPolicy()
	policy.Strategy = fallback.ErrorType
	const why = "error_type needs error mappings: without them no failure leads to another backend"
	_, err := fallback.New(fallback.Config{Backends: chain(model("a")), Routes: []fallback.Route{{Name: "r", Policy: policy}}})
	require.EqualError(t, err, "route r: STRATEGY: "+why)

	e, err := fallback.New(fallback.Config{Backends: chain(model("a"))})
	require.NoError(t, err)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("error_type")}})
	require.EqualError(t, err, "policy.strategy: "+why)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("error_type"), ErrorMappings: map[string][]string{"TimeoutError": {"a"}}}})
	require.NoError(t, err)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("error_type"), Enabled: new(false)}})
	require.NoError(t, err, "with fallback off no failure leads anywhere")
}
