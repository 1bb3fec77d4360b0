package scenarios_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// load is a scenario of many jobs that arrive steadily.
type load struct {
	name, does string
	interval   time.Duration
	jobs       int
	// primary makes its script, inside the bubble.
	primary func() llmtest.Script
	// back is when the outage is over.
	back time.Duration
	want facts
}

// from is well until begin has passed, misbehaves until end, and is well again.
// The time counts from its own making.
func from(begin, end time.Duration, r llmtest.Reply) llmtest.Script {
	made := time.Now()
	return func(c llmtest.Call) llmtest.Reply {
		if passed := time.Since(made); passed >= begin && passed < end {
			return r
		}
		return well()(c)
	}
}

// loads are the scenarios of the table that take more than a job.
func loads() []load {
	outage := func(r llmtest.Reply) func() llmtest.Script {
		return func() llmtest.Script { return from(time.Minute, 2*time.Minute, r) }
	}
	return []load{
		{
			name: "outage under load", does: "500 from 1m0s to 2m0s; 5 jobs a second for 3 min",
			interval: 200 * time.Millisecond, jobs: 900, back: 2 * time.Minute,
			primary: outage(bad(llmtest.Fail(500, "Internal error"))),
			want: facts{
				"openrouter: `server_error` 9, opens at 1m1.9s for 1m0s; skipped 304", "900 answered",
				"1s (891), 1.2s (9)", "openrouter 596, vllm 313", "vllm: 1s; openrouter again at 2m1.9s",
			},
		},
		{
			name: "silent outage under load", does: "never answers from 1m0s to 2m0s; 5 jobs a second for 3 min",
			interval: 200 * time.Millisecond, jobs: 900, back: 2 * time.Minute,
			primary: outage(llmtest.Broken(llmtest.Hang)),
			want: facts{
				"openrouter: `timeout` 30, opens at 1m5.903s for 1m0s; skipped 304", "900 answered",
				"1s (870), 6s (30)", "openrouter 596, vllm 334", "vllm: 1s; openrouter again at 2m5.906s",
			},
		},
	}
}

// play runs the jobs, and sums up what became of them.
func (l load) play(t *testing.T) account {
	t.Helper()
	s := newStage(t, inMemory, steady(), presets(l.primary(), well())...)
	all := s.every(t.Context(), l.interval, l.jobs)
	a := account{name: l.name, does: l.does}
	var follows, calls []string
	for _, p := range s.places {
		n := 0
		for _, r := range all {
			n += called(r, p.name)
		}
		require.Equal(t, p.provider.Stats().Calls, n)
		calls = append(calls, fmt.Sprintf("%s %d", p.name, n))
		if text := s.failed(all, p); text != "" {
			follows = append(follows, text)
		}
		for _, c := range p.changed() {
			a.story = append(a.story, s.turn(c, p.name))
		}
	}
	a.facts = facts{
		Follows: strings.Join(follows, "; "), Outcome: outcomes(all), Took: spans(all), Calls: strings.Join(calls, ", "),
	}
	a.Second = s.recovery(all, l.back)
	a.story = append(a.story, s.kinds(all)...)
	return a
}

// failed sums up the failures of one backend.
func (s *stage) failed(all []told, p *place) string {
	classes, skipped := map[string]int{}, 0
	for _, r := range all {
		for _, e := range r.Trail {
			switch {
			case e.Backend != p.name || e.Class == nil:
			case e.Outcome == job.OutcomeSkipped:
				skipped++
			default:
				classes[*e.Class]++
			}
		}
	}
	if len(classes) == 0 {
		return ""
	}
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		parts = append(parts, fmt.Sprintf("`%s` %d", class, classes[class]))
	}
	for _, c := range p.changed() {
		if c.For > 0 {
			parts = append(parts, fmt.Sprintf("opens at %s for %s", c.at.Sub(s.began), c.For))
		}
	}
	return fmt.Sprintf("%s: %s; skipped %d", p.name, strings.Join(parts, ", "), skipped)
}

// outcomes counts how jobs ended.
func outcomes(all []told) string {
	answered, failed := 0, map[string]int{}
	for _, r := range all {
		if r.Response != nil {
			answered++
			continue
		}
		failed[string(r.Err.Class)]++
	}
	text := fmt.Sprintf("%d answered", answered)
	for _, class := range slices.Sorted(maps.Keys(failed)) {
		text += fmt.Sprintf(", %d failed: `%s`", failed[class], class)
	}
	return text
}

// spans counts how long jobs took: each time, or the range where there are many.
func spans(all []told) string {
	n := map[time.Duration]int{}
	for _, r := range all {
		n[r.took()]++
	}
	took := slices.Sorted(maps.Keys(n))
	if len(took) > 4 {
		return fmt.Sprintf("%s to %s, %d of them %s", took[0], took[len(took)-1], n[took[0]], took[0])
	}
	var parts []string
	for _, d := range took {
		parts = append(parts, fmt.Sprintf("%s (%d)", d, n[d]))
	}
	return strings.Join(parts, ", ")
}

// recovery is the first job after the outage, and the first that the backend
// answered which is back.
func (s *stage) recovery(all []told, back time.Duration) string {
	text := ""
	for _, r := range all {
		if r.began.Sub(s.began) < back {
			continue
		}
		if text == "" {
			text = second(r)
		}
		if r.Backend == openrouter {
			return fmt.Sprintf("%s; openrouter again at %s", text, r.began.Sub(s.began))
		}
	}
	return text
}

// kinds lists the jobs that follow each other and had the same story.
func (s *stage) kinds(all []told) []string {
	var lines []string
	for i := 0; i < len(all); {
		n := i + 1
		for n < len(all) && kind(all[n]) == kind(all[i]) {
			n++
		}
		lines = append(lines, fmt.Sprintf("Jobs %d to %d, from %s: %s", i+1, n, all[i].began.Sub(s.began), kind(all[i])))
		i = n
	}
	return lines
}

// kind is a job's story without its times.
func kind(r told) string {
	var steps []string
	for _, e := range r.Trail {
		step := e.Backend + " " + string(e.Outcome)
		if e.Class != nil && e.Outcome == job.OutcomeFailed {
			step = e.Backend + " " + *e.Class
		}
		steps = append(steps, step)
	}
	text := strings.Join(steps, ", ")
	if r.Err != nil {
		text += ": " + outcome(r)
	}
	return text
}
