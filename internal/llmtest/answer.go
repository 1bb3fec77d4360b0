package llmtest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

const (
	// created is the time stamp of every answer, so that answers are deterministic.
	created = 1_700_000_000
	// dimensions is the length of an embedding.
	dimensions = 8
	// maxTokenSize is the longest token of a stream, in bytes.
	maxTokenSize = 4096
	// padMark stands where padding goes. It is the last private-use rune of the
	// basic plane, and only its last occurrence counts.
	padMark = "\uf8ff"
)

type object = map[string]any

// payload is a body that is written without being built: head, pad bytes of
// fill, tail.
type payload struct {
	head, tail []byte
	pad        int
	fill       byte
}

func (b payload) len() int { return len(b.head) + b.pad + len(b.tail) }

// writeTo writes the first limit bytes to w.
func (b payload) writeTo(w io.Writer, limit int) error {
	pad := io.LimitReader(filler(b.fill), int64(b.pad))
	all := io.MultiReader(bytes.NewReader(b.head), pad, bytes.NewReader(b.tail))
	_, err := io.Copy(w, io.LimitReader(all, int64(limit)))
	return err
}

// filler is an endless reader of one byte.
type filler byte

func (f filler) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	p[0] = byte(f)
	for n := 1; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
	return len(p), nil
}

// payloadOf returns the body of a reply that is not streamed.
func payloadOf(c Call, r Reply) (payload, error) {
	if r.Body != nil {
		return payload{head: r.Body, pad: max(0, r.Size-len(r.Body)), fill: ' '}, nil
	}
	r.Text = textFor(c, r) + padMark
	raw, err := json.Marshal(document(c, r))
	if err != nil {
		return payload{}, fmt.Errorf("encode an answer: %w", err)
	}
	at := bytes.LastIndex(raw, []byte(padMark))
	if at < 0 { // an embedding has no text
		return payload{head: raw, pad: max(0, r.Size-len(raw)), fill: ' '}, nil
	}
	b := payload{head: raw[:at], tail: raw[at+len(padMark):], fill: 'a'}
	b.pad = max(0, r.Size-b.len())
	return b, nil
}

// textFor is the reply's text, or what stands in for it.
func textFor(c Call, r Reply) string {
	switch {
	case r.Text != "":
		return r.Text
	case r.Status >= http.StatusBadRequest:
		return cmp.Or(http.StatusText(r.Status), "Error")
	}
	req := requestOf(c)
	if strings.HasPrefix(req.ResponseFormat.Type, "json") {
		raw, err := json.Marshal(map[string]string{"echo": req.prompt()})
		if err == nil { // a string always encodes
			return string(raw)
		}
	}
	return "echo: " + req.prompt()
}

// requestOf reads the call's body again; what does not parse is empty.
func requestOf(c Call) request {
	var req request
	_ = json.Unmarshal(c.Body, &req) // a field of a wrong type leaves the others
	return req
}

// tokensOf cuts text into words that keep their space.
func tokensOf(text string) []string {
	var tokens []string
	for _, word := range strings.SplitAfter(text, " ") {
		for len(word) > maxTokenSize {
			tokens, word = append(tokens, word[:maxTokenSize]), word[maxTokenSize:]
		}
		if word != "" {
			tokens = append(tokens, word)
		}
	}
	return tokens
}

// usageOf counts four bytes of prompt and one word of answer as a token.
func usageOf(c Call, text string) object {
	in, out := (requestOf(c).length()+3)/4, len(tokensOf(text))
	return object{"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out}
}

// errorDocument is an error in the form of the OpenAI API.
func errorDocument(r Reply, text string) object {
	return object{"error": object{
		"code": orNull(r.Code), "message": text, "param": nil, "type": orNull(r.Type),
	}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// document is the whole body of an answer or an error whose text is r.Text.
func document(c Call, r Reply) any {
	if r.Status >= http.StatusBadRequest {
		return errorDocument(r, r.Text)
	}
	finish, usage := cmp.Or(r.Finish, "stop"), usageOf(c, strings.TrimSuffix(r.Text, padMark))
	// Structs fix the order of the fields: the text, with its mark, is the last
	// thing in the body that comes from the caller.
	type head struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int    `json:"created"`
		Model   string `json:"model"`
		Choices []any  `json:"choices"`
		Usage   object `json:"usage"`
	}
	type choice struct {
		Index   int    `json:"index"`
		Message object `json:"message,omitempty"`
		Text    string `json:"text,omitempty"`
		Finish  string `json:"finish_reason"`
	}
	switch c.Endpoint {
	case Embeddings:
		return embeddings(c)
	case Completions:
		return head{fmt.Sprintf("cmpl-%d", c.N), "text_completion", created, c.Model, []any{choice{Text: r.Text, Finish: finish}}, usage}
	}
	msg := object{"role": "assistant", "content": r.Text}
	// The keys of a map are sorted: content, then role.
	return head{fmt.Sprintf("chatcmpl-%d", c.N), "chat.completion", created, c.Model, []any{choice{Message: msg, Finish: finish}}, usage}
}

// embeddings derives one vector per input from the input's hash.
func embeddings(c Call) object {
	req := requestOf(c)
	var inputs []json.RawMessage
	if json.Unmarshal(req.Input, &inputs) != nil || len(inputs) == 0 {
		inputs = []json.RawMessage{req.Input}
	}
	data := make([]object, len(inputs))
	for i, in := range inputs {
		sum := sha256.Sum256(in)
		vector := make([]float64, dimensions)
		for d := range vector {
			vector[d] = float64(sum[d])/128 - 1
		}
		data[i] = object{"object": "embedding", "index": i, "embedding": vector}
	}
	n := (req.length() + 3) / 4
	return object{"object": "list", "model": c.Model, "data": data, "usage": object{"prompt_tokens": n, "total_tokens": n}}
}
