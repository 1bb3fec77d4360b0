package openai

import (
	"strconv"
	"strings"
)

// jsonSize is how big a JSON text is.
type jsonSize struct {
	// values counts the values and the names of members.
	values int
	// depth is how deep lists and objects nest.
	depth int
}

// measure returns the size of a valid JSON text, without decoding it, and
// whether all its numbers are short, see [maxDigits].
func measure(text string) (jsonSize, bool) {
	var s jsonSize
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '{', '[':
			s.values++
			depth++
			s.depth = max(s.depth, depth)
		case '}', ']':
			depth--
		case ' ', '\t', '\r', '\n', ',', ':':
		case '"':
			s.values++
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		default:
			s.values++
			end := i + 1
			for end < len(text) && !strings.ContainsRune(" \t\r\n,:]}", rune(text[end])) {
				end++
			}
			if !short(text[i:end]) {
				return s, false
			}
			i = end - 1
		}
	}
	return s, true
}

// short reports whether a number, or another word, has at most maxDigits
// digits when it is written out.
func short(word string) bool {
	if len(word) > maxDigits {
		return false
	}
	e := strings.IndexAny(word, "eE")
	if e < 0 || word[0] > '9' {
		return true
	}
	exponent, err := strconv.Atoi(word[e+1:])
	return err == nil && max(exponent, -exponent) <= maxDigits
}

// addresses returns how long the JSON pointers of all values in v are together,
// given the length of its own, and how many of them have an id.
func addresses(v any, pointer int) (paths, ids int) {
	paths = pointer
	each := func(name string, child any) {
		p, i := addresses(child, pointer+1+len(name))
		paths, ids = paths+p, ids+i
	}
	switch v := v.(type) {
	case []any:
		for i, child := range v {
			each(strconv.Itoa(i), child)
		}
	case map[string]any:
		for name, child := range v {
			if _, text := child.(string); text && (name == "$id" || name == "id") {
				ids++
			}
			each(name, child)
		}
	}
	return paths, ids
}

// countValues returns how many values v is made of.
func countValues(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, child := range v {
			n += countValues(child)
		}
	case map[string]any:
		for _, child := range v {
			n += countValues(child)
		}
	}
	return n
}
