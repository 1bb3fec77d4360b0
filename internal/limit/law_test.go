package limit_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/limit"
)

// TestWhicheverAnswerComesLast empties a bucket of 60 by calls that run at once.
// Their answers are of different moments, and come in any order: the next call
// leaves when the bucket has filled by one, and no later.
func TestWhicheverAnswerComesLast(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{time.Millisecond, time.Second} {
		for last := range 60 {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				l := limiter(t, limit.Config{RPM: 60}, func(_ context.Context, req *backend.Request) (*backend.Response, error) {
					n, err := strconv.Atoi(req.JobID)
					require.NoError(t, err)
					reset := time.Duration(n+1) * time.Second
					if n > 0 { // half a second after the first
						reset -= 500 * time.Millisecond
					}
					reset = (reset + step - 1).Truncate(step)
					takes := 500 * time.Millisecond
					if n == last {
						takes += time.Microsecond
					}
					time.Sleep(takes)
					return &backend.Response{Status: 200, Left: backend.Allowances{
						Requests: &backend.Allowance{Limit: 60, Remaining: int64(59 - n), Reset: reset},
					}}, nil
				})
				call := func(n int) {
					if _, err := l.Complete(t.Context(), &backend.Request{JobID: strconv.Itoa(n)}); err != nil {
						t.Error(err)
					}
				}
				call(0)
				var wg sync.WaitGroup
				for n := range 59 {
					wg.Go(func() { call(n + 1) })
					synctest.Wait()
				}
				wg.Wait()
				require.Equal(t, time.Second, time.Since(began).Round(time.Millisecond))
				for range 3 { // there is half of the next call, and will be when that has ended
					require.Equal(t, 500*time.Millisecond, l.Room(&backend.Request{}).Round(time.Millisecond), "call %d came last", last)
					call(59)
				}
			})
		}
	}
}

// said is what an answer says of a limit of 60, and when its call leaves.
type said struct {
	at    time.Duration
	used  int64
	reset time.Duration
}

// TestAWrongLawIsUnlearnedByOneAnswer tells the limiter of one law, and then of
// the other.
func TestAWrongLawIsUnlearnedByOneAnswer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		answers []said
		room    time.Duration
	}{
		{
			name: "a window",
			answers: []said{
				{0, 10, time.Minute},
				{5 * time.Second, 20, 55 * time.Second},
				{10 * time.Second, 30, 50 * time.Second},
				{15 * time.Second, 40, 45 * time.Second},
				{20 * time.Second, 50, 40 * time.Second},
				{25 * time.Second, 60, 35 * time.Second},
			},
			room: 35 * time.Second,
		},
		{
			name: "no window",
			answers: []said{
				{0, 10, time.Minute},
				{5 * time.Second, 20, 55 * time.Second},
				{10 * time.Second, 30, 50 * time.Second},
				{15 * time.Second, 40, 45 * time.Second},
				{20 * time.Second, 50, 40 * time.Second},
				{25 * time.Second, 60, time.Minute},
			},
			room: time.Second,
		},
		{
			name: "a bucket in any order",
			answers: []said{
				{0, 60, time.Minute},
				{0, 20, 20 * time.Second},
				{0, 40, 40 * time.Second},
				{0, 6, 6 * time.Second},
				{0, 60, time.Minute},
			},
			room: time.Second,
		},
		{
			name: "a bucket of which parts of a call were used, all told as a whole one",
			answers: []said{
				{0, 1, 10 * time.Second},
				{8 * time.Second, 2, 11 * time.Second},
				{9 * time.Second, 3, 21 * time.Second},
				{17 * time.Second, 3, 23 * time.Second},
				{18 * time.Second, 60, 10 * time.Minute},
			},
			room: 10 * time.Second,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				left := &backend.Allowance{Limit: 60}
				l := limiter(t, limit.Config{}, told(left))
				answers := append(row.answers, row.answers[len(row.answers)-1]) // a part of a call is never told
				for _, a := range answers {
					time.Sleep(time.Until(began.Add(a.at)))
					left.Remaining, left.Reset = 60-a.used, a.reset
					_, err := l.Complete(t.Context(), &backend.Request{})
					require.NoError(t, err)
				}
				require.Equal(t, row.room, l.Room(&backend.Request{}).Round(time.Second))
			})
		})
	}
}
