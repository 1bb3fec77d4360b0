package fallback_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// custom is a strategy made of a function.
type custom func(s *fallback.Situation) []int

func (c custom) Next(s *fallback.Situation) fallback.Move { return fallback.Move{Order: c(s)} }

// with sets up a stage whose strategy is next.
func with(t *testing.T, next custom, hold time.Duration, backends ...backend.Backend) *stage {
	t.Helper()
	st := newStage(t, shape{backends: backends})
	policy := fallback.DefaultPolicy()
	policy.Strategy, policy.Jitter = "custom", false
	var err error
	st.engine, err = fallback.New(fallback.Config{
		Backends: backends, Hold: hold,
		Routes:     []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
		Strategies: map[string]fallback.NewStrategy{"custom": func(*fallback.Policy) (fallback.Strategy, error) { return next, nil }},
	})
	require.NoError(t, err)
	st.plan, err = st.engine.Plan(&job.Job{})
	require.NoError(t, err)
	return st
}

func TestWhatAStrategySaysIsDone(t *testing.T) {
	t.Parallel()
	boom, noRule := fails(backend.ServerError, 0).http(500), fails(backend.Unsupported, 0)
	shared := []int{1, 0, 2}
	for _, c := range []struct {
		name     string
		next     custom
		backends []backend.Backend
		calls    []string
		trail    []string
		end      string
	}{
		{
			"its order, which stays its own", func(*fallback.Situation) []int { return shared },
			chain(model("a", boom), model("b", boom), offline(noRule)),
			[]string{"b@0s", "a@0s", "rules@0s", "b@1s"},
			[]string{"b server_error fallback", "a server_error fallback", "rules unsupported fallback", "b server_error stop"},
			"!server_error b",
		},
		{
			"an empty order stops the models, and the rules engine is asked",
			func(s *fallback.Situation) []int {
				if s.Class() != "" {
					return nil
				}
				return []int{0}
			},
			chain(model("a", boom), model("b"), offline()),
			[]string{"a@0s", "rules@0s"},
			[]string{"a server_error fallback", "rules succeeded"},
			"rules",
		},
		{
			"an empty order without a rules engine stops the job",
			func(s *fallback.Situation) []int { return []int{0}[:1-min(len(s.Class()), 1)] },
			chain(model("a", boom), model("b")),
			[]string{"a@0s"},
			[]string{"a server_error stop"},
			"!server_error a",
		},
		{
			"an empty order at once calls nobody", func(*fallback.Situation) []int { return nil },
			chain(model("a")), nil,
			[]string{},
			"!circuit_open",
		},
		{
			"the rules engine that it leaves out is asked rather than waiting",
			func(*fallback.Situation) []int { return []int{0} },
			chain(shut("a", minute), offline()),
			[]string{"rules@0s"},
			[]string{"a skipped fallback", "rules succeeded"},
			"rules",
		},
		{
			"positions that do not exist, or twice, are nothing", func(*fallback.Situation) []int { return []int{-1, 7, 1, 1} },
			chain(model("a"), model("b")),
			[]string{"b@0s"},
			[]string{"b succeeded"},
			"b",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := with(t, c.next, hour, c.backends...)
				out := st.once(t.Context(), nil, time.Time{})
				require.Equal(t, c.calls, st.calls)
				require.Equal(t, c.trail, lines(out.Trail))
				require.Equal(t, c.end, end(out))
				require.Equal(t, []int{1, 0, 2}, shared)
			})
		})
	}
}

// wrapper is a built-in strategy whose moves are changed in place.
type wrapper struct {
	fallback.Strategy
	change func(*fallback.Move)
}

func (w wrapper) Next(s *fallback.Situation) fallback.Move {
	m := w.Strategy.Next(s)
	w.change(&m)
	return m
}

// What a strategy does with the order of a built-in one is its own business.
func TestAStrategyMayChangeTheOrderOfABuiltInOne(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*fallback.Move)
		called string
	}{
		"turned round":     {func(m *fallback.Move) { slices.Reverse(m.Order[:2]) }, "b"},
		"emptied":          {func(m *fallback.Move) { m.Order = m.Order[:0] }, "rules"},
		"with what is not": {func(m *fallback.Move) { m.Order = append([]int{9, -1}, m.Order...) }, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // jobs of one engine
				synctest.Test(t, func(t *testing.T) {
					policy := fallback.DefaultPolicy()
					policy.Strategy = "mine"
					strategies := fallback.Strategies()
					sequential := strategies[fallback.Sequential]
					strategies["mine"] = func(p *fallback.Policy) (fallback.Strategy, error) {
						built, err := sequential(p)
						return wrapper{built, c.change}, err
					}
					backends := chain(model("a"), model("b"), offline())
					st := newStage(t, shape{backends: backends})
					var err error
					st.engine, err = fallback.New(fallback.Config{
						Backends: backends, Strategies: strategies, Hold: hour,
						Routes: []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}, {Name: "other", Policy: fallback.DefaultPolicy()}},
					})
					require.NoError(t, err)
					for _, want := range []struct{ route, called string }{{"", c.called}, {"", c.called}, {"other", "a"}} {
						st.plan, err = st.engine.Plan(&job.Job{Route: want.route})
						require.NoError(t, err)
						require.Equal(t, want.called, end(st.once(t.Context(), nil, time.Time{})))
					}
				})
			}
		})
	}
}

func TestAStrategyKnowsTheSituation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen []fallback.Situation
		st := with(t, func(s *fallback.Situation) []int {
			now := *s
			now.Chain = append([]fallback.Candidate(nil), s.Chain...)
			seen = append(seen, now)
			return []int{1, 0}
		}, hour, model("a", fails(backend.Quota, 0).http(402)), model("b", fails(backend.ServerError, 0).http(500)), offline(fails(backend.Unsupported, 0)))
		st.once(t.Context(), nil, time.Time{})
		require.Len(t, seen, 5, "asked at the start and after each failure")
		for i, want := range []struct {
			class    backend.Class
			status   int
			position int
			tries    [3]int
		}{
			{"", 0, -1, [3]int{0, 0, 0}},
			{backend.ServerError, 500, 1, [3]int{0, 1, 0}},
			{backend.Quota, 402, 0, [3]int{1, 1, 0}},
			{backend.Quota, 402, 0, [3]int{1, 1, 1}}, // what the rules engine failed with is not told
			{backend.ServerError, 500, 1, [3]int{1, 2, 1}},
		} {
			s := seen[i]
			require.Equal(t, want.class, s.Class())
			if want.class != "" {
				require.Equal(t, want.status, s.Failure.Status)
			}
			require.Equal(t, want.position, s.Position)
			require.Same(t, &st.plan.Policy, s.Policy)
			for j, c := range s.Chain {
				require.Equal(t, []string{"a", "b", "rules"}[j], c.Name)
				require.Equal(t, want.tries[j], c.Tries)
				require.Equal(t, j == 2, c.Degraded)
			}
		}
	})
}

// TestWhatAThrowOfDicePromisedIsKept pins that a strategy that answers
// differently each time is asked once: what an entry says follows, follows.
func TestWhatAThrowOfDicePromisedIsKept(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 0))
			st := with(t, func(s *fallback.Situation) []int { return dice.Perm(len(s.Chain)) }, hour,
				guarded("a", fails(backend.ServerError, second).opening(3*second)),
				guarded("b", fails(backend.RateLimit, 0).hinting(2*second)),
				guarded("c", fails(backend.ServerError, 0)))
			st.plan.Policy.MaxAttempts = 9
			requireTruth(t, st.once(t.Context(), nil, time.Time{}))
		})
	}
}

func TestAStrategyThatCannotBeMadeFailsTheJobAndKeepsItsTrail(t *testing.T) {
	t.Parallel()
	made := 0
	e, err := fallback.New(fallback.Config{
		Backends: chain(model("a")),
		Strategies: map[string]fallback.NewStrategy{fallback.Sequential: func(*fallback.Policy) (fallback.Strategy, error) {
			if made++; made > 2 {
				return nil, errors.New("no more")
			}
			return nil, nil //nolint:nilnil // never asked here
		}},
	})
	require.NoError(t, err)
	plan, err := e.Plan(&job.Job{})
	require.NoError(t, err)
	trail := []job.Attempt{{N: 1, Backend: "a", Outcome: job.OutcomeUnknown}}
	out := e.Run(t.Context(), fallback.Task{Plan: plan, Trail: trail, Observer: nobody{}})
	require.Equal(t, "!invalid_job", end(out))
	require.Equal(t, "policy.strategy: no more", out.Err.Message)
	require.Equal(t, trail, out.Trail)
}

func TestOneEngineRunsManyJobsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		flaky := &counted{name: "flaky", do: func() *backend.Error {
			if calls.Add(1)%3 > 0 {
				return &backend.Error{Class: backend.ServerError, Backend: "flaky"}
			}
			return nil
		}}
		e, err := fallback.New(fallback.Config{Backends: chain(flaky, &counted{name: "sound"})})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				plan, err := e.Plan(&job.Job{ID: strconv.Itoa(i)})
				if err != nil {
					t.Error(err)
					return
				}
				out := e.Run(t.Context(), fallback.Task{Plan: plan, Observer: nobody{}, Request: backend.Request{JobID: strconv.Itoa(i)}})
				if out.Response == nil || len(out.Trail) > 2 {
					t.Errorf("%v", lines(out.Trail))
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(200), calls.Load())
	})
}

// counted is a backend that takes 10 ms and may be called by many at once.
type counted struct {
	name string
	do   func() *backend.Error
}

func (c *counted) Name() string { return c.name }

func (c *counted) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("m")
	time.Sleep(10 * ms)
	if c.do != nil {
		if err := c.do(); err != nil {
			return nil, err
		}
	}
	return &backend.Response{Status: 200}, nil
}

// TestAnOutageBehindRealBreakersIsSurvivedByEveryJob runs a hundred jobs into an
// outage of ten minutes of both of their backends.
func TestAnOutageBehindRealBreakersIsSurvivedByEveryJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const jobs, outage = 100, 10 * minute
		began := time.Now()
		var inOutage, inSlots atomic.Int64
		var guards []backend.Backend
		for _, name := range []string{"a", "b"} {
			g, err := breaker.New(&counted{name: name, do: func() *backend.Error {
				if time.Since(began) < outage {
					inOutage.Add(1)
					return &backend.Error{Class: backend.Connection, Backend: name}
				}
				return nil
			}}, breaker.Config{}, nil)
			require.NoError(t, err)
			guards = append(guards, g)
		}
		e, err := fallback.New(fallback.Config{Backends: guards})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for i := range jobs {
			wg.Go(func() {
				id := strconv.Itoa(i)
				plan, err := e.Plan(&job.Job{ID: id})
				if err != nil {
					t.Error(err)
					return
				}
				var out fallback.Outcome
				for {
					taken := time.Now()
					out = e.Run(t.Context(), fallback.Task{Plan: plan, Trail: out.Trail, Observer: nobody{}, Request: backend.Request{JobID: id}})
					inSlots.Add(int64(time.Since(taken)))
					if out.Wait == nil {
						break
					}
					time.Sleep(time.Until(out.Wait.Until))
				}
				if out.Response == nil {
					t.Errorf("job %s: %s %v", id, end(out), lines(out.Trail))
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, inOutage.Load(), int64(jobs*2+2*10), "then one probe a minute and backend")
		require.Less(t, time.Since(began), outage+minute+20*second, "one open time, and the longest wait")
		perJob := time.Duration(inSlots.Load()) / jobs
		require.Less(t, perJob, 15*second, "slots are not held: %s a job", perJob)
	})
}
