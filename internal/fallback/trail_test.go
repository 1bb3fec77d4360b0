package fallback_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// failed is a trail entry of a failed call that ended just now.
func failed(n int, name string, class backend.Class, next job.Next) job.Attempt {
	return job.Attempt{
		N: n, Backend: name, Outcome: job.OutcomeFailed, Class: new(string(class)), Error: new("told"),
		StartedAt: time.Now(), Next: &next,
	}
}

func TestATrailIsTakenUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		trail func() []job.Attempt
		limit int
		calls []string
		end   string
		added []string
	}{
		{
			"a failed call is not repeated", func() []job.Attempt { return []job.Attempt{failed(1, "a", backend.Timeout, job.NextFallback)} },
			0,
			[]string{"b@0s"},
			"b",
			[]string{"b succeeded"},
		},
		{
			"attempts count over deliveries", func() []job.Attempt {
				return []job.Attempt{failed(1, "a", backend.Timeout, job.NextFallback), failed(2, "b", backend.Timeout, job.NextFallback), failed(3, "rules", backend.Unsupported, job.NextStop)}
			}, 2, nil, "!timeout b", nil,
		},
		{
			"a call whose end a crash hid costs none and is made again", func() []job.Attempt {
				return []job.Attempt{failed(1, "a", backend.Timeout, job.NextFallback), {N: 2, Backend: "b", Outcome: job.OutcomeUnknown, StartedAt: time.Now()}}
			}, 2, []string{"b@0s"}, "b", []string{"b succeeded"},
		},
		{
			"an answer that a crash lost costs none and is asked for again", func() []job.Attempt {
				return []job.Attempt{{N: 1, Backend: "a", Outcome: job.OutcomeSucceeded, StartedAt: time.Now()}}
			}, 1, []string{"a@0s"}, "a", []string{"a succeeded"},
		},
		{
			"a call cut by a stop costs none and is made again", func() []job.Attempt { return []job.Attempt{failed(1, "a", backend.Canceled, job.NextStop)} },
			1,
			[]string{"a@0s"},
			"a",
			[]string{"a succeeded"},
		},
		{
			"a failure that stopped the chain still does, though the rules engine had been promised", func() []job.Attempt {
				return []job.Attempt{failed(1, "a", backend.InvalidRequest, job.NextFallback)}
			}, 0, []string{"rules@0s"}, "rules", []string{"rules succeeded"},
		},
		{
			"so does the last attempt", func() []job.Attempt {
				return []job.Attempt{failed(1, "a", backend.Timeout, job.NextFallback), failed(2, "b", backend.Timeout, job.NextFallback)}
			}, 2, []string{"rules@0s"}, "rules", []string{"rules succeeded"},
		},
		{
			"a job that had ended fails as it did", func() []job.Attempt {
				return []job.Attempt{failed(1, "a", backend.InvalidRequest, job.NextFallback), failed(2, "rules", backend.Unsupported, job.NextStop)}
			}, 0, nil, "!invalid_request a", nil,
		},
		{
			"a job that had expired by its own time does not go on", func() []job.Attempt { return []job.Attempt{failed(1, "a", backend.Expired, job.NextStop)} },
			0, nil, "!expired a", nil,
		},
		{
			"an outage that was waited for left one call", func() []job.Attempt {
				return []job.Attempt{failed(1, "a", backend.Timeout, job.NextFallback), failed(2, "rules", backend.Unsupported, job.NextFallback), failed(3, "a", backend.Timeout, job.NextWait)}
			}, 2, []string{"b@0s"}, "b", []string{"b succeeded"},
		},
		{
			"a backend that left the chain still counts", func() []job.Attempt {
				return []job.Attempt{failed(1, "gone", backend.Timeout, job.NextRetry), failed(2, "gone", backend.Timeout, job.NextRetry)}
			}, 2, []string{"rules@0s"}, "rules", []string{"rules succeeded"},
		},
		{
			"an entry without a class counts", func() []job.Attempt {
				return []job.Attempt{{N: 1, Backend: "a", Outcome: job.OutcomeFailed, StartedAt: time.Now(), Next: new(job.NextFallback)}}
			}, 0, []string{"rules@0s"}, "rules", []string{"rules succeeded"},
		},
		{
			"numbers go on after the highest", func() []job.Attempt {
				return []job.Attempt{failed(7, "a", backend.Timeout, job.NextFallback), failed(4, "a", backend.Timeout, job.NextFallback)}
			}, 0, []string{"b@0s"}, "b", []string{"b succeeded"},
		},
		{
			"a clock that is behind the other worker's", func() []job.Attempt {
				a := failed(1, "a", backend.Timeout, job.NextWait)
				a.StartedAt = a.StartedAt.Add(hour)
				return []job.Attempt{a}
			}, 0, []string{"b@0s"}, "b", []string{"b succeeded"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := newStage(t, shape{backends: chain(model("a"), model("b"), offline()), policy: attempts(c.limit)})
				before := c.trail()
				kept := roundTrip(t, before)
				out := st.once(t.Context(), before, time.Time{})
				require.Equal(t, c.calls, st.calls)
				require.Equal(t, c.end, end(out))
				require.Equal(t, kept, roundTrip(t, before), "the caller's trail is not touched")
				require.Equal(t, kept, roundTrip(t, out.Trail[:len(before)]))
				added := lines(out.Trail[len(before):])
				require.Equal(t, append([]string{}, c.added...), added)
				if len(added) > 0 {
					last := out.Trail[len(out.Trail)-1]
					require.Equal(t, slices.MaxFunc(before, func(a, b job.Attempt) int { return a.N - b.N }).N+1, last.N)
					require.Zero(t, last.WaitMS)
				}
			})
		})
	}
}

// TestTheWaitOfAJobCountsFromItsFirstSkip pins that a job that waits for one thing
// after the other is not taken for one that has just begun to.
func TestTheWaitOfAJobCountsFromItsFirstSkip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		skip := func(n int, name string, ago time.Duration) job.Attempt {
			a := failed(n, name, backend.CircuitOpen, job.NextWait)
			a.Outcome, a.StartedAt = job.OutcomeSkipped, time.Now().Add(-ago)
			return a
		}
		st := newStage(t, shape{backends: chain(shut("a", 3*second), shut("b", 3*second))})
		trail := []job.Attempt{skip(1, "a", 12*second), skip(2, "b", 5*second)}
		out := st.once(t.Context(), trail, time.Time{})
		require.Equal(t, 12*second, time.Until(out.Wait.Until))
		time.Sleep(12 * second)
		out = st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
		require.Equal(t, int64(24_000), out.Trail[2].WaitMS)
	})
}

func TestTheFirstAndTheLastFailureOfAJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(
			model("a", fails(backend.ServerError, 0).http(500)), shut("s", minute), model("b", fails(backend.InvalidRequest, 0).http(400)))})
		trail := []job.Attempt{failed(1, "a", backend.Canceled, job.NextStop)}
		out := st.once(t.Context(), trail, time.Time{})
		require.Equal(t, []string{"a cancelled stop", "a server_error fallback", "s skipped fallback", "b invalid_request stop"}, lines(out.Trail))
		require.Equal(t, &job.Failure{Backend: "a", Class: "server_error", Status: 500, Message: "scripted server_error"}, out.First)
		require.Equal(t, &job.Failure{Backend: "b", Class: "invalid_request", Status: 400, Message: "scripted invalid_request"}, out.Last)
	})
}

// TestALongOutageDoesNotMakeTheTrailEndless is a lone job in an outage of three hours:
// it is the probe every minute.
func TestALongOutageDoesNotMakeTheTrailEndless(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := fails(backend.Connection, 0).opening(minute)
		script := append(times(3*60, down), fails(backend.ServerError, 0))
		st := newStage(t, shape{backends: chain(guarded("a", script...))})
		var out fallback.Outcome
		for {
			out = st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
			require.LessOrEqual(t, len(out.Trail), 200)
			if out.Wait == nil {
				break
			}
			time.Sleep(time.Until(out.Wait.Until))
		}
		require.Equal(t, "!server_error a", end(out), "afterwards it has one call left")
		require.Len(t, st.calls, 3*60+1)
		require.Equal(t, 1, out.Trail[0].N)
		for i := 1; i < len(out.Trail); i++ {
			require.Greater(t, out.Trail[i].N, out.Trail[i-1].N)
		}
		require.Equal(t, job.NextStop, *out.Trail[199].Next)
	})
}

// TestAnOutageDoesNotLengthenThePauses is a lone job that is the probe of every backend:
// what it waits for are the breakers, and no backoff that grows with the probes.
func TestAnOutageDoesNotLengthenThePauses(t *testing.T) {
	t.Parallel()
	for _, backends := range []int{1, 2, 6} {
		synctest.Test(t, func(t *testing.T) {
			const probes = 30
			down := fails(backend.Connection, 0).opening(10 * second)
			var all []backend.Backend
			for i := range backends {
				all = append(all, guarded(string(rune('a'+i)), append(times(probes, down), answers(0))...))
			}
			st := newStage(t, shape{backends: all})
			out, waits := st.run(t.Context(), time.Time{})
			require.Equal(t, "a", end(out))
			require.GreaterOrEqual(t, len(waits), probes)
			for _, w := range waits {
				d, err := time.ParseDuration(w)
				require.NoError(t, err)
				require.LessOrEqual(t, d, 10*second, "%d backends", backends)
			}
		})
	}
}

// TestManyAttemptsAreCountedOverManyHandBacks pins that the cap of the trail
// does not lift the cap on calls.
func TestManyAttemptsAreCountedOverManyHandBacks(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{199, 200, 201, 300} {
		synctest.Test(t, func(t *testing.T) {
			st := newStage(t, shape{
				backends: chain(shut("s", 1000*hour), model("a", fails(backend.ServerError, 0)), model("b", fails(backend.Timeout, 0))),
				hold:     -1, policy: attempts(limit),
			})
			out, waits := st.run(t.Context(), time.Time{})
			require.Len(t, st.calls, limit)
			require.Greater(t, len(waits), limit/3)
			require.LessOrEqual(t, len(out.Trail), max(200, limit))
			require.NotNil(t, out.Err)
		})
	}
}

// TestSkipsDoNotPushCallsOutOfTheTrail pins that what leaves a full trail first
// is what cost no attempt.
func TestSkipsDoNotPushCallsOutOfTheTrail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{
			backends: chain(guarded("a", fails(backend.ServerError, 0).opening(3*second)), model("b", fails(backend.Timeout, 0))),
			hold:     -1, policy: attempts(150),
		})
		out, _ := st.run(t.Context(), time.Time{})
		require.Len(t, st.calls, 150)
		require.Len(t, out.Trail, 200)
		require.Equal(t, 224, out.Trail[199].N)
	})
}
