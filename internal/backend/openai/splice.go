package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// modelKey is the one field of a request that every call replaces.
const modelKey = "model"

// errNotObject means that a request body is not one JSON object.
var errNotObject = errors.New("the body is not a JSON object")

// edit says what to do with one top-level field of a JSON object.
type edit struct {
	name string
	// value is what the field gets; nil means that it is removed.
	value []byte
	// seen tells that the field was met.
	seen bool
}

// edits says what to change in the top level of a JSON object, sorted by name.
type edits []edit

// compareName compares an edit's name, for a search.
func compareName(e edit, name string) int { return strings.Compare(e.name, name) }

// newEdits returns the edits that set and drop fields. To drop beats to set.
func newEdits[T ~[]byte](set map[string]T, drop []string) edits {
	var e edits
	for _, name := range drop {
		e = e.with(name, nil)
	}
	for name, value := range set {
		e = e.with(name, value)
	}
	return e
}

// with returns e with one more edit, unless it has one of that name.
func (e edits) with(name string, value []byte) edits {
	i, known := slices.BinarySearchFunc(e, name, compareName)
	if known {
		return e
	}
	return slices.Insert(e, i, edit{name: name, value: value})
}

// of returns the edit of a field, nil when there is none.
func (e edits) of(key []byte) *edit {
	for i := range e {
		if e[i].name == string(key) {
			return &e[i]
		}
	}
	return nil
}

// change reports whether there is anything to do in an object with such members,
// and how many bytes that adds to it at most.
func (e edits) change(body []byte, members []member) (bool, int) {
	changed, more := false, 0
	for i := range e {
		e[i].seen = false
	}
	for _, m := range members {
		if e := e.of(m.key); e != nil {
			changed = changed || e.seen || e.value == nil || !sameString(body[m.value:m.finish], e.value)
			e.seen = true
		}
	}
	for i := range e {
		changed = changed || !e[i].seen && e[i].value != nil
		more += len(e[i].name) + len(e[i].value) + len(`"":,`)
		e[i].seen = false
	}
	return changed, more
}

// member is one member of a JSON object, as offsets into its text.
type member struct {
	key                  []byte
	start, value, finish int
}

// splice applies edits to a JSON object and keeps everything else byte for byte:
// the order, white space, escapes and numbers of what it does not touch. A field
// that is set and occurs more than once, in whatever spelling, is set at its
// first place and removed from the others; a missing one is added at the end.
// A value that already says the same is left as it is spelled. The
// members of body are those of [topLevel]. It is linear in the size of body.
//
// When nothing changes the result is body itself. The edits are marked on the way:
// they belong to the caller.
func splice(body []byte, members []member, e edits) []byte {
	changed, more := e.change(body, members)
	if !changed {
		return body
	}
	out := make([]byte, 0, len(body)+more)
	first := true
	for i, m := range members {
		to := e.of(m.key)
		if to != nil && (to.value == nil || to.seen) {
			continue
		}
		if first {
			out = append(out, body[:members[0].start]...)
		} else { // what stood between this member and the one before it: the comma
			out = append(out, body[members[i-1].finish:m.start]...)
		}
		first = false
		value := body[m.value:m.finish]
		out = append(out, body[m.start:m.value]...)
		if to != nil {
			to.seen = true
			if !sameString(value, to.value) {
				value = to.value
			}
		}
		out = append(out, value...)
	}
	if first {
		out = append(out, body[:openingEnd(members, body)]...)
	}
	out = e.missing(out, first)
	tail := openingEnd(nil, body)
	if len(members) > 0 {
		tail = members[len(members)-1].finish
	}
	return append(out, body[tail:]...)
}

// missing appends the fields that were not seen to out; first tells that they are
// the first ones of the object.
func (e edits) missing(out []byte, first bool) []byte {
	for _, to := range e {
		if to.seen || to.value == nil {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(appendQuote(out, to.name), ':'), to.value...)
	}
	return out
}

// openingEnd is where the text before the first member ends.
func openingEnd(members []member, body []byte) int {
	if len(members) > 0 {
		return members[0].start
	}
	return bytes.IndexByte(body, '{') + 1
}

// topLevel appends the members of a JSON object to members, in order. It returns
// [errNotObject] for anything else, also for invalid JSON.
func topLevel(members []member, body []byte) ([]member, error) {
	s := scan{text: body}
	if found, ok := s.members(members); ok {
		return found, nil
	}
	return deepTopLevel(members, body)
}

// trustedTopLevel is topLevel of a body that is known to be JSON. It need not notice
// what is wrong in others.
func trustedTopLevel(members []member, body []byte) ([]member, error) {
	s := scan{text: body, trusted: true}
	if found, ok := s.members(members); ok {
		return found, nil
	}
	return deepTopLevel(members, body)
}

// members appends the members of the object that is all of the text to found.
func (s *scan) members(found []member) (all []member, ok bool) {
	for s.open('{'); s.more('}'); {
		s.next()
		m := member{start: s.at}
		name := s.quoted()
		if s.take(':'); s.bad {
			break
		}
		s.next()
		m.key, m.value = plainKey(name), s.at
		s.skip()
		m.finish = s.at
		found = append(found, m)
	}
	return found, s.end()
}

// deepTopLevel is topLevel for what [scan] does not read.
func deepTopLevel(members []member, body []byte) ([]member, error) {
	// The check bounds the nesting, and lets the scanner below trust the text.
	if !json.Valid(body) {
		return nil, errNotObject
	}
	i := skipSpace(body, 0)
	if body[i] != '{' {
		return nil, errNotObject
	}
	for i = skipSpace(body, i+1); body[i] != '}'; i = skipSpace(body, i) {
		if body[i] == ',' {
			i = skipSpace(body, i+1)
		}
		m := member{start: i}
		i = stringEnd(body, i)
		m.key = plainKey(body[m.start:i])
		m.value = skipSpace(body, skipSpace(body, i)+1) // past the colon
		i = valueEnd(body, m.value)
		m.finish = i
		members = append(members, m)
	}
	return members, nil
}

// plainKey returns the content of a name as encoding/json sees it.
func plainKey(quoted []byte) []byte {
	if isPlain(quoted) {
		return quoted[1 : len(quoted)-1]
	}
	return []byte(str(quoted))
}

// isPlain reports whether a string is spelled as what it says: it has neither
// escapes nor anything but ASCII.
func isPlain(quoted []byte) bool {
	for _, c := range quoted {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
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

// sameString reports whether two JSON texts are the same, or the same string.
func sameString(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if len(a) == 0 || a[0] != '"' || len(b) == 0 || b[0] != '"' || isPlain(a) && isPlain(b) {
		return false
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
	err := json.Unmarshal(bytes.Clone(text), &s) // of a copy, so that text may be on the stack
	return s, err
}

// quote returns s as a JSON string, without the escapes that only HTML needs.
func quote(s string) []byte { return appendQuote(nil, s) }

// appendQuote appends quote of s to to.
func appendQuote(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil {
				return append(to, `""`...) // a string always encodes
			}
			return append(to, bytes.TrimRight(buf.Bytes(), "\n")...)
		}
	}
	return append(append(append(slices.Grow(to, len(s)+2), '"'), s...), '"')
}
