package fallback_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// entries are the trail by backend.
func entries(trail []job.Attempt) map[string]job.Attempt {
	by := make(map[string]job.Attempt, len(trail))
	for _, a := range trail {
		by[a.Backend] = a
	}
	return by
}

func TestWhatTheLosersOfARaceCostIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{policy: racing(0, 0), backends: chain(
			model("winner", answers(2*second)),
			model("told", answers(minute).costing(0.25)),
			model("late", step{takes: 5 * second, deaf: true, cost: 0.5}),
			model("wrong", step{takes: 6 * second, deaf: true, class: backend.InvalidRequest, status: 400, cost: 0.125}),
			model("early", fails(backend.Overloaded, second).http(503).costing(1)),
		)})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, "winner", end(out))
		require.Equal(t, 6*second, time.Since(st.began), "the ends of all are awaited")
		requireRaceTruth(t, out)
		for i, a := range out.Trail {
			require.Equal(t, i+1, a.N)
		}
		got := entries(out.Trail)
		for name, want := range map[string]struct {
			class string
			next  job.Next
			cost  float64
			took  int64
			why   string
		}{
			"told":  {"cancelled", job.NextStop, 0.25, 2000, "another backend answered first"},
			"late":  {"cancelled", job.NextStop, 0.5, 5000, "another backend answered first"},
			"wrong": {"cancelled", job.NextStop, 0.125, 6000, "another backend answered first"},
			"early": {"overloaded", job.NextFallback, 1, 1000, "scripted overloaded"},
		} {
			a := got[name]
			require.Equal(t, job.OutcomeFailed, a.Outcome, name)
			require.Equal(t, want.class, *a.Class, name)
			require.Equal(t, want.next, *a.Next, name)
			require.InDelta(t, want.cost, *a.CostUSD, 0, name)
			require.Equal(t, int64(5), *a.OutputTokens, name)
			require.Equal(t, want.took, a.DurationMS, name)
			require.Equal(t, want.why, *a.Error, name)
		}
		require.Equal(t, 200, got["late"].Status, "it had answered too")
		require.Equal(t, int64(2500), *got["late"].FirstTokenMS)
	})
}

// sluggish is a backend whose gate holds up the goroutine of the job from 1.5 s to
// 5 s, as a machine does that is too busy, and is shut until then.
type sluggish struct {
	*counted
	began time.Time
}

// Ready implements backend.Gate.
func (s sluggish) Ready() time.Duration {
	switch past := time.Since(s.began); {
	case past >= 5*second:
		return 0
	case past >= 1500*ms:
		time.Sleep(5*second - past)
	}
	return minute
}

// TestAnAnswerThatIsThereNeedsNoHedge runs often: where the tick was due as well,
// chance might have it that nobody looked.
func TestAnAnswerThatIsThereNeedsNoHedge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 64 {
			late := sluggish{&counted{name: "c", do: func() *backend.Error { t.Error("it was paid for nothing"); return nil }}, time.Now()}
			a, b := model("a", answers(3*second)), model("b", fails(backend.ServerError, 500*ms))
			a.stage, b.stage = &stage{t: t, races: true, began: time.Now()}, &stage{t: t, races: true, began: time.Now()}
			policy := fallback.DefaultPolicy()
			racing(second, 0)(&policy)
			e, err := fallback.New(fallback.Config{
				Backends: chain(a, b, late), Routes: []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
			})
			require.NoError(t, err)
			plan, err := e.Plan(&job.Job{})
			require.NoError(t, err)
			out := e.Run(t.Context(), fallback.Task{Plan: plan, Observer: nobody{}})
			require.Equal(t, []string{"a succeeded", "b server_error fallback"}, lines(out.Trail))
			require.Equal(t, 5*second, time.Since(late.began), "the tick of 2 s and the answer of 3 s came at once")
		}
	})
}

// TestALoserLearnsThatItLost pins the cause, by which breakers know that a
// cancelled call says nothing about a backend.
func TestALoserLearnsThatItLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lost := &curious{}
		policy := fallback.DefaultPolicy()
		racing(0, 0)(&policy)
		e, err := fallback.New(fallback.Config{
			Backends: chain(lost, &counted{name: "sound"}),
			Routes:   []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
		})
		require.NoError(t, err)
		plan, err := e.Plan(&job.Job{})
		require.NoError(t, err)
		out := e.Run(t.Context(), fallback.Task{Plan: plan, Observer: nobody{}})
		require.Equal(t, "sound", end(out))
		require.ErrorIs(t, lost.cause, context.Canceled)
		require.EqualError(t, lost.cause, "another backend answered first: context canceled")
		require.Equal(t, "cancelled", *entries(out.Trail)["curious"].Class)
	})
}

func TestAWorkerThatStopsDuringARaceCostsNoAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{policy: racing(500*ms, 3), backends: chain(
			model("a", fails(backend.ServerError, 100*ms), fails(backend.ServerError, second)),
			model("b", answers(3*second)),
			model("c", step{takes: 4 * second, deaf: true, class: backend.Timeout}, answers(minute)),
			model("d"),
		)})
		ctx, cancel := context.WithTimeout(t.Context(), 900*ms)
		defer cancel()
		out := st.once(ctx, nil, time.Time{})
		require.Equal(t, 4600*ms, time.Since(st.began), "no call is left behind")
		require.Equal(t, "!cancelled", end(out))
		require.Equal(t, []string{"a server_error fallback", "b cancelled stop", "c cancelled stop"}, lines(out.Trail))
		require.Equal(t, []string{"a@0s", "b@100ms", "c@600ms"}, st.calls, "and none is begun")
		require.Equal(t, &job.Failure{Backend: "a", Class: "server_error", Message: "scripted server_error"}, out.Last)

		st.calls = nil
		out = st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
		require.Equal(t, "b", end(out))
		require.Equal(t, []string{"b@4.6s", "c@5.1s"}, st.calls, "two attempts are left")
	})
}

func TestADeadJobStartsNoCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deafOnes := step{takes: 10 * second, deaf: true, class: backend.Timeout}
		st := newStage(t, shape{policy: racing(2*second, 0), backends: chain(model("a", deafOnes), model("b", deafOnes), model("c"))})
		out := st.once(t.Context(), nil, st.began.Add(3*second))
		require.Equal(t, []string{"a@0s", "b@2s"}, st.calls)
		require.Equal(t, "!expired", end(out))
		require.Equal(t, []string{"a expired stop", "b expired stop"}, lines(out.Trail))
	})
}

func TestAPanicInARaceReachesTheSlot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		others []backend.Backend
		trail  []string
		at     time.Duration
	}{
		{"beside a call that is cancelled", chain(model("b", answers(minute))), []string{"b cancelled stop"}, second},
		{"beside one that answers all the same", chain(model("b", step{takes: 3 * second, deaf: true, cost: 1})), []string{"b cancelled stop"}, 3 * second},
		{"after one has failed", chain(model("b", fails(backend.Timeout, 500*ms))), []string{"b timeout fallback"}, second},
		{"alone", nil, nil, second},
		{"before another one", chain(model("b", step{takes: 2 * second, deaf: true, boom: "later"})), []string{"b cancelled stop"}, 2 * second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // which fails when a goroutine is left
				crash := model("crash", step{takes: second, boom: "crash"})
				st := newStage(t, shape{policy: racing(0, 0), backends: append(chain(crash, offline()), c.others...)})
				var told []job.Attempt
				st.before = func(a job.Attempt) { told = append(told, a) }
				panicked := func() (value any) {
					defer func() { value = recover() }()
					st.once(t.Context(), nil, time.Time{})
					return nil
				}()
				p, ok := panicked.(*fallback.Panic)
				require.True(t, ok, "%T", panicked)
				require.Equal(t, "crash", p.Value)
				require.Contains(t, string(p.Stack), "Complete")
				require.Equal(t, c.at, time.Since(st.began))
				require.Equal(t, append([]string{}, c.trail...), lines(told), "what crashed is unknown")
				require.Zero(t, st.running)
			})
		})
	}
}

// TestAnObserverThatPanicsLeavesNoCallBehind is a defect of the caller's, which
// must not leak the calls that run.
func TestAnObserverThatPanicsLeavesNoCallBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{policy: racing(0, 0), backends: chain(model("a", fails(backend.Timeout, second)), model("b", answers(minute)))})
		st.before = func(job.Attempt) { panic(errDied) }
		require.PanicsWithError(t, "died", func() { st.once(t.Context(), nil, time.Time{}) })
		synctest.Wait()
		require.Zero(t, st.running)
	})
}

func TestChunksOfARaceCarryTheNumberOfTheirAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		says := func(what string, takes time.Duration) step { return step{says: what, takes: takes} }
		st := newStage(t, shape{policy: racing(100*ms, 0), backends: chain(
			model("a", says("from a", minute)), model("b", says("from b", minute)), model("c", says("from c", second)),
		)})
		var mu sync.Mutex
		chunks := map[int]string{}
		st.chunk = func(n int, data []byte) {
			mu.Lock()
			defer mu.Unlock()
			chunks[n] = string(data)
		}
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, "c", end(out))
		for _, a := range out.Trail {
			require.Equal(t, "from "+a.Backend, chunks[a.N])
		}
		require.Len(t, chunks, 3)
	})
}

func TestTheObserverOfARaceHearsEverythingOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var backends []backend.Backend
		for i := range 20 {
			backends = append(backends, model(fmt.Sprintf("m%02d", i), fails(backend.ServerError, time.Duration(i%4)*second), answers(second)))
		}
		st := newStage(t, shape{policy: racing(0, 40), backends: backends, hold: minute})
		var ended []job.Attempt
		st.before = func(a job.Attempt) { ended = append(ended, a) }
		out := st.once(t.Context(), nil, time.Time{})
		require.NotNil(t, out.Response)
		require.Equal(t, 20, st.most)
		require.Len(t, out.Trail, 40)
		slices.SortFunc(ended, func(a, b job.Attempt) int { return a.N - b.N })
		require.Equal(t, out.Trail, ended)
		require.Len(t, st.heard, 80)
		for _, a := range out.Trail {
			started := slices.Index(st.heard, fmt.Sprintf("%d started %s", a.N, a.Backend))
			over := slices.Index(st.heard, fmt.Sprintf("%d %s %s", a.N, a.Outcome, a.Backend))
			require.GreaterOrEqual(t, started, 0)
			require.Greater(t, over, started)
		}
	})
}

func TestARaceIsTakenUpWhereItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// a is numbered first and fails last: what b and c tell ended before.
		st := newStage(t, shape{policy: racing(100*ms, 9), hold: -1, backends: chain(
			guarded("a", fails(backend.Connection, 5*second).opening(hour)),
			guarded("b", fails(backend.Connection, 200*ms).opening(hour)),
			guarded("c", fails(backend.RateLimit, second).opening(hour)),
		)})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []string{"a connection wait", "b connection fallback", "c rate_limit fallback", "a skipped wait", "b skipped wait", "c skipped wait"}, lines(out.Trail))
		again := st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
		require.Equal(t, out.Wait, again.Wait)
		require.Equal(t, lines(out.Trail), lines(again.Trail))

		st = newStage(t, shape{policy: racing(100*ms, 3), hold: minute, backends: chain(
			model("a", fails(backend.Connection, 5*second), fails(backend.Connection, 5*second)),
			model("b", fails(backend.ServerError, 200*ms)),
		)})
		out = st.once(t.Context(), nil, time.Time{})
		whole := st.calls
		require.Equal(t, []string{"a@0s", "b@100ms", "a@6s"}, whole)
		require.Equal(t, "!connection a", end(out))
		died := time.Now()
		trail := roundTrip(t, out.Trail[:2])
		for i := range trail {
			trail[i].StartedAt = trail[i].StartedAt.Add(died.Sub(endOf(trail[0])))
		}
		st.began, st.calls = died, nil
		out = st.once(t.Context(), trail, time.Time{})
		require.Equal(t, []string{"a@1s"}, st.calls, "the backoff counts from the end of a")
		require.Equal(t, int64(1000), out.Trail[2].WaitMS)
	})
}

func TestAResultThatACrashLostIsAskedForAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{policy: racing(0, 2), backends: chain(model("a", answers(second)), model("b", answers(minute)))})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, "a", end(out))
		out = st.once(t.Context(), roundTrip(t, out.Trail), time.Time{})
		require.Equal(t, "a", end(out), "neither the answer nor the loser cost an attempt")
		require.Len(t, out.Trail, 4)
	})
}

func TestLimitsInsideARace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		limit string
		full  time.Duration
		calls []string
		trail []string
	}{
		{
			"a turn that comes soon is waited for beside the others", fallback.OnLimitWait, second,
			[]string{"a@0s", "b@1s", "c@0s"},
			[]string{"a timeout fallback", "c timeout fallback", "b succeeded"},
		},
		{
			"one that comes late holds nobody up", fallback.OnLimitWait, minute,
			[]string{"a@0s", "c@0s", "a@3s"},
			[]string{"a timeout fallback", "b skipped fallback", "c timeout fallback", "a timeout stop"},
		},
		{
			"one that does not come soon is passed over", fallback.OnLimitFallback, minute,
			[]string{"a@0s", "c@0s", "a@3s"},
			[]string{"a timeout fallback", "b skipped fallback", "c timeout fallback", "a timeout stop"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := &limited{fake: model("b", answers(2*second)), full: c.full}
				st := newStage(t, shape{
					policy:   racing(0, 0).and(func(p *fallback.Policy) { p.OnLimit = c.limit }),
					backends: chain(model("a", fails(backend.Timeout, second)), b, model("c", fails(backend.Timeout, 2*second).opening(hour))),
				})
				out := st.once(t.Context(), nil, time.Time{})
				inOrderOfStart(st, out)
				require.ElementsMatch(t, c.calls, st.calls)
				require.Equal(t, c.trail, lines(out.Trail))
			})
		})
	}
}
