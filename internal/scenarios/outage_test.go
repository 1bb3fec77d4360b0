package scenarios_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/breaker"
	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// The outage of these tests: 5 jobs a second for 3 minutes, the primary dead in
// the second of them.
const (
	dies    = time.Minute
	isBack  = 2 * time.Minute
	jobs    = 900
	spacing = 200 * time.Millisecond
)

// outage is a way to be dead for a minute.
type outage struct {
	name string
	// reply is what the dead primary does, nil when it accepts no connection.
	reply *llmtest.Reply
	set   func(*part)
	// failed is how many calls of it fail while it is dead, of which cut had
	// arrived before; probes how many of them are probes.
	failed, cut, probes int
	// opens is when the breaker opens for the first time.
	opens time.Duration
	// again is when the first call after the outage reaches it.
	again time.Duration
}

func outages() []outage {
	failing, hanging := bad(llmtest.Fail(500, "Internal error")), llmtest.Broken(llmtest.Hang)
	quick := func(p *part) { p.breaker = breaker.Config{Cooldown: 10 * time.Second} }
	return []outage{
		// The calls under way when it begins to fail are still answered, between
		// failures: so it takes four more until five have failed in a row.
		{name: "500", reply: &failing, failed: 9, opens: 61*time.Second + 900*time.Millisecond, again: 121*time.Second + 900*time.Millisecond},
		{name: "500, cool-down of 10 s", reply: &failing, set: quick, failed: 14, probes: 5, opens: 61*time.Second + 900*time.Millisecond, again: 123*time.Second + 106*time.Millisecond},
		// The five calls under way are cut at that moment, which are five in a row.
		{name: "refuses connections", failed: 5, cut: 5, opens: dies, again: 120*time.Second + 105*time.Millisecond},
		// Five calls must first have run into their timeout of 5 s; until then
		// 5 jobs a second go on calling.
		{name: "never answers", reply: &hanging, failed: 30, opens: 65*time.Second + 903*time.Millisecond, again: 125*time.Second + 906*time.Millisecond},
		{
			name: "never answers, ADAPTIVE_TIMEOUT", reply: &hanging, set: func(p *part) { p.client.AdaptiveTimeout = true }, // 1.5 s
			failed: 12, opens: 62*time.Second + 403*time.Millisecond, again: 122*time.Second + 503*time.Millisecond,
		},
	}
}

func TestAMinuteOfOutage(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { o.run(t) })
		})
	}
}

func (o outage) run(t *testing.T) {
	t.Helper()
	script := well()
	if o.reply != nil {
		script = from(dies, isBack, *o.reply)
	}
	parts := presets(script, well())
	if o.set != nil {
		o.set(&parts[0])
	}
	s := newStage(t, inMemory, steady(), parts...)
	if o.reply == nil {
		s.at(dies, s.places[0].pipe.Break)
		s.at(isBack, s.places[0].pipe.Mend)
	}
	all := s.every(t.Context(), spacing, jobs)

	changes := s.places[0].changed()
	opened := changes[0]
	require.Equal(t, breaker.Open, opened.To)
	failed, cut, probes, again := 0, 0, 0, time.Duration(0)
	for _, r := range all {
		require.NotNil(t, r.Response, "every job is answered")
		require.Empty(t, r.waits)
		first := r.Trail[slices.IndexFunc(r.Trail, func(e job.Attempt) bool { return e.Outcome != job.OutcomeSkipped })]
		at := first.StartedAt.Sub(s.began)
		switch {
		case first.Outcome == job.OutcomeFailed:
			failed++
			cut += count(at < dies)
			probes += count(!first.StartedAt.Before(opened.at))
		case !r.began.Before(opened.at):
			require.Equal(t, time.Second, r.took(), "a job that finds the breaker open loses no time")
		}
		if at >= isBack && first.Backend == openrouter && again == 0 {
			again = at
		}
	}
	t.Logf("%d calls failed, %d of them cut and %d probes; open at %s; back at %s", failed, cut, probes, opened.at.Sub(s.began), again)
	require.Equal(t, o.failed, failed)
	require.Equal(t, o.cut, cut)
	require.Equal(t, o.probes, probes)
	require.Equal(t, o.opens, opened.at.Sub(s.began))
	require.Equal(t, o.again, again)
	require.LessOrEqual(t, again-isBack, cmp.Or(parts[0].breaker.Cooldown, breaker.DefaultCooldown), "used again within a cool-down")
	require.Equal(t, breaker.Closed, s.places[0].guard.State())
	require.Equal(t, openrouter, all[jobs-1].Backend)
}

// Two backends die, and one of them comes back a minute later. Who of those that
// wait is the first to try, is anybody's guess; the rest is not.
func TestJobsWaitThroughAnOutageOfAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := bad(llmtest.Fail(503, "Service unavailable"))
		parts := presets(from(30*time.Second, time.Hour, down), from(30*time.Second, 90*time.Second, down))
		s := newStage(t, inMemory, steady(), parts...)
		all := s.every(t.Context(), time.Second, 150)

		for i, r := range all {
			if i == 30 { // it has used up its calls before a breaker opens
				require.Equal(t, "failed: `overloaded`", outcome(r))
				continue
			}
			require.NotNil(t, r.Response, "job %d", i+1)
			require.LessOrEqual(t, r.ended.Sub(s.began), max(r.began.Sub(s.began)+2*time.Second, 111*time.Second))
		}
		failed := map[string]int{}
		for _, r := range all {
			for _, e := range r.Trail {
				failed[e.Backend] += count(e.Outcome == job.OutcomeFailed)
			}
		}
		require.Equal(t, map[string]int{openrouter: 6, vllm: 5}, failed)
	})
}

// What a job loses to an open breaker, measured: not a condition.
func TestWhatAnOpenBreakerCosts(t *testing.T) {
	t.Parallel()
	const n = 300
	s := newStage(t, overTCP, steady(), presets(llmtest.Echo(), llmtest.Echo())...)
	median := func() time.Duration {
		var took []time.Duration
		for i := range n {
			r := s.ask(t.Context(), question{id: fmt.Sprintf("job-%d", i)})
			require.NotNil(t, r.Response)
			took = append(took, r.took())
		}
		slices.Sort(took)
		return took[n/2]
	}
	closed := median()
	s.places[0].guard.Open(time.Hour)
	open := median()
	t.Logf("median of %d jobs: %s with the breaker closed, %s past an open one: %s more", n, closed, open, open-closed)
	require.Equal(t, n, s.places[0].provider.Stats().Calls)
	require.Equal(t, n, s.places[1].provider.Stats().Calls)
}
