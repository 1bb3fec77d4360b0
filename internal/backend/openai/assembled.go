package openai

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// body returns the answer so far in its non-streaming form.
func (a *assembly) body() []byte {
	object, text := "chat.completion", a.legacy
	choices := slices.Clone(a.order)
	slices.SortStableFunc(choices, func(x, y *choice) int { return cmp.Compare(x.index, y.index) })
	var list []json.RawMessage
	for _, c := range choices {
		list = append(list, c.object())
		text = text || c.text != nil
	}
	if text {
		object = "text_completion"
	}
	var out fields
	known := []string{"id", "object", "created", "model", "choices", "usage"}
	for _, name := range known {
		switch {
		case name == "object":
			out.set(name, quote(object))
		case name == "choices":
			out.set(name, array(list))
		case a.fields.has(name):
			out.set(name, a.fields.values[name])
		}
	}
	for _, name := range a.fields.order {
		if !slices.Contains(known, name) {
			out.set(name, a.fields.values[name])
		}
	}
	return out.object()
}

// object returns the choice in its non-streaming form.
func (c *choice) object() json.RawMessage {
	var out fields
	out.set("index", json.RawMessage(strconv.Itoa(c.index)))
	if c.text != nil {
		out.set("text", quote(c.text.String()))
	} else {
		out.set("message", c.delta.object())
	}
	if c.logprobs != nil {
		out.set("logprobs", c.logprobs.object())
	}
	if !c.fields.has("finish_reason") {
		out.set("finish_reason", json.RawMessage("null"))
	}
	for _, name := range c.fields.order {
		out.set(name, c.fields.values[name])
	}
	return out.object()
}

// object returns the message in its non-streaming form: a role always, and the
// content or null.
func (m *message) object() json.RawMessage {
	var out fields
	out.set("role", json.RawMessage(`"assistant"`))
	out.set("content", json.RawMessage("null"))
	for _, name := range m.names() {
		value := m.value(name)
		// A stream opens with empty texts what without streaming has no text.
		if string(value) == `""` && (name != "content" || len(m.order)+len(m.parts) > 0) {
			continue
		}
		out.set(name, value)
	}
	for _, name := range slices.Sorted(maps.Keys(m.parts)) {
		out.set(name, m.parts[name].object())
	}
	if len(m.order) > 0 {
		tools := slices.Clone(m.order)
		slices.SortStableFunc(tools, func(x, y *toolCall) int { return cmp.Compare(x.index, y.index) })
		var list []json.RawMessage
		for _, t := range tools {
			list = append(list, t.object())
		}
		out.set("tool_calls", array(list))
	}
	return out.object()
}

// object returns the tool call with its arguments joined.
func (t *toolCall) object() json.RawMessage {
	var out fields
	if id, ok := t.fields.values["id"]; ok {
		out.set("id", id)
	}
	out.set("type", json.RawMessage(`"function"`))
	for _, name := range t.fields.order {
		out.set(name, t.fields.values[name])
	}
	if len(t.function.names()) > 0 {
		out.set("function", t.function.object())
	}
	return out.object()
}

// names returns the names of the members in a fixed order.
func (p *part) names() []string {
	names := slices.Concat(p.fields.order, slices.Sorted(maps.Keys(p.texts)), slices.Sorted(maps.Keys(p.lists)))
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		again := seen[name]
		seen[name] = true
		return again
	})
}

// value returns one member: the text, the list or the last value.
func (p *part) value(name string) json.RawMessage {
	if text, ok := p.texts[name]; ok {
		return quote(text.String())
	}
	if list, ok := p.lists[name]; ok {
		return slices.Concat([]byte("["), list.Bytes(), []byte("]"))
	}
	return p.fields.values[name]
}

// object returns the part as a JSON object.
func (p *part) object() json.RawMessage {
	var out fields
	for _, name := range p.names() {
		out.set(name, p.value(name))
	}
	return out.object()
}

// array returns a JSON list.
func array(items []json.RawMessage) json.RawMessage {
	return slices.Concat([]byte("["), bytes.Join(asBytes(items), []byte(",")), []byte("]"))
}

func asBytes(items []json.RawMessage) [][]byte {
	out := make([][]byte, len(items))
	for i, item := range items {
		out[i] = item
	}
	return out
}

// sortedKeys keeps what comes out of a map the same every time.
func sortedKeys(m map[string]json.RawMessage) []string { return slices.Sorted(maps.Keys(m)) }

// isNull reports whether a value is null or missing.
func isNull(value json.RawMessage) bool {
	return len(value) == 0 || string(value) == "null"
}

// isZero reports whether a value is the empty string or 0, which some providers
// send where they have nothing to say.
func isZero(value json.RawMessage) bool {
	return string(value) == `""` || string(value) == "0"
}

// str returns a JSON string's content, "" for anything else.
func str(value json.RawMessage) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if n := len(value) - 1; plainText(value[1:n]) && value[n] == '"' {
		return string(value[1:n])
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// plainText reports whether text is the inside of a JSON string that says what it
// spells: visible ASCII and spaces, without escapes.
func plainText(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// number returns a JSON number as an int, 0 for anything else.
func number(value json.RawMessage) int {
	var n int
	if len(value) == 0 || json.Unmarshal(value, &n) != nil {
		return 0
	}
	return n
}
