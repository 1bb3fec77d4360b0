package config

import (
	"encoding/json"
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
	for i, item := range split(text, sep) {
		name, value, found := strings.Cut(item, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !found:
			return nil, flawed(mend, "header %d has no colon", i+1)
		case !httpguts.ValidHeaderFieldName(name):
			return nil, flawed(mend, "header %d has a name that is not allowed", i+1)
		case !httpguts.ValidHeaderFieldValue(value):
			return nil, flawed(mend, "the value of header %s has a character that is not allowed", name)
		}
		for other := range h {
			if strings.EqualFold(other, name) {
				return nil, flawed("name it once", "header %s is there twice", name)
			}
		}
		h[name] = value
	}
	return h, nil
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
	for rest := strings.TrimLeft(text, "; \t\r\n"); rest != ""; rest = strings.TrimLeft(rest, "; \t\r\n") {
		name, after, found := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.Contains(name, ";") {
			return nil, flawed(mend, "field %d is not a pair", len(m)+1)
		}
		if _, twice := m[name]; twice {
			return nil, flawed("name it once", "the field %s is there twice", quoted(name))
		}
		if name == "model" {
			return nil, flawed("use MODEL or MODELS", "the model is not set here")
		}
		m[name], rest = cutValue(after)
	}
	return m, nil
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
