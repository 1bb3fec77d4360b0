package job

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxQuoted is how much of a publisher's own field name an error message quotes.
const maxQuoted = 64

// value is a JSON value of a job and the path that leads to it. Its readers
// return a *[FieldError] that names the path and never quotes the value.
type value struct {
	path string
	raw  []byte // valid JSON without space around it
}

// kind is what v is, with an article, for messages.
func (v value) kind() string {
	switch v.raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

func (v value) null() bool { return v.raw[0] == 'n' }

func (v value) mustBe(kind string) error {
	if have := v.kind(); have != kind {
		return invalid(v.path, "must be %s, not %s", kind, have)
	}
	return nil
}

// at is the value raw of the member name of v.
func (v value) at(name string, raw []byte) value {
	if v.path == "" {
		return value{printable(name), raw}
	}
	return value{v.path + "." + printable(name), raw}
}

// text reads a string of at most limit bytes.
func (v value) text(limit int) (string, error) {
	if err := v.mustBe("a string"); err != nil {
		return "", err
	}
	s, err := unquoted(v.raw)
	if err != nil {
		return "", invalid(v.path, "is no valid string")
	}
	if len(s) > limit {
		return "", invalid(v.path, "has %d bytes; at most %d", len(s), limit)
	}
	return s, nil
}

// unquoted is the text of a string; most have no escapes.
func unquoted(quoted []byte) (s string, err error) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	err = json.Unmarshal(quoted, &s)
	return s, err
}

// name reads the name of a route or a backend.
func (v value) name() (string, error) {
	s, err := v.text(math.MaxInt)
	if err != nil {
		return "", err
	}
	if err := checkToken(s); err != nil {
		return "", invalid(v.path, "%v", err)
	}
	return s, nil
}

// words reads a string of 1 to limit bytes.
func (v value) words(limit int) (string, error) {
	s, err := v.text(limit)
	if err == nil && strings.TrimSpace(s) == "" {
		return "", invalid(v.path, "is empty")
	}
	return s, err
}

func (v value) boolean() (bool, error) {
	return v.raw[0] == 't', v.mustBe("a boolean")
}

// number reads a number from low to high.
func (v value) number(low, high float64) (float64, error) {
	if err := v.mustBe("a number"); err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(v.raw), 64)
	if err != nil || f < low || f > high {
		return 0, v.outside(low, high)
	}
	return f, nil
}

// integer reads a whole number from low to high, also when it is written as 6e4
// or 60000.0.
func (v value) integer(low, high int64) (int64, error) {
	f, err := v.number(float64(low), float64(high))
	if err != nil {
		return 0, err
	}
	if f != math.Trunc(f) {
		return 0, invalid(v.path, "must be a whole number")
	}
	return int64(f), nil
}

func (v value) outside(low, high float64) error {
	if high == math.MaxFloat64 {
		return invalid(v.path, "must be %s or more", plainNumber(low))
	}
	return invalid(v.path, "must be between %s and %s", plainNumber(low), plainNumber(high))
}

func plainNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// list calls each for every element of an array of at most limit.
func (v value) list(limit int, each func(value) error) error {
	if err := v.mustBe("an array"); err != nil {
		return err
	}
	n := 0
	for raw := range elements(v.raw) {
		if n == limit {
			return invalid(v.path, "has more than %d entries", limit)
		}
		if err := each(value{v.path + "[" + strconv.Itoa(n) + "]", raw}); err != nil {
			return err
		}
		n++
	}
	return nil
}

// object calls each for every member of an object of at most limit, and refuses
// a name that is repeated. Names that are in known need no copy.
func (v value) object(limit int, known []string, each func(name string, v value) error) error {
	if err := v.mustBe("an object"); err != nil {
		return err
	}
	seen := make([]string, 0, 16) // a few are found faster than in a map; limit is never above 100
	for m := range members(v.raw) {
		name := nameIn(known, m.name)
		field := v.at(name, v.raw[m.value:m.end:m.end])
		if slices.Contains(seen, name) {
			return invalid(field.path, "is given twice")
		}
		if len(seen) == limit {
			return invalid(v.path, "has more than %d entries", limit)
		}
		seen = append(seen, name)
		if err := each(name, field); err != nil {
			return err
		}
	}
	return nil
}

// nameIn is name as a string, without a copy when known has it.
func nameIn(known []string, name []byte) string {
	for _, s := range known {
		if string(name) == s {
			return s
		}
	}
	return string(name)
}

// printable is name as an error message may quote it: without anything that
// does not print, and cut.
func printable(name string) string {
	if name != "" && len(name) <= maxQuoted && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
		return name
	}
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, name)
	if clean == "" {
		return `""`
	}
	if len(clean) <= maxQuoted {
		return clean
	}
	cut := maxQuoted
	for !utf8.RuneStart(clean[cut]) {
		cut--
	}
	return clean[:cut] + "…"
}

// oneOf reads a string that is one of a few.
func (v value) oneOf(choices ...string) (string, error) {
	for _, choice := range choices { // as they are spelt by almost everyone
		if len(v.raw) == len(choice)+2 && v.raw[0] == '"' && string(v.raw[1:len(v.raw)-1]) == choice {
			return choice, nil
		}
	}
	s, err := v.text(len(v.raw))
	if err == nil && !slices.Contains(choices, s) {
		return "", invalid(v.path, "must be %s", strings.Join(choices, ", "))
	}
	return s, err
}

// time reads an RFC 3339 time that is in the four-digit years since 1970, in UTC.
func (v value) time() (t time.Time, err error) {
	s, err := v.text(len(v.raw))
	if err != nil {
		return t, err
	}
	if !strictTime(s) || t.UnmarshalText([]byte(s)) != nil {
		return t, invalid(v.path, "must be a time as in RFC 3339, such as 2026-12-01T00:00:00Z")
	}
	if t = t.UTC(); t.Year() < 1970 || t.Year() > 9999 {
		return t, invalid(v.path, "must be between the years 1970 and 9999")
	}
	return t, nil
}

// strictTime refuses what package time lets pass though RFC 3339 does not: one
// digit for the hour, a comma before the fraction, and offsets of a day or more.
func strictTime(s string) bool {
	const least = len("2006-01-02T15:04:05Z")
	if len(s) < least || s[13] != ':' || s[19] == ',' {
		return false
	}
	offset := len(s) - len("-07:00")
	return s[len(s)-1] == 'Z' || s[offset+1:offset+3] < "24" && s[offset+4:] < "60"
}

// names reads an array of at most limit names of backends.
func (v value) names(limit int) ([]string, error) {
	names := []string{}
	err := v.list(limit, func(entry value) error {
		name, err := entry.name()
		names = append(names, name)
		return err
	})
	return names, err
}

// strings reads an array of at most limit strings of 1 to size bytes.
func (v value) strings(limit, size int) ([]string, error) {
	list := []string{}
	err := v.list(limit, func(entry value) error {
		s, err := entry.words(size)
		list = append(list, s)
		return err
	})
	return list, err
}
