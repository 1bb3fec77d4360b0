package limit_test

import (
	"errors"
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

const (
	jobs   = 3000
	atOnce = 64
)

// run runs all tasks, as many at once as there are slots, each until it
// succeeds, and returns how long that took.
func run(t *testing.T, to backend.Backend, all []task) time.Duration {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range atOnce {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				for {
					_, err := to.Complete(t.Context(), all[i].req)
					if err == nil {
						break
					}
					if !errors.Is(err, backend.RateLimit) {
						t.Errorf("failed with %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// law makes the limit of a provider: per minute of it.
type law struct {
	name   string
	limit  func(perMinute float64) *quota
	silent bool
}

func laws() []law {
	full := func(n float64) *quota { return bucketOf(n, n) }
	return []law{
		{"bucket", full, false},
		{"window", func(n float64) *quota { return windowOf(n, time.Minute, time.Minute) }, false},
		{"window, joined half way", func(n float64) *quota { return windowOf(n, time.Minute, 31*time.Second) }, false},
		{"bucket of a second", func(n float64) *quota { q := bucketOf(n, max(n/60, 1)); q.limit = n; return q }, false},
		{"bucket of a second that says so", func(n float64) *quota { q := bucketOf(n, max(n/60, 1)); q.limit = q.burst; return q }, false},
		{"silent bucket", full, true},
		{"silent window", func(n float64) *quota { return windowOf(n, time.Minute, time.Minute) }, true},
		{"silent bucket of a second", func(n float64) *quota { return bucketOf(n, max(n/60, 1)) }, true},
	}
}

type calls struct {
	name              string
	shortest, longest time.Duration
	perMinute         float64
}

func TestThePaceAgainstAProviderThatKeepsCalls(t *testing.T) {
	t.Parallel()
	for _, w := range laws() {
		for _, c := range []calls{
			{"0.5 s", 500 * time.Millisecond, 500 * time.Millisecond, 630},
			{"0.1 to 3 s", 100 * time.Millisecond, 3 * time.Second, 630},
			{"20 s", 20 * time.Second, 20 * time.Second, 131},
			{"1 to 39 s", time.Second, 39 * time.Second, 131},
		} {
			for _, late := range []bool{false, true} {
				pace(t, w, c, func(p *provider) { p.late = late; p.requests = w.limit(c.perMinute) }, limit.Config{Concurrency: atOnce, RPM: int64(c.perMinute)})
			}
		}
	}
}

func TestThePaceAgainstAProviderThatKeepsTokens(t *testing.T) {
	t.Parallel()
	for _, w := range laws() {
		for _, c := range []calls{
			{"0.5 s", 500 * time.Millisecond, 500 * time.Millisecond, 640_000},
			{"0.1 to 3 s", 100 * time.Millisecond, 3 * time.Second, 640_000},
			{"20 s", 20 * time.Second, 20 * time.Second, 190_000},
			{"1 to 39 s", time.Second, 39 * time.Second, 190_000},
		} {
			for _, kept := range []bool{false, true} {
				pace(t, w, c, func(p *provider) { p.kept = kept; p.tokens = w.limit(c.perMinute) }, limit.Config{Concurrency: atOnce, TPM: int64(c.perMinute)})
			}
		}
	}
}

// pace runs the jobs through a limiter, and again through callers that know the
// provider's account: the least time in which they can be done in their order.
func pace(t *testing.T, w law, c calls, set func(*provider), cfg limit.Config) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		all := tasks(jobs, c.shortest, c.longest)
		best := &provider{tasks: all, oracle: true, turn: make(chan struct{}, 1), began: time.Now()}
		set(best)
		if w.silent { // its burst cannot be known: the ideal is its pace
			for _, q := range []*quota{best.requests, best.tokens} {
				if q != nil {
					*q = *bucketOf(q.limit, q.limit/60)
				}
			}
		}
		least := run(t, best, all)
		require.Zero(t, best.refused)

		p := &provider{tasks: all, silent: w.silent, began: time.Now()}
		set(p)
		l, err := limit.New(p, cfg)
		require.NoError(t, err)
		took := run(t, l, all)
		t.Logf("%-32s %-11s late %-5v kept %-5v  least %7.1fs  took %7.1fs  %.3f  refused %d", w.name, c.name, p.late, p.kept, least.Seconds(), took.Seconds(), took.Seconds()/least.Seconds(), p.refused)
		longer, refusals := bounds(w, c, p)
		require.LessOrEqual(t, took.Seconds(), least.Seconds()*longer)
		require.LessOrEqual(t, p.refused, refusals)
		require.LessOrEqual(t, p.most, atOnce)
	})
}

// bounds are how many times the least time the jobs may take, and how many calls
// may be refused: one in a hundred, but for what no answer tells in time.
func bounds(w law, c calls, p *provider) (longer float64, refusals int) {
	long := c.longest >= 20*time.Second
	short := strings.HasSuffix(w.name, "bucket of a second") || strings.HasSuffix(w.name, "that says so")
	switch {
	case p.tokens != nil && short && long:
		return 1.20, 300 // two calls fill the bucket, and fifty have not been answered yet
	case p.tokens != nil && p.kept && w.silent && !long, p.tokens != nil && w.silent && strings.HasSuffix(w.name, "silent bucket"):
		return 1.05, 45 // nothing tells that unused tokens are not given back
	case p.tokens != nil && long && strings.HasPrefix(w.name, "window"):
		return 1.08, 66 // what is given back late in a window is lost, and once its end is tried
	case p.late, p.tokens != nil && p.kept:
		return 1.05, 66 // until it is learned, once, all that run at once are refused
	}
	return 1.05, jobs / 100
}
