package rules_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/rules"
	"understudy/internal/job"
)

// FuzzParse feeds any file: it is refused with lines that name it, or answers.
func FuzzParse(f *testing.F) {
	builtIn, err := os.ReadFile("default.rules")
	require.NoError(f, err)
	f.Add(builtIn, "Hello")
	f.Add([]byte("match: (a)(?P<b>.)?\nmatch: ^(?P<b>c)\nanswer: $1 ${b} $$ $\n  x\ndefault: d\n"), "ab")
	f.Add([]byte("\ufeffmatch: (\r\n\tanswer: ${\r\ndefault:\xff"), "")
	f.Fuzz(func(t *testing.T, file []byte, message string) {
		r, err := rules.Parse("f", file)
		if err != nil {
			require.Nil(t, r)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.Regexp(t, `^f:([1-9][0-9]*:)? `, line)
			}
			return
		}
		resp, err := rules.New("r", r).Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: chat(t, message)})
		if err != nil {
			require.ErrorIs(t, err, backend.Unsupported)
			return
		}
		require.True(t, json.Valid(resp.Body))
		require.True(t, utf8.Valid(resp.Body))
		require.LessOrEqual(t, len(content(t, resp.Body)), rules.MaxAnswer)
	})
}

// FuzzComplete feeds any body: it is refused with a class, or answered in full.
func FuzzComplete(f *testing.F) {
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"Hello"},{"type":"x"}]}]}`), true, false)
	f.Add([]byte(`{"messages":[{"role":"user","content":"\ud800"}],"Messages":[{}]}`), true, true)
	f.Add([]byte(`{"prompt":["a","b"]}`), false, true)
	f.Add([]byte(`{"prompt":[1]}`), false, false)
	r, err := rules.Parse("f", []byte("match: ^(.*?)(?P<x>b)?$\nanswer: $1 ${x}\nmatch: (?s)a.\nanswer: $0$0\n"))
	require.NoError(f, err)
	e := rules.New("r", r)
	f.Fuzz(func(t *testing.T, body []byte, isChat, stream bool) {
		req := &backend.Request{URL: job.URLCompletions, Body: body, Stream: stream}
		if isChat {
			req.URL = job.URLChat
		}
		started, chunks := 0, 0
		req.Started = func(string) { started++ }
		req.Chunk = func(data []byte) {
			chunks++
			require.True(t, json.Valid(data))
		}
		resp, err := e.Complete(t.Context(), req)
		require.Equal(t, 1, started)
		if err != nil {
			class := backend.AsError(err, "").Class
			require.Contains(t, []backend.Class{backend.Unsupported, backend.InvalidRequest}, class)
			require.Zero(t, chunks)
			return
		}
		require.True(t, json.Valid(body))
		require.True(t, json.Valid(resp.Body))
		require.Equal(t, stream, chunks == 1)
		var got struct {
			Choices []struct {
				Index        int
				FinishReason string `json:"finish_reason"`
			}
		}
		require.NoError(t, json.Unmarshal(resp.Body, &got))
		require.NotEmpty(t, got.Choices)
		for i, choice := range got.Choices {
			require.Equal(t, i, choice.Index)
			require.Equal(t, "stop", choice.FinishReason)
		}
	})
}
