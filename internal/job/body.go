package job

import "encoding/json"

// bare reads a job that is nothing but a request body; its url follows from the
// field it has.
func (j *Job) bare(payload []byte, v value) error {
	has, err := j.takeBody(v)
	switch {
	case !has.any:
		return invalid("body", "is required, or messages, prompt or input of a bare request")
	case has.messages:
		j.URL = URLChat
	case has.prompt:
		j.URL = URLCompletions
	case has.input:
		j.URL = URLEmbeddings
	}
	if err != nil {
		return err
	}
	j.Body = json.RawMessage(payload)
	return has.check(j.URL, v)
}

// readBody takes from the request body what a worker must know. The rest is the
// provider's business.
func (j *Job) readBody(v value) error {
	if err := v.mustBe("an object"); err != nil {
		return err
	}
	has, err := j.takeBody(v)
	if err != nil {
		return err
	}
	j.Body = json.RawMessage(v.raw)
	return has.check(j.URL, v)
}

// takeBody walks the request body once. Of a repeated field the last counts, as
// it does for the providers. An error is the first there is.
func (j *Job) takeBody(v value) (has content, err error) {
	for w := walk(v.raw); w.next(); {
		w.skip()
		switch string(w.name) {
		case "model", "stream":
			if err == nil {
				name := string(w.name)
				err = j.bodyField(name, v.at(name, v.raw[w.value:w.end:w.end]))
			}
		default:
			has.note(w.name, value{raw: v.raw[w.value:w.end]})
		}
	}
	return has, err
}

func (j *Job) bodyField(name string, v value) (err error) {
	switch {
	case name == "model" && v.null():
		j.Model = ""
	case name == "model":
		j.Model, err = v.text(len(v.raw))
	case v.null():
		j.Stream = false
	default:
		j.Stream, err = v.boolean()
	}
	return err
}

// content tells which of the fields that can hold the question are in a request
// body and not null; any, whether one is there at all.
type content struct{ any, messages, prompt, input bool }

// note takes down that there is a field name; one of another name is none of these.
func (c *content) note(name []byte, v value) {
	switch string(name) {
	case "messages":
		c.any, c.messages = true, !v.null()
	case "prompt":
		c.any, c.prompt = true, !v.null()
	case "input":
		c.any, c.input = true, !v.null()
	}
}

// of reports whether there is the field without which a request to url makes no
// sense, and names that field.
func (c content) of(url string) (name string, has bool) {
	switch url {
	case URLCompletions:
		return "prompt", c.prompt
	case URLEmbeddings:
		return "input", c.input
	}
	return "messages", c.messages
}

// check returns a *[FieldError] unless the request body v has what url needs.
func (c content) check(url string, v value) error {
	need, has := c.of(url)
	if has {
		return nil
	}
	for _, other := range []string{URLChat, URLCompletions, URLEmbeddings} {
		if name, has := c.of(other); has {
			return invalid(v.at(need, nil).path, "is required by url %s; with %s it is %s", url, name, other)
		}
	}
	return invalid(v.at(need, nil).path, "is required by url %s", url)
}
