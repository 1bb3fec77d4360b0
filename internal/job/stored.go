package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

// Limits of the messages that are read back. They keep what a stranger can put
// into our streams from costing many times its size in memory.
const (
	// MaxMessage is the longest result, event or dead letter, in bytes; the NATS
	// server has the same limit.
	MaxMessage = 64 << 20
	// MaxTrail is how many attempts may be in one message.
	MaxTrail = 10000
)

// storedDepth leaves room for the levels that wrap what is at most MaxDepth deep.
const storedDepth = MaxDepth + 10

// DecodeResult reads a result. Fields it does not know are ignored, so that
// an old reader gets on with a new worker. The error is a *[FieldError]. Parts of
// the result may be parts of data, which must not be changed.
func DecodeResult(data []byte) (*Result, error) {
	r := new(Result)
	if err := decodeStored("result", data, r); err != nil {
		return nil, err
	}
	if !slices.Contains([]Status{Succeeded, Failed, Expired, Cancelled}, r.Status) {
		return nil, invalid("result.status", "must be succeeded, failed, expired, cancelled")
	}
	if r.Response != nil {
		r.Response.Body = asWritten(asWritten(data, "response", nil), "body", r.Response.Body)
	}
	r.Metadata = asWritten(data, "metadata", r.Metadata)
	return r, nil
}

// DecodeEvent reads an event as [DecodeResult] does a result. What is in its
// Data is read by [Event.DataAs]. An event of a type it does not know is no
// error.
func DecodeEvent(data []byte) (*Event, error) {
	e := new(Event)
	if err := decodeStored("event", data, e); err != nil {
		return nil, err
	}
	if e.Type == "" {
		return nil, invalid("event.type", "is required")
	}
	return e, nil
}

// DataAs reads the event's Data into v, a pointer to the struct that belongs to
// the event's Type. The error is a *[FieldError].
func (e *Event) DataAs(v any) error { return decodeStored("data", e.Data, v) }

// DecodeDeadLetter reads a dead letter as [DecodeResult] does a result.
func DecodeDeadLetter(data []byte) (*DeadLetter, error) {
	d := new(DeadLetter)
	if err := decodeStored("dead letter", data, d); err != nil {
		return nil, err
	}
	if d.ID == "" || d.Queue == "" {
		return nil, invalid("dead letter", "has no id or no queue")
	}
	d.Job = asWritten(data, "job", d.Job)
	return d, nil
}

// decodeStored reads the object data into v. What names data in errors.
func decodeStored(what string, data []byte, v any) error {
	if len(data) > MaxMessage {
		return invalid(what, "has %d bytes; at most %d", len(data), MaxMessage)
	}
	if err := checkDeepText(what, data, storedDepth); err != nil {
		return err
	}
	if err := (value{what, data[skipSpace(data, 0):]}).mustBe("an object"); err != nil {
		return err
	}
	for m := range members(data) {
		// encoding/json matches names in any case, so this must too.
		counted := bytes.EqualFold(m.name, []byte("attempts")) || bytes.EqualFold(m.name, []byte("headers"))
		if counted && entries(data[m.value:m.end]) > MaxTrail {
			return invalid(what+"."+string(m.name), "has more than %d entries", MaxTrail)
		}
	}
	if err := json.Unmarshal(data, v); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return invalid(what+"."+wrong.Field, "has the wrong type")
		}
		return invalid(what, "cannot be read: a field has the wrong form")
	}
	return nil
}

// entries counts the elements of an array or the members of an object.
func entries(text []byte) int {
	n := 0
	for range elements(text) {
		n++
	}
	for range members(text) {
		n++
	}
	return n
}

// asWritten is the value of the last member called name in the object text, or raw
// when there is none, with the space around it: that space belongs to a value which was embedded as it was.
func asWritten(text []byte, name string, raw []byte) []byte {
	for m := range members(text) {
		if m.is(name) {
			raw = text[m.loose:m.looseEnd:m.looseEnd]
		}
	}
	return raw
}
