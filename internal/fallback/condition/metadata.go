package condition

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// cut returns at most maxText bytes of text, whole characters.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// decode returns metadata as an expression sees it: nil where there is none,
// where it is longer than maxMetadata and where it is no JSON. A whole number is
// an int, so that a big one keeps its digits; every text is cut.
func decode(metadata json.RawMessage) any {
	if len(metadata) == 0 || len(metadata) > maxMetadata {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(metadata))
	decoder.UseNumber()
	var v any
	if decoder.Decode(&v) != nil {
		return nil
	}
	return plain(v)
}

// plain replaces the numbers and the texts of v.
func plain(v any) any {
	switch v := v.(type) {
	case string:
		return cut(v)
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = plain(v[name])
		}
	}
	return v
}

// number returns an int, or else a float64, which is infinite where it would
// not fit.
func number(text string) any {
	if i, err := strconv.Atoi(text); err == nil {
		return i
	}
	f, _ := strconv.ParseFloat(text, 64)
	return f
}
