package job

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"
	"math/bits"
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
	if valid(text, maxDepth) {
		return nil
	}
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return invalid(field, "is empty")
	case deeper(text, maxDepth):
		return invalid(field, "is nested deeper than %d levels", maxDepth)
	case !utf8.Valid(text):
		return invalid(field, "is not valid UTF-8")
	}
	var raw json.RawMessage
	if syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &raw)); ok {
		return invalid(field, "is not valid JSON: see byte %d of %d", syntax.Offset, len(text))
	}
	return invalid(field, "is not valid JSON")
}

// wellFormed reports whether text can be embedded in a message as it is.
func wellFormed(text []byte) bool { return valid(text, MaxDepth) }

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

func (m *member) is(name string) bool { return string(m.name) == name }

// members walks the members of an object in order, repeated names included. The
// text must be valid JSON; there are none when it is no object.
func members(text []byte) iter.Seq[member] {
	return func(yield func(member) bool) {
		for w := walk(text); w.next(); {
			w.skip()
			if !yield(w.member) {
				return
			}
		}
	}
}

// walker steps through an object as [members] does, and finds the end of a value
// only when it is told to skip it, as it must be before the next step.
type walker struct {
	text []byte
	at   int // where to look for the next name
	member
}

func walk(text []byte) walker {
	i := skipSpace(text, 0)
	if i == len(text) || text[i] != '{' {
		return walker{}
	}
	return walker{text: text, at: i + 1}
}

// next goes on to the next name and to where its value begins.
func (w *walker) next() bool {
	w.start = skipSpace(w.text, w.at)
	if w.start >= len(w.text) || w.text[w.start] != '"' {
		return false
	}
	end := endOfString(w.text, w.start)
	w.name = unescaped(w.text[w.start:end])
	w.loose = skipSpace(w.text, end) + 1 // behind the colon
	w.value = skipSpace(w.text, w.loose)
	return true
}

// skip goes behind the value.
func (w *walker) skip() {
	w.end = endOfValue(w.text, w.value)
	w.looseEnd = skipSpace(w.text, w.end)
	w.at = w.looseEnd + 1 // behind the comma or the end of the object
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
	for i < len(text) && text[i] <= ' ' && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// endOfString is the offset behind the string that begins at i. It looks at the
// quotes only: one ends the string unless it has an odd number of backslashes
// before it. Many strings are shorter than the search for one is worth.
func endOfString(text []byte, i int) int {
	if i+9 <= len(text) {
		if found := special(binary.LittleEndian.Uint64(text[i+1:])); found != 0 {
			if end := i + 1 + bits.TrailingZeros64(found)/8; text[end] == '"' {
				return end + 1
			}
		}
	}
	for from := i + 1; from < len(text); {
		next := bytes.IndexByte(text[from:], '"')
		if next < 0 {
			return len(text)
		}
		quote := from + next
		slash := quote
		for slash > from && text[slash-1] == '\\' {
			slash--
		}
		if from = quote + 1; (quote-slash)%2 == 0 {
			return from
		}
	}
	return len(text)
}

// endOfValue is the offset behind the value that begins at i.
func endOfValue(text []byte, i int) int {
	for level := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			if i = endOfString(text, i); level == 0 {
				return i
			}
			i--
		case '{', '[':
			level++
		case '}', ']':
			if level--; level <= 0 {
				return i + 1
			}
		default:
			if level == 0 {
				return endOfWord(text, i)
			}
		}
	}
	return len(text)
}

// endOfWord is the offset behind the number, true, false or null that begins at i.
func endOfWord(text []byte, i int) int {
	for i < len(text) && strings.IndexByte(",:]} \t\n\r", text[i]) < 0 {
		i++
	}
	return i
}

// unescaped is the text of a quoted name; without escapes nothing is copied.
func unescaped(quoted []byte) []byte {
	if plain := endOfPlain(quoted, 1); plain == len(quoted)-1 || bytes.IndexByte(quoted[plain:], '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // cannot happen in valid JSON
	}
	return []byte(s)
}
