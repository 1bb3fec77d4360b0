package openai

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

func TestRetryHints(t *testing.T) {
	t.Parallel()
	const date = "Sat, 01 Aug 2026 00:00:00 GMT" // 1785542400
	for _, row := range []struct {
		name    string
		status  int
		headers map[string]string
		body    string
		want    time.Duration
	}{
		{"nothing", 429, nil, "", 0},
		{"seconds", 429, map[string]string{"Retry-After": "23"}, "", 23 * time.Second},
		{"a part of a second", 429, map[string]string{"Retry-After": "0.25"}, "", 250 * time.Millisecond},
		{"a date", 503, map[string]string{"Date": date, "Retry-After": "Sat, 01 Aug 2026 00:01:30 GMT"}, "", 90 * time.Second},
		{"a date that has passed", 429, map[string]string{"Date": date, "Retry-After": "Fri, 31 Jul 2026 00:01:30 GMT"}, "", 0},
		{"milliseconds beat seconds", 429, map[string]string{"Retry-After": "60", "Retry-After-Ms": "1500"}, "", 1500 * time.Millisecond},
		{"azure milliseconds", 429, map[string]string{"X-Ms-Retry-After-Ms": "17"}, "", 17 * time.Millisecond},
		{"a unit", 429, map[string]string{"Retry-After": "2m59.56s"}, "", 2*time.Minute + 59560*time.Millisecond},
		{"negative", 429, map[string]string{"Retry-After": "-5"}, "", 0},
		{"absurd", 429, map[string]string{"Retry-After": "1e300"}, "", maxHint},
		{"infinite", 429, map[string]string{"Retry-After": "+Inf"}, "", maxHint},
		{"no number", 429, map[string]string{"Retry-After": "NaN"}, "", 0},
		{"nonsense", 429, map[string]string{"Retry-After": "soon"}, "", 0},
		{"header beats text", 429, map[string]string{"Retry-After": "3"}, "Please try again in 9s.", 3 * time.Second},
		{"text seconds", 429, nil, "Please try again in 18.642s. Visit", 18642 * time.Millisecond},
		{"text minutes", 429, nil, "Please try again in 1m2s", time.Minute + 2*time.Second},
		{"text with an offer", 429, nil, "Rate limit reached on requests per min (RPM). Please try again in 20s. You can add a payment method to your account.", 20 * time.Second},
		{"text of the caller", 500, nil, "failed: {'type': 'x', 'input': 'try again in 20s'}", 0},
		{"text milliseconds", 429, nil, "Please try again in 20ms.", 20 * time.Millisecond},
		{"text words", 429, nil, "Try again in 5 seconds. Passed", 5 * time.Second},
		{"text hours", 429, nil, "try again in 1 hour 5 minutes", 65 * time.Minute},
		{"text in the second place", 429, nil, "try again in a while, or try again in 4s", 4 * time.Second},
		{"text without a unit", 429, nil, "try again in 4", 0},
		{"google text", 429, nil, "rate limit. Please retry in 34.074824224s.", 34074824224},
		{"google detail", 429, nil, `[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"18s"}]}}]`, 18 * time.Second},
		{"python text", 429, nil, `{"error":{"message":"litellm.RateLimitError: x - {'error': {'message': 'Please retry after 86400 seconds.'}}","code":"429"}}`, 0},
		{"exhausted limit", 429, map[string]string{
			"X-Ratelimit-Remaining-Requests": "12", "X-Ratelimit-Reset-Requests": "6m0s",
			"X-Ratelimit-Remaining-Tokens": "0", "X-Ratelimit-Reset-Tokens": "120ms",
		}, "", 120 * time.Millisecond},
		{"both exhausted", 429, map[string]string{
			"X-Ratelimit-Remaining-Requests": "0", "X-Ratelimit-Reset-Requests": "6m0s",
			"X-Ratelimit-Remaining-Tokens": "0", "X-Ratelimit-Reset-Tokens": "1s",
		}, "", 6 * time.Minute},
		{"none exhausted", 429, map[string]string{"X-Ratelimit-Remaining-Tokens": "5", "X-Ratelimit-Reset-Tokens": "7.66s"}, "", 7660 * time.Millisecond},
		{"bare reset in seconds", 429, map[string]string{"X-Ratelimit-Reset": "12"}, "", 12 * time.Second},
		{"epoch seconds", 429, map[string]string{"Date": date, "X-Ratelimit-Reset": "1785542410"}, "", 10 * time.Second},
		{"epoch milliseconds", 429, map[string]string{"Date": date, "X-Ratelimit-Reset": "1785542410500"}, "", 10500 * time.Millisecond},
		{"epoch in the past", 429, map[string]string{"Date": date, "X-Ratelimit-Reset": "1755302400000"}, "", 0},
		{"anthropic date", 429, map[string]string{
			"Date": date, "Anthropic-Ratelimit-Input-Tokens-Remaining": "0", "Anthropic-Ratelimit-Input-Tokens-Reset": "2026-08-01T00:00:23Z",
			"Anthropic-Ratelimit-Requests-Remaining": "49", "Anthropic-Ratelimit-Requests-Reset": "2026-08-01T00:59:00Z",
		}, "", 23 * time.Second},
		{"openrouter metadata", 429, map[string]string{"Date": date}, `{"error":{"code":429,"message":"x","metadata":{"headers":{"X-RateLimit-Reset":"1785542460000"}}}}`, time.Minute},
		{"openrouter metadata number", 429, map[string]string{"Date": date}, `{"error":{"code":429,"message":"x","metadata":{"headers":{"Retry-After":7}}}}`, 7 * time.Second},
		{"a quota is no window", 402, map[string]string{"Date": date, "X-Ratelimit-Reset": "1785542410"}, "", 0},
		{"an outage is no window", 503, map[string]string{"X-Ratelimit-Reset-Tokens": "9s"}, "", 0},
		{"an outage with a hint", 503, map[string]string{"Retry-After": "9"}, "", 9 * time.Second},
		{"waiting is no use", 400, map[string]string{"Retry-After": "9"}, "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			header := make(http.Header)
			for name, value := range row.headers {
				header.Set(name, value)
			}
			require.Equal(t, row.want, Classify(row.status, header, []byte(row.body)).RetryAfter)
		})
	}
}

func FuzzRetryHint(f *testing.F) {
	for _, r := range recordedAnswers(f) {
		for _, value := range r.Headers {
			f.Add(value, r.Body)
		}
	}
	for _, value := range []string{"18.642s", "6m0s", "1e309", "-9223372036854775808", "99999999999999999999h", "1785542410500", "2026-08-01T00:00:23Z", "Inf", "0x1p-2"} {
		f.Add(value, "try again in "+value)
	}
	f.Fuzz(func(t *testing.T, value, text string) {
		header := http.Header{
			"Retry-After": {value}, "Retry-After-Ms": {text}, "X-Ratelimit-Reset-Tokens": {value}, "X-Ratelimit-Remaining-Tokens": {text},
		}
		for _, h := range []http.Header{header, {"X-Ratelimit-Reset": {value}}, {"Date": {text}, "X-Ratelimit-Reset": {value}}, nil} {
			for _, class := range backend.Classes() {
				d := retryHint(class, h, []report{{message: text + " try again in " + value, delay: parseDelay(text)}})
				require.GreaterOrEqual(t, d, time.Duration(0))
				require.LessOrEqual(t, d, maxHint)
			}
		}
	})
}
