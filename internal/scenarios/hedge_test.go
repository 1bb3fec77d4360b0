package scenarios_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/llmtest"
)

const (
	hedgedJobs = 1000
	hedgers    = 16 // goroutines that run them
)

// hedged is a race of the whole chain, one more call every delay.
func hedged(delay time.Duration) fallback.Policy {
	p := steady()
	p.Strategy, p.HedgeDelay = fallback.Parallel, delay
	return p
}

// together runs n jobs from several goroutines. Each has a prompt of its own, so
// that its calls are found again.
func (s *stage) together(ctx context.Context, n int) []told {
	all := make([]told, n)
	next := make(chan int)
	var running sync.WaitGroup
	for range hedgers {
		running.Go(func() {
			for i := range next {
				id := fmt.Sprintf("job-%d", i)
				all[i] = s.ask(ctx, question{id: id, body: strings.ReplaceAll(hello, "hello", id)})
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	running.Wait()
	return all
}

// settled checks what holds of every race: one answer each, the trail tells of
// all calls, no call is under way, and connections are those that may idle.
func (s *stage) settled(t *testing.T, all []told) {
	t.Helper()
	for _, p := range s.places {
		require.NoError(t, p.provider.Wait(t.Context(), func(st llmtest.Stats) bool { return st.InFlight == 0 }))
	}
	calls := map[string]int{}
	for i, r := range all {
		require.NotNil(t, r.Response, "job %d", i)
		require.Nil(t, r.Err)
		require.Contains(t, string(r.Response.Body), fmt.Sprintf(`echo: job-%d"`, i), "its own answer")
		won := 0
		for _, e := range r.Trail {
			calls[e.Backend]++
			won += count(e.Outcome == job.OutcomeSucceeded)
		}
		require.Equal(t, 1, won)
		require.Equal(t, len(r.Trail), r.started)
	}
	for _, p := range s.places {
		stats := p.provider.Stats()
		// A call whose race was lost while it was dialling has not arrived.
		require.LessOrEqual(t, stats.Calls, calls[p.name])
		require.Zero(t, stats.InFlight)
		require.LessOrEqual(t, p.open(), openai.DefaultConcurrency)
	}
}

// aborts returns by how much each call that lost ended after the job had its
// answer, and requires that the client has left it, unless it had its answer.
func (s *stage) aborts(t *testing.T, all []told, name string) []time.Duration {
	t.Helper()
	ends := map[string]llmtest.Call{}
	for _, p := range s.places {
		if p.name == name {
			for _, c := range p.provider.Calls() {
				ends[c.Header.Get("X-Client-Request-Id")] = c
			}
		}
	}
	var late []time.Duration
	for i, r := range all {
		lost := slices.ContainsFunc(r.Trail, func(e job.Attempt) bool {
			return e.Backend == name && e.Class != nil && *e.Class == string(backend.Canceled)
		})
		c, arrived := ends[fmt.Sprintf("job-%d", i)]
		if !lost || !arrived {
			continue
		}
		require.True(t, c.Done)
		if c.Status != 0 && !c.Aborted {
			continue // it had answered, a moment too late
		}
		require.True(t, c.Aborted, "the loser of job %d was not aborted", i)
		late = append(late, c.Time.Add(c.Duration).Sub(r.ended))
	}
	slices.Sort(late)
	return late
}

func TestHedgedJobsOverTCP(t *testing.T) {
	t.Parallel()
	slow := llmtest.Always(llmtest.Reply{Delay: 20 * time.Second})
	for name, primary := range map[string]llmtest.Script{
		"healthy": slow,
		"flaky": func(c llmtest.Call) llmtest.Reply {
			switch c.N % 3 {
			case 0:
				return llmtest.Fail(500, "Internal error")
			case 1:
				return llmtest.Reply{} // at once
			}
			return slow(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parts := presets(primary, llmtest.Always(llmtest.Reply{Delay: 3 * time.Millisecond}))
			parts[0].client.Timeout = time.Minute
			if name == "flaky" { // the calls of one moment may all be of the kind that fails
				parts[0].breaker.Failures = hedgedJobs
			}
			s := newStage(t, overTCP, hedged(2*time.Millisecond), parts...)
			all := s.together(t.Context(), hedgedJobs)
			s.settled(t, all)
			late := s.aborts(t, all, openrouter)
			if name == "healthy" {
				require.Len(t, late, s.places[0].provider.Stats().Calls)
			}
			n := len(late)
			t.Logf("%d calls aborted; after the answer: median %s, p99 %s, longest %s", n, late[n/2], late[n*99/100], late[n-1])
			for _, p := range s.places {
				require.Equal(t, breaker.Closed, p.guard.State())
				require.Empty(t, p.changed())
				p.client.Close()
				require.Eventually(t, func() bool { return p.open() == 0 }, 30*time.Second, time.Millisecond, "no connection is left")
			}
		})
	}
}

// In a bubble the end of a loser is at the very moment of the answer.
func TestHedgedJobsAtTheSameInstant(t *testing.T) {
	t.Parallel()
	turns := func(slow time.Duration) llmtest.Script { // wins every other race
		return func(c llmtest.Call) llmtest.Reply {
			if c.N%2 == 1 {
				return llmtest.Reply{Delay: slow}
			}
			return llmtest.Reply{Delay: 400 * time.Millisecond}
		}
	}
	flaky := func(c llmtest.Call) llmtest.Reply {
		if c.N%3 == 0 {
			return llmtest.Reply{Status: 500, Delay: 100 * time.Millisecond}
		}
		return turns(4 * time.Second)(c)
	}
	for _, tc := range []struct {
		name    string
		primary llmtest.Script
		losers  int
		// took are the times of an answer that are possible.
		took []time.Duration
	}{
		{"healthy", turns(4 * time.Second), hedgedJobs, []time.Duration{400 * time.Millisecond, 900 * time.Millisecond}},
		{"flaky", flaky, 0, []time.Duration{400 * time.Millisecond, 700 * time.Millisecond, 900 * time.Millisecond}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				parts := presets(tc.primary, llmtest.Always(llmtest.Reply{Delay: 600 * time.Millisecond}))
				if tc.name == "flaky" {
					parts[0].breaker.Failures = hedgedJobs
				}
				s := newStage(t, inMemory, hedged(300*time.Millisecond), parts...)
				all := s.together(t.Context(), hedgedJobs)
				synctest.Wait()
				s.settled(t, all)

				var late []time.Duration
				for _, p := range s.places {
					require.Equal(t, breaker.Closed, p.guard.State())
					require.Empty(t, p.changed())
					late = append(late, s.aborts(t, all, p.name)...)
					p.client.Close()
					synctest.Wait()
					require.Zero(t, p.pipe.Open())
					require.Zero(t, p.open())
				}
				for _, d := range late {
					require.Zero(t, d, "a loser ends at the moment of the answer")
				}
				if tc.losers > 0 {
					require.Len(t, late, tc.losers)
				}
				for _, r := range all {
					require.Contains(t, tc.took, r.took())
				}
			})
		})
	}
}
