package fallback_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// watched is a gated fake that knows how its latest call went.
type watched struct {
	gated
	failing bool
}

// Failing implements backend.Health.
func (w *watched) Failing() bool { return w.failing }

func (w *watched) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	resp, err := w.gated.Complete(ctx, req)
	if ctx.Err() == nil {
		w.failing = err != nil && backend.AsError(err, w.name).Class.Effect() == backend.Count
	}
	return resp, err
}

// TestAnExplanationIsWhatWouldHappen explains random jobs of all strategies and
// then runs them: the same calls at the same moments, with the same words.
func TestAnExplanationIsWhatWouldHappen(t *testing.T) {
	t.Parallel()
	explained, raced := 0, 0
	for seed := range uint64(1500) {
		synctest.Test(t, func(t *testing.T) {
			d := seeded(seed)
			s := anyShape(d, true)
			if d(3) == 0 {
				d = seeded(seed)
				s = anyRace(d, true)
			}
			scripts := map[string][]step{}
			for i, b := range s.backends {
				f := inner(b)
				f.closed = 0
				for j := range f.script { // nothing ends at the same moment as anything else
					f.script[j].takes += time.Duration(1+i*31+j*7) * ms
				}
				scripts[f.name] = f.script
				if _, ok := b.(gated); ok {
					s.backends[i] = &watched{gated: gated{f}}
				}
			}
			st := newStage(t, s)
			x := st.engine.Explain(t.Context(), fallback.Task{Plan: st.plan, Request: st.request, Observer: nobody{}}, func(name string, n int) fallback.Answer {
				script := scripts[name]
				now := script[min(n, len(script))-1]
				a := fallback.Answer{Model: name + "-model", Takes: now.takes, Refuses: now.opens}
				if now.class != "" {
					a.Err = &backend.Error{Class: now.class, Backend: name, Status: now.status, RetryAfter: now.hint, Message: "scripted " + string(now.class)}
					if now.cost > 0 {
						a.Err.CostUSD = new(now.cost)
					}
				}
				return a
			})
			require.Equal(t, st.began, time.Now(), "nothing was waited for")
			require.Empty(t, st.calls, "and nobody called")
			if x.Outcome.Wait != nil {
				return
			}
			explained++
			out, waits := st.run(t.Context(), time.Time{})
			if st.most > 1 {
				raced++
			}
			require.Len(t, x.Waits, len(waits))
			require.Equal(t, end(out), end(x.Outcome), "seed %d: %v", seed, lines(out.Trail))
			require.Equal(t, moments(st, out), moments(st, x.Outcome), "seed %d", seed)
		})
	}
	require.Greater(t, explained, 1000)
	require.Greater(t, raced, 50)
}

// moments are when the entries of a trail began, for how long, and what they say.
func moments(st *stage, out fallback.Outcome) (all []string) {
	if st.races {
		inOrderOfStart(st, out)
	}
	for i, line := range lines(out.Trail) {
		a := out.Trail[i]
		at := a.StartedAt.Sub(st.began).String()
		if a.Outcome != job.OutcomeSkipped {
			at += " for " + (time.Duration(a.DurationMS) * ms).String()
		}
		all = append(all, at+": "+line)
	}
	return all
}
