package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"understudy/internal/job"
)

// errNoJSON says that a job has no fields to set.
var errNoJSON = errors.New("the job is no JSON; give the whole with -f")

// setFields returns a job with some of its fields changed, all else byte for
// byte. Each assignment is name=json; the parts of a name are joined by dots, and
// a number is the place in a list. A bare request body becomes the body of an
// envelope where a field of that is to be set.
func setFields(payload []byte, assignments []string) ([]byte, error) {
	for _, assignment := range assignments {
		name, value, found := strings.Cut(assignment, "=")
		path := strings.Split(name, ".")
		switch {
		case !found || slices.Contains(path, ""):
			return nil, fmt.Errorf("-set %s: write name=json, such as body.model=\"x\"", oneLine(assignment, 60))
		case !json.Valid([]byte(value)):
			return nil, fmt.Errorf("-set %s: the value is no JSON; a text needs quotes: -set '%s=\"…\"'", oneLine(name, 60), oneLine(name, 60))
		}
		payload = enveloped(payload, path[0])
		changed, err := setField(payload, path, []byte(value))
		if err != nil {
			return nil, fmt.Errorf("-set %s: %w", oneLine(name, 60), err)
		}
		payload = changed
	}
	return payload, nil
}

// enveloped makes a bare request body the body of an envelope, if field is one
// that only an envelope has.
func enveloped(payload []byte, field string) []byte {
	var top map[string]json.RawMessage
	if json.Unmarshal(payload, &top) != nil || top["body"] != nil || !slices.Contains(envelopeOnly(), field) {
		return payload
	}
	url := ""
	switch { // as a worker reads a bare body
	case top["messages"] != nil:
	case top["prompt"] != nil:
		url = `"url":"` + job.URLCompletions + `",`
	case top["input"] != nil:
		url = `"url":"` + job.URLEmbeddings + `",`
	}
	return slices.Concat([]byte(`{`+url+`"body":`), payload, []byte(`}`))
}

// envelopeOnly are the fields of a job that mean something else, or nothing, in a
// request body.
func envelopeOnly() []string {
	return []string{
		"custom_id", "method", "url", "body", "route", "chain", "primary", "policy",
		"timeout_ms", "not_before", "deadline", "reply_to", "events_to", "metadata",
	}
}

// setField returns text, a JSON value, with the value at path replaced wherever
// it is, or added where it is not.
func setField(text []byte, path []string, value []byte) ([]byte, error) {
	if len(path) == 0 {
		return value, nil
	}
	if string(bytes.TrimSpace(text)) == "null" {
		text = []byte("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	first, err := dec.Token()
	if err != nil {
		return nil, errNoJSON
	}
	open, ok := first.(json.Delim)
	if !ok {
		return nil, fmt.Errorf("there is no field %q in what is no object", path[0])
	}
	var out bytes.Buffer
	copied, found, last := 0, false, int(dec.InputOffset())
	n := 0
	for ; dec.More(); n++ {
		name, start, end, err := nextMember(dec, open, n)
		if err != nil {
			return nil, err
		}
		last = end
		if name != path[0] {
			continue
		}
		inner, err := setField(text[start:end], path[1:], value)
		if err != nil {
			return nil, err
		}
		found = true
		out.Write(text[copied:start])
		out.Write(inner)
		copied = end
	}
	if !found {
		inner, err := newMember(open, path, value)
		if err != nil {
			return nil, err
		}
		out.Write(text[:last])
		if n > 0 {
			out.WriteByte(',')
		}
		out.Write(inner)
		copied = last
	}
	out.Write(text[copied:])
	return out.Bytes(), nil
}

// nextMember reads a member of an object or the nth element of a list, and
// returns its name and where its value is.
func nextMember(dec *json.Decoder, open json.Delim, n int) (name string, start, end int, err error) {
	name = strconv.Itoa(n)
	if open == '{' {
		token, err := dec.Token()
		text, ok := token.(string)
		if err != nil || !ok {
			return "", 0, 0, errNoJSON
		}
		name = text
	}
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
		return "", 0, 0, errNoJSON
	}
	end = int(dec.InputOffset())
	return name, end - len(raw), end, nil
}

// newMember is the text of the member that path names, with the objects in which
// it is.
func newMember(open json.Delim, path []string, value []byte) ([]byte, error) {
	if open == '[' {
		return nil, fmt.Errorf("there is no place %q in that list", path[0])
	}
	name, err := json.Marshal(path[0])
	if err != nil {
		return nil, fmt.Errorf("encode the name of the field: %w", err)
	}
	if len(path) > 1 {
		inner, err := newMember('{', path[1:], value)
		if err != nil {
			return nil, err
		}
		value = slices.Concat([]byte("{"), inner, []byte("}"))
	}
	return slices.Concat(name, []byte(":"), value), nil
}
