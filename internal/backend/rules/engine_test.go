package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/rules"
	"understudy/internal/job"
)

// engine returns an engine with the rules of file.
func engine(t *testing.T, file string) *rules.Engine {
	t.Helper()
	r, err := rules.Parse("test.rules", []byte(file))
	require.NoError(t, err)
	return rules.New("offline", r)
}

// chat returns a chat request in which the user says message.
func chat(t *testing.T, message string) []byte {
	t.Helper()
	body, err := json.Marshal(map[string]any{"messages": []any{map[string]any{"role": "user", "content": message}}})
	require.NoError(t, err)
	return body
}

// content returns what the assistant says.
func content(t *testing.T, body []byte) string {
	t.Helper()
	var completion struct {
		Choices []struct{ Message struct{ Content string } }
	}
	require.NoError(t, json.Unmarshal(body, &completion))
	require.Len(t, completion.Choices, 1)
	return completion.Choices[0].Message.Content
}

// ask returns the answer of the rules of file to message.
func ask(t *testing.T, file, message string) string {
	t.Helper()
	resp, err := engine(t, file).Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: chat(t, message)})
	require.NoError(t, err)
	return content(t, resp.Body)
}

const echo = "match: (?s)^(.+)$\nanswer: <$1> & co\n"

// TestAnswersAreOpenAIObjects pins the whole body and every chunk; the id alone
// is not fixed. A bubble's clock starts at 2000-01-01.
func TestAnswersAreOpenAIObjects(t *testing.T) {
	t.Parallel()
	const (
		chatBody = `{"id":"chatcmpl-ID","object":"chat.completion","created":946684800,"model":"rules",` +
			`"choices":[{"index":0,"message":{"role":"assistant","content":"<hé\nyou> & co","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0},"system_fingerprint":"understudy-rules"}`
		chatChunk = `{"id":"chatcmpl-ID","object":"chat.completion.chunk","created":946684800,"model":"rules",` +
			`"choices":[{"index":0,"delta":{"role":"assistant","content":"<hé\nyou> & co","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
			`"system_fingerprint":"understudy-rules"}`
		textHead = `{"id":"cmpl-ID","object":"text_completion","created":946684800,"model":"rules",` +
			`"choices":[{"index":0,"text":"<a> & co","logprobs":null,"finish_reason":"stop"},{"index":1,"text":"<b> & co","logprobs":null,"finish_reason":"stop"}],`
		textBody  = textHead + `"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0},"system_fingerprint":"understudy-rules"}`
		textChunk = textHead + `"system_fingerprint":"understudy-rules"}`
	)
	id := regexp.MustCompile(`^(\{"id":"(?:chat)?cmpl-)[A-Z2-7]{26}"`)
	for name, row := range map[string]struct{ url, request, body, chunk string }{
		"chat":       {job.URLChat, string(chat(t, "hé\nyou")), chatBody, chatChunk},
		"completion": {job.URLCompletions, `{"prompt":["a","b"]}`, textBody, textChunk},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var started, chunks []string
					resp, err := engine(t, echo).Complete(t.Context(), &backend.Request{
						URL: row.url, Body: []byte(row.request), Model: "gpt", Stream: stream,
						Started: func(m string) { started = append(started, m) },
						Chunk: func(data []byte) {
							require.Len(t, started, 1)
							chunks = append(chunks, id.ReplaceAllString(string(data), `${1}ID"`))
						},
					})
					require.NoError(t, err)
					require.Equal(t, row.body, id.ReplaceAllString(string(resp.Body), `${1}ID"`))
					if stream {
						require.Equal(t, []string{row.chunk}, chunks)
					} else {
						require.Empty(t, chunks)
					}
					require.Equal(t, []string{"rules"}, started)
					free := 0.0
					resp.Body = nil
					require.Equal(t, &backend.Response{
						Status: 200, Model: "rules", Usage: &job.Usage{}, CostUSD: &free, Degraded: true,
					}, resp)
				})
			})
		}
	}
}

func TestAStreamNobodyListensToIsAnswered(t *testing.T) {
	t.Parallel()
	resp, err := engine(t, echo).Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: chat(t, "a"), Stream: true})
	require.NoError(t, err)
	require.Equal(t, "<a> & co", content(t, resp.Body))
}

func TestWhatTheUserSaidLastIsMatched(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ url, body, want string }{
		"last user message":  {job.URLChat, `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"tool","content":"d"}]}`, "said c"},
		"parts":              {job.URLChat, `{"messages":[{"role":"user","content": [{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"b"}]}]}`, "said a\nb"},
		"no parts":           {job.URLChat, `{"messages":[{"role":"user","content":[]}]}`, "said nothing"},
		"null":               {job.URLChat, `{"messages":[{"role":"user","content":null}]}`, "said nothing"},
		"absent":             {job.URLChat, `{"messages":[{"role":"user"}]}`, "said nothing"},
		"no user":            {job.URLChat, `{"messages":[{"role":"system","content":"s"}]}`, "said nothing"},
		"other content kept": {job.URLChat, `{"temperature":0,"messages":[{"role":"tool","content":{"x":[1]}},{"role":"user","content":"a","name":"n"}],"tools":[{}]}`, "said a"},
		"prompt":             {job.URLCompletions, `{"prompt":"a"}`, "said a"},
		"prompts":            {job.URLCompletions, `{"prompt": ["a"]}`, "said a"},
		"empty prompt":       {job.URLCompletions, `{"prompt":""}`, "said nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := engine(t, "match: (?s).+\nanswer: said $0\ndefault: said nothing\n").Complete(t.Context(), &backend.Request{URL: row.url, Body: []byte(row.body)})
			require.NoError(t, err)
			var got struct {
				Choices []struct {
					Text    string
					Message struct{ Content string }
				}
			}
			require.NoError(t, json.Unmarshal(resp.Body, &got))
			require.Len(t, got.Choices, 1)
			require.Equal(t, row.want, got.Choices[0].Text+got.Choices[0].Message.Content)
		})
	}
}

func TestWhatCannotBeAnsweredFailsWithItsClass(t *testing.T) {
	t.Parallel()
	const (
		notChat  = "the body is no chat request: messages must be objects with role and content"
		notText  = "the body is no completion request: it must be an object"
		noString = "messages[0].content is neither a string nor an array of parts"
	)
	for name, row := range map[string]struct {
		url, body string
		class     backend.Class
		message   string
	}{
		"no rule matches":          {job.URLChat, `{"messages":[{"role":"user","content":"b"}]}`, backend.Unsupported, "no rule matches"},
		"one of two does not":      {job.URLCompletions, `{"prompt":["a","b"]}`, backend.Unsupported, "no rule matches"},
		"embeddings":               {job.URLEmbeddings, `{"input":"a"}`, backend.Unsupported, "rules cannot answer /v1/embeddings"},
		"another url":              {"/v1/images", `{}`, backend.Unsupported, "rules cannot answer /v1/images"},
		"tokens":                   {job.URLCompletions, `{"prompt":[1,2]}`, backend.Unsupported, "rules need prompts of text, not of tokens"},
		"lists of tokens":          {job.URLCompletions, `{"prompt":[[1],[2]]}`, backend.Unsupported, "rules need prompts of text, not of tokens"},
		"too many prompts":         {job.URLCompletions, `{"prompt":["a"` + strings.Repeat(`,"a"`, 128) + `]}`, backend.Unsupported, "129 prompts; rules answer at most 128"},
		"no prompts":               {job.URLCompletions, `{"prompt":[]}`, backend.InvalidRequest, "prompt is empty"},
		"null prompt":              {job.URLCompletions, `{"prompt":null}`, backend.InvalidRequest, "prompt is missing"},
		"absent prompt":            {job.URLCompletions, `{}`, backend.InvalidRequest, "prompt is missing"},
		"odd prompt":               {job.URLCompletions, `{"prompt":{}}`, backend.InvalidRequest, "prompt is neither a string nor an array"},
		"completion not an object": {job.URLCompletions, `[]`, backend.InvalidRequest, notText},
		"completion not JSON":      {job.URLCompletions, `{"prompt":"a"`, backend.InvalidRequest, notText},
		"empty body":               {job.URLChat, ``, backend.InvalidRequest, notChat},
		"not JSON":                 {job.URLChat, `{"messages":`, backend.InvalidRequest, notChat},
		"messages of another type": {job.URLChat, `{"messages":"a"}`, backend.InvalidRequest, notChat},
		"message of another type":  {job.URLChat, `{"messages":["a"]}`, backend.InvalidRequest, notChat},
		"role of another type":     {job.URLChat, `{"messages":[{"role":1}]}`, backend.InvalidRequest, notChat},
		"no messages":              {job.URLChat, `{"messages":[]}`, backend.InvalidRequest, "messages is missing or empty"},
		"no messages at all":       {job.URLChat, `{}`, backend.InvalidRequest, "messages is missing or empty"},
		"odd content":              {job.URLChat, `{"messages":[{"role":"user","content":7}]}`, backend.InvalidRequest, noString},
		"odd part":                 {job.URLChat, `{"messages":[{"role":"user","content":[7]}]}`, backend.InvalidRequest, noString},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := 0
			resp, err := engine(t, "match: a\nanswer: b\n").Complete(t.Context(), &backend.Request{
				URL: row.url, Body: []byte(row.body), Stream: true,
				Started: func(string) { started++ },
				Chunk:   func([]byte) { t.Error("a chunk of no answer") },
			})
			require.Nil(t, resp)
			failure := &backend.Error{}
			require.ErrorAs(t, err, &failure)
			failure.Cause = nil
			require.Equal(t, &backend.Error{Class: row.class, Backend: "offline", Model: "rules", Message: row.message}, failure)
			require.Equal(t, 1, started)
		})
	}
}

func TestADoneContextIsNotAnswered(t *testing.T) {
	t.Parallel()
	why := errors.New("race lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := engine(t, "default: a\n").Complete(ctx, &backend.Request{
		URL: job.URLChat, Body: chat(t, "a"), Started: func(string) { t.Error("started") },
	})
	require.ErrorIs(t, err, backend.Canceled)
	require.ErrorIs(t, err, why)
	require.Equal(t, "offline: cancelled", err.Error())

	ctx, cancel = context.WithCancelCause(t.Context())
	_, err = engine(t, "match: a\nanswer: b\n").Complete(ctx, &backend.Request{
		URL: job.URLChat, Body: chat(t, "a"), Started: func(string) { cancel(why) }, // on the way
	})
	require.ErrorIs(t, err, backend.Canceled)
	require.ErrorIs(t, err, why)
}

// fleeting is a context that is cancelled once it has been asked left times.
type fleeting struct {
	context.Context
	left int
}

func (f *fleeting) Err() error {
	if f.left--; f.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestACancelledCallIsLetGoBetweenTwoRules(t *testing.T) {
	t.Parallel()
	e := engine(t, strings.Repeat("match: b\nanswer: b\n", 10)+"match: a\nanswer: a\n")
	req := &backend.Request{URL: job.URLChat, Body: chat(t, "a")}
	for _, left := range []int{1, 5, 11, 12} {
		_, err := e.Complete(&fleeting{t.Context(), left}, req)
		require.ErrorIs(t, err, backend.Canceled, left)
	}
	resp, err := e.Complete(&fleeting{t.Context(), 13}, req) // at the start, before each rule, at the end
	require.NoError(t, err)
	require.Equal(t, "a", content(t, resp.Body))
}

func TestTheEngineIsADegrader(t *testing.T) {
	t.Parallel()
	var d backend.Degrader = rules.New("offline", nil)
	require.Equal(t, "offline", d.Name())
	require.True(t, d.Degraded())
	_, err := d.Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: chat(t, "a")})
	require.ErrorIs(t, err, backend.Unsupported)
}
