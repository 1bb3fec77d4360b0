package limit_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/limit"
)

// hold is how long a job waits in its slot for its turn, or as long as it has
// waited already, up to five times that.
const hold = 2 * time.Second

// runAway runs all tasks, as many at once as there are slots. A job that would
// wait for long leaves its slot and comes back when the limiter says. It returns
// how long that took, and how often jobs left.
func runAway(t *testing.T, to *limit.Limiter, all []task) (took time.Duration, left int64) {
	t.Helper()
	slots := make(chan struct{}, atOnce)
	var times atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for _, task := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for since := time.Now(); ; {
				req := *task.req
				req.MaxWait = min(hold+time.Since(since), 5*hold)
				if to.Room(&req) <= req.MaxWait {
					_, err := to.Complete(t.Context(), &req)
					switch {
					case err == nil:
						return
					case errors.Is(err, backend.RateLimit):
						since = time.Now()
						continue
					case !errors.Is(err, backend.ErrNoTurn):
						t.Errorf("failed with %v", err)
						return
					}
				}
				wait := to.Defer(&req)
				times.Add(1)
				<-slots
				time.Sleep(wait)
				slots <- struct{}{}
			}
		})
	}
	wg.Wait()
	return time.Since(began), times.Load()
}

// TestThePaceOfJobsThatAreHandedBack is the pace of jobs that do not wait in
// their slots, and what it costs.
func TestThePaceOfJobsThatAreHandedBack(t *testing.T) {
	t.Parallel()
	for _, w := range laws() {
		if !slices.Contains([]string{"bucket", "window, joined half way", "bucket of a second", "silent bucket"}, w.name) {
			continue // the others come out as these
		}
		for _, c := range []calls{
			{"0.5 s", 500 * time.Millisecond, 500 * time.Millisecond, 630},
			{"1 to 39 s", time.Second, 39 * time.Second, 131},
		} {
			for _, tokens := range []bool{false, true} {
				t.Run("", func(t *testing.T) {
					t.Parallel()
					handBack(t, w, c, tokens)
				})
			}
		}
	}
}

// awayBounds are how many times the least time the jobs may take, and how often
// one may leave. Those of 1 to 39 s take four times as long as a job is away at
// the most.
func awayBounds(w law, c calls, tokens bool) (longer, left float64) {
	switch {
	case c.longest < 20*time.Second:
		return 1.05, 1.5
	case !tokens:
		return 1.05, 3.1
	case strings.HasSuffix(w.name, "bucket of a second"):
		return 1.45, 4.5 // see bounds; and refusals tell all others to come later
	case strings.HasPrefix(w.name, "window"):
		return 1.2, 4 // see bounds; and a window is planned by what its tokens were before
	}
	return 1.05, 3.7
}

func handBack(t *testing.T, w law, c calls, tokens bool) {
	t.Helper()
	set := func(p *provider) { p.requests = w.limit(c.perMinute) }
	cfg := limit.Config{Concurrency: atOnce, RPM: int64(c.perMinute)}
	if tokens {
		c.perMinute *= 1000
		set = func(p *provider) { p.tokens = w.limit(c.perMinute) }
		cfg = limit.Config{Concurrency: atOnce, TPM: int64(c.perMinute)}
	}
	synctest.Test(t, func(t *testing.T) {
		all := tasks(jobs, c.shortest, c.longest)
		best := &provider{tasks: all, oracle: true, turn: make(chan struct{}, 1), began: time.Now()}
		set(best)
		if w.silent {
			for _, q := range []*quota{best.requests, best.tokens} {
				if q != nil {
					*q = *bucketOf(q.limit, q.limit/60)
				}
			}
		}
		least := run(t, best, all)
		p := &provider{tasks: all, silent: w.silent, began: time.Now()}
		set(p)
		l, err := limit.New(p, cfg)
		require.NoError(t, err)
		took, left := runAway(t, l, all)
		t.Logf("%-32s %-11s tokens %-5v  least %7.1fs  took %7.1fs  %.3f  refused %3d  left %.2f", w.name, c.name, tokens, least.Seconds(), took.Seconds(), took.Seconds()/least.Seconds(), p.refused, float64(left)/jobs)
		longer, most := awayBounds(w, c, tokens)
		require.LessOrEqual(t, took.Seconds(), least.Seconds()*longer)
		require.LessOrEqual(t, float64(left)/jobs, most)
	})
}
