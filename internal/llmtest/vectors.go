package llmtest

import (
	_ "embed" // the recorded answers
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

//go:embed providers.json
var providersJSON []byte

// Vector is a recorded answer of a real provider and what a worker should make
// of it.
type Vector struct {
	// ID names the vector, Provider who gave the answer.
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

// Expect is what a worker should make of a [Vector].
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

// Vectors returns all recorded answers in the order of their ids. The slice is
// the caller's own.
func Vectors() ([]Vector, error) {
	var all []Vector
	if err := json.Unmarshal(providersJSON, &all); err != nil {
		return nil, fmt.Errorf("read providers.json: %w", err)
	}
	return all, nil
}

// FindVector returns the recorded answer of that id.
func FindVector(id string) (Vector, error) {
	all, err := Vectors()
	if err != nil {
		return Vector{}, err
	}
	for _, v := range all {
		if v.ID == id {
			return v, nil
		}
	}
	return Vector{}, fmt.Errorf("no recorded answer has the id %q", id)
}

// Reply returns the reply that plays the recorded answer, byte for byte.
func (v Vector) Reply() Reply {
	r := Reply{Status: v.Status, Body: []byte(v.Body), Header: map[string]string{"Content-Type": v.contentType()}}
	maps.Copy(r.Header, v.Headers)
	if v.Cut != nil {
		r.Fault = CutAfter
	}
	return r
}

// contentType guesses what the recording left out.
func (v Vector) contentType() string {
	for name, value := range v.Headers {
		if strings.EqualFold(name, "Content-Type") {
			return value
		}
	}
	switch body := strings.TrimSpace(v.Body); {
	case v.Stream:
		return "text/event-stream"
	case strings.HasPrefix(body, "<"):
		return "text/html"
	case body == "" || strings.HasPrefix(body, "{") || strings.HasPrefix(body, "["):
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}
