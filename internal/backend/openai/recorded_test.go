package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// recorded is an answer that a provider once gave.
type recorded struct {
	ID      string            `json:"id"`
	Stream  bool              `json:"stream"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Expect  struct {
		Class      string   `json:"class"`
		FallsBack  bool     `json:"fallback_by_default"`
		Breaker    string   `json:"breaker"`
		RetryAfter *float64 `json:"retry_after_s"`
	} `json:"expect"`
}

func recordedAnswers(tb testing.TB) []recorded {
	tb.Helper()
	raw, err := os.ReadFile("recorded/providers.json")
	require.NoError(tb, err)
	var answers []recorded
	require.NoError(tb, json.Unmarshal(raw, &answers))
	require.GreaterOrEqual(tb, len(answers), 67)
	return answers
}

func (r recorded) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if r.Stream {
		w.Header().Set("Content-Type", "text/event-stream")
	}
	for name, value := range r.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(r.Status)
	_, _ = fmt.Fprint(w, r.Body)
}

// newTestClient returns a client of the server at url.
func newTestClient(t *testing.T, url string, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Name: "b", BaseURL: url + "/v1", APIKey: "sk-test-0123456789abcdef", Timeout: time.Minute}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// serve starts a server and returns its URL.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// chat is a request; a streaming one says so in its body.
func chat(stream bool) *backend.Request {
	body := `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
	if stream {
		body = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	}
	return &backend.Request{JobID: "j-1", URL: job.URLChat, Body: []byte(body), Model: "m", Stream: stream}
}

// failure returns the one error type of a backend.
func failure(t *testing.T, err error) *backend.Error {
	t.Helper()
	var e *backend.Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestEveryRecordedAnswerIsClassedAsItShouldBe(t *testing.T) {
	t.Parallel()
	for _, r := range recordedAnswers(t) {
		t.Run(r.ID, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, serve(t, r))
			resp, err := c.Complete(t.Context(), chat(r.Stream))
			if r.Expect.Class == "success" {
				require.NoError(t, err)
				require.Equal(t, 200, resp.Status)
				require.False(t, resp.Degraded)
				return
			}
			e := failure(t, err)
			require.Equal(t, backend.Class(r.Expect.Class), e.Class, e.Message)
			require.Equal(t, r.Expect.FallsBack, e.Class.FallsBack())
			effect := backend.Effect(r.Expect.Breaker)
			if e.Class == backend.RateLimit {
				effect = backend.Cool
			}
			require.Equal(t, effect, e.Class.Effect())
			hint := min(e.RetryAfter, 300*time.Second)
			if r.Expect.RetryAfter == nil {
				require.Zero(t, hint)
			} else {
				require.InDelta(t, *r.Expect.RetryAfter, hint.Seconds(), 1e-6)
			}
			require.Equal(t, r.Status, e.Status)
			require.Equal(t, "b", e.Backend)
			require.Equal(t, "m", e.Model)
			require.NotEmpty(t, e.Message)
		})
	}
}
