package fallback_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
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

// dice draws from [0, n).
type dice func(n int) int

func seeded(seed uint64) dice { return rand.New(rand.NewPCG(seed, 1)).IntN }

// ofBytes draws from fuzzed bytes, and zeros when they are used up.
func ofBytes(data []byte) dice {
	return func(n int) int {
		if len(data) == 0 {
			return 0
		}
		b := int(data[0])
		data = data[1:]
		return b % n
	}
}

func pick[T any](d dice, of ...T) T { return of[d(len(of))] }

// anyStep draws one step. With honest ones a backend refuses no call that it
// said it would take.
func anyStep(d dice, honest bool) step {
	s := step{takes: pick(d, 0, 0, second, 5*second), cost: pick(d, 0, 0, 0.25)}
	if d(6) == 0 {
		return s
	}
	s.class = pick(d, append(backend.Classes(), backend.Timeout, backend.ServerError, backend.RateLimit, backend.Overloaded)...)
	if honest && s.class == backend.Canceled { // nobody cancelled it
		s.class = backend.Timeout
	}
	s.hint = pick(d, 0, 0, 0, second, 3*second, 30*second)
	s.opens = pick(d, 0, 0, 2*second, minute)
	if !honest {
		s.refuse, s.early, s.deaf = d(8) == 0, d(8) == 0, d(8) == 0
	}
	return s
}

// anyShape draws chain, scripts and policy. No script ends with a backend that
// refuses calls for ever.
func anyShape(d dice, honest bool) shape {
	var s shape
	for i := range 1 + d(4) {
		f := &fake{name: string(rune('a' + i)), closed: pick(d, 0, 0, 0, 2*second, 45*second)}
		for range d(7) {
			f.script = append(f.script, anyStep(d, honest))
		}
		f.script = append(f.script, pick(d, answers(0), fails(backend.ServerError, second), fails(backend.InvalidRequest, 0)))
		switch kind := d(6); {
		case kind == 0:
			s.backends = append(s.backends, rules{f})
		case kind == 1 && !honest:
			s.backends = append(s.backends, shutRules{rules{f}})
		case kind == 2 && !honest:
			s.backends = append(s.backends, f)
		default:
			s.backends = append(s.backends, gated{f})
		}
		if _, ok := s.backends[i].(rules); ok && honest { // it has no gate to be honest with
			f.closed = 0
			for j := range f.script {
				f.script[j].opens = 0
			}
		}
	}
	p := fallback.DefaultPolicy()
	p.MaxAttempts, p.Jitter, p.BaseDelay = d(6), d(2) == 0, pick(d, 2*second, 4*second)
	p.MaxCostUSD = pick(d, 0, 0, 0.6)
	p.Enabled = d(8) > 0
	anyStrategy(d, &p, &s)
	s.policy = func(to *fallback.Policy) { *to = p }
	return s
}

// anyStrategy draws a strategy that makes one call after the other, with what it
// goes by, a primary and retries.
func anyStrategy(d dice, p *fallback.Policy, s *shape) {
	var names []string
	s.retries = map[string]int{}
	for _, b := range s.backends {
		names = append(names, b.Name())
		if n := d(5); n < 3 {
			s.retries[b.Name()] = n
		}
	}
	p.Strategy = pick(d, fallback.Sequential, fallback.Priority, fallback.ErrorType, fallback.Random, fallback.Conditional)
	p.ErrorMappings = map[backend.Class][]string{backend.Timeout: {names[0]}}
	for range d(8) {
		class := pick(d, backend.Classes()...)
		p.ErrorMappings[class] = append(p.ErrorMappings[class], pick(d, names...))
	}
	p.Conditions = []string{pick(d, "on_any_error", "on_retryable_error", "job.attempt < 3", `error.status == 0 && error.backend != "b"`)}
	p.Weights = map[string]float64{names[d(len(names))]: 3}
	if len(names) > 1 && d(2) == 0 {
		p.Weights[names[0]], p.Weights[names[1]] = 0, 1
	}
	if d(4) == 0 {
		s.job.Primary = pick(d, names...)
	}
	if d(4) == 0 { // the rest is there for the mappings alone
		s.job.Chain = names[len(names)/2:]
		p.Weights = nil
	}
}

// anyDeadline draws the end of the job's time, never the moment at which a call
// ends by itself.
func anyDeadline(st *stage, d dice) time.Time {
	if d(3) > 0 {
		return time.Time{}
	}
	return st.began.Add(time.Duration(d(90))*second + 500*ms)
}

// summary is what one way to run a job came to.
type summary struct {
	Calls, Lines []string
	Trail        []job.Attempt
	End          string
	Message      string
	First, Last  *job.Failure
	Took         time.Duration
}

func (st *stage) summary(out fallback.Outcome) summary {
	s := summary{
		Calls: st.calls, Lines: lines(out.Trail), Trail: roundTrip(st.t, out.Trail), End: end(out),
		First: out.First, Last: out.Last, Took: time.Since(st.began),
	}
	if out.Err != nil {
		s.Message = out.Err.Message
	}
	return s
}

// errDied is what a worker dies of in [stage.dying].
var errDied = errors.New("died")

// dying runs the job with workers that die right after each entry of the trail
// for which dies says so; the next one goes on from the entries that were told.
func (st *stage) dying(deadline time.Time, dies func() bool) fallback.Outcome {
	var told []job.Attempt
	st.before = func(a job.Attempt) {
		told = append(told, a)
		if a.Outcome != job.OutcomeSucceeded && dies() {
			panic(errDied)
		}
	}
	for range 10_000 {
		out, died := st.life(told, deadline)
		switch {
		case died:
		case out.Wait == nil:
			return out
		default:
			require.Equal(st.t, roundTrip(st.t, told), roundTrip(st.t, out.Trail))
			time.Sleep(time.Until(out.Wait.Until))
		}
	}
	require.FailNow(st.t, "the job never ends")
	return fallback.Outcome{}
}

func (st *stage) life(told []job.Attempt, deadline time.Time) (out fallback.Outcome, died bool) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, errDied) {
				panic(p)
			}
			died = true
		}
	}()
	st.renew()
	return st.once(st.t.Context(), roundTrip(st.t, told), deadline), false
}

// TestATrailIsAllThatAJobNeedsToGoOn runs random jobs in one go, and again with
// a worker that dies after every entry of the trail, or after some.
func TestATrailIsAllThatAJobNeedsToGoOn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(250) {
		play := func(run func(*stage, time.Time) fallback.Outcome) (s summary) {
			synctest.Test(t, func(t *testing.T) {
				d := seeded(seed)
				st := newStage(t, anyShape(d, true))
				deadline := anyDeadline(st, d)
				out := run(st, deadline)
				s = st.summary(out)
				requireTruth(t, out)
			})
			return s
		}
		whole := play(func(st *stage, deadline time.Time) fallback.Outcome {
			out, _ := st.run(st.t.Context(), deadline)
			return out
		})
		always := play(func(st *stage, deadline time.Time) fallback.Outcome {
			return st.dying(deadline, func() bool { return true })
		})
		require.Equal(t, whole, always, "seed %d", seed)
		some := seeded(seed + 1)
		require.Equal(t, whole, play(func(st *stage, deadline time.Time) fallback.Outcome {
			return st.dying(deadline, func() bool { return some(3) == 0 })
		}), "seed %d", seed)
	}
}

// TestAJobThatIsHandedBackMakesTheSameCalls runs random jobs with a slot in which
// every pause is spent, and with one in which none is.
func TestAJobThatIsHandedBackMakesTheSameCalls(t *testing.T) {
	t.Parallel()
	handed := 0
	for seed := range uint64(250) {
		play := func(hold time.Duration) (s summary) {
			synctest.Test(t, func(t *testing.T) {
				d := seeded(seed)
				shape := anyShape(d, true)
				shape.hold, shape.retries = hold, nil // whether a retry is made depends on the hold
				st := newStage(t, shape)
				st.plan.Policy.Jitter = false // then no pause is shorter than a second, the least outside the slot
				deadline := anyDeadline(st, d)
				out, waits := st.run(t.Context(), deadline)
				if hold > 0 {
					require.Empty(t, waits)
				}
				handed += len(waits)
				s = st.summary(out)
				for i := range s.Trail { // whether a pause was spent in the slot shows in this alone
					s.Trail[i].Next = nil
				}
				s.Lines = nil
			})
			return s
		}
		require.Equal(t, play(1000*hour), play(-1), "seed %d", seed)
	}
	require.Greater(t, handed, 100)
}

// FuzzAnyScriptEnds runs a job among backends that do anything.
func FuzzAnyScriptEnds(f *testing.F) {
	for seed := range uint64(40) {
		d, data := seeded(seed), make([]byte, 120)
		for i := range data {
			data[i] = byte(d(256))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) { anyScriptEnds(t, ofBytes(data)) })
	})
}

func TestRandomScriptsEnd(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) { anyScriptEnds(t, seeded(seed)) })
	}
}

func anyScriptEnds(t *testing.T, d dice) {
	t.Helper()
	s := anyShape(d, false)
	s.hold = pick(d, 0, 0, hour, -1)
	st := newStage(t, s)
	deadline := anyDeadline(st, d)
	paid := 0.0
	st.before = func(a job.Attempt) {
		if a.CostUSD != nil {
			paid += *a.CostUSD
			if *a.InputTokens != 3 || *a.OutputTokens != 5 {
				t.Errorf("tokens got lost: %+v", a)
			}
		}
	}
	out, _ := st.run(t.Context(), deadline)
	requireHeardInOrder(t, st.heard)

	cap, extra, calls := st.cap(s), 0, 0
	asked, cost, skipped := map[string]int{}, 0.0, map[string]bool{}
	for i, a := range out.Trail {
		require.Equal(t, i+1, a.N)
		require.GreaterOrEqual(t, a.WaitMS, int64(0))
		if a.CostUSD != nil {
			cost += *a.CostUSD
		}
		probe := skipped[a.Backend]
		skipped[a.Backend] = a.Outcome == job.OutcomeSkipped
		if degraded(s.backends, a.Backend) {
			if a.Outcome != job.OutcomeSkipped {
				asked[a.Backend]++
			}
			require.LessOrEqual(t, asked[a.Backend], 1, "%v", lines(out.Trail))
		} else if a.Outcome != job.OutcomeSkipped {
			if calls++; calls > cap+extra && probe {
				extra++ // the probe of an outage
			}
			require.LessOrEqual(t, calls, cap+extra, "%v", lines(out.Trail))
		}
		if a.Next != nil && *a.Next == job.NextWait && calls >= cap+extra {
			extra++ // an outage
		}
	}
	require.InDelta(t, paid, cost, 1e-9)
	if !deadline.IsZero() && out.Response == nil {
		for _, b := range s.backends {
			if slices.ContainsFunc(inner(b).script, func(s step) bool { return s.deaf }) {
				return // it does not heed the deadline
			}
		}
		require.False(t, time.Now().After(deadline))
	}
}

// cap is how many calls the job of a shape may cost.
func (st *stage) cap(s shape) int {
	p := st.plan.Policy
	switch first := 1 + s.retries[st.plan.Chain()[0]]; {
	case !p.Enabled && p.MaxAttempts > 0:
		return min(first, p.MaxAttempts)
	case !p.Enabled:
		return first
	case p.MaxAttempts > 0:
		return p.MaxAttempts
	}
	return max(fallback.DefaultMaxAttempts, len(st.plan.Chain()))
}

// degraded reports whether the backend of that name answers without a model.
func degraded(backends []backend.Backend, name string) bool {
	return slices.ContainsFunc(backends, func(b backend.Backend) bool {
		d, ok := b.(backend.Degrader)
		return b.Name() == name && ok && d.Degraded()
	})
}

// requireHeardInOrder requires the observer's calls to be those of one call
// after the other.
func requireHeardInOrder(tb testing.TB, heard []string) {
	tb.Helper()
	running := ""
	for i, line := range heard {
		n, what, _ := strings.Cut(line, " ")
		outcome, name, _ := strings.Cut(what, " ")
		switch key := n + " " + name; outcome {
		case "started":
			require.Empty(tb, running, "%v", heard)
			running = key
		case "succeeded", "failed":
			require.Equal(tb, running, key, "%v", heard)
			running = ""
			require.True(tb, outcome == "failed" || i == len(heard)-1)
		case "skipped":
			require.Empty(tb, running, "%v", heard)
		default:
			require.Fail(tb, fmt.Sprintf("unknown line %q", line))
		}
	}
	require.Empty(tb, running)
}
