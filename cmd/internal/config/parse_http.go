package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"understudy/internal/backend/openai"
)

// The parsers of what changes a request. None of them quotes a value.
type (
	headers    struct{}
	setFields  struct{}
	dropFields struct{}
)

// The settings of what changes a request.
type (
	headersSetting = setting[openai.Headers, headers]
	fieldsSetting  = setting[map[string]json.RawMessage, setFields]
	dropSetting    = setting[[]string, dropFields]
)

// parse takes a text of several lines apart at the line breaks alone, so that
// values may hold semicolons.
func (headers) parse(text string) (openai.Headers, error) {
	const mend = "use Name: value, with semicolons or line breaks between"
	sep := ";"
	if strings.Contains(text, "\n") {
		sep = "\n"
	}
	h := make(openai.Headers)
	seen := make(map[string]int)
	torn := false
	var wrong []error
	for i, item := range split(text, sep) {
		name, value, found := strings.Cut(item, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found {
			wrong, torn = append(wrong, flawed(mend, "header %d has no colon", i+1)), true
			continue
		}
		valid := httpguts.ValidHeaderFieldName(name)
		if !valid {
			wrong, torn = append(wrong, flawed(mend, "header %d has a name that is not allowed", i+1)), true
		}
		called := name
		if torn { // the text may have come apart inside a value, and name be a part of it
			called = fmt.Sprint(i + 1)
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			wrong = append(wrong, flawed(mend, "the value of header %s has a character that is not allowed", called))
		}
		if !valid {
			continue
		}
		folded := strings.ToLower(name)
		if seen[folded]++; seen[folded] == 2 {
			wrong = append(wrong, flawed(once, "header %s is there twice", called))
		}
		h[name] = value
	}
	return faultless(h, wrong)
}

// show lists the names, as values may be credentials.
func (headers) show(h openai.Headers) string {
	list := make([]string, 0, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		list = append(list, name+": "+openai.Secret(h[name]).String())
	}
	return strings.Join(list, "; ")
}

func (setFields) parse(text string) (map[string]json.RawMessage, error) {
	const mend = "use field=json, with semicolons between"
	m := make(map[string]json.RawMessage)
	seen := make(map[string]int)
	torn := false
	var wrong []error
	rest := strings.TrimLeft(text, "; \t\r\n")
	for n := 1; rest != ""; n++ {
		name, after, found := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.Contains(name, ";") {
			wrong, torn = append(wrong, flawed(mend, "field %d is not a pair", n)), true
			_, rest, _ = strings.Cut(rest, ";")
			rest = strings.TrimLeft(rest, "; \t\r\n")
			continue
		}
		called := quoted(name)
		if torn { // the text may have come apart inside a value, and name be a part of it
			called = fmt.Sprint(n)
		}
		switch seen[name]++; {
		case name == "model" && seen[name] == 1:
			wrong = append(wrong, flawed("use MODEL or MODELS", "the model is not set here"))
		case name != "model" && seen[name] == 2:
			wrong = append(wrong, flawed(once, "the field %s is there twice", called))
		}
		m[name], rest = cutValue(after)
		rest = strings.TrimLeft(rest, "; \t\r\n")
	}
	return faultless(m, wrong)
}

// cutValue takes the value at the start of text, which goes up to a semicolon
// that is not inside the value: JSON, or a string without quotes.
func cutValue(text string) (value json.RawMessage, rest string) {
	decoder := json.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&value); err == nil {
		rest = strings.TrimLeft(text[decoder.InputOffset():], " \t\r\n")
		if rest == "" || rest[0] == ';' {
			return value, rest
		}
	}
	plain, rest, _ := strings.Cut(text, ";")
	value, err := json.Marshal(strings.TrimSpace(plain))
	if err != nil { // a string always encodes
		return json.RawMessage(`""`), rest
	}
	return value, rest
}

// show lists the names: some providers take credentials as fields.
func (setFields) show(m map[string]json.RawMessage) string {
	list := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, name+"=[set]")
	}
	return strings.Join(list, ";")
}

func (dropFields) parse(text string) ([]string, error) {
	list := split(text, ",")
	if slices.Contains(list, "model") {
		return nil, flawed("use MODEL or MODELS", "the model cannot be dropped")
	}
	return list, nil
}
