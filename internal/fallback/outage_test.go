package fallback_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// patient is a backend that fails, with a health and a gate set by the test.
type patient struct {
	name    string
	closed  time.Duration
	failing bool
	heals   time.Time // zero: never
	calls   int
}

func (p *patient) Name() string         { return p.name }
func (p *patient) Ready() time.Duration { return p.closed }
func (p *patient) Failing() bool        { return p.failing }

func (p *patient) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("m")
	p.calls++
	if !p.heals.IsZero() && time.Now().After(p.heals) {
		return &backend.Response{}, nil
	}
	return nil, &backend.Error{Class: backend.ServerError, Backend: p.name}
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Started(job.Attempt) func() { return nil }
func (deaf) Ended(job.Attempt)          {}

func TestAnOutageThatNotEveryBreakerKnowsYet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		open, other patient
		waits       bool
	}{
		"one is open after failures, the other fails ever since": {patient{closed: time.Minute, failing: true}, patient{failing: true}, true},
		"one is open after failures, the other answers others":   {patient{closed: time.Minute, failing: true}, patient{}, false},
		"one is open for a rate limit, the other fails":          {patient{closed: time.Minute}, patient{failing: true}, false},
		"both fail, none is open":                                {patient{failing: true}, patient{failing: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c.open.name, c.other.name = "a", "b"
				policy := fallback.DefaultPolicy()
				policy.MaxAttempts, policy.Jitter = 2, false
				e, err := fallback.New(fallback.Config{
					Backends: []backend.Backend{&c.open, &c.other},
					Routes:   []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
				})
				require.NoError(t, err)
				plan, err := e.Plan(&job.Job{})
				require.NoError(t, err)
				if c.waits { // the outage ends while the job pauses before its extra call
					c.other.heals = time.Now().Add(1500 * time.Millisecond)
				}
				out := e.Run(t.Context(), fallback.Task{Plan: plan, Observer: deaf{}})
				require.Equal(t, c.waits, out.Response != nil, "%v", out.Err)
				if c.waits {
					require.Equal(t, 3, c.other.calls, "two attempts and one that the outage gave")
					require.Equal(t, job.NextWait, *out.Trail[len(out.Trail)-2].Next)
				}
			})
		})
	}
}
