package openai

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"understudy/internal/job"
)

// quick reads an answer in one pass, without taking it apart, and reports whether
// it is accepted. It does nothing else: what fails or is unusual is left to
// [careful], which would come to the same result.
func (a *answer) quick(url string, header http.Header, body []byte) bool {
	s := scan{text: body}
	t := top{embeddings: url == job.URLEmbeddings}
	s.top(&t)
	if !s.end() || !t.accepted || t.feedback || saysError(t.failure, t.kind, t.object) {
		return false
	}
	a.id, a.model = str(t.id), str(t.model)
	a.usage, a.cost = t.usage.read(header)
	return true
}

// top is what counts of an answer: its members as they are spelled, nil for those
// that it does not have. Of a name that comes twice the last one counts.
type top struct {
	id, model, failure, kind, object []byte
	usage                            counts
	feedback                         bool
	// accepted tells that the first choice is acceptable, or every embedding,
	// where it is those that were asked for.
	accepted, embeddings bool
}

func (s *scan) top(t *top) {
	for s.open('{'); s.more('}'); {
		switch string(s.key()) {
		case "id":
			t.id = s.value()
		case "model":
			t.model = s.value()
		case "error":
			t.failure = s.value()
		case "type":
			t.kind = s.value()
		case "object":
			t.object = s.value()
		case "usage":
			t.usage = counts{}
			s.counts(&t.usage)
		case "promptFeedback":
			t.feedback = true
			s.skip()
		case "choices":
			if t.embeddings {
				s.skip()
				continue
			}
			t.accepted = s.choices()
		case "data":
			if t.embeddings {
				t.accepted = s.embeddings()
				continue
			}
			s.skip()
		default:
			s.skip()
		}
	}
}

// choices reports whether the first choice of a list is acceptable.
func (s *scan) choices() bool {
	accepted := false
	n := 0
	for s.open('['); s.more(']'); n++ {
		if n == 0 {
			accepted = s.choice()
			continue
		}
		s.bad = s.bad || s.next() != '{'
		s.skip()
	}
	return accepted
}

// choice reports whether a choice is acceptable.
func (s *scan) choice() bool {
	var c choiceParts
	for s.open('{'); s.more('}'); {
		switch string(s.key()) {
		case "finish_reason":
			c.finish = s.value()
		case "native_finish_reason":
			c.native = s.value()
		case "error":
			c.failure = s.value()
		case "type":
			c.kind = s.value()
		case "object":
			c.object = s.value()
		case "text":
			c.text = s.value()
		case "message":
			c.message, c.hasMessage = messageParts{}, s.next() == '{'
			if !c.hasMessage {
				s.skip()
				continue
			}
			s.message(&c.message)
		default:
			s.skip()
		}
	}
	return !s.bad && !saysError(c.failure, c.kind, c.object) && c.acceptable()
}

func (s *scan) message(m *messageParts) {
	for s.open('{'); s.more('}'); {
		switch string(s.key()) {
		case "content":
			m.texts[0] = s.value()
		case "refusal":
			m.texts[1] = s.value()
		case "tool_calls":
			m.others[0] = s.value()
		case "function_call":
			m.others[1] = s.value()
		case "audio":
			m.others[2] = s.value()
		case "images":
			m.others[3] = s.value()
		default:
			s.skip()
		}
	}
}

// embeddings reports whether a list has embeddings, and none that is empty.
func (s *scan) embeddings() bool {
	const name = "embedding"
	full := false
	for s.open('['); s.more(']'); {
		var vector []byte
		for s.open('{'); s.more('}'); {
			switch key := s.key(); {
			case string(key) == name:
				s.bad = s.bad || vector != nil
				vector = s.value()
			case len(key) == len(name) && strings.EqualFold(string(key), name):
				s.bad = true // another spelling, which encoding/json takes for the same
			default:
				s.skip()
			}
		}
		s.bad = s.bad || emptyVector(vector)
		full = true
	}
	return full
}

// counts are the members of a usage that count, as they are spelled.
type counts struct{ cost, estimated, prompt, input, completion, output []byte }

func (s *scan) counts(u *counts) {
	if s.next() != '{' {
		s.skip()
		return
	}
	for s.open('{'); s.more('}'); {
		switch string(s.key()) {
		case "cost":
			u.cost = s.value()
		case "estimated_cost":
			u.estimated = s.value()
		case "prompt_tokens":
			u.prompt = s.value()
		case "input_tokens":
			u.input = s.value()
		case "completion_tokens":
			u.completion = s.value()
		case "output_tokens":
			u.output = s.value()
		default:
			s.skip()
		}
	}
}

// read returns what was counted and what it cost, as [usageOf] has it.
func (u *counts) read(header http.Header) (*job.Usage, *float64) {
	var cost *float64
	f, ok := firstNumber(u.cost, u.estimated)
	if told := header.Get("X-Litellm-Response-Cost"); !ok && told != "" {
		var err error
		f, err = strconv.ParseFloat(told, 64)
		ok = err == nil && usable(f)
	}
	if ok {
		cost = new(float64)
		*cost = f
	}
	in, hasIn := firstNumber(u.prompt, u.input)
	out, hasOut := firstNumber(u.completion, u.output)
	if !hasIn && !hasOut {
		return nil, cost
	}
	return &job.Usage{InputTokens: int64(in), OutputTokens: int64(out)}, cost
}

// firstNumber returns the first of the values that is a usable number.
func firstNumber(values ...[]byte) (float64, bool) {
	for _, value := range values {
		if len(value) == 0 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
			continue
		}
		if f, err := strconv.ParseFloat(string(value), 64); err == nil && usable(f) {
			return f, true
		}
	}
	return 0, false
}

// blank reports whether a JSON string holds nothing but white space, and whether
// its first characters told.
func blank(text []byte) (isBlank, told bool) {
	for i := 1; i < len(text)-1; i++ {
		switch c := text[i]; {
		case c == ' ':
		case c == '\\' && strings.IndexByte("nrt", text[i+1]) >= 0:
			i++
		case c == '\\' && strings.IndexByte(`"\/`, text[i+1]) >= 0:
			return false, true
		case c == '\\' || c >= utf8.RuneSelf:
			return false, false
		default:
			return false, true
		}
	}
	return true, true
}
