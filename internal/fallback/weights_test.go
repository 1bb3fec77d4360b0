package fallback_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// drawn is the policy random with weights.
func drawn(weights map[string]float64) func(*fallback.Policy) {
	return func(p *fallback.Policy) { p.Strategy, p.Weights = fallback.Random, weights }
}

// firsts counts whom the first call of 20,000 jobs goes to, and whom the second.
func firsts(t *testing.T, weights map[string]float64, of job.Job, backends ...backend.Backend) (first, second map[string]int) {
	t.Helper()
	first, second = map[string]int{}, map[string]int{}
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: backends, job: of, policy: func(p *fallback.Policy) {
			drawn(weights)(p)
			p.MaxAttempts = 2
		}})
		for i := range 20_000 {
			st.request.JobID, st.heard, st.calls = fmt.Sprint("row-", i), nil, nil
			out := st.once(t.Context(), nil, time.Time{})
			first[out.Trail[0].Backend]++
			if len(out.Trail) > 1 {
				second[out.Trail[1].Backend]++
			}
		}
	})
	return first, second
}

func TestRandomSharesJobsByWeight(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0)
	for _, c := range []struct {
		name          string
		weights       map[string]float64
		job           job.Job
		first, second map[string]float64
	}{
		{
			"no weights: alike", nil,
			job.Job{},
			map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3},
			map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3},
		},
		{
			"what has no weight weighs 1",
			map[string]float64{"a": 8},
			job.Job{},
			map[string]float64{"a": 0.8, "b": 0.1, "c": 0.1},
			map[string]float64{"a": 2 * 0.1 * 8 / 9, "b": 0.8/2 + 0.1/9, "c": 0.8/2 + 0.1/9},
		},
		{
			"fractions",
			map[string]float64{"a": 0.05, "b": 0.1, "c": 0.35},
			job.Job{},
			map[string]float64{"a": 0.1, "b": 0.2, "c": 0.7},
			map[string]float64{"a": 0.2*0.1/0.8 + 0.7*0.1/0.3, "b": 0.1*0.2/0.9 + 0.7*0.2/0.3, "c": 0.1*0.7/0.9 + 0.2*0.7/0.8},
		},
		{
			"nothing is never drawn",
			map[string]float64{"b": 0},
			job.Job{},
			map[string]float64{"a": 0.5, "c": 0.5},
			map[string]float64{"a": 0.5, "c": 0.5},
		},
		{
			"a primary is first, and the others share the rest",
			map[string]float64{"a": 3, "b": 1, "c": 100},
			job.Job{Primary: "c"},
			map[string]float64{"c": 1},
			map[string]float64{"a": 0.75, "b": 0.25},
		},
		{
			"a primary is first though it weighs nothing",
			map[string]float64{"c": 0},
			job.Job{Primary: "c"},
			map[string]float64{"c": 1},
			map[string]float64{"a": 0.5, "b": 0.5},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first, second := firsts(t, c.weights, c.job, model("a", boom), model("b", boom), model("c", boom))
			for _, got := range []struct{ want, counts any }{{c.first, first}, {c.second, second}} {
				want, counts := got.want.(map[string]float64), got.counts.(map[string]int)
				require.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(counts)))
				for name, share := range want {
					require.InDelta(t, share, float64(counts[name])/20_000, 0.02, name)
				}
			}
		})
	}
}

// TestRandomKeepsItsOrder pins that a job's order is drawn once: in every round,
// on every worker and after every hand-back; and that a round is a whole chain.
func TestRandomKeepsItsOrder(t *testing.T) {
	t.Parallel()
	orders := map[string]int{}
	for i := range 60 {
		play := func(hold time.Duration) (asked []string) {
			synctest.Test(t, func(t *testing.T) {
				boom := fails(backend.ServerError, second)
				st := newStage(t, shape{
					backends: chain(model("a", boom), model("b", boom), offline(fails(backend.Unsupported, 0)), model("c", boom)),
					hold:     hold,
					policy: func(p *fallback.Policy) {
						drawn(map[string]float64{"a": 2})(p)
						p.MaxAttempts, p.BaseDelay = 9, 2*second
					},
				})
				st.request.JobID = fmt.Sprint("row-", i)
				out, _ := st.run(t.Context(), time.Time{})
				for _, a := range out.Trail {
					asked = append(asked, a.Backend)
				}
			})
			return asked
		}
		asked := play(hour)
		require.Equal(t, "rules", asked[3], "rules are asked when every model was, and before a pause")
		asked = slices.Delete(asked, 3, 4)
		require.ElementsMatch(t, []string{"a", "b", "c"}, asked[:3])
		require.Equal(t, asked[:3], asked[3:6])
		require.Equal(t, asked[:3], asked[6:])
		orders[strings.Join(asked[:3], "")]++
		again := slices.DeleteFunc(play(-1), func(name string) bool { return name == "rules" })
		require.Equal(t, asked, again, "handed back")
	}
	require.Len(t, orders, 6, "every order is drawn")
}

func TestRandomGoesOnWithWhomItDidNotAskYet(t *testing.T) {
	t.Parallel()
	for i := range 40 {
		synctest.Test(t, func(t *testing.T) {
			boom := fails(backend.ServerError, 0)
			st := newStage(t, shape{backends: chain(model("a", boom), model("b", boom), model("c", boom)), policy: drawn(nil)})
			st.request.JobID = fmt.Sprint("row-", i)
			whole := st.once(t.Context(), nil, time.Time{}).Trail
			for cut := range 3 {
				again := st.once(t.Context(), roundTrip(t, whole[:cut]), time.Time{}).Trail
				require.Equal(t, lines(whole), lines(again), "taken up after %d calls", cut)
			}
		})
	}
}

func TestRandomWithFallbackOffCallsTheHeadOfTheChain(t *testing.T) {
	t.Parallel()
	play{
		backends: chain(model("a", fails(backend.ServerError, 0)), model("b")),
		policy: func(p *fallback.Policy) {
			drawn(map[string]float64{"a": 0})(p)
			p.Enabled = false
		},
		calls: []string{"a@0s"}, trail: []string{"a server_error stop"}, end: "!server_error a",
	}.run(t)
}

func TestRandomWithoutAWeightIsRefused(t *testing.T) {
	t.Parallel()
	policy := fallback.DefaultPolicy()
	drawn(map[string]float64{"a": 0, "b": 0})(&policy)
	_, err := fallback.New(fallback.Config{Backends: chain(model("a"), model("b")), Routes: []fallback.Route{{Name: "r", Policy: policy}}})
	require.EqualError(t, err, "route r: WEIGHTS: no backend of the chain has a weight above 0")

	e, err := fallback.New(fallback.Config{Backends: chain(model("a"), model("b"))})
	require.NoError(t, err)
	_, err = e.Plan(&job.Job{Chain: []string{"a"}, Policy: &job.Policy{Strategy: new("random"), Weights: map[string]float64{"a": 0}}})
	require.EqualError(t, err, "policy.weights: no backend of the chain has a weight above 0")
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("random"), Weights: map[string]float64{"a": 0}}})
	require.NoError(t, err)
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Weights: map[string]float64{"a": 0, "b": 0}}})
	require.NoError(t, err, "only random looks at weights")
	_, err = e.Plan(&job.Job{Policy: &job.Policy{Strategy: new("random"), Enabled: new(false), Weights: map[string]float64{"a": 0, "b": 0}}})
	require.NoError(t, err, "with fallback off nothing is drawn")
}
