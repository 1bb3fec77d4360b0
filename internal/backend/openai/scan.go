package openai

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

// scan reads a JSON text from its beginning to its end, once. Unlike
// encoding/json it keeps nothing: its caller walks through the objects and lists
// it cares about, and passes over the other values, which are checked on the way.
//
// What it takes is JSON as [encoding/json.Valid] has it, but not all of that:
// bad is also set by what is only unusual, and then another reader has to decide.
// Once bad is set, every loop over members or elements ends.
type scan struct {
	text []byte
	at   int
	// trusted tells that the text was found to be JSON before: then nothing in its
	// strings is looked at but where they end.
	trusted bool
	// bad tells that the text is no JSON, or more than is read here.
	bad bool
	// begun tells that nothing of the innermost object or list was read yet.
	begun bool
	// depth is how deep the value nests that is being passed over. Of its levels
	// objects has a bit for each, the innermost lowest: 1 for an object.
	depth   int
	objects uint64
}

// maxNesting is how deep a value may nest that is passed over.
const maxNesting = 64

// isJSON is [encoding/json.Valid].
func isJSON(text []byte) bool {
	s := scan{text: text}
	s.skip()
	return s.end() || json.Valid(text)
}

// next returns the next byte that is no white space, without taking it; 0 at the end.
func (s *scan) next() byte {
	for ; s.at < len(s.text); s.at++ {
		if c := s.text[s.at]; c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
	}
	return 0
}

// take takes one byte, which has to be c.
func (s *scan) take(c byte) {
	if s.next() != c {
		s.bad = true
		return
	}
	s.at++
}

// open enters an object or a list. Everything in it has to be read, until more
// returns false.
func (s *scan) open(bracket byte) {
	s.take(bracket)
	s.begun = true
}

// more reports whether the object or list has one more member or element. It
// takes the comma before that, or the closing bracket.
func (s *scan) more(closing byte) bool {
	begun := s.begun
	s.begun = false
	switch c := s.next(); {
	case s.bad:
		return false
	case c == closing:
		s.at++
		return false
	case begun:
		return true
	}
	s.take(',')
	return !s.bad
}

// end reports whether the text is over, and was good.
func (s *scan) end() bool { return s.next() == 0 && s.at == len(s.text) && !s.bad }

// key takes the name of a member and the colon behind it. Names with escapes
// are unusual.
func (s *scan) key() []byte {
	name := s.quoted()
	if s.take(':'); s.bad || bytes.IndexByte(name, '\\') >= 0 {
		s.bad = true
		return nil
	}
	return name[1 : len(name)-1]
}

// quoted takes a string and returns it as it is spelled, with its quotes.
func (s *scan) quoted() []byte {
	if s.next() != '"' {
		s.bad = true
		return nil
	}
	begin := s.at
	s.string()
	return s.text[begin:s.at]
}

// value takes a value and returns it as it is spelled.
func (s *scan) value() []byte {
	s.next()
	begin := s.at
	s.skip()
	return s.text[begin:s.at:s.at]
}

// skip passes over one value.
func (s *scan) skip() {
	s.depth = 0
	for !s.bad {
		if s.enter() && !s.leave() {
			return
		}
	}
}

// enter takes the beginning of a value, and reports whether that was all of it.
func (s *scan) enter() bool {
	switch c := s.next(); c {
	case '{', '[':
		s.at++
		if s.next() == c+2 { // '}' or ']'
			s.at++
			return true
		}
		if s.depth++; s.depth > maxNesting {
			s.bad = true
			return false
		}
		s.objects <<= 1
		if c == '{' {
			s.objects |= 1
			s.name()
		}
		return false
	case '"':
		s.string()
	case 't':
		s.word("true")
	case 'f':
		s.word("false")
	case 'n':
		s.word("null")
	default:
		s.number()
	}
	return true
}

// leave takes what follows a value, and reports whether another one follows.
func (s *scan) leave() bool {
	for s.depth > 0 && !s.bad {
		closing := byte(']')
		if s.objects&1 != 0 {
			closing = '}'
		}
		switch s.next() {
		case ',':
			if s.at++; closing == '}' {
				s.name()
			}
			return true
		case closing:
			s.at++
			s.depth--
			s.objects >>= 1
		default:
			s.bad = true
		}
	}
	return false
}

// name passes over the name of a member and the colon behind it.
func (s *scan) name() {
	if s.next() != '"' {
		s.bad = true
		return
	}
	s.string()
	s.take(':')
}

// The bits of eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// string passes over a string, whose quote is the next byte. Most of them are
// long: eight bytes are looked at in one step for one that ends the string,
// escapes or is a control character. The bit of the first such byte is right;
// those of later ones need not be.
func (s *scan) string() {
	if s.trusted {
		s.trustedString()
		return
	}
	i := s.at + 1
	for {
		for i+8 <= len(s.text) {
			w := binary.LittleEndian.Uint64(s.text[i:])
			quotes, slashes := w^'"'*ones, w^'\\'*ones
			special := ((quotes-ones)&^quotes | (slashes-ones)&^slashes | (w-' '*ones)&^w) & highs
			if special != 0 {
				i += bits.TrailingZeros64(special) / 8
				break
			}
			i += 8
		}
		for i < len(s.text) && s.text[i] != '"' && s.text[i] != '\\' && s.text[i] >= ' ' {
			i++
		}
		if i >= len(s.text) || s.text[i] < ' ' {
			s.bad = true
			return
		}
		if s.text[i] == '"' {
			s.at = i + 1
			return
		}
		n := escapeLen(s.text[i:])
		if n == 0 {
			s.bad = true
			return
		}
		i += n
	}
}

// trustedString is string in a text that is known to be JSON: it ends at the first quote
// with an even number of backslashes before it.
func (s *scan) trustedString() {
	for i := s.at + 1; ; i++ {
		n := bytes.IndexByte(s.text[min(i, len(s.text)):], '"')
		if n < 0 {
			s.bad = true
			return
		}
		i += n
		escapes := i
		for s.text[escapes-1] == '\\' { // ends at the opening quote
			escapes--
		}
		if (i-escapes)%2 == 0 {
			s.at = i + 1
			return
		}
	}
}

// escapeLen returns the length of the escape that text begins with, 0 when it is
// none.
func escapeLen(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(text) < 6 {
			return 0
		}
		for _, c := range text[2:6] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

// word takes a literal.
func (s *scan) word(w string) {
	if len(s.text)-s.at < len(w) || string(s.text[s.at:s.at+len(w)]) != w {
		s.bad = true
		return
	}
	s.at += len(w)
}

// number takes a number.
func (s *scan) number() {
	i := s.at
	if i < len(s.text) && s.text[i] == '-' {
		i++
	}
	first := i
	i = s.digits(i)
	if i == first || i > first+1 && s.text[first] == '0' {
		s.bad = true
	}
	if i < len(s.text) && s.text[i] == '.' {
		i = s.someDigits(i + 1)
	}
	if i < len(s.text) && s.text[i]|0x20 == 'e' {
		if i++; i < len(s.text) && (s.text[i] == '+' || s.text[i] == '-') {
			i++
		}
		i = s.someDigits(i)
	}
	s.at = i
}

// digits returns where the digits at i end.
func (s *scan) digits(i int) int {
	for i < len(s.text) && s.text[i] >= '0' && s.text[i] <= '9' {
		i++
	}
	return i
}

// someDigits is digits, of which there has to be one.
func (s *scan) someDigits(i int) int {
	end := s.digits(i)
	s.bad = s.bad || end == i
	return end
}
