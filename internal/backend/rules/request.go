package rules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// maxPrompts is how many prompts one completion request may hold: each is
// matched by itself.
const maxPrompts = 128

// read returns the messages to answer, one for a chat and one for each prompt
// of a completion, or an error that lacks only the backend's name.
func read(url string, body []byte) ([]string, *backend.Error) {
	switch url {
	case job.URLChat:
		return readChat(body)
	case job.URLCompletions:
		return readPrompts(body)
	default:
		return nil, refuse(backend.Unsupported, nil, "rules cannot answer %s", url)
	}
}

// readChat returns the last message of the user, "" when there is none.
func readChat(body []byte) ([]string, *backend.Error) {
	var chat struct {
		Messages []struct {
			Role    string
			Content json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &chat); err != nil {
		return nil, refuse(backend.InvalidRequest, err, "the body is no chat request: messages must be objects with role and content")
	}
	if len(chat.Messages) == 0 {
		return nil, refuse(backend.InvalidRequest, nil, "messages is missing or empty")
	}
	for i, message := range slices.Backward(chat.Messages) {
		if message.Role != "user" {
			continue
		}
		text, err := contentText(message.Content)
		if err != nil {
			return nil, refuse(backend.InvalidRequest, err, "messages[%d].content is neither a string nor an array of parts", i)
		}
		return []string{text}, nil
	}
	return []string{""}, nil
}

// contentText returns a message's content, or the text of its parts, a line each.
func contentText(content json.RawMessage) (string, error) {
	if !isArray(content) {
		var text string
		if len(content) == 0 {
			return "", nil
		}
		err := json.Unmarshal(content, &text) // null leaves ""
		return text, err
	}
	var parts []struct{ Type, Text string }
	if err := json.Unmarshal(content, &parts); err != nil {
		return "", err
	}
	var texts []string
	for _, part := range parts {
		if part.Type == "text" {
			texts = append(texts, part.Text)
		}
	}
	return strings.Join(texts, "\n"), nil
}

// readPrompts returns every prompt.
func readPrompts(body []byte) ([]string, *backend.Error) {
	var completion struct{ Prompt json.RawMessage }
	if err := json.Unmarshal(body, &completion); err != nil {
		return nil, refuse(backend.InvalidRequest, err, "the body is no completion request: it must be an object")
	}
	if isArray(completion.Prompt) {
		var prompts []string
		err := json.Unmarshal(completion.Prompt, &prompts)
		switch {
		case err != nil:
			return nil, refuse(backend.Unsupported, err, "rules need prompts of text, not of tokens")
		case len(prompts) == 0:
			return nil, refuse(backend.InvalidRequest, nil, "prompt is empty")
		case len(prompts) > maxPrompts:
			return nil, refuse(backend.Unsupported, nil, "%d prompts; rules answer at most %d", len(prompts), maxPrompts)
		}
		return prompts, nil
	}
	var prompt *string
	if len(completion.Prompt) > 0 {
		if err := json.Unmarshal(completion.Prompt, &prompt); err != nil {
			return nil, refuse(backend.InvalidRequest, err, "prompt is neither a string nor an array")
		}
	}
	if prompt == nil {
		return nil, refuse(backend.InvalidRequest, nil, "prompt is missing")
	}
	return []string{*prompt}, nil
}

func isArray(value json.RawMessage) bool {
	return bytes.HasPrefix(value, []byte("["))
}

func refuse(class backend.Class, cause error, format string, args ...any) *backend.Error {
	return &backend.Error{Class: class, Model: model, Message: fmt.Sprintf(format, args...), Cause: cause}
}
