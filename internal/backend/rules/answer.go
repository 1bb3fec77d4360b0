package rules

import (
	"bytes"
	"encoding/json"
	"time"

	"understudy/internal/job"
)

// fingerprint marks an answer that no model gave.
const fingerprint = "understudy-rules"

// answer is what to say, and where.
type answer struct {
	url   string
	id    string
	texts []string // one for each choice
}

// completion is the OpenAI object of a whole answer, and of a chunk of one.
type completion struct {
	ID                string   `json:"id"`
	Object            string   `json:"object"`
	Created           int64    `json:"created"` // Unix seconds
	Model             string   `json:"model"`
	Choices           []choice `json:"choices"`
	Usage             *usage   `json:"usage,omitempty"`
	SystemFingerprint string   `json:"system_fingerprint"`
}

// choice holds one of message (chat), delta (a chunk of a chat) and text.
type choice struct {
	Index        int       `json:"index"`
	Message      *message  `json:"message,omitempty"`
	Delta        *message  `json:"delta,omitempty"`
	Text         *string   `json:"text,omitempty"`
	Logprobs     *struct{} `json:"logprobs"` // always null
	FinishReason string    `json:"finish_reason"`
}

type message struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // always null
}

type usage struct {
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	TotalTokens      int64 `json:"total_tokens"`
}

// body is the answer as a response.
func (a answer) body() []byte {
	if a.url == job.URLCompletions {
		return a.encode("text_completion", "cmpl-", &usage{}, textChoice)
	}
	return a.encode("chat.completion", "chatcmpl-", &usage{}, func(index int, text string) choice {
		return choice{Index: index, Message: &message{Role: "assistant", Content: text}, FinishReason: "stop"}
	})
}

// chunk is the answer as the only chunk of a stream.
func (a answer) chunk() []byte {
	if a.url == job.URLCompletions {
		return a.encode("text_completion", "cmpl-", nil, textChoice)
	}
	return a.encode("chat.completion.chunk", "chatcmpl-", nil, func(index int, text string) choice {
		return choice{Index: index, Delta: &message{Role: "assistant", Content: text}, FinishReason: "stop"}
	})
}

func textChoice(index int, text string) choice {
	return choice{Index: index, Text: &text, FinishReason: "stop"}
}

func (a answer) encode(object, prefix string, used *usage, toChoice func(int, string) choice) []byte {
	c := completion{
		ID: prefix + a.id, Object: object, Created: time.Now().Unix(), Model: model,
		Usage: used, SystemFingerprint: fingerprint,
	}
	for i, text := range a.texts {
		c.Choices = append(c.Choices, toChoice(i, text))
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // a person reads the answer
	_ = encoder.Encode(c)        //nolint:errchkjson // strings and numbers into a buffer: it cannot fail
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
