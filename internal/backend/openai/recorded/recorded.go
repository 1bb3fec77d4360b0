// Package recorded holds answers of real providers, each with what a worker
// should make of it. Tests play them to the client; people ask what a job would do
// if its provider answered like that.
package recorded

import (
	_ "embed" // the answers
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed providers.json
var providersJSON []byte

// Answer is a recorded answer of a real provider.
type Answer struct {
	// ID names the answer, Provider who gave it.
	ID       string `json:"id"`
	Provider string `json:"provider"`
	// Stream tells that the call asked for a stream.
	Stream  bool              `json:"stream"`
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	// Cut says in words how the connection broke after Body; nil means it did not.
	Cut    *string `json:"cut"`
	Expect Expect  `json:"expect"`
	// Source is where the answer was found.
	Source string `json:"source"`
}

// Expect is what a worker should make of an [Answer].
type Expect struct {
	// Class is the failure class, or "success" when the answer is good.
	Class string `json:"class"`
	// FallbackByDefault tells whether the next backend is asked.
	FallbackByDefault bool `json:"fallback_by_default"`
	// Breaker is the effect on the breaker: count, cool, trip or ignore.
	Breaker string `json:"breaker"`
	// RetryAfterS is the provider's hint in seconds; nil when it gave none.
	RetryAfterS *float64 `json:"retry_after_s"`
}

// Answers returns all recorded answers in the order of their ids. The slice is
// the caller's own.
func Answers() ([]Answer, error) {
	var all []Answer
	if err := json.Unmarshal(providersJSON, &all); err != nil {
		return nil, fmt.Errorf("read providers.json: %w", err)
	}
	return all, nil
}

// Find returns the recorded answer of that id.
func Find(id string) (Answer, error) {
	all, err := Answers()
	if err != nil {
		return Answer{}, err
	}
	for _, a := range all {
		if a.ID == id {
			return a, nil
		}
	}
	return Answer{}, fmt.Errorf("no recorded answer has the id %q", id)
}

// ContentType is the answer's, guessed where the recording left it out.
func (a Answer) ContentType() string {
	for name, value := range a.Headers {
		if strings.EqualFold(name, "Content-Type") {
			return value
		}
	}
	switch body := strings.TrimSpace(a.Body); {
	case a.Stream:
		return "text/event-stream"
	case strings.HasPrefix(body, "<"):
		return "text/html"
	case body == "" || strings.HasPrefix(body, "{") || strings.HasPrefix(body, "["):
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}
