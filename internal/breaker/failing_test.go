package breaker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

// failer fails with its class, or succeeds when that is empty.
type failer struct{ class backend.Class }

func (f *failer) Name() string { return "failer" }

func (f *failer) Complete(context.Context, *backend.Request) (*backend.Response, error) {
	if f.class == "" {
		return &backend.Response{}, nil
	}
	return nil, &backend.Error{Class: f.class, Backend: "failer"}
}

func TestFailingTellsTheBackendsFaultFromALimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := new(failer)
		g, err := breaker.New(f, breaker.Config{Failures: 2, Cooldown: time.Minute}, nil)
		require.NoError(t, err)
		var _ backend.Health = g
		call := func(class backend.Class) {
			f.class = class
			_, _ = g.Complete(t.Context(), &backend.Request{})
		}
		require.False(t, g.Failing(), "new")
		call(backend.Timeout)
		require.True(t, g.Failing(), "one failure")
		call(backend.InvalidRequest)
		require.True(t, g.Failing(), "a refused request tells nothing")
		call("")
		require.False(t, g.Failing(), "a success ends it")
		call(backend.Timeout)
		call(backend.Timeout)
		require.Equal(t, breaker.Open, g.State())
		require.True(t, g.Failing(), "opened by failures")
		time.Sleep(time.Minute)
		call(backend.RateLimit)
		require.Equal(t, breaker.Open, g.State())
		require.False(t, g.Failing(), "opened by a rate limit")
	})
}
