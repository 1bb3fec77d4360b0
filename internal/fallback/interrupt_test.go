package fallback_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// eventful is a job of 23.5 s with calls, pauses and skips.
func eventful() shape {
	return shape{
		backends: chain(
			guarded("a", fails(backend.Timeout, 5*second).opening(12*second), fails(backend.Overloaded, second).http(503)),
			shut("b", 4*second, fails(backend.ServerError, 2*second).http(500).costing(0.125)),
			model("c", fails(backend.RateLimit, 500*ms).http(429).hinting(3*second), fails(backend.BadResponse, second), answers(4*second)),
		),
		policy: func(p *fallback.Policy) { p.MaxAttempts, p.BaseDelay = 9, 2*second },
		hold:   hour,
	}
}

// uninterrupted is what eventful comes to by itself.
func uninterrupted(t *testing.T) (s summary) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, eventful())
		s = st.summary(st.once(t.Context(), nil, time.Time{}))
	})
	return s
}

func TestTheEventfulJob(t *testing.T) {
	t.Parallel()
	s := uninterrupted(t)
	require.Equal(t, []string{"a@0s", "b@5s", "c@7s", "b@9.5s", "c@11.5s", "b@16.5s", "a@18.5s", "c@19.5s"}, s.Calls)
	require.Equal(t, []string{
		"a timeout fallback", "b server_error fallback", "c rate_limit fallback", "a skipped wait", "b server_error fallback",
		"c bad_response fallback", "b server_error fallback", "a overloaded fallback", "c succeeded",
	}, s.Lines)
	require.Equal(t, "c", s.End)
	require.Equal(t, 23500*ms, s.Took)
}

func TestACancelledJobEndsAtOnceAndGoesOnAsIfNothingHadHappened(t *testing.T) {
	t.Parallel()
	whole := uninterrupted(t)
	cutCalls := 0
	for at := time.Duration(0); at < whole.Took; at += 250 * ms {
		at := at + ms // never the moment of anything else
		synctest.Test(t, func(t *testing.T) {
			st := newStage(t, eventful())
			ctx, cancel := context.WithCancelCause(t.Context())
			why := fmt.Errorf("the worker is stopping: %w", context.Canceled)
			timer := time.AfterFunc(at, func() { cancel(why) })
			defer timer.Stop()
			out := st.once(ctx, nil, time.Time{})
			require.Equal(t, at, time.Since(st.began))
			require.Equal(t, "!cancelled", end(out))
			require.ErrorIs(t, out.Err, backend.Canceled)
			require.ErrorIs(t, out.Err, why)
			cut := lastOf(out.Trail, "cancelled")
			if cut {
				cutCalls++
				a := out.Trail[len(out.Trail)-1]
				require.Equal(t, job.NextStop, *a.Next)
				require.Equal(t, "the worker is stopping", *a.Error)
				require.Equal(t, at, a.StartedAt.Sub(st.began)+time.Duration(a.DurationMS)*ms)
			}

			before := out.Trail
			out = st.once(t.Context(), roundTrip(t, before), time.Time{})
			require.Equal(t, whole.End, end(out))
			again := lines(out.Trail)
			if cut { // the call is made again; later ones come later, and may go elsewhere
				at := len(before) - 1
				require.Equal(t, whole.Lines[:at], again[:at])
				return
			}
			require.Equal(t, whole.Lines, again, "cancelled at %s", at)
			require.Equal(t, whole.Calls, st.calls, "cancelled at %s", at)
			require.Equal(t, whole.Took, time.Since(st.began))
		})
	}
	require.Greater(t, cutCalls, 40)
}

func lastOf(trail []job.Attempt, class string) bool {
	return len(trail) > 0 && trail[len(trail)-1].Class != nil && *trail[len(trail)-1].Class == class
}

func TestAJobExpiresAtEveryPoint(t *testing.T) {
	t.Parallel()
	whole := uninterrupted(t)
	for at := ms; at < whole.Took; at += 250 * ms {
		synctest.Test(t, func(t *testing.T) {
			st := newStage(t, eventful())
			out := st.once(t.Context(), nil, st.began.Add(at))
			require.Equal(t, "!expired", end(out))
			require.ErrorIs(t, out.Err, fallback.ErrBudget)
			require.ErrorIs(t, out.Err, context.DeadlineExceeded)
			require.Equal(t, whole.Calls[:len(st.calls)], st.calls)
			last := out.Trail[len(out.Trail)-1]
			require.Equal(t, job.NextStop, *last.Next)
			if lastOf(out.Trail, "expired") {
				require.Equal(t, at, time.Since(st.began), "a call runs until the end")
			} else {
				require.Less(t, time.Since(st.began), at, "a pause is not waited out")
			}
		})
	}
}

func TestAnAnswerThatComesInSpiteOfACancellationCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", step{takes: second, deaf: true}))})
		ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
		defer cancel()
		require.Equal(t, "a", end(st.once(ctx, nil, time.Time{})))
	})
}

func TestAFailureOfACancelledJobIsNotHeldAgainstIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", step{class: backend.InvalidRequest, takes: second, deaf: true, cost: 1}, answers(0)))})
		ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
		defer cancel()
		out := st.once(ctx, nil, time.Time{})
		require.Equal(t, []string{"a cancelled stop"}, lines(out.Trail))
		require.Equal(t, new(1.0), out.Trail[0].CostUSD, "what it cost is kept")
		require.Nil(t, out.First)
		require.Nil(t, out.Last)
		out = st.once(t.Context(), out.Trail, time.Time{})
		require.Equal(t, []string{"a cancelled stop", "a succeeded"}, lines(out.Trail))
	})
}

func TestACallerWhoseOwnDeadlineIsEarlierCancels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", answers(hour)))})
		ctx, cancel := context.WithTimeout(t.Context(), second)
		defer cancel()
		out := st.once(ctx, nil, st.began.Add(minute))
		require.Equal(t, "!cancelled", end(out))
	})
}

func TestABackendLearnsThatTheJobsTimeIsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := &curious{}
		e, err := fallback.New(fallback.Config{Backends: chain(asked)})
		require.NoError(t, err)
		plan, err := e.Plan(&job.Job{})
		require.NoError(t, err)
		out := e.Run(t.Context(), fallback.Task{Plan: plan, Deadline: time.Now().Add(second), Observer: nobody{}})
		require.Equal(t, "!expired", end(out))
		require.ErrorIs(t, asked.cause, fallback.ErrBudget)
		require.ErrorIs(t, asked.cause, context.DeadlineExceeded)
		require.Equal(t, []string{"curious expired stop"}, lines(out.Trail))
	})
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Started(job.Attempt) func() { return nil }
func (nobody) Ended(job.Attempt)          {}

// curious waits for the end of its context and remembers why. It breaks the
// rules of a backend twice: it says twice that it started, and returns an error
// without a class.
type curious struct{ cause error }

func (*curious) Name() string { return "curious" }

func (c *curious) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("m")
	req.Started("m")
	<-ctx.Done()
	c.cause = context.Cause(ctx)
	return nil, errors.New("no class")
}
