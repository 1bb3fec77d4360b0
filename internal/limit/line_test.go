package limit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/limit"
)

// unheard is a context whose end is found only by those who ask for it: they were
// told of something else in that moment.
type unheard struct {
	context.Context
}

// Done implements context.Context.
func (unheard) Done() <-chan struct{} { return nil }

func TestWhoseTurnComesTooLateGivesItBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		called := []string{}
		l := limiter(t, limit.Config{Concurrency: 1}, func(_ context.Context, req *backend.Request) (*backend.Response, error) {
			called = append(called, req.JobID) // one at a time
			time.Sleep(time.Second)
			if req.JobID == "first" {
				cancel(gone)
			}
			return &backend.Response{Status: 200}, nil
		})
		begin := time.Now()
		var wg sync.WaitGroup
		ask := func(ctx context.Context, id string) (err error) {
			_, err = l.Complete(ctx, &backend.Request{JobID: id, Started: func(string) {}})
			return err
		}
		errs := make([]error, 3)
		wg.Go(func() { errs[0] = ask(t.Context(), "first") })
		synctest.Wait()
		ctx = unheard{ctx}
		wg.Go(func() { errs[1] = ask(ctx, "late") })
		synctest.Wait()
		wg.Go(func() { errs[2] = ask(t.Context(), "next") })
		wg.Wait()
		require.Equal(t, []string{"first", "next"}, called, "no call is made of which nobody wants the answer")
		require.NoError(t, errs[0])
		require.NoError(t, errs[2])
		require.Equal(t, backend.Canceled, backend.AsError(errs[1], "").Class)
		require.Equal(t, 2*time.Second, time.Since(begin), "the next has its turn at once")
		require.NoError(t, ask(t.Context(), "last"))
		require.Equal(t, 3*time.Second, time.Since(begin), "and no place is lost")
	})
}
