package fallback_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/fallback"
	"understudy/internal/job"
)

// requireTruth requires of the trail of a job that ended in one piece that it is
// numbered in order and that every entry tells what really followed it.
func requireTruth(tb testing.TB, out fallback.Outcome) {
	tb.Helper()
	for i, a := range out.Trail {
		last := i == len(out.Trail)-1
		if i > 0 {
			require.Greater(tb, a.N, out.Trail[i-1].N)
		}
		if a.Next == nil {
			require.Equal(tb, job.OutcomeSucceeded, a.Outcome)
			require.True(tb, last, "entry %d after a success: %v", i, lines(out.Trail))
			require.NotNil(tb, out.Response)
			continue
		}
		var follows *job.Attempt
		if !last {
			follows = &out.Trail[i+1]
		}
		switch *a.Next {
		case job.NextStop:
			require.True(tb, last || follows.Outcome == job.OutcomeSkipped && *follows.Next == job.NextStop, "%v", lines(out.Trail))
			require.NotNil(tb, out.Err)
		case job.NextRetry:
			require.NotNil(tb, follows, "%v", lines(out.Trail))
			require.True(tb, follows.Backend == a.Backend || follows.Outcome == job.OutcomeSkipped, "%v", lines(out.Trail))
		case job.NextFallback:
			require.NotNil(tb, follows, "%v", lines(out.Trail))
			require.True(tb, follows.Backend != a.Backend || follows.Outcome == job.OutcomeSkipped, "%v", lines(out.Trail))
		case job.NextWait: // what can be called afterwards is open
		}
	}
}

// inOrderOfStart requires the truth of a trail of calls that ran at once, and
// then sorts what the test compares: calls that leave at the same moment are
// numbered as it happens.
func inOrderOfStart(st *stage, out fallback.Outcome) {
	requireRaceTruth(st.t, out)
	slices.SortStableFunc(out.Trail, func(a, b job.Attempt) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), strings.Compare(a.Backend, b.Backend))
	})
	slices.SortStableFunc(st.calls, func(a, b string) int {
		nameA, atA, _ := strings.Cut(a, "@")
		nameB, atB, _ := strings.Cut(b, "@")
		durA, _ := time.ParseDuration(atA)
		durB, _ := time.ParseDuration(atB)
		return cmp.Or(cmp.Compare(durA, durB), strings.Compare(nameA, nameB))
	})
}

// requireRaceTruth is requireTruth for calls that ran at once: what followed an
// entry ran already when it ended, or began then.
func requireRaceTruth(tb testing.TB, out fallback.Outcome) {
	tb.Helper()
	won := 0
	for i, a := range out.Trail {
		if i > 0 {
			require.Greater(tb, a.N, out.Trail[i-1].N)
		}
		if a.Outcome == job.OutcomeSucceeded {
			won++
			require.Nil(tb, a.Next)
			continue
		}
		require.NotNil(tb, a.Next)
		over := endOf(a)
		follows := func(b job.Attempt) bool {
			return b.N != a.N && (!b.StartedAt.Before(over.Truncate(ms)) || b.Outcome != job.OutcomeSkipped && !endOf(b).Before(over))
		}
		switch *a.Next {
		case job.NextFallback:
			require.True(tb, slices.ContainsFunc(out.Trail, follows), "%d: %v", a.N, lines(out.Trail))
		case job.NextRetry:
			require.True(tb, slices.ContainsFunc(out.Trail, func(b job.Attempt) bool {
				return (b.Backend == a.Backend || b.Outcome == job.OutcomeSkipped) && follows(b)
			}), "%d: %v", a.N, lines(out.Trail))
		case job.NextStop:
			require.True(tb, out.Response != nil || out.Err != nil)
		case job.NextWait:
		}
	}
	require.Equal(tb, out.Response != nil, won == 1, "%v", lines(out.Trail))
	require.LessOrEqual(tb, won, 1)
}

func endOf(a job.Attempt) time.Time {
	return a.StartedAt.Add(time.Duration(a.DurationMS) * ms)
}
