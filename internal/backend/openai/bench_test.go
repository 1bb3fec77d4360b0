package openai

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// benchmarkCall makes calls of a server that answers at once. Its allocations
// are counted too: compare with a run of the same benchmark, nothing else.
func benchmarkCall(b *testing.B, header http.Header, answer string) {
	b.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), header)
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(server.Close)
	c, err := New(Config{Name: "b", BaseURL: server.URL})
	require.NoError(b, err)
	b.Cleanup(c.Close)
	req := chat(false)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Complete(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCall(b *testing.B) { benchmarkCall(b, nil, goodAnswer) }

func BenchmarkStreamedCall(b *testing.B) {
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	finish := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
	benchmarkCall(b, http.Header{"Content-Type": {"text/event-stream"}}, strings.Repeat(token, 200)+finish+"data: [DONE]\n\n")
}

func BenchmarkAdaptiveLimit(b *testing.B) {
	c := &Client{cfg: Config{Timeout: DefaultTimeout, AdaptiveTimeout: true}}
	for i := range ringSize {
		c.latency.add(pace{}, true, time.Duration(1+i*7919%ringSize), 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		p := c.pace(false)
		c.latency.add(p, true, p.limit, 0) // so that every call sorts anew
	}
}
