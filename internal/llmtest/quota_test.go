package llmtest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

// quotaCall is a call with a prompt of 2 tokens.
func quotaCall(settings string) llmtest.Call {
	return llmtest.Call{
		Endpoint: llmtest.Chat,
		Body:     []byte(`{"model":"m",` + settings + `"messages":[{"role":"user","content":"hello"}]}`),
	}
}

func TestARequestQuotaFillsSteadily(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ask := llmtest.Limited(llmtest.Quota{Requests: 6}, llmtest.Echo())
		for i, left := range []string{"5", "4", "3", "2", "1", "0"} {
			r := ask(quotaCall(""))
			require.Zero(t, r.Status, "call %d", i)
			require.Equal(t, map[string]string{
				"X-Ratelimit-Limit-requests": "6", "X-Ratelimit-Remaining-requests": left,
				"X-Ratelimit-Reset-requests": (time.Duration(i+1) * 10 * time.Second).String(),
			}, r.Header)
		}
		<-time.After(2500 * time.Millisecond)
		r := ask(quotaCall(""))
		require.Equal(t, 429, r.Status)
		require.Equal(t, "rate_limit_exceeded", r.Code)
		require.Equal(t, "requests", r.Type)
		require.Equal(t, "8", r.RetryAfter)
		require.Equal(t, map[string]string{
			"Retry-After-Ms": "7500", "X-Ratelimit-Limit-requests": "6", "X-Ratelimit-Remaining-requests": "0",
			"X-Ratelimit-Reset-requests": "57.5s",
		}, r.Header)
		require.Contains(t, r.Text, "Please try again in 7.5s.")
		<-time.After(7500 * time.Millisecond)
		require.Zero(t, ask(quotaCall("")).Status, "exactly then")
		require.Equal(t, 429, ask(quotaCall("")).Status)
		<-time.After(time.Hour)
		require.Equal(t, "5", ask(quotaCall("")).Header["X-Ratelimit-Remaining-requests"], "a minute's worth at the most")
	})
}

func TestATokenQuotaFillsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reply := llmtest.Reply{Text: "one two three", Header: map[string]string{"X-Own": "1"}}
		ask := llmtest.Limited(llmtest.Quota{Tokens: 100, Refill: llmtest.AtOnce}, llmtest.Always(reply))
		<-time.After(20 * time.Second)
		r := ask(quotaCall(`"max_tokens":80,`))
		require.Equal(t, map[string]string{
			"X-Own": "1", "X-Ratelimit-Limit-tokens": "100", "X-Ratelimit-Remaining-tokens": "18", "X-Ratelimit-Reset-tokens": "40s",
		}, r.Header)
		require.Equal(t, map[string]string{"X-Own": "1"}, reply.Header, "the script's own stays as it is")
		require.Equal(t, 429, ask(quotaCall(`"max_completion_tokens":17,`)).Status, "one too many")
		require.Zero(t, ask(quotaCall("")).Status) // 2, and 3 of the answer
		r = ask(quotaCall(`"max_tokens":11,`))
		require.Zero(t, r.Status)
		require.Equal(t, "0", r.Header["X-Ratelimit-Remaining-tokens"])
		r = ask(quotaCall(""))
		require.Equal(t, 429, r.Status)
		require.Equal(t, "tokens", r.Type)
		require.Equal(t, "40", r.RetryAfter)
		<-time.After(40 * time.Second)
		r = ask(quotaCall(`"max_tokens":1000,`))
		require.Zero(t, r.Status, "what never fits needs all")
		require.Equal(t, "0", r.Header["X-Ratelimit-Remaining-tokens"])
		require.Equal(t, "1m0s", r.Header["X-Ratelimit-Reset-tokens"])
	})
}

func TestAQuotaOfBothRefusesForTheOneThatIsUsedUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ask := llmtest.Limited(llmtest.Quota{Requests: 3, Tokens: 100, Silent: true}, llmtest.Echo())
		r := ask(quotaCall(`"max_tokens":58,`))
		require.Zero(t, r.Status)
		require.Empty(t, r.Header, "silent")
		r = ask(quotaCall(`"max_tokens":58,`))
		require.Equal(t, "tokens", r.Type)
		require.Equal(t, map[string]string{"Retry-After-Ms": "12000"}, r.Header)
		require.Zero(t, ask(quotaCall(`"max_tokens":1,`)).Status)
		require.Zero(t, ask(quotaCall(`"max_tokens":1,`)).Status, "a refusal takes nothing")
		require.Equal(t, "requests", ask(quotaCall(`"max_tokens":1,`)).Type)
	})
}
