package fallback_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// anyRace draws a chain whose calls run at once.
func anyRace(d dice, honest bool) shape {
	s := anyShape(d, honest)
	for _, b := range s.backends {
		for i := range inner(b).script {
			inner(b).script[i].takes += pick(d, 0, 700*ms, 3*second)
		}
	}
	drawn := s.policy
	hedge := pick(d, 0, 0, 0, 300*ms, 2*second, minute)
	s.policy = func(p *fallback.Policy) {
		drawn(p)
		p.Strategy, p.HedgeDelay = fallback.Parallel, hedge
	}
	return s
}

// heardWhole requires that every call was heard of twice, in order, and every
// skip once, with the numbers of the trail.
func heardWhole(t *testing.T, ended []job.Attempt, out fallback.Outcome) {
	t.Helper()
	slices.SortFunc(ended, func(a, b job.Attempt) int { return a.N - b.N })
	require.Equal(t, lines(ended), lines(out.Trail))
}

// calls counts what cost an attempt, and the pauses and skips by which an outage
// may have given one more.
func spentOf(s shape, trail []job.Attempt) (calls, extra int) {
	for _, a := range trail {
		switch {
		case degraded(s.backends, a.Backend):
		case a.Outcome == job.OutcomeSkipped && *a.Class == string(backend.CircuitOpen):
			extra++
		case a.Outcome == job.OutcomeFailed && (*a.Class != string(backend.Canceled) || *a.Next != job.NextStop):
			calls++
			if *a.Next == job.NextWait {
				extra++
			}
		}
	}
	return calls, extra
}

func TestRandomRacesEnd(t *testing.T) {
	t.Parallel()
	raced := 0
	for seed := range uint64(1500) {
		synctest.Test(t, func(t *testing.T) { // which fails when a goroutine is left
			d := seeded(seed)
			honest := d(2) == 0
			s := anyRace(d, honest)
			s.hold = pick(d, 0, 0, hour, -1)
			st := newStage(t, s)
			var ended []job.Attempt
			st.before = func(a job.Attempt) { ended = append(ended, a) }
			deadline := anyDeadline(st, d)
			out, _ := st.run(t.Context(), deadline)
			require.Zero(t, st.running)
			require.LessOrEqual(t, st.most, len(s.backends))
			if st.most > 1 {
				raced++
			}
			heardWhole(t, ended, out)
			if honest { // else the call that a failure left running may never have been one
				requireRaceTruth(t, out)
			}
			calls, extra := spentOf(s, out.Trail)
			limit := st.cap(s)
			require.LessOrEqual(t, calls, limit+extra, "%v", lines(out.Trail))
			paid := 0.0
			for _, a := range out.Trail {
				if a.CostUSD != nil {
					paid += *a.CostUSD
				}
			}
			if limit := st.plan.Policy.MaxCostUSD; limit > 0 {
				require.Less(t, paid, limit+0.25*float64(len(s.backends)), "no call starts when the money is spent")
			}
			if !deadline.IsZero() && !slices.ContainsFunc(s.backends, func(b backend.Backend) bool {
				return slices.ContainsFunc(inner(b).script, func(s step) bool { return s.deaf })
			}) {
				require.False(t, time.Now().After(deadline))
			}
		})
	}
	require.Greater(t, raced, 150)
}

// TestARaceThatIsStoppedAgainAndAgainEnds stops the worker at random moments; the
// next one goes on with the trail.
func TestARaceThatIsStoppedAgainAndAgainEnds(t *testing.T) {
	t.Parallel()
	stopped := 0
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) {
			d := seeded(seed)
			s := anyRace(d, true)
			st := newStage(t, s)
			var out fallback.Outcome
			for range 1000 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+d(12_000))*ms+500*time.Microsecond)
				before := len(out.Trail)
				out = st.once(ctx, roundTrip(t, out.Trail), time.Time{})
				over := ctx.Err() != nil
				cancel()
				require.Zero(t, st.running)
				require.GreaterOrEqual(t, len(out.Trail), before)
				switch {
				case out.Wait != nil:
					time.Sleep(time.Until(out.Wait.Until))
					continue
				case over && out.Err != nil && out.Err.Class == backend.Canceled:
					stopped++
					for _, a := range out.Trail[before:] {
						require.NotNil(t, a.Next)
					}
					continue
				}
				break
			}
			require.True(t, out.Response != nil || out.Err != nil && out.Wait == nil)
			calls, extra := spentOf(s, out.Trail)
			require.LessOrEqual(t, calls, st.cap(s)+extra, "%v", lines(out.Trail))
			asked := map[string]int{}
			for i, a := range out.Trail {
				require.Equal(t, i+1, a.N)
				if degraded(s.backends, a.Backend) && a.Outcome == job.OutcomeFailed && *a.Class != string(backend.Canceled) {
					asked[a.Backend]++
				}
			}
			for name, n := range asked {
				require.Equal(t, 1, n, name)
			}
		})
	}
	require.Greater(t, stopped, 100)
}

// TestAHandedBackRaceMakesTheSameCalls runs random races with a slot in which every
// pause is spent, and with one in which none is.
func TestAHandedBackRaceMakesTheSameCalls(t *testing.T) {
	t.Parallel()
	handed := 0
	for seed := range uint64(400) {
		play := func(hold time.Duration) (s summary) {
			synctest.Test(t, func(t *testing.T) {
				d := seeded(seed)
				shape := anyRace(d, true)
				shape.hold = hold
				for i, b := range shape.backends { // nothing ends at the same moment as anything else
					for j := range inner(b).script {
						inner(b).script[j].takes += time.Duration(1+i*31+j*7) * ms
					}
				}
				st := newStage(t, shape)
				st.plan.Policy.Jitter = false
				out, waits := st.run(t.Context(), time.Time{})
				handed += len(waits)
				inOrderOfStart(st, out)
				s = st.summary(out)
				s.Trail, s.Lines, s.Calls, s.Took = nil, nil, nil, 0 // a hand-back takes a second at least
				for _, a := range out.Trail {
					if a.Outcome != job.OutcomeSkipped {
						s.Lines = append(s.Lines, lines([]job.Attempt{{Backend: a.Backend, Outcome: a.Outcome, Class: a.Class}})...)
					}
				}
			})
			return s
		}
		require.Equal(t, play(1000*hour), play(-1), "seed %d", seed)
	}
	require.Greater(t, handed, 100)
}
