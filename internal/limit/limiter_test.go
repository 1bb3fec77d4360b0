package limit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
	"understudy/internal/limit"
)

var (
	_ backend.Limited = (*limit.Limiter)(nil)
	_ backend.Gate    = (*limit.Limiter)(nil)
	_ backend.Health  = (*limit.Limiter)(nil)
)

// fake is a backend that does as it is told.
type fake struct {
	do func(ctx context.Context, req *backend.Request) (*backend.Response, error)
}

func (*fake) Name() string { return "fake" }

func (f *fake) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	if f.do == nil {
		return &backend.Response{Status: 200}, nil
	}
	return f.do(ctx, req)
}

// guarded is a fake that is a gate and knows its health.
type guarded struct{ fake }

func (*guarded) Ready() time.Duration { return 7 * time.Second }
func (*guarded) Failing() bool        { return true }

func limiter(t *testing.T, cfg limit.Config, do func(context.Context, *backend.Request) (*backend.Response, error)) *limit.Limiter {
	t.Helper()
	l, err := limit.New(&fake{do: do}, cfg)
	require.NoError(t, err)
	return l
}

// takes is a call that takes d and does not listen.
func takes(d time.Duration) func(context.Context, *backend.Request) (*backend.Response, error) {
	return func(context.Context, *backend.Request) (*backend.Response, error) {
		time.Sleep(d)
		return &backend.Response{Status: 200}, nil
	}
}

func TestConfigurationsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	_, err := limit.New(nil, limit.Config{})
	require.EqualError(t, err, "limit: no backend to limit")
	_, err = limit.New(&fake{}, limit.Config{Concurrency: -1, RPM: -2, TPM: -3})
	require.ErrorContains(t, err, "Concurrency is -1")
	require.ErrorContains(t, err, "RPM is -2")
	require.ErrorContains(t, err, "TPM is -3")
}

func TestGateAndHealthAreThoseOfTheBackend(t *testing.T) {
	t.Parallel()
	l, err := limit.New(&guarded{}, limit.Config{})
	require.NoError(t, err)
	require.Equal(t, "fake", l.Name())
	require.Equal(t, 7*time.Second, l.Ready())
	require.True(t, l.Failing())
	l = limiter(t, limit.Config{}, nil)
	require.Zero(t, l.Ready())
	require.False(t, l.Failing())
}

func TestNeverMoreThanConcurrencyAtOnceAndFirstComeFirstServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var running, most int
		var order []string
		l := limiter(t, limit.Config{Concurrency: 3}, func(_ context.Context, req *backend.Request) (*backend.Response, error) {
			mu.Lock()
			order = append(order, req.JobID)
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return &backend.Response{Status: 200}, nil
		})
		var wg sync.WaitGroup
		var want []string
		begin := time.Now()
		for i := range 12 {
			name := string(rune('a' + i))
			want = append(want, name)
			wg.Go(func() {
				_, err := l.Complete(t.Context(), &backend.Request{JobID: name})
				if err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		require.Equal(t, want, order)
		require.Equal(t, 3, most)
		require.Equal(t, 4*time.Second+2*time.Millisecond, time.Since(begin)) // the last three began 0, 1 and 2 ms after each other
	})
}

func TestWhoGivesUpVanishesAndTheNextMovesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limit.Config{RPM: 6}, nil) // one each ten seconds
		ask := &backend.Request{Model: "m", Started: func(string) {}}
		_, err := l.Complete(t.Context(), ask)
		require.NoError(t, err)
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		begin := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := l.Complete(ctx, &backend.Request{Model: "m", Started: func(string) { t.Error("started") }})
			failure := backend.AsError(err, "")
			if failure.Class != backend.Canceled || failure.Model != "m" || !errors.Is(err, gone) {
				t.Errorf("gave up with %+v", failure)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			_, err := l.Complete(t.Context(), ask)
			if err != nil || time.Since(begin).Round(time.Millisecond) != 10*time.Second {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
		synctest.Wait()
		require.Equal(t, 30*time.Second, l.Room(ask).Round(time.Millisecond))
		time.Sleep(4 * time.Second)
		cancel(gone)
		synctest.Wait()
		require.Equal(t, 16*time.Second, l.Room(ask).Round(time.Millisecond))
		wg.Wait()
		dead, cancel2 := context.WithCancelCause(t.Context())
		cancel2(gone)
		_, err = l.Complete(dead, ask)
		require.ErrorIs(t, err, gone)
	})
}

func TestACallThatDoesNotWaitForSoLongIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limit.Config{RPM: 6}, nil) // one each ten seconds
		call := func(patience time.Duration) error {
			_, err := l.Complete(t.Context(), &backend.Request{Model: "m", MaxWait: patience})
			return err
		}
		require.NoError(t, call(-1)) // its turn is now
		for _, patience := range []time.Duration{-1, -time.Hour, 1, 9 * time.Second} {
			err := call(patience)
			require.ErrorIs(t, err, backend.CircuitOpen)
			require.ErrorIs(t, err, backend.ErrNoTurn)
			failure := backend.AsError(err, "")
			require.Equal(t, 10*time.Second, failure.RetryAfter.Round(time.Millisecond))
			require.Equal(t, "m", failure.Model)
			require.Equal(t, "fake", failure.Backend)
			require.Equal(t, "its limits leave no room for 10s", failure.Message)
		}
		begin := time.Now()
		var wg sync.WaitGroup
		for _, patience := range []time.Duration{0, 21 * time.Second} { // nothing was used by those
			wg.Go(func() {
				if err := call(patience); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		require.ErrorIs(t, call(21*time.Second), backend.ErrNoTurn, "there are two in line")
		wg.Wait()
		require.Equal(t, 20*time.Second, time.Since(begin).Round(time.Millisecond))
	})
}

func TestARefusedCallUsesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := true
		l := limiter(t, limit.Config{Concurrency: 1, RPM: 6, TPM: 600}, func(context.Context, *backend.Request) (*backend.Response, error) {
			if open {
				return nil, &backend.Error{Class: backend.CircuitOpen}
			}
			return &backend.Response{Status: 200}, nil
		})
		ask := &backend.Request{Body: []byte(`{"prompt":"1234","max_tokens":9}`)}
		begin := time.Now()
		for range 50 {
			_, err := l.Complete(t.Context(), ask)
			require.ErrorIs(t, err, backend.CircuitOpen)
		}
		open = false
		_, err := l.Complete(t.Context(), ask)
		require.NoError(t, err)
		require.Zero(t, time.Since(begin))
		require.Equal(t, 10*time.Second, l.Room(ask).Round(time.Millisecond))
	})
}

func TestAPanicGivesThePlaceBack(t *testing.T) {
	t.Parallel()
	l := limiter(t, limit.Config{Concurrency: 1}, func(context.Context, *backend.Request) (*backend.Response, error) { panic("broken") })
	for range 3 {
		require.PanicsWithValue(t, "broken", func() { _, _ = l.Complete(t.Context(), &backend.Request{}) })
	}
	require.Zero(t, l.Room(&backend.Request{}))
}

func TestTokensAreCorrectedByUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var usage *job.Usage
		var failure error
		l := limiter(t, limit.Config{TPM: 6000}, func(context.Context, *backend.Request) (*backend.Response, error) {
			return &backend.Response{Status: 200, Usage: usage}, failure
		})
		small := &backend.Request{Body: []byte(`{"prompt":"1234","max_tokens":99}`)} // a hundred tokens, a second's worth
		for _, row := range []struct {
			used    *job.Usage
			failure error
			wait    time.Duration
		}{
			{&job.Usage{InputTokens: 1, OutputTokens: 99}, nil, time.Second},
			{&job.Usage{InputTokens: 1, OutputTokens: 49}, nil, 500 * time.Millisecond},
			{&job.Usage{InputTokens: 1, OutputTokens: 299}, nil, 3 * time.Second},
			{nil, nil, time.Second},
			{nil, &backend.Error{Class: backend.Connection}, 0},
			{nil, &backend.Error{Class: backend.ServerError, Status: 500}, time.Second},
			{nil, &backend.Error{Class: backend.ServerError, Status: 500, Usage: &job.Usage{InputTokens: 1, OutputTokens: 49}}, 500 * time.Millisecond},
		} {
			time.Sleep(time.Hour)
			usage, failure = row.used, row.failure
			_, _ = l.Complete(t.Context(), small)
			require.Equal(t, row.wait, l.Room(small).Round(time.Millisecond), row)
		}
		usage, failure = nil, nil
		time.Sleep(time.Hour)
		begin := time.Now()
		big := &backend.Request{Body: []byte(`{"prompt":"1234","max_tokens":59999}`)}
		_, err := l.Complete(t.Context(), big)
		require.NoError(t, err)
		require.Zero(t, time.Since(begin)) // a full bucket is enough
		require.Equal(t, 10*time.Minute, l.Room(small).Round(time.Millisecond))
	})
}

func TestHeadersAreObeyedWithoutALimitOfOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left := &backend.Allowance{Remaining: 0, Reset: 40 * time.Second}
		l := limiter(t, limit.Config{}, func(context.Context, *backend.Request) (*backend.Response, error) {
			return &backend.Response{Status: 200, Left: backend.Allowances{Requests: left}}, nil
		})
		ask := &backend.Request{}
		require.Zero(t, l.Room(ask))
		_, err := l.Complete(t.Context(), ask)
		require.NoError(t, err)
		begin := time.Now()
		_, err = l.Complete(t.Context(), ask)
		require.NoError(t, err)
		require.Equal(t, 40*time.Second, time.Since(begin).Round(time.Second))
	})
}

func TestARefusalHoldsAllBackAndTheyGoOnAtPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var starts []time.Duration
		begin := time.Now()
		l := limiter(t, limit.Config{RPM: 60}, func(context.Context, *backend.Request) (*backend.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Since(begin).Round(10*time.Millisecond))
			if len(starts) == 1 {
				return nil, &backend.Error{Class: backend.RateLimit, Status: 429, RetryAfter: 30 * time.Second}
			}
			return &backend.Response{Status: 200}, nil
		})
		_, err := l.Complete(t.Context(), &backend.Request{})
		require.ErrorIs(t, err, backend.RateLimit)
		require.Equal(t, 30*time.Second, l.Room(&backend.Request{}).Round(time.Millisecond))
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() { _, _ = l.Complete(t.Context(), &backend.Request{}) })
		}
		wg.Wait()
		for i, at := range starts[1:] {
			require.Equal(t, 30*time.Second+time.Duration(i)*time.Second, at)
		}
	})
}

func TestDeferredJobsComeBackOneAfterTheOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limit.Config{RPM: 6}, nil)
		ask := &backend.Request{}
		_, err := l.Complete(t.Context(), ask)
		require.NoError(t, err)
		for i := range 40 {
			require.Equal(t, min(time.Duration(i+1)*10*time.Second, 5*time.Minute), l.Defer(ask).Round(time.Millisecond))
		}
		require.Equal(t, 10*time.Second, l.Room(ask).Round(time.Millisecond)) // they keep nothing
	})
}

func TestRoomOfPlacesIsAsLongAsCallsTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limit.Config{Concurrency: 2}, takes(8*time.Second))
		ask := &backend.Request{}
		_, err := l.Complete(t.Context(), ask)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _, _ = l.Complete(t.Context(), ask) })
		}
		synctest.Wait()
		require.Equal(t, 12*time.Second, l.Room(ask).Round(time.Millisecond)) // the third of two places that take 8 s
		wg.Wait()
		require.Zero(t, l.Room(ask))
	})
}

// TestNobodyIsForgotten runs callers that give up, fail, are refused and succeed
// at once: all come to an end, and everything is given back.
func TestNobodyIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		l := limiter(t, limit.Config{Concurrency: 5, RPM: 60_000, TPM: 60_000_000}, func(ctx context.Context, _ *backend.Request) (*backend.Response, error) {
			now := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			select {
			case <-time.After(time.Duration(rand.IntN(50)) * time.Millisecond):
			case <-ctx.Done():
				return nil, &backend.Error{Class: backend.Canceled, Cause: context.Cause(ctx)}
			}
			switch rand.IntN(8) {
			case 0:
				return nil, &backend.Error{Class: backend.CircuitOpen}
			case 1:
				return nil, &backend.Error{Class: backend.RateLimit, Status: 429, RetryAfter: time.Duration(rand.IntN(20)) * time.Millisecond}
			case 2:
				return &backend.Response{Status: 200, Left: backend.Allowances{
					Requests: &backend.Allowance{Limit: 1000, Remaining: rand.Int64N(1000), Reset: time.Duration(rand.IntN(3000)) * time.Millisecond},
					Tokens:   &backend.Allowance{Limit: rand.Int64N(2), Remaining: rand.Int64N(1000), Reset: time.Duration(rand.IntN(3000)) * time.Millisecond},
				}}, nil
			}
			return &backend.Response{Status: 200}, nil
		})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(2000))*time.Millisecond)
					ask := &backend.Request{Body: []byte(`{"prompt":"12345678"}`)}
					_, _ = l.Complete(ctx, ask)
					if d := l.Room(ask); d < 0 {
						t.Errorf("room in %v", d)
					}
					if d := l.Defer(ask); d < 0 || d > 5*time.Minute {
						t.Errorf("deferred for %v", d)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		require.Zero(t, running.Load())
		require.Equal(t, int64(5), most.Load())
		time.Sleep(time.Hour)
		_, _ = l.Complete(t.Context(), &backend.Request{})
	})
}

func BenchmarkLimiter(b *testing.B) {
	answer := &backend.Response{Status: 200, Usage: &job.Usage{InputTokens: 3, OutputTokens: 5}}
	for _, row := range []struct {
		name string
		cfg  limit.Config
	}{
		{"no limit", limit.Config{}},
		{"places", limit.Config{Concurrency: 64}},
		{"all", limit.Config{Concurrency: 64, RPM: 1 << 40, TPM: 1 << 40}},
	} {
		b.Run(row.name, func(b *testing.B) {
			l, err := limit.New(&fake{do: func(context.Context, *backend.Request) (*backend.Response, error) { return answer, nil }}, row.cfg)
			require.NoError(b, err)
			req := &backend.Request{Body: []byte(`{"prompt":"12345678","max_tokens":5}`)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Complete(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
