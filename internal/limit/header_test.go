package limit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/limit"
)

// told is a backend whose answers say what is left of its limit of calls.
func told(left *backend.Allowance) func(context.Context, *backend.Request) (*backend.Response, error) {
	return func(context.Context, *backend.Request) (*backend.Response, error) {
		said := *left
		return &backend.Response{Status: 200, Left: backend.Allowances{Requests: &said}}, nil
	}
}

func TestALimitOfADayIsNotTakenForOneOfAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left := &backend.Allowance{Limit: 14_400, Remaining: 0, Reset: 24 * time.Hour}
		l := limiter(t, limit.Config{}, told(left))
		_, err := l.Complete(t.Context(), &backend.Request{})
		require.NoError(t, err)
		require.Equal(t, 6*time.Second, l.Room(&backend.Request{}).Round(time.Millisecond))
	})
}

func TestWhatTheProviderHasLeftGoesAtOnceIfItsLimitIsOurs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		rpm  int64
		room time.Duration
	}{{600, 0}, {60, time.Second}} { // its own is stricter; ours is
		synctest.Test(t, func(t *testing.T) {
			left := &backend.Allowance{Limit: 600, Remaining: 599, Reset: 100 * time.Millisecond}
			l := limiter(t, limit.Config{RPM: row.rpm}, told(left))
			for left.Remaining > 580 {
				if row.room > 0 && left.Remaining < 599 {
					break
				}
				_, err := l.Complete(t.Context(), &backend.Request{})
				require.NoError(t, err)
				left.Remaining--
				left.Reset += 100 * time.Millisecond
			}
			require.Equal(t, row.room, l.Room(&backend.Request{}).Round(time.Millisecond))
		})
	}
}

func TestALimitThatIsWholeOnlyInDaysIsTriedEachFiveMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, limit.Config{}, told(&backend.Allowance{Remaining: 0, Reset: 31 * 24 * time.Hour}))
		begin := time.Now()
		for i := range 4 {
			_, err := l.Complete(t.Context(), &backend.Request{})
			require.NoError(t, err)
			require.Equal(t, time.Duration(i)*5*time.Minute, time.Since(begin).Round(time.Second))
		}
	})
}
