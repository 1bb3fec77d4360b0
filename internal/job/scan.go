package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep JSON may be nested that travels in a job, a result or a
// dead letter. It is far above any real request and far below the 10000 levels
// at which encoding/json gives up, so that what is wrapped once more can still
// be read.
const MaxDepth = 1000

// checkText returns a *[FieldError] about field unless text is JSON that can be
// carried as it is: UTF-8, one value, at most [MaxDepth] levels deep. What it
// says tells where the text is wrong but never quotes it.
func checkText(field string, text []byte) error { return checkDeepText(field, text, MaxDepth) }

func checkDeepText(field string, text []byte, maxDepth int) error {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return invalid(field, "is empty")
	case deeper(text, maxDepth):
		return invalid(field, "is nested deeper than %d levels", maxDepth)
	case !utf8.Valid(text):
		return invalid(field, "is not valid UTF-8")
	case json.Valid(text):
		return nil
	}
	var raw json.RawMessage
	if syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &raw)); ok {
		return invalid(field, "is not valid JSON: see byte %d of %d", syntax.Offset, len(text))
	}
	return invalid(field, "is not valid JSON")
}

// wellFormed reports whether text can be embedded in a message as it is.
func wellFormed(text []byte) bool { return checkText("", text) == nil }

// deeper reports whether brackets outside strings are nested deeper than limit.
// The text need not be valid.
func deeper(text []byte, limit int) bool {
	level := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = endOfString(text, i) - 1
		case '{', '[':
			if level++; level > limit {
				return true
			}
		case '}', ']':
			level--
		}
	}
	return false
}

// member is one name and value of a JSON object, by their place in its text.
type member struct {
	name []byte // unescaped
	// start is where the quoted name begins; the value is [value, end). The space
	// around the value, which JSON ignores, is [loose, looseEnd).
	start, value, end, loose, looseEnd int
}

func (m member) is(name string) bool { return string(m.name) == name }

// members walks the members of an object in order, repeated names included. The
// text must be valid JSON; there are none when it is no object.
func members(text []byte) iter.Seq[member] {
	return func(yield func(member) bool) {
		i := skipSpace(text, 0)
		if i >= len(text) || text[i] != '{' {
			return
		}
		for i = skipSpace(text, i+1); i < len(text) && text[i] == '"'; i = skipSpace(text, i+1) {
			m := member{start: i}
			i = endOfString(text, i)
			m.name = unescaped(text[m.start:i])
			m.loose = skipSpace(text, i) + 1 // behind the colon
			m.value = skipSpace(text, m.loose)
			m.end = endOfValue(text, m.value)
			m.looseEnd = skipSpace(text, m.end)
			i = m.looseEnd // the comma, or the end of the object
			if !yield(m) {
				return
			}
		}
	}
}

// elements walks the elements of an array in order. The text must be valid JSON;
// there are none when it is no array.
func elements(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i := skipSpace(text, 0)
		if i >= len(text) || text[i] != '[' {
			return
		}
		for i = skipSpace(text, i+1); i < len(text) && text[i] != ']'; i = skipSpace(text, i+1) {
			end := endOfValue(text, i)
			if !yield(text[i:end:end]) {
				return
			}
			if i = skipSpace(text, end); i >= len(text) || text[i] == ']' {
				return
			}
		}
	}
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r') {
		i++
	}
	return i
}

// endOfString is the offset behind the string that begins at i.
func endOfString(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// endOfValue is the offset behind the value that begins at i.
func endOfValue(text []byte, i int) int {
	for level := 0; i < len(text); {
		switch text[i] {
		case '"':
			i = endOfString(text, i)
		case '{', '[':
			level++
			i++
		case '}', ']':
			level--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
		default:
			for i < len(text) && strings.IndexByte(",:]} \t\n\r", text[i]) < 0 {
				i++
			}
		}
		if level <= 0 {
			return i
		}
	}
	return len(text)
}

// unescaped is the text of a quoted name; without escapes nothing is copied.
func unescaped(quoted []byte) []byte {
	if !bytes.ContainsRune(quoted, '\\') {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // cannot happen in valid JSON
	}
	return []byte(s)
}
