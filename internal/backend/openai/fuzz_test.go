package openai

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

func FuzzClassify(f *testing.F) {
	for _, r := range recordedAnswers(f) {
		f.Add(r.Status, []byte(r.Body), "18s")
	}
	for _, row := range append(aboutRequests(), aboutBackends()...) {
		f.Add(row.status, []byte(row.body), "1")
	}
	c := &Client{cfg: Config{Name: "b"}, redact: newRedactor(Config{APIKey: "sk-secret-0123456789"})}
	f.Fuzz(func(t *testing.T, status int, body []byte, hint string) {
		header := http.Header{
			"Retry-After": {hint}, "X-Ratelimit-Reset": {hint}, "X-Ratelimit-Remaining": {"1"}, "X-Amzn-Errortype": {hint},
			"Date": {"Sat, 01 Aug 2026 00:00:00 GMT"}, // the same time for both
		}
		v := Classify(status, header, body)
		require.Contains(t, backend.Classes(), v.Class)
		require.NotContains(t, []backend.Class{backend.Canceled, backend.Expired, backend.InvalidJob, backend.Poison, backend.CircuitOpen}, v.Class)
		require.GreaterOrEqual(t, v.RetryAfter.Nanoseconds(), int64(0))
		require.LessOrEqual(t, v.RetryAfter, maxHint)
		again := Classify(status, header, body)
		require.Equal(t, v, again)
		for _, url := range []string{job.URLChat, job.URLEmbeddings} {
			if a := read(url, 200, header, body); a.verdict.Class == "" {
				require.True(t, json.Valid(body))
			}
		}
		e := c.fail(call{x: &exchange{status: status, header: header, raw: body}}, v, answer{})
		require.LessOrEqual(t, e.Left.Requests.Remaining, int64(1))
		require.Equal(t, v.Limit > 0, e.Requested > e.Limit)
		require.LessOrEqual(t, len(e.Message), maxMessage)
		require.True(t, utf8.ValidString(e.Message))
		require.LessOrEqual(t, len(e.Body), maxErrorBody)
		require.NotContains(t, e.Message+e.Code+e.Type+string(e.Body), "sk-secret-0123456789")
	})
}

func FuzzSSE(f *testing.F) {
	for _, r := range recordedAnswers(f) {
		if r.Stream && len(r.Body) < 4096 {
			f.Add(r.Body)
		}
	}
	f.Add(chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"a"}}]},"logprobs":{"content":[1]}}]`))
	f.Add("data: {\"choices\":[{\"text\":\"a\",\"index\":-1}]}\r\rdata: [DONE]")
	f.Add("event: error\rdata: x\r\n\r\n{\"a\":1}\n")
	f.Fuzz(func(t *testing.T, stream string) {
		x := exchangeOf(stream)
		require.True(t, json.Valid(x.assembled.body()), "%s", x.assembled.body())
		if x.failed != nil {
			require.Contains(t, backend.Classes(), x.failed.Class)
		}
		if v, ok := x.explained(); ok {
			require.Contains(t, backend.Classes(), v.Class)
		}
		done, all := x.assembled.finished()
		require.LessOrEqual(t, done, all)
		// However the bytes arrive, and whatever ends the lines, the events are the same.
		lf, err := eventsOf(strings.NewReader(stream), 1<<20)
		if err == nil && !strings.Contains(stream, "\r") {
			crlf, err := eventsOf(strings.NewReader(strings.ReplaceAll(stream, "\n", "\r\n")), 1<<20)
			require.NoError(t, err)
			require.Equal(t, lf, crlf)
		}
	})
}
