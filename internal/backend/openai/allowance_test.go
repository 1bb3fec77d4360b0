package openai

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

func TestWhatIsLeftOfALimitIsReadFromTheHeader(t *testing.T) {
	t.Parallel()
	const date = "Sat, 01 Aug 2026 00:00:00 GMT" // 1785542400
	type header map[string]string
	left := func(limit, remaining int64, reset time.Duration) *backend.Allowance {
		return &backend.Allowance{Limit: limit, Remaining: remaining, Reset: reset}
	}
	for _, row := range []struct {
		name             string
		header           header
		requests, tokens *backend.Allowance
	}{
		{"nothing", header{"Content-Type": "application/json"}, nil, nil},
		{"openai", header{
			"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499", "x-ratelimit-reset-requests": "120ms",
			"x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "11358", "x-ratelimit-reset-tokens": "6m0s",
		}, left(500, 499, 120*time.Millisecond), left(30000, 11358, 6*time.Minute)},
		{"openai with the project's", header{
			"x-ratelimit-limit-tokens": "150000", "x-ratelimit-remaining-tokens": "149000", "x-ratelimit-reset-tokens": "4ms",
			"x-ratelimit-limit-project-tokens": "20000", "x-ratelimit-remaining-project-tokens": "1000", "x-ratelimit-reset-project-tokens": "57s",
		}, nil, left(20000, 1000, 57*time.Second)},
		{"azure", header{
			"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1",
			"x-ratelimit-limit-tokens": "60000", "x-ratelimit-remaining-tokens": "59984", "x-ms-region": "Sweden Central",
		}, left(60, 59, time.Second), left(60000, 59984, 0)},
		{"azure, which does not know", header{"x-ratelimit-remaining-requests": "-1", "x-ratelimit-remaining-tokens": "7"}, nil, left(0, 7, 0)},
		{"groq", header{
			"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "18000", "x-ratelimit-remaining-requests": "14370",
			"x-ratelimit-remaining-tokens": "17997", "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s",
		}, left(14400, 14370, 2*time.Minute+59560*time.Millisecond), left(18000, 17997, 7660*time.Millisecond)},
		{"mistral", header{
			"x-ratelimit-limit-req-minute": "720", "x-ratelimit-remaining-req-minute": "717",
			"x-ratelimit-limit-tokens-minute": "5000000", "x-ratelimit-remaining-tokens-minute": "4999911",
			"x-ratelimit-limit-tokens-month": "10000000", "x-ratelimit-remaining-tokens-month": "2000000", "x-ratelimit-tokens-query-cost": "52",
		}, left(720, 717, 0), left(10000000, 2000000, 0)},
		{"mistral of old", header{
			"ratelimitbysize-limit": "2000000", "ratelimitbysize-remaining": "1999989", "ratelimitbysize-reset": "46", "ratelimitbysize-query-cost": "11",
			"x-ratelimitbysize-limit-month": "10000000000", "x-ratelimitbysize-remaining-month": "9999999989",
		}, nil, left(2000000, 1999989, 46*time.Second)},
		{"openrouter", header{
			"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1785542442500",
		}, left(20, 0, 42500*time.Millisecond), nil},
		{"together", header{
			"x-ratelimit-limit": "600", "x-ratelimit-remaining": "599", "x-ratelimit-reset": "1",
			"x-tokenlimit-limit": "180000", "x-tokenlimit-remaining": "0",
		}, left(600, 599, time.Second), left(180000, 0, 0)},
		{"fireworks", header{
			"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "599", "x-ratelimit-over-limit": "no",
			"x-ratelimit-limit-tokens-prompt": "60000", "x-ratelimit-remaining-tokens-prompt": "59000",
			"x-ratelimit-limit-tokens-generated": "6000", "x-ratelimit-remaining-tokens-generated": "3000",
		}, left(600, 599, 0), left(6000, 3000, 0)},
		{"cerebras", header{
			"x-ratelimit-limit-requests-day": "1000000000", "x-ratelimit-remaining-requests-day": "999997455", "x-ratelimit-reset-requests-day": "33011.382867",
			"x-ratelimit-limit-tokens-minute": "1000000000", "x-ratelimit-remaining-tokens-minute": "999600000", "x-ratelimit-reset-tokens-minute": "11.38",
		}, left(1000000000, 999997455, 33011382867*time.Microsecond), left(1000000000, 999600000, 11380*time.Millisecond)},
		{"anthropic", header{
			"anthropic-ratelimit-requests-limit": "4000", "anthropic-ratelimit-requests-remaining": "3999", "anthropic-ratelimit-requests-reset": "2026-08-01T00:00:01Z",
			"anthropic-ratelimit-tokens-limit": "480000", "anthropic-ratelimit-tokens-remaining": "470000", "anthropic-ratelimit-tokens-reset": "2026-08-01T00:00:02Z",
			"anthropic-ratelimit-input-tokens-limit": "400000", "anthropic-ratelimit-input-tokens-remaining": "395000", "anthropic-ratelimit-input-tokens-reset": "2026-08-01T00:00:03Z",
			"anthropic-ratelimit-output-tokens-limit": "80000", "anthropic-ratelimit-output-tokens-remaining": "8000", "anthropic-ratelimit-output-tokens-reset": "2026-08-01T00:00:54Z",
			"anthropic-priority-input-tokens-limit": "10000", "anthropic-priority-input-tokens-remaining": "0",
		}, left(4000, 3999, time.Second), left(80000, 8000, 54*time.Second)},
		{"sambanova, a minute and a day", header{
			"x-ratelimit-limit-requests": "30", "x-ratelimit-remaining-requests": "29", "x-ratelimit-reset-requests": "1785542460",
			"x-ratelimit-limit-requests-day": "3000", "x-ratelimit-remaining-requests-day": "3", "x-ratelimit-reset-requests-day": "1785585600",
		}, left(3000, 3, 12*time.Hour), nil},
		{"litellm before openai", header{
			"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "99",
			"llm_provider-x-ratelimit-limit-requests": "50", "llm_provider-x-ratelimit-remaining-requests": "1", "llm_provider-x-ratelimit-reset-requests": "1.2s",
		}, left(50, 1, 1200*time.Millisecond), nil},
		{"envoy", header{"x-ratelimit-limit": "10, 10;w=60, 500;w=3600", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "48"}, left(10, 9, 48*time.Second), nil},
		{"kong", header{
			"x-ratelimit-limit-minute": "5", "x-ratelimit-remaining-minute": "4", "x-ratelimit-limit-hour": "1000", "x-ratelimit-remaining-hour": "999",
			"ratelimit-limit": "5", "ratelimit-remaining": "4", "ratelimit-reset": "47",
		}, left(5, 4, 47*time.Second), nil},
		{"the draft of the IETF, number 7", header{"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"}, left(100, 50, 5*time.Second), nil},
		{"the draft of the IETF, number 8", header{
			"RateLimit": `"default";r=50;t=30, "daily";r=5;t=3600, "bytes";r=0;t=9`, "RateLimit-Policy": `"default";q=100;w=60,"daily";q=1000;w=86400, "bytes";q=65535;qu="content-bytes"`,
		}, left(1000, 5, time.Hour), nil},
		{"the draft without a policy", header{"RateLimit": `"api";r=7;t=9`}, left(0, 7, 9*time.Second), nil},
		{"both exhausted: the longer wait", header{
			"x-ratelimit-limit-requests": "30", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s",
			"x-ratelimit-limit-requests-day": "900", "x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "4h",
		}, left(900, 0, 4*time.Hour), nil},
		{"absurd numbers", header{
			"x-ratelimit-limit-requests": "NaN", "x-ratelimit-remaining-requests": "5", "x-ratelimit-limit-tokens": "9223372036854775807",
			"x-ratelimit-remaining-tokens": "9223372036854775807",
		}, nil, nil},
		{"a limit of nothing", header{"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"}, nil, nil},
		{"more left than there is, and a reset without end", header{
			"x-ratelimit-limit-tokens": "10", "x-ratelimit-remaining-tokens": "11.9", "x-ratelimit-reset-tokens": "1e300",
		}, nil, left(10, 10, maxHint)},
		{"a reset that has passed, and words", header{
			"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "2026-07-01T00:00:00Z", "x-ratelimit-remaining-tokens": "many",
		}, left(0, 3, 0), nil},
		{"other things", header{
			"x-ratelimit-limit-images": "5", "x-ratelimit-remaining-images": "0", "x-ratelimit-remaining-audio-seconds": "1", "x-credits-remaining": "3",
			"x-remaining-tokens": "1", "x-ratelimit-reset": "9",
		}, nil, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := make(http.Header)
			h.Set("Date", date)
			for name, value := range row.header {
				h.Set(name, value)
			}
			want := backend.Allowances{Requests: row.requests, Tokens: row.tokens}
			for range 8 { // a map has no order
				require.Equal(t, want, allowances(h, nil))
			}
		})
	}
}

func TestAnswersAndErrorsTellWhatIsLeft(t *testing.T) {
	t.Parallel()
	requests := &backend.Allowance{Limit: 20, Remaining: 3, Reset: time.Second}
	tokens := &backend.Allowance{Limit: 100, Remaining: 0, Reset: time.Minute}
	const inside = `{"error":{"code":429,"message":"Rate limit exceeded","metadata":{"headers":{"X-RateLimit-Limit-Tokens":"100","X-RateLimit-Remaining-Tokens":0,"X-RateLimit-Reset-Tokens":"60s"}}}}`
	for _, row := range []struct {
		name, body string
		status     int
		class      backend.Class
		tokens     *backend.Allowance
	}{
		{"an answer", goodAnswer, 200, "", nil},
		{"a streamed answer", chunk(`"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]`), 200, "", nil},
		{"an error", inside, 429, backend.RateLimit, tokens},
		{"an error of another kind", `{"error":"x"}`, 500, backend.ServerError, nil},
		{"an error in a good answer", inside, 200, backend.RateLimit, tokens},
		{"an error in a stream", chunk(`"choices":[]`) + "data: " + inside + "\n\n", 200, backend.RateLimit, tokens},
		{"an answer of no use", "<html>", 200, backend.BadResponse, nil},
		{"an empty answer", `{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}`, 200, backend.EmptyOutput, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-RateLimit-Limit", "20")
				w.Header().Set("X-RateLimit-Remaining", "3")
				w.Header().Set("X-RateLimit-Reset", "1")
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(row.body))
			})))
			resp, err := c.Complete(t.Context(), chat(false))
			if row.class == "" {
				require.NoError(t, err)
				require.Equal(t, backend.Allowances{Requests: requests}, resp.Left)
				return
			}
			e := failure(t, err)
			require.Equal(t, row.class, e.Class)
			require.Equal(t, backend.Allowances{Requests: requests, Tokens: row.tokens}, e.Left)
		})
	}
}

func FuzzAllowances(f *testing.F) {
	for _, value := range []string{"5", "-1", "1e300", "NaN", "10, 10;w=60", `"a";r=1;t=2`, "limit=1, remaining=2, reset=3", "2026-08-01T00:00:23Z"} {
		f.Add(value, "100", "7.66s")
	}
	f.Fuzz(func(t *testing.T, remaining, limit, reset string) {
		h := http.Header{
			"Date":                         {"Sat, 01 Aug 2026 00:00:00 GMT"},
			"X-Ratelimit-Remaining-Tokens": {remaining}, "X-Ratelimit-Limit-Tokens": {limit}, "X-Ratelimit-Reset-Tokens": {reset},
			"X-Tokenlimit-Remaining": {limit}, "X-Tokenlimit-Limit": {remaining}, "X-Ratelimit-Remaining": {reset},
			"Ratelimit": {remaining, limit}, "Ratelimit-Policy": {limit, reset},
		}
		left := allowances(h, []http.Header{h, nil})
		require.Equal(t, left, allowances(h, nil))
		for _, a := range []*backend.Allowance{left.Requests, left.Tokens} {
			if a == nil {
				continue
			}
			require.GreaterOrEqual(t, a.Limit, int64(0))
			require.GreaterOrEqual(t, a.Remaining, int64(0))
			require.True(t, a.Limit == 0 || a.Remaining <= a.Limit)
			require.GreaterOrEqual(t, a.Reset, time.Duration(0))
			require.LessOrEqual(t, a.Reset, maxHint)
		}
	})
}
