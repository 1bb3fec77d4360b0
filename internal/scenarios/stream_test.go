package scenarios_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/breaker"
	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// piece is a chunk of a streamed answer as a job gets it.
type piece struct {
	attempt int
	at      time.Duration
	data    string
}

func TestAStreamThatDiesBeginsAnew(t *testing.T) {
	t.Parallel()
	const body = `{"model":"m","stream":true,"messages":[{"role":"user","content":"weather in Oslo?"}]}`
	chunk := func(delta, finish string) string {
		return `{"id":"c2","object":"chat.completion.chunk","created":1,"model":"m-2","choices":[{"index":0,"delta":` + delta + `,"finish_reason":` + finish + `}]}`
	}
	second := []string{
		chunk(`{"role":"assistant","content":"Let me "}`, "null"),
		chunk(`{"content":"look."}`, "null"),
		chunk(`{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]}`, "null"),
		chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`, "null"),
		chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]}`, "null"),
		chunk(`{}`, `"tool_calls"`),
		`{"id":"c2","object":"chat.completion.chunk","created":1,"model":"m-2","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":21,"total_tokens":30}}`,
	}
	stream := "data: " + strings.Join(second, "\n\ndata: ") + "\n\ndata: [DONE]\n\n"
	for end, class := range map[llmtest.StreamEnd]string{
		llmtest.EndCut: "truncated", llmtest.EndReset: "truncated", llmtest.EndClose: "truncated",
		llmtest.EndErrorChunk: "server_error", llmtest.EndSilence: "timeout",
	} {
		t.Run(string(end), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dying := words(llmtest.Stream{FirstDelay: 500 * time.Millisecond, TokenDelay: 100 * time.Millisecond, After: 3, End: end})
				answer := llmtest.Raw(200, "text/event-stream", stream)
				answer.Delay = time.Second
				s := newStage(t, inMemory, steady(), presets(always(dying), always(answer))...)
				var got []piece
				r := s.ask(t.Context(), question{id: "job-1", body: body, chunk: func(n int, data []byte) {
					got = append(got, piece{n, time.Since(s.began), string(data)})
				}})

				// The job saw three tokens of the first call, at the times when they
				// came, and then the whole of the second.
				failed := 700 * time.Millisecond
				if end == llmtest.EndSilence {
					failed = 5 * time.Second
				}
				require.Equal(t, failed+time.Second, r.took())
				require.Len(t, got, 3+len(second))
				for i, word := range []string{"one ", "two ", "three "} {
					require.Equal(t, 1, got[i].attempt)
					require.Equal(t, time.Duration(500+100*i)*time.Millisecond, got[i].at)
					require.Contains(t, got[i].data, fmt.Sprintf(`"content":%q`, word))
				}
				for i, data := range second {
					require.Equal(t, piece{2, failed + time.Second, data}, got[3+i])
				}

				// The result is the second call's alone, as if it had not been streamed.
				require.Equal(t, vllm, r.Backend)
				require.JSONEq(t, `{"id":"c2","object":"chat.completion","created":1,"model":"m-2","choices":[{"index":0,
					"message":{"role":"assistant","content":"Let me look.","tool_calls":[{"id":"call_1","type":"function",
					"function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]},"finish_reason":"tool_calls"}],
					"usage":{"prompt_tokens":9,"completion_tokens":21,"total_tokens":30}}`, string(r.Response.Body))
				require.Equal(t, &job.Usage{InputTokens: 9, OutputTokens: 21}, r.Response.Usage)

				require.Len(t, r.Trail, 2)
				first := r.Trail[0]
				require.Equal(t, class, *first.Class)
				require.Equal(t, job.NextFallback, *first.Next)
				require.Equal(t, int64(500), *first.FirstTokenMS)
				require.Equal(t, failed.Milliseconds(), first.DurationMS)
				require.Nil(t, first.OutputTokens)
				require.Equal(t, job.OutcomeSucceeded, r.Trail[1].Outcome)
				require.Equal(t, int64(21), *r.Trail[1].OutputTokens)
				require.True(t, s.places[0].guard.Failing())
				require.Equal(t, breaker.Closed, s.places[0].guard.State())
				for _, p := range s.places {
					require.True(t, bytes.Equal([]byte(body), p.provider.Calls()[0].Body), "both were asked the same, byte for byte")
				}
			})
		})
	}
}
