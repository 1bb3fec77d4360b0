package fallback_test

import (
	"testing"

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
