package fallback_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

func TestWhatAJobMeetsIsNoOtherJobs(t *testing.T) {
	t.Parallel()
	var first []fallback.Candidate // what the job knows at its start
	st := with(t, func(s *fallback.Situation) []int {
		if s.Failure == nil {
			first = slices.Clone(s.Chain)
		}
		order := make([]int, len(s.Chain))
		for i := range order {
			order[i] = i
		}
		return order
	}, minute, model("a", fails(backend.ServerError, 0), fails(backend.ContextLength, 0)), guarded("b"), offline())
	fresh := []fallback.Candidate{{Name: "a"}, {Name: "b"}, {Name: "rules", Degraded: true}}
	for range 3 { // the plan is that of one job, the line-up of all of its route
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, "b", end(out))
		require.Equal(t, fresh, first)
		var err error
		st.plan, err = st.engine.Plan(&job.Job{})
		require.NoError(t, err)
	}
}

func TestPlansOfARouteDifferOnlyWhereTheirJobsDo(t *testing.T) {
	t.Parallel()
	e, err := fallback.New(fallback.Config{Backends: chain(model("a"), model("b"), model("c"))})
	require.NoError(t, err)
	for range 2 {
		for _, c := range []struct {
			job  job.Job
			want []string
		}{
			{job.Job{}, []string{"a", "b", "c"}},
			{job.Job{Primary: "c"}, []string{"c", "a", "b"}},
			{job.Job{Chain: []string{"b"}}, []string{"b"}},
			{job.Job{Policy: &job.Policy{Enabled: new(false)}}, []string{"a"}},
			{job.Job{Policy: &job.Policy{ErrorMappings: map[string][]string{"timeout": {"c"}}}, Chain: []string{"a"}}, []string{"a"}},
			{job.Job{Policy: &job.Policy{MaxAttempts: new(2)}}, []string{"a", "b", "c"}},
		} {
			plan, err := e.Plan(&c.job)
			require.NoError(t, err)
			require.Equal(t, c.want, plan.Chain())
		}
	}
}
