package llmtest

import (
	"maps"

	"understudy/internal/backend/openai/recorded"
)

// Vector is a recorded answer of a real provider and what a worker should make
// of it.
type Vector recorded.Answer

// Vectors returns all recorded answers in the order of their ids. The slice is
// the caller's own.
func Vectors() ([]Vector, error) {
	all, err := recorded.Answers()
	vectors := make([]Vector, len(all))
	for i, a := range all {
		vectors[i] = Vector(a)
	}
	return vectors, err
}

// FindVector returns the recorded answer of that id.
func FindVector(id string) (Vector, error) {
	a, err := recorded.Find(id)
	return Vector(a), err
}

// Reply returns the reply that plays the recorded answer, byte for byte.
func (v Vector) Reply() Reply {
	r := Reply{Status: v.Status, Body: []byte(v.Body), Header: map[string]string{"Content-Type": recorded.Answer(v).ContentType()}}
	maps.Copy(r.Header, v.Headers)
	if v.Cut != nil {
		r.Fault = CutAfter
	}
	return r
}
