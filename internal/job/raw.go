package job

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
)

// RawBody returns a provider's answer as it stands in a result: b itself when it
// is JSON in UTF-8 and at most [MaxDepth] levels deep, otherwise a JSON string
// of it, in which bytes that are not UTF-8 are lost.
func RawBody(b []byte) json.RawMessage {
	if wellFormed(b) {
		return b
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(b)); err != nil {
		return json.RawMessage(`""`) // cannot happen to a string
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// checked remembers which raw JSON was found to be fit for a message. It knows that
// by its place in memory, so that one which was put into the same field later is
// another. The zero value knows none.
type checked struct{ raw json.RawMessage }

func (c *checked) set(raw json.RawMessage) { c.raw = raw }

func (c *checked) is(raw json.RawMessage) bool {
	return len(raw) > 0 && len(raw) == len(c.raw) && &raw[0] == &c.raw[0]
}

// RawJob returns the payload of a job message as it stands in a dead letter:
// payload itself when that is JSON in UTF-8 and at most [MaxDepth] levels deep,
// otherwise {"base64": "…"}. A payload that looks like the latter, or like the
// {"object": "…", "bytes": n} that stands for a payload in the object store, is
// wrapped too, so that [DeadLetter.Payload] always gets back what was published.
func RawJob(payload []byte) json.RawMessage {
	if wellFormed(payload) && !has(payload, "base64") && !has(payload, "object", "bytes") {
		return payload
	}
	return encode(map[string]string{"base64": base64.StdEncoding.EncodeToString(payload)})
}

// Payload returns the payload of the job message as it was published. The error
// is a *[FieldError]; there is none for what [RawJob] made. A payload that is in
// the object store is an error, because this package cannot get it from there.
func (d *DeadLetter) Payload() ([]byte, error) {
	if err := checkText("job", d.Job); err != nil {
		return nil, err
	}
	switch {
	case has(d.Job, "object", "bytes"):
		return nil, invalid("job", "is kept in the object store")
	case !has(d.Job, "base64"):
		return d.Job, nil
	}
	v := value{path: "job.base64"}
	for m := range members(d.Job) {
		v.raw = d.Job[m.value:m.end]
	}
	text, err := v.text(len(v.raw))
	if err != nil {
		return nil, err
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, invalid("job.base64", "is not valid base64")
	}
	return payload, nil
}

// has reports whether text is an object with exactly these members, in any order.
func has(text []byte, names ...string) bool {
	n := 0
	for m := range members(text) {
		if n++; n > len(names) || !slices.Contains(names, string(m.name)) {
			return false
		}
	}
	return n == len(names)
}
