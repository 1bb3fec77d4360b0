package breaker_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
)

func BenchmarkAdmittedCall(b *testing.B) {
	answer := &backend.Response{Status: 200}
	g, err := breaker.New(&fake{do: func(context.Context) (*backend.Response, error) { return answer, nil }},
		breaker.Config{}, func(breaker.Change) {})
	require.NoError(b, err)
	req := &backend.Request{}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Complete(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefusedCall(b *testing.B) {
	g, err := breaker.New(&fake{}, breaker.Config{}, nil)
	require.NoError(b, err)
	g.Open(24 * time.Hour)
	req := &backend.Request{}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Complete(b.Context(), req); err == nil {
			b.Fatal("admitted")
		}
	}
}
