package llmtest

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The endpoints a provider answers, as [Call.Endpoint] names them.
const (
	Chat        = "/v1/chat/completions"
	Completions = "/v1/completions"
	Embeddings  = "/v1/embeddings"
)

// Call is one request as the provider received it, and what became of it. It
// never holds the caller's key: ask [Call.HasKey].
type Call struct {
	// N counts the provider's calls from 1; NModel counts the calls for Model.
	N, NModel int
	// Time is when the request was read completely.
	Time time.Time
	// Method and Path are as requested, Query is the raw query.
	Method, Path, Query string
	// Endpoint is [Chat], [Completions] or [Embeddings], also for an Azure path;
	// empty for any other path.
	Endpoint string
	// Model is the body's top-level model (the last one, should it be repeated),
	// or the deployment of an Azure path.
	Model string
	// Stream tells that the body says "stream": true.
	Stream bool
	// Body is the request, byte for byte.
	Body []byte
	// Header is the request's header, keys replaced by "[redacted]".
	Header http.Header

	// Done tells that the provider has finished with the call; what follows is
	// zero before.
	Done bool
	// Status is the HTTP status sent, 0 when the client got no header.
	Status int
	// Aborted tells that the client went away before it had the whole reply.
	Aborted bool
	// Duration is the time from the request to the end of the reply.
	Duration time.Duration

	key [sha256.Size]byte // of the key that was sent
}

// HasKey reports whether the call carried key, as a bearer token or as the
// api-key header of Azure. The empty key means that it carried none.
func (c Call) HasKey(key string) bool { return c.key == sha256.Sum256([]byte(key)) }

// request is the part of a request body that the provider looks at.
type request struct {
	Model         string          `json:"model"`
	Stream        bool            `json:"stream"`
	Messages      []message       `json:"messages"`
	Prompt        json.RawMessage `json:"prompt"`
	Input         json.RawMessage `json:"input"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ResponseFormat struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// newCall reads everything but the counters from r, whose body is given.
func newCall(r *http.Request, body []byte) Call {
	c := Call{
		Time: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Body: body, Header: r.Header.Clone(), key: sha256.Sum256([]byte(keyOf(r))),
	}
	for _, name := range []string{"Authorization", "Api-Key", "X-Api-Key"} {
		if c.Header.Get(name) != "" {
			c.Header.Set(name, "[redacted]")
		}
	}
	var req request
	if json.Unmarshal(body, &req) == nil {
		c.Model, c.Stream = req.Model, req.Stream
	}
	var deployment string
	if c.Endpoint, deployment = endpointOf(r.URL.Path); deployment != "" {
		c.Model = deployment
	}
	return c
}

// keyOf returns the key the request carries, empty when there is none.
func keyOf(r *http.Request) string {
	if key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return key
	}
	return r.Header.Get("Api-Key")
}

// endpointOf maps a path to its endpoint, and an Azure path also to its deployment.
func endpointOf(path string) (endpoint, deployment string) {
	if rest, ok := strings.CutPrefix(path, "/openai/deployments/"); ok {
		deployment, path, _ = strings.Cut(rest, "/")
		path = "/v1/" + path
	}
	switch path {
	case Chat, Completions, Embeddings:
		return path, deployment
	}
	return "", deployment
}

// prompt is the text the call asks about: the last user message, the prompt or
// the input.
func (r request) prompt() string {
	for _, m := range slices.Backward(r.Messages) {
		if m.Role == "user" {
			return textOf(m.Content)
		}
	}
	if r.Prompt != nil {
		return textOf(r.Prompt)
	}
	return textOf(r.Input)
}

// length is the size in bytes of all that the call puts into the model.
func (r request) length() int {
	n := len(r.Prompt) + len(r.Input)
	for _, m := range r.Messages {
		n += len(m.Content)
	}
	return n
}

// textOf returns the text of a string, of an array of strings, or of an array
// of content parts; anything else is its JSON.
func textOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return strings.Join(list, "\n")
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return string(raw)
	}
	texts := make([]string, 0, len(parts))
	for _, p := range parts {
		if p.Text != "" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}
