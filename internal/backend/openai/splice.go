package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// modelKey is the one field of a request that every call replaces.
const modelKey = "model"

// errNotObject means that a request body is not one JSON object.
var errNotObject = errors.New("the body is not a JSON object")

// edits says what to change in the top level of a JSON object.
type edits struct {
	// set holds the value a field gets, by name.
	set map[string][]byte
	// drop holds the names of the fields to remove. It beats set.
	drop map[string]bool
}

// member is one member of a JSON object, as offsets into its text.
type member struct {
	key                  string
	start, value, finish int
}

// splice applies edits to a JSON object and keeps everything else byte for byte:
// the order, white space, escapes and numbers of what it does not touch. A field
// that is set and occurs more than once, in whatever spelling, is set at its
// first place and removed from the others; a missing one is added at the end.
// A value that already says the same is left as it is spelled. The
// members of body are those of [topLevel]. It is linear in the size of body.
func splice(body []byte, members []member, e edits) []byte {
	out := make([]byte, 0, len(body)+64)
	seen := make(map[string]bool)
	first := true
	for i, m := range members {
		value, isSet := e.set[m.key]
		if e.drop[m.key] || isSet && seen[m.key] {
			continue
		}
		seen[m.key] = true
		if first {
			out = append(out, body[:openingEnd(members, body)]...)
		} else { // what stood between this member and the one before it: the comma
			out = append(out, body[members[i-1].finish:m.start]...)
		}
		first = false
		out = append(out, body[m.start:m.value]...)
		if old := body[m.value:m.finish]; !isSet || sameString(old, value) {
			value = old
		}
		out = append(out, value...)
	}
	tail := openingEnd(nil, body)
	if len(members) > 0 {
		tail = members[len(members)-1].finish
	}
	if first {
		out = append(out, body[:openingEnd(members, body)]...)
	}
	for _, name := range slices.Sorted(maps.Keys(e.set)) {
		if seen[name] || e.drop[name] {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(append(out, quote(name)...), ':'), e.set[name]...)
	}
	return append(out, body[tail:]...)
}

// openingEnd is where the text before the first member ends.
func openingEnd(members []member, body []byte) int {
	if len(members) > 0 {
		return members[0].start
	}
	return bytes.IndexByte(body, '{') + 1
}

// topLevel returns the members of a JSON object, in order. It returns
// [errNotObject] for anything else, also for invalid JSON.
func topLevel(body []byte) ([]member, error) {
	// The check bounds the nesting, and lets the scanner below trust the text.
	if !json.Valid(body) {
		return nil, errNotObject
	}
	i := skipSpace(body, 0)
	if body[i] != '{' {
		return nil, errNotObject
	}
	var members []member
	for i = skipSpace(body, i+1); body[i] != '}'; i = skipSpace(body, i) {
		if body[i] == ',' {
			i = skipSpace(body, i+1)
		}
		m := member{start: i}
		i = stringEnd(body, i)
		key, err := unquote(body[m.start:i])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotObject, err)
		}
		m.key = key
		m.value = skipSpace(body, skipSpace(body, i)+1) // past the colon
		i = valueEnd(body, m.value)
		m.finish = i
		members = append(members, m)
	}
	return members, nil
}

// valueEnd returns where the JSON value that begins at i ends. The text is valid.
func valueEnd(body []byte, i int) int {
	depth := 0
	for i < len(body) {
		switch body[i] {
		case '"':
			i = stringEnd(body, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// stringEnd returns the offset after the closing quote of the string at i.
func stringEnd(body []byte, i int) int {
	for i++; i < len(body) && body[i] != '"'; i++ {
		if body[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func skipSpace(body []byte, i int) int {
	for i < len(body) && (body[i] == ' ' || body[i] == '\t' || body[i] == '\n' || body[i] == '\r') {
		i++
	}
	return i
}

// sameString reports whether two JSON texts are the same string.
func sameString(a, b []byte) bool {
	if len(a) == 0 || a[0] != '"' || len(b) == 0 || b[0] != '"' {
		return bytes.Equal(a, b)
	}
	x, errA := unquote(a)
	y, errB := unquote(b)
	return errA == nil && errB == nil && x == y
}

// unquote returns a JSON string's content as encoding/json sees it.
func unquote(text []byte) (string, error) {
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return string(text[1 : len(text)-1]), nil
	}
	var s string
	err := json.Unmarshal(text, &s)
	return s, err
}

// quote returns s as a JSON string, without the escapes that only HTML needs.
func quote(s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return []byte(`""`) // a string always encodes
	}
	return bytes.TrimRight(buf.Bytes(), "\n")
}
