package backend

import (
	"bytes"
	"sync"
)

const (
	bytesPerToken    = 4       // what common tokenizers take for English text
	tokensPerMessage = 4       // role and separators
	tokensPerMedia   = 1000    // an image or a sound, whatever its size
	smallMedia       = 1024    // a "data" value up to this is taken for text
	maxEstimate      = 1 << 40 // no sum of estimates overflows
)

// Estimate is how many tokens a call may take, before it is made.
type Estimate struct {
	// Input is the estimated number of tokens of the prompt.
	Input int64
	// Output is the most the answer may have: what the request allows, times the
	// number of choices it asks for. It is 0 when the request does not say.
	Output int64
	// Media tells that there are images or sounds in it, whose size in tokens is
	// anybody's guess.
	Media bool
}

// Measure keeps the estimate of a request, so that its body is read once however
// many ask, and not at all when nobody does. The zero value is ready for use by
// one request and its copies, also at the same time. It must not be copied.
type Measure struct {
	once     sync.Once
	estimate Estimate
}

// Keep lets r, and the copies that are made of it from now on, keep their
// estimate in m.
func (r *Request) Keep(m *Measure) { r.measure = m }

// Estimate guesses from the body how many tokens the call may take, without a
// tokenizer: four bytes of text are a token, and an image or a sound is a
// thousand. Of a body that is no JSON object, a quarter of the length is the
// input. It reads the body once, allocates nothing, and never fails. See
// [Request.Keep] for requests that are asked more than once.
func (r *Request) Estimate() Estimate {
	m := r.measure
	if m == nil {
		return r.estimate()
	}
	m.once.Do(func() { m.estimate = r.estimate() })
	return m.estimate
}

func (r *Request) estimate() Estimate {
	s := scanner{body: r.Body, choices: 1}
	if !s.object() {
		return Estimate{Input: quarter(int64(len(r.Body)))}
	}
	return Estimate{
		Input:  quarter(s.text) + s.tokens,
		Output: min(max(s.output, s.completion)*max(s.choices, 1), maxEstimate),
		Media:  s.media,
	}
}

// quarter turns bytes of text into tokens, rounded up.
func quarter(n int64) int64 { return (n + bytesPerToken - 1) / bytesPerToken }

// section is a part of the request that the scanner looks into. The set is closed.
type section int

const (
	other    section = iota // nothing that the model reads
	messages                // a list of objects
	prompt                  // texts, or numbers that are tokens
	tools                   // descriptions, of which the names count too
)

// scanner reads the body byte by byte. A string is a key when a colon follows,
// so nothing has to be kept of the levels above but their number. A key with
// escapes in it is not recognised.
type scanner struct {
	body    []byte
	at      int
	depth   int
	section section
	top     []byte // the key at top level whose value is read
	key     []byte // the key whose value is read

	text, tokens                int64
	output, completion, choices int64
	media                       bool
}

// object reads the body and reports whether it is an object, as far as that can
// be told from its brackets and strings.
func (s *scanner) object() bool {
	if s.space(); s.at >= len(s.body) || s.body[s.at] != '{' {
		return false
	}
	for s.at < len(s.body) {
		switch c := s.body[s.at]; c {
		case '{', '[':
			if c == '{' && s.depth == 2 && s.section == messages {
				s.tokens += tokensPerMessage
			}
			s.depth++
			s.at++
		case '}', ']':
			s.depth--
			s.at++
			if s.depth == 0 {
				s.space()
				return s.at == len(s.body)
			}
		case '"':
			if !s.str() {
				return false
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			s.number()
		default:
			s.at++
		}
	}
	return false
}

// space skips white space.
func (s *scanner) space() {
	for s.at < len(s.body) && (s.body[s.at] == ' ' || s.body[s.at] == '\n' || s.body[s.at] == '\r' || s.body[s.at] == '\t') {
		s.at++
	}
}

// str reads a string, which is a key or a value. It reports whether it has an end.
func (s *scanner) str() bool {
	s.at++
	begin, escaped, end := s.at, int64(0), -1
	for {
		if end < s.at { // each byte is looked at once, however many escapes there are
			next := bytes.IndexByte(s.body[s.at:], '"')
			if next < 0 {
				return false
			}
			end = s.at + next
		}
		back := bytes.IndexByte(s.body[s.at:end], '\\')
		if back < 0 {
			s.at = end
			break
		}
		s.at += back + 2 // an escaped quote is no end
		if s.at > len(s.body) {
			return false
		}
		escaped++
		if s.body[s.at-1] == 'u' {
			escaped += 2 // six bytes, for about three
		}
	}
	raw := s.body[begin:s.at]
	s.at++
	s.space()
	if s.at < len(s.body) && s.body[s.at] == ':' {
		s.at++
		s.name(raw)
		return true
	}
	if s.section != other {
		s.value(raw, int64(len(raw))-escaped)
	}
	return true
}

// name takes a key.
func (s *scanner) name(key []byte) {
	s.key = key
	if s.depth > 1 {
		if s.section == tools {
			s.text += int64(len(key))
		}
		return
	}
	s.top = key
	switch string(key) {
	case "messages":
		s.section = messages
	case "prompt", "input", "instructions":
		s.section = prompt
	case "tools", "functions":
		s.section = tools
	default:
		s.section = other
	}
}

// value takes a string that the model reads, of which n bytes are text.
func (s *scanner) value(raw []byte, n int64) {
	switch string(s.key) {
	case "role", "type":
	case "url", "image_url":
		s.tokens, s.media = s.tokens+tokensPerMedia, true
	case "data":
		if n > smallMedia {
			s.tokens, s.media = s.tokens+tokensPerMedia, true
			return
		}
		s.text += n
	default:
		if embedded(raw) {
			s.tokens, s.media = s.tokens+tokensPerMedia, true
			return
		}
		s.text += n
	}
}

// embedded reports whether a string is a data URL in base64.
func embedded(raw []byte) bool {
	return bytes.HasPrefix(raw, []byte("data:")) && bytes.Contains(raw[:min(len(raw), 128)], []byte(";base64,"))
}

// number reads a number: a setting at top level, a token inside a prompt.
func (s *scanner) number() {
	begin := s.at
	for s.at < len(s.body) {
		c := s.body[s.at]
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
		s.at++
	}
	if s.depth > 1 {
		if s.section == prompt {
			s.tokens++
		}
		return
	}
	n := whole(s.body[begin:s.at])
	switch string(s.top) {
	case "max_tokens":
		s.output = n
	case "max_completion_tokens":
		s.completion = n
	case "n":
		s.choices = min(n, 1<<20)
	}
}

// whole returns a positive whole number, at most 1<<40, and 0 of anything else.
func whole(digits []byte) int64 {
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0
		}
		n = min(n*10+int64(c-'0'), maxEstimate)
	}
	return n
}
