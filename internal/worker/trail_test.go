package worker

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// logTo returns a logger without times.
func logTo(out *strings.Builder, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})).With("job_id", "j")
}

func TestWhatTheLogSaysOfAttempts(t *testing.T) {
	t.Parallel()
	stop := job.NextStop
	for _, c := range []struct {
		attempt job.Attempt
		level   slog.Level
		line    string
	}{
		{
			job.Attempt{N: 1, Backend: "b", Outcome: job.OutcomeSucceeded, Status: 200, DurationMS: 7},
			slog.LevelDebug, `level=DEBUG msg="attempt succeeded" job_id=j attempt=1 backend=b duration_ms=7`,
		},
		{
			job.Attempt{N: 2, Backend: "b", Outcome: job.OutcomeSkipped, Class: new("circuit_open"), Next: &stop},
			slog.LevelDebug, `level=DEBUG msg="backend skipped" job_id=j attempt=2 backend=b class=circuit_open next=stop`,
		},
		{
			job.Attempt{N: 3, Backend: "b", Outcome: job.OutcomeFailed, Class: new("rate_limit"), Status: 429, Error: new("secret"), RetryAfterMS: new(int64(9)), Next: &stop},
			slog.LevelWarn, `level=WARN msg="attempt failed" job_id=j attempt=3 backend=b class=rate_limit status=429 duration_ms=0 next=stop retry_after_ms=9`,
		},
		{
			job.Attempt{N: 4, Backend: "b", Outcome: job.OutcomeFailed, Class: new("timeout")},
			slog.LevelWarn, `level=WARN msg="attempt failed" job_id=j attempt=4 backend=b class=timeout status=0 duration_ms=0 next=""`,
		},
	} {
		var told, silent strings.Builder
		loggingTo(logTo(&told, c.level)).logAttempt(&c.attempt)
		require.Equal(t, c.line+"\n", told.String())
		loggingTo(logTo(&silent, c.level+1)).logAttempt(&c.attempt)
		require.Empty(t, silent.String())
	}
}

// unwritten is a handler that writes nothing and must not be asked to prepare it.
type unwritten struct {
	slog.Handler
	t *testing.T
}

func (unwritten) Enabled(context.Context, slog.Level) bool { return false }

func (u unwritten) WithAttrs([]slog.Attr) slog.Handler {
	u.t.Error("a line was prepared that is not written")
	return u
}

func TestALineThatIsNotWrittenIsNotPrepared(t *testing.T) {
	t.Parallel()
	for _, outcome := range []job.Outcome{job.OutcomeSucceeded, job.OutcomeSkipped, job.OutcomeFailed} {
		loggingTo(slog.New(unwritten{t: t})).logAttempt(&job.Attempt{N: 1, Backend: "b", Outcome: outcome})
	}
}

// loggingTo is a job that logs to logger, which is not told which job it is.
func loggingTo(logger *slog.Logger) *task {
	t := &task{w: &Worker{logger: logger}, logger: logger}
	t.logging.Do(func() {})
	return t
}
