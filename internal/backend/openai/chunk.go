package openai

import (
	"bytes"
	"strings"
)

// growth is what most chunks of a stream do: they add text to a choice, and say
// again what those before them have said.
type growth struct {
	choice *choice
	texts  [4]piece
	n      int
}

// piece is a text as it is spelled, and where it belongs.
type piece struct {
	to   *strings.Builder
	text []byte
}

// quick takes a chunk that only lets texts grow, without taking it apart. It
// reports whether it did that; if not, nothing has happened, and the chunk is for
// [assembly.add], which would do the same. A token is what add takes for one.
func (a *assembly) quick(data []byte) (token, ok bool) {
	s := scan{text: data}
	var g growth
	for s.open('{'); s.more('}'); {
		switch key := s.key(); string(key) {
		case "choices":
			s.bad = s.bad || g.choice != nil
			g.choices(&s, a)
		case "error", "type":
			value := s.value()
			s.bad = s.bad || !isNull(value)
		case "object":
			value := string(s.value())
			s.bad = s.bad || value != `"chat.completion.chunk"` && (value != `"text_completion"` || !a.legacy)
		default:
			s.known(&a.fields, key)
		}
	}
	if !s.end() || g.choice == nil {
		return false, false
	}
	return g.apply(), true
}

// choices takes a list of one choice.
func (g *growth) choices(s *scan, a *assembly) {
	n := 0
	for s.open('['); s.more(']'); n++ {
		if n > 0 {
			s.bad = true
			return
		}
		g.one(s, a)
	}
}

// one takes a choice. Where there is only one so far it is expected to be that,
// wherever its index stands.
func (g *growth) one(s *scan, a *assembly) {
	if len(a.order) == 1 {
		g.choice = a.order[0]
	}
	said, grown := false, false // its index, its delta
	for s.open('{'); s.more('}'); {
		key := s.key()
		if string(key) == "index" {
			n := smallNumber(s.value())
			c := a.choices[n]
			if n < 0 { // no number, which is no choice's
				c = nil
			}
			if g.choice == nil {
				g.choice = c
			}
			s.bad = s.bad || said || c == nil || c != g.choice
			said = true
			continue
		}
		if s.bad = s.bad || g.choice == nil; s.bad {
			return
		}
		switch string(key) {
		case "delta":
			s.bad = s.bad || grown // of two, the last one counts
			grown = true
			g.delta(s)
		case "text":
			g.grow(s, g.choice.text)
		case "finish_reason", "logprobs", "message":
			value := s.value()
			s.bad = s.bad || string(key) == "message" || !isNull(value)
		default:
			s.known(&g.choice.fields, key)
		}
	}
	s.bad = s.bad || g.choice == nil || !said && g.choice.index != 0
}

func (g *growth) delta(s *scan) {
	m := &g.choice.delta
	for s.open('{'); s.more('}'); {
		key := s.key()
		switch first := s.next(); {
		case first == 'n':
			s.skip()
			s.bad = s.bad || g.grows(m.texts[string(key)]) // the last one of a name counts
		case first == '"' && grows(string(key)):
			g.grow(s, m.texts[string(key)])
		case first == '[' || isPart(string(key)):
			s.bad = true
		default:
			s.known(&m.fields, key)
		}
	}
}

// isPart reports whether a member of a delta of that name grows otherwise than by
// its texts.
func isPart(name string) bool {
	return name == "tool_calls" || name == "function_call" || name == "audio"
}

// grow takes a string that is more of a text, each of which grows once.
func (g *growth) grow(s *scan, to *strings.Builder) {
	text := s.quoted()
	if s.bad = s.bad || to == nil || g.n == len(g.texts) || g.grows(to); !s.bad {
		g.texts[g.n] = piece{to: to, text: text}
		g.n++
	}
}

// grows reports whether a text grows already.
func (g *growth) grows(to *strings.Builder) bool {
	for i := range g.n {
		if to != nil && g.texts[i].to == to {
			return true
		}
	}
	return false
}

// apply lets the texts grow, and reports whether they do.
func (g *growth) apply() bool {
	grown := false
	for _, p := range g.texts[:g.n] {
		if inside := p.text[1 : len(p.text)-1]; plainText(inside) {
			p.to.Write(inside)
		} else {
			p.to.WriteString(str(p.text))
		}
		grown = grown || len(p.text) > len(`""`)
	}
	return grown
}

// known passes over a value that changes nothing of what f has under that name.
func (s *scan) known(f *fields, name []byte) {
	value := s.value()
	old, has := f.values[string(name)]
	s.bad = s.bad || !isNull(value) && (!has || !isZero(value) && !bytes.Equal(value, old))
}

// smallNumber returns a number of one to four digits, -1 for anything else.
func smallNumber(value []byte) int {
	if len(value) == 0 || len(value) > 4 {
		return -1
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}
