package openai

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

func TestOnlyAnAnswerIsAccepted(t *testing.T) {
	t.Parallel()
	choice := func(fields string) string { return `{"id":"x","choices":[{"index":0,` + fields + `}]}` }
	for _, row := range []struct {
		name, body string
		class      backend.Class // empty: accepted
	}{
		{"text", choice(`"message":{"content":"hi"},"finish_reason":"stop"`), ""},
		{"no finish reason", choice(`"message":{"content":"hi"}`), ""},
		{"white space around it", "\n  \n" + choice(`"message":{"content":"hi"}`) + "\n", ""},
		{"parts", choice(`"message":{"content":[{"type":"text","text":"hi"}]},"finish_reason":"stop"`), ""},
		{"an image part", choice(`"message":{"content":[{"type":"image_url"}]},"finish_reason":"stop"`), ""},
		{"blank parts", choice(`"message":{"content":[{"type":"text","text":" "}]},"finish_reason":"stop"`), backend.EmptyOutput},
		{"no parts", choice(`"message":{"content":[]},"finish_reason":"stop"`), backend.EmptyOutput},
		{"blank", choice(`"message":{"content":" \n\t"},"finish_reason":"stop"`), backend.EmptyOutput},
		{"no content", choice(`"message":{"role":"assistant"},"finish_reason":"stop"`), backend.EmptyOutput},
		{"no tool calls", choice(`"message":{"content":null,"tool_calls":[]},"finish_reason":"stop"`), backend.EmptyOutput},
		{"a tool call", choice(`"message":{"content":null,"tool_calls":[{"id":"a"}]},"finish_reason":"stop"`), ""},
		{"a function call", choice(`"message":{"content":null,"function_call":{"name":"f"}},"finish_reason":"function_call"`), ""},
		{"a refusal", choice(`"message":{"content":null,"refusal":"I cannot"},"finish_reason":"stop"`), ""},
		{"audio", choice(`"message":{"content":null,"audio":{"id":"a"}},"finish_reason":"stop"`), ""},
		{"images", choice(`"message":{"content":"","images":[{"type":"image_url"}]},"finish_reason":"stop"`), ""},
		{"reasoning only", choice(`"message":{"content":"","reasoning":"hm"},"finish_reason":"stop"`), backend.EmptyOutput},
		{"cut by the limit", choice(`"message":{"content":""},"finish_reason":"length"`), ""},
		{"cut by the limit, Google's word", choice(`"message":{"content":""},"finish_reason":"MAX_TOKENS"`), ""},
		{"filtered", choice(`"message":{"content":"par"},"finish_reason":"content_filter"`), backend.ContentFilter},
		{"filtered, Google's word", choice(`"message":{"content":null},"finish_reason":"PROHIBITED_CONTENT"`), backend.ContentFilter},
		{"filtered, behind OpenRouter", choice(`"message":{"content":""},"finish_reason":"stop","native_finish_reason":"SAFETY"`), backend.ContentFilter},
		{"prompt blocked", `{"promptFeedback":{"blockReason":"SAFETY"},"choices":[]}`, backend.ContentFilter},
		{"ended with an error", choice(`"message":{"content":"par"},"finish_reason":"error"`), backend.ServerError},
		{"a choice with an error", choice(`"message":{"content":"par"},"finish_reason":"error","error":{"code":502,"message":"Overloaded"}`), backend.Overloaded},
		{"a choice with an unknown error", choice(`"message":{"content":"par"},"error":{"message":"x"}`), backend.ServerError},
		{"one good choice of two", `{"choices":[{"finish_reason":"content_filter","message":{"content":""}},{"message":{"content":"x"}}]}`, ""},
		{"no good choice of two", `{"choices":[{"finish_reason":"content_filter","message":{"content":""}},{"message":{"content":""}}]}`, backend.ContentFilter},
		{"a null error", `{"error":null,"choices":[{"message":{"content":"x"}}]}`, ""},
		{"an empty error", `{"error":{},"choices":[{"message":{"content":"x"}}]}`, ""},
		{"an error beside a choice", `{"error":{"code":429,"message":"x"},"choices":[{"message":{"content":"x"}}]}`, backend.RateLimit},
		{"vLLM's old error", `{"object":"error","message":"This model's maximum context length is 1","code":400}`, backend.ContextLength},
		{"Anthropic's error", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, backend.Overloaded},
		{"an error of another shape", `{"detail":"Rate limit exceeded"}`, backend.RateLimit},
		{"no choices", `{"id":"x","choices":[]}`, backend.BadResponse},
		{"null choices", `{"id":"x","choices":null}`, backend.BadResponse},
		{"choices of another kind", `{"choices":{"a":1}}`, backend.BadResponse},
		{"a choice of another kind", `{"choices":["a"]}`, backend.BadResponse},
		{"a choice without a message", `{"choices":[{"index":0}]}`, backend.BadResponse},
		{"a job in a queue", `{"id":"sync-1","status":"IN_QUEUE"}`, backend.BadResponse},
		{"something friendly", `{"message":"hello"}`, backend.BadResponse},
		{"empty", "", backend.BadResponse},
		{"blank", " \n", backend.BadResponse},
		{"HTML", "<!DOCTYPE html><html><body>login</body></html>", backend.BadResponse},
		{"null", "null", backend.BadResponse},
		{"a number", "42", backend.BadResponse},
		{"a string", `"hi"`, backend.BadResponse},
		{"an empty list", "[]", backend.BadResponse},
		{"half", `{"choices":[{"message":{"content":"x`, backend.BadResponse},
		{"two", `{"choices":[{"message":{"content":"x"}}]}{}`, backend.BadResponse},
		{"words", "OK", backend.BadResponse},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, row.class, read(job.URLChat, 200, http.Header{}, []byte(row.body)).verdict.Class)
		})
	}
}

func TestOtherEndpointsHaveTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	for body, class := range map[string]backend.Class{
		`{"choices":[{"text":"x","finish_reason":"stop"}]}`:  "",
		`{"choices":[{"text":"","finish_reason":"length"}]}`: "",
		`{"choices":[{"text":"","finish_reason":"stop"}]}`:   backend.EmptyOutput,
	} {
		require.Equal(t, class, read(job.URLCompletions, 200, nil, []byte(body)).verdict.Class, body)
	}
	for body, class := range map[string]backend.Class{
		`{"data":[{"embedding":[0.1]}]}`:                  "",
		`{"data":[{"embedding":"AAAA"}]}`:                 "",
		`{"data":[{"embedding":[]}]}`:                     backend.EmptyOutput,
		`{"data":[{"index":0}]}`:                          backend.EmptyOutput,
		`{"data":[]}`:                                     backend.BadResponse,
		`{"data":null}`:                                   backend.BadResponse,
		`{"choices":[{"message":{"content":"x"}}]}`:       backend.BadResponse,
		`{"data":[],"error":{"code":429}}`:                backend.RateLimit,
		`{"data":"x"}`:                                    backend.BadResponse,
		`{"data":[{"embedding":[1]},{"embedding":null}]}`: backend.EmptyOutput,
	} {
		require.Equal(t, class, read(job.URLEmbeddings, 200, nil, []byte(body)).verdict.Class, body)
	}
}
