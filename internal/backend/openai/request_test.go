package openai

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheContextOfACallEndsWithItsCallers(t *testing.T) {
	t.Parallel()
	end := errors.New("the end")
	deadline := time.Now().Add(time.Hour)
	parent, cancelParent := context.WithDeadline(t.Context(), deadline)
	defer cancelParent()
	caller, cancel := context.WithCancelCause(parent)
	x := new(exchange)
	require.Equal(t, context.Context(x), x.start(caller, pace{limit: time.Hour}))
	defer x.watch.stop()
	below, cancelBelow := context.WithCancelCause(x) // as net/http does it
	defer cancelBelow(nil)
	got, ok := x.Deadline()
	require.True(t, ok)
	require.Equal(t, deadline, got)
	require.NoError(t, context.Cause(x))
	cancel(end)
	<-below.Done()
	require.ErrorIs(t, x.Err(), context.Canceled)
	require.Equal(t, end, context.Cause(x))
	require.Equal(t, end, context.Cause(below))
}

func TestARequestIsOnlyTakenOfACall(t *testing.T) {
	t.Parallel()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1", nil)
	require.NoError(t, err)
	resp, err := taker{}.Do(req)
	if resp != nil {
		_ = resp.Body.Close()
	}
	require.Error(t, err)
	require.NotErrorIs(t, err, errTaken)
}
