package scenarios_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// scenario is one way in which backends misbehave.
type scenario struct {
	name string
	// does says in words what the primary does.
	does string
	// primary is what it does; secondary and third likewise, nil means that the
	// secondary is well and that there is no third.
	primary, secondary, third llmtest.Script
	// set changes the route and the parts; may be nil.
	set func(*fallback.Policy, []part)
	// before is how many jobs ran before the one that the table is about.
	before int
	// ask is that job, hello when empty.
	ask question
	// refuses tells that the primary accepts no connection.
	refuses bool
	// later, if not 0, is the pause after which a last job comes.
	later time.Duration
	want  facts
}

// facts are what the table says of a scenario.
type facts struct {
	// Follows is, of every call that failed and every backend that was skipped,
	// the class, the effect on the breaker, and what came next.
	Follows string
	Outcome string
	Took    string
	// Calls are those that left, by backend.
	Calls string
	// Second is the job right after: whom it asked, and how long it took.
	Second string
}

// account is a scenario that was played.
type account struct {
	name, does string
	facts
	story []string
}

// play runs the jobs of a scenario one after the other.
func (sc scenario) play(t *testing.T) account {
	t.Helper()
	secondary := sc.secondary
	if secondary == nil {
		secondary = well()
	}
	parts := presets(sc.primary, secondary)
	if sc.third != nil {
		parts = append(parts, part{name: third, script: sc.third})
	}
	policy := steady()
	if sc.set != nil {
		sc.set(&policy, parts)
	}
	s := newStage(t, inMemory, policy, parts...)
	if sc.refuses {
		s.places[0].pipe.Break()
	}
	a := account{name: sc.name, does: sc.does}
	n := 0
	run := func(q question) told {
		n++
		q.id = fmt.Sprintf("job-%d", n)
		arrived := s.arrived()
		r := s.ask(t.Context(), q)
		a.story = append(a.story, fmt.Sprintf("Job %d, at %s: %s", n, r.began.Sub(s.began), result(r)))
		a.story = append(a.story, s.lines(r)...)
		s.check(t, r, arrived, sc.refuses)
		return r
	}
	for range sc.before {
		run(question{})
	}
	r := run(sc.ask)
	a.facts = facts{
		Follows: s.follows(r), Outcome: outcome(r), Took: r.took().String(), Calls: s.calls(r),
	}
	a.Second = second(run(sc.ask))
	if sc.later > 0 {
		<-time.After(sc.later)
		run(sc.ask)
	}
	for _, p := range s.places {
		for _, c := range p.changed() {
			a.story = append(a.story, s.turn(c, p.name))
		}
	}
	return a
}

// arrived is how many calls every provider has got.
func (s *stage) arrived() []int {
	n := make([]int, len(s.places))
	for i, p := range s.places {
		n[i] = p.provider.Stats().Calls
	}
	return n
}

// check compares the trail of a job with what the providers saw.
func (s *stage) check(t *testing.T, r told, before []int, refused bool) {
	t.Helper()
	left := 0
	for i, p := range s.places {
		calls := called(r, p.name)
		left += calls
		if i == 0 && refused {
			calls = 0
		}
		require.Equal(t, calls, s.arrived()[i]-before[i], "calls that arrived at %s", p.name)
	}
	require.Equal(t, left, r.started)
	require.Equal(t, 1, count(r.Response != nil, r.Err != nil), "one end")
	for i, e := range r.Trail {
		require.Equal(t, i+1, e.N)
	}
}

// count is how many are true.
func count(facts ...bool) (n int) {
	for _, yes := range facts {
		if yes {
			n++
		}
	}
	return n
}

// called is how many calls of a backend left for a job.
func called(r told, name string) (n int) {
	for _, e := range r.Trail {
		if e.Backend == name && e.Outcome != job.OutcomeSkipped {
			n++
		}
	}
	return n
}

func (s *stage) calls(r told) string {
	var parts []string
	for _, p := range s.places {
		parts = append(parts, fmt.Sprintf("%s %d", p.name, called(r, p.name)))
	}
	return strings.Join(parts, ", ")
}

// follows says what understudy made of each failure.
func (s *stage) follows(r told) string {
	var all []string
	for _, e := range r.Trail {
		if e.Outcome == job.OutcomeSucceeded {
			continue
		}
		at := slices.IndexFunc(s.places, func(p *place) bool { return p.name == e.Backend })
		text := fmt.Sprintf("`%s`, %s, %s", *e.Class, s.places[at].effect(e), *e.Next)
		if e.Backend != openrouter {
			text = e.Backend + ": " + text
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, "; ")
}

// effect is what a failure did to the breaker, as the breaker shows it.
func (p *place) effect(e job.Attempt) string {
	if e.Outcome == job.OutcomeSkipped {
		return "not called"
	}
	end := e.StartedAt.Add(time.Duration(e.DurationMS) * time.Millisecond)
	healthy := !p.guard.Failing() && p.guard.State() == breaker.Closed
	for _, c := range p.changed() {
		if c.To == breaker.Open && c.at.Equal(end) {
			return "opens for " + c.For.String()
		}
	}
	switch counts := backend.Class(*e.Class).Effect() == backend.Count; {
	case counts && healthy:
		return "counts until the answer"
	case counts:
		return "counts"
	case healthy:
		return "ignored"
	}
	return "WRONG: the breaker was touched"
}

func outcome(r told) string {
	if r.Response != nil {
		return "answered by " + r.Backend
	}
	return "failed: `" + string(r.Err.Class) + "`"
}

func result(r told) string { return outcome(r) + ", " + r.took().String() }

// second says whom a job asked.
func second(r told) string {
	var asked []string
	for _, e := range r.Trail {
		if e.Outcome != job.OutcomeSkipped {
			asked = append(asked, e.Backend)
		}
	}
	text := strings.Join(asked, ", ") + ": " + r.took().String()
	if r.Err != nil {
		text += ", failed"
	}
	return text
}

// lines are the entries of a trail in short.
func (s *stage) lines(r told) []string {
	var lines []string
	for _, e := range r.Trail {
		text := fmt.Sprintf("- %s %s", e.StartedAt.Sub(r.began), e.Backend)
		if e.Outcome == job.OutcomeSkipped {
			lines = append(lines, fmt.Sprintf("%s skipped: %s; %s", text, *e.Error, *e.Next))
			continue
		}
		text += fmt.Sprintf(" %s after %s", e.Outcome, time.Duration(e.DurationMS)*time.Millisecond)
		if e.FirstTokenMS != nil {
			text += fmt.Sprintf(", first token after %s", time.Duration(*e.FirstTokenMS)*time.Millisecond)
		}
		if e.WaitMS > 0 {
			text += fmt.Sprintf(", after a pause of %s", time.Duration(e.WaitMS)*time.Millisecond)
		}
		if e.Class == nil {
			lines = append(lines, text)
			continue
		}
		text += fmt.Sprintf(": %s", *e.Class)
		if e.Status != 0 {
			text += fmt.Sprintf(" (%d)", e.Status)
		}
		if e.RetryAfterMS != nil {
			text += fmt.Sprintf(", leave alone for %s", time.Duration(*e.RetryAfterMS)*time.Millisecond)
		}
		lines = append(lines, fmt.Sprintf("%s, %q; %s", text, *e.Error, *e.Next))
	}
	for _, w := range r.waits {
		lines = append(lines, fmt.Sprintf("- handed back until %s: %s", w.Until.Sub(r.began), w.Why))
	}
	return lines
}

// turn is a change of a breaker in short.
func (s *stage) turn(c change, name string) string {
	text := fmt.Sprintf("Breaker of %s, at %s: %s to %s", name, c.at.Sub(s.began), c.From, c.To)
	if c.To == breaker.Open {
		text += fmt.Sprintf(", %s, for %s", c.Class, c.For)
	}
	return text
}
