package backend_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

func TestTheClassTable(t *testing.T) {
	t.Parallel()
	type row struct {
		fallsBack bool
		effect    backend.Effect
	}
	want := map[backend.Class]row{
		"timeout": {true, "count"}, "connection": {true, "count"}, "server_error": {true, "count"}, "overloaded": {true, "count"},
		"rate_limit": {true, "cool"}, "quota": {true, "trip"}, "auth": {true, "trip"}, "permission": {true, "trip"},
		"context_length": {true, "ignore"}, "too_large": {true, "ignore"}, "unsupported": {true, "ignore"},
		"bad_response": {true, "count"}, "truncated": {true, "count"}, "empty_output": {true, "count"},
		"model_not_found": {false, "ignore"}, "invalid_request": {false, "ignore"}, "content_filter": {false, "ignore"},
		"cancelled": {false, "ignore"}, "expired": {false, "ignore"}, "invalid_job": {false, "ignore"},
		"poison": {false, "ignore"}, "circuit_open": {false, "ignore"},
	}
	require.Len(t, backend.Classes(), len(want))
	for _, c := range backend.Classes() {
		require.Equal(t, want[c].fallsBack, c.FallsBack(), c)
		require.Equal(t, want[c].effect, c.Effect(), c)
		parsed, err := backend.ParseClass(string(c))
		require.NoError(t, err)
		require.Equal(t, c, parsed)
	}
}

func TestNamesOfOtherSystemsAreClassesToo(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]backend.Class{
		"RateLimitError": backend.RateLimit, "TimeoutError": backend.Timeout, "AuthenticationError": backend.Auth,
		"ServiceUnavailableError": backend.Overloaded, "service_unavailable": backend.Overloaded, "overloaded_error": backend.Overloaded,
		" Timeout ": backend.Timeout, "rate_limit_error": backend.RateLimit, "context_length_exceeded": backend.ContextLength,
	} {
		got, err := backend.ParseClass(name)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	_, err := backend.ParseClass("bogus")
	require.ErrorContains(t, err, `"bogus"`)
}

func TestAnErrorIsItsClassAndItsCauseAndQuotesNobody(t *testing.T) {
	t.Parallel()
	err := error(&backend.Error{Class: backend.Timeout, Backend: "vllm", Status: 504, Message: "my prompt", Cause: io.EOF})
	wrapped := fmt.Errorf("call: %w", err)
	require.ErrorIs(t, wrapped, backend.Timeout)
	require.ErrorIs(t, wrapped, io.EOF)
	require.NotErrorIs(t, wrapped, backend.RateLimit)
	require.Equal(t, "vllm: timeout (status 504)", err.Error())
	require.Same(t, err, error(backend.AsError(wrapped, "other")))

	foreign := backend.AsError(errors.New("a custom backend's own"), "custom")
	require.Equal(t, backend.ServerError, foreign.Class)
	require.Equal(t, "custom", foreign.Backend)
}
