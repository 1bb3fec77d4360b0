package llmtest_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

// data returns the payloads of the data lines of a stream.
func data(body string) []string {
	var lines []string
	for line := range strings.Lines(body) {
		if d, ok := strings.CutPrefix(line, "data: "); ok {
			lines = append(lines, strings.TrimSpace(d))
		}
	}
	return lines
}

func TestAStreamHasOneChunkPerWord(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t)
	got := post(t.Context(), t, p.URL()+"/chat/completions",
		`{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi you"}]}`)
	require.NoError(t, got.err)
	require.Equal(t, "text/event-stream; charset=utf-8", got.header.Get("Content-Type"))
	const head = `"created":1700000000,"id":"chatcmpl-1","model":"m","object":"chat.completion.chunk"`
	require.Equal(t, []string{
		`{"choices":[{"delta":{"content":"echo: ","role":"assistant"},"finish_reason":null,"index":0}],` + head + `}`,
		`{"choices":[{"delta":{"content":"hi "},"finish_reason":null,"index":0}],` + head + `}`,
		`{"choices":[{"delta":{"content":"you"},"finish_reason":null,"index":0}],` + head + `}`,
		`{"choices":[{"delta":{},"finish_reason":"stop","index":0}],` + head + `}`,
		`{"choices":[],` + head + `,"usage":{"completion_tokens":3,"prompt_tokens":2,"total_tokens":5}}`,
		`[DONE]`,
	}, data(got.body))
}

func TestStreamsEndAsTheyAreToldTo(t *testing.T) {
	t.Parallel()
	for end, tc := range map[llmtest.StreamEnd]struct {
		tokens int
		last   string
		event  bool
	}{
		llmtest.EndNoDone:     {5, `"finish_reason":"stop"`, false},
		llmtest.EndClose:      {2, `"content":"hello "`, false},
		llmtest.EndErrorChunk: {3, `"message":"Provider disconnected unexpectedly"`, false},
		llmtest.EndErrorEvent: {3, `"message":"Overloaded"`, true},
		"no such":             {3, "unknown stream end", true},
	} {
		t.Run(string(end), func(t *testing.T) {
			t.Parallel()
			p := llmtest.New(t, llmtest.Always(llmtest.Streamed(llmtest.Stream{
				FirstDelay: 3 * time.Millisecond, Comments: 3, TokenDelay: time.Millisecond, After: 2, End: end,
			})))
			body := strings.Replace(hello, `{`, `{"stream":true,`, 1)
			if end == llmtest.EndNoDone {
				p.SetScript(llmtest.Always(llmtest.Streamed(llmtest.Stream{FirstDelay: time.Millisecond, End: end, Comments: 3})))
			}
			got := post(t.Context(), t, p.URL()+"/chat/completions", body)
			require.NoError(t, got.err)
			require.Equal(t, 3, strings.Count(got.body, ": PROCESSING\n\n"))
			lines := data(got.body)
			require.Len(t, lines, tc.tokens)
			require.Contains(t, lines[len(lines)-1], tc.last)
			require.Equal(t, tc.event, strings.Contains(got.body, "event: error\n"))
			require.NotContains(t, got.body, "[DONE]")
		})
	}
}

func TestAStreamOfCompletionsCarriesText(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Text: "x", Size: 10000}))
	got := post(t.Context(), t, p.URL()+"/completions", `{"model":"m","stream":true,"prompt":"q"}`)
	require.NoError(t, got.err)
	var text bytes.Buffer
	lines := data(got.body)
	require.Len(t, lines, 5, "three pieces of 4096 bytes at most, finish, [DONE]")
	for _, l := range lines[:len(lines)-1] {
		var chunk struct {
			Object  string
			Choices []struct{ Text string }
		}
		require.NoError(t, json.Unmarshal([]byte(l), &chunk))
		require.Equal(t, "text_completion", chunk.Object)
		text.WriteString(chunk.Choices[0].Text)
	}
	require.Equal(t, "x"+strings.Repeat("a", 9999), text.String())
}
