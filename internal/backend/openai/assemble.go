package openai

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// maxChoices bounds the choices and the tool calls of one streamed answer: their
// indexes come from the provider.
const maxChoices = 1024

// assembly puts the chunks of a stream together into the answer that the same
// call would have given without streaming. Fields it does not know survive: of
// an answer, a choice and a delta the last value wins, lists of a delta are
// joined. All of it is linear in the size of the stream.
type assembly struct {
	fields  fields
	order   []*choice
	choices map[int]*choice
	legacy  bool // text completions
	// overflow tells that there were more than maxChoices of something.
	overflow bool
}

// choice is one choice of a streamed answer so far.
type choice struct {
	index  int
	fields fields
	// text is that of a text completion; delta is the message of a chat.
	text     *strings.Builder
	delta    message
	logprobs *part
	// finished tells that a finish reason has come.
	finished bool
}

// message is a chat message that grows by deltas.
type message struct {
	part
	// parts are its members that grow themselves: audio and function_call.
	parts map[string]*part
	order []*toolCall
	tools map[int]*toolCall
}

// toolCall is one tool call so far.
type toolCall struct {
	index    int
	fields   fields
	function part
}

// add takes one chunk. It reports whether the chunk held a token.
func (a *assembly) add(chunk map[string]json.RawMessage) bool {
	token := false
	var choices []map[string]json.RawMessage
	_ = json.Unmarshal(chunk["choices"], &choices) // no list means no choices
	for _, c := range choices {
		if a.addChoice(c) {
			token = true
		}
	}
	for _, name := range sortedKeys(chunk) {
		switch value := chunk[name]; {
		case name == "choices", isNull(value):
		case name == "object":
			a.legacy = a.legacy || strings.HasPrefix(str(value), "text_completion")
		default:
			a.fields.update(name, value)
		}
	}
	return token
}

// addChoice takes one choice of a chunk.
func (a *assembly) addChoice(raw map[string]json.RawMessage) bool {
	c := a.choice(number(raw["index"]))
	if c == nil {
		return false
	}
	token := false
	for _, name := range sortedKeys(raw) {
		value := raw[name]
		if isNull(value) {
			continue
		}
		switch name {
		case "index", "message":
		case "delta":
			token = a.addDelta(&c.delta, value) || token
		case "text":
			if c.text == nil {
				c.text = new(strings.Builder)
			}
			text := str(value)
			c.text.WriteString(text)
			token = token || text != ""
		case "finish_reason":
			c.finished = c.finished || str(value) != ""
			c.fields.update(name, value)
		case "logprobs":
			if c.logprobs == nil {
				c.logprobs = new(part)
			}
			c.logprobs.addObject(value)
		default:
			c.fields.update(name, value)
		}
	}
	if whole, ok := raw["message"]; ok && isNull(raw["delta"]) && c.delta.empty() {
		token = a.addDelta(&c.delta, whole) || token // a provider that sends no deltas
	}
	return token
}

// choice returns the choice of that index, nil when there are too many.
func (a *assembly) choice(index int) *choice {
	if c, ok := a.choices[index]; ok {
		return c
	}
	if len(a.order) >= maxChoices {
		a.overflow = true
		return nil
	}
	if a.choices == nil {
		a.choices = make(map[int]*choice)
	}
	c := &choice{index: index}
	a.choices[index] = c
	a.order = append(a.order, c)
	return c
}

// finished returns how many choices have a finish reason, of how many.
func (a *assembly) finished() (done, all int) {
	for _, c := range a.order {
		if c.finished {
			done++
		}
	}
	return done, len(a.order)
}

// failure returns the error that stands in a choice, nil when there is none.
func (a *assembly) failure() json.RawMessage {
	for _, c := range a.order {
		if failed(c.fields.values) {
			return slices.Concat([]byte(`{"error":`), orNull(c.fields.values["error"]), []byte("}"))
		}
	}
	return nil
}

// addDelta adds one delta to m and reports whether it held a token.
func (a *assembly) addDelta(m *message, raw json.RawMessage) bool {
	var delta map[string]json.RawMessage
	if json.Unmarshal(raw, &delta) != nil {
		return false
	}
	token := false
	for _, name := range sortedKeys(delta) {
		switch value := delta[name]; {
		case isNull(value):
		case name == "tool_calls":
			var calls []map[string]json.RawMessage
			_ = json.Unmarshal(value, &calls)
			for _, call := range calls {
				a.addTool(m, call)
			}
			token = token || len(calls) > 0
		case name == "function_call", name == "audio":
			token = m.grow(name).addObject(value) || token
		default:
			token = m.add(name, value) || token
		}
	}
	return token
}

// addTool adds a piece of a tool call. Pieces without an index belong to the
// call of their id, or else to the one before them.
func (a *assembly) addTool(m *message, raw map[string]json.RawMessage) {
	index := len(m.order)
	if _, ok := raw["index"]; ok {
		index = number(raw["index"])
	} else if id := str(raw["id"]); len(m.order) > 0 {
		if last := m.order[len(m.order)-1]; id == "" || id == str(last.fields.values["id"]) {
			index = last.index
		}
	}
	t, ok := m.tools[index]
	if !ok {
		if len(m.order) >= maxChoices {
			a.overflow = true
			return
		}
		if m.tools == nil {
			m.tools = make(map[int]*toolCall)
		}
		t = &toolCall{index: index}
		m.tools[index] = t
		m.order = append(m.order, t)
	}
	for _, name := range sortedKeys(raw) {
		switch value := raw[name]; {
		case name == "index", isNull(value):
		case name == "function":
			t.function.addObject(value)
		default:
			t.fields.update(name, value)
		}
	}
}

func (m *message) empty() bool {
	return len(m.order) == 0 && len(m.parts) == 0 && len(m.names()) == 0
}

// grow returns the member of m of that name, an object that grows itself.
func (m *message) grow(name string) *part {
	if m.parts == nil {
		m.parts = make(map[string]*part)
	}
	if m.parts[name] == nil {
		m.parts[name] = new(part)
	}
	return m.parts[name]
}

// part is a JSON object that comes in pieces: texts and lists are joined, of
// everything else the last value wins.
type part struct {
	fields fields
	texts  map[string]*strings.Builder
	lists  map[string]*bytes.Buffer
}

// addObject adds every member of an object.
func (p *part) addObject(raw json.RawMessage) bool {
	var piece map[string]json.RawMessage
	if json.Unmarshal(raw, &piece) != nil {
		return false
	}
	token := false
	for _, name := range sortedKeys(piece) {
		if value := piece[name]; !isNull(value) {
			token = p.add(name, value) || token
		}
	}
	return token
}

// add adds one member and reports whether it held a token.
func (p *part) add(name string, value json.RawMessage) bool {
	switch {
	case value[0] == '"' && grows(name):
		if p.texts == nil {
			p.texts = make(map[string]*strings.Builder)
		}
		if p.texts[name] == nil {
			p.texts[name] = new(strings.Builder)
		}
		text := str(value)
		p.texts[name].WriteString(text)
		return text != ""
	case value[0] == '[':
		items := bytes.TrimSpace(value[1 : len(value)-1])
		if p.lists == nil {
			p.lists = make(map[string]*bytes.Buffer)
		}
		if p.lists[name] == nil {
			p.lists[name] = new(bytes.Buffer)
		}
		if p.lists[name].Len() > 0 && len(items) > 0 {
			p.lists[name].WriteByte(',')
		}
		p.lists[name].Write(items)
		return len(items) > 0
	}
	p.fields.update(name, value)
	return false
}

// grows reports whether the strings of that name are pieces of one.
func grows(name string) bool {
	switch name {
	case "content", "reasoning", "reasoning_content", "thinking", "refusal", "arguments", "data", "transcript":
		return true
	}
	return false
}

// fields are the members of a JSON object in the order they first came.
type fields struct {
	order  []string
	values map[string]json.RawMessage
}

func (f *fields) has(name string) bool { _, ok := f.values[name]; return ok }

// update sets a value, unless it is one that says nothing and there is another.
func (f *fields) update(name string, value json.RawMessage) {
	if !f.has(name) || !isZero(value) {
		f.set(name, value)
	}
}

// set copies value: it may point into a buffer that is used again.
func (f *fields) set(name string, value json.RawMessage) {
	if f.values == nil {
		f.values = make(map[string]json.RawMessage)
	}
	if !f.has(name) {
		f.order = append(f.order, name)
	}
	f.values[name] = bytes.Clone(value)
}

// object returns the fields as a JSON object.
func (f *fields) object() json.RawMessage {
	out := []byte{'{'}
	for i, name := range f.order {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, quote(name)...), ':'), f.values[name]...)
	}
	return append(out, '}')
}
