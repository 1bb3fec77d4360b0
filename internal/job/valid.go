package job

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// valid reports whether text is one JSON value in UTF-8 that is nested at most
// maxDepth levels deep. It goes over text once; why something is not valid is for
// [checkDeepText] to find out.
func valid(text []byte, maxDepth int) bool {
	i := validValue(text, skipSpace(text, 0), maxDepth)
	return i != broken && skipSpace(text, i) == len(text)
}

// broken is what the functions below return in the place of the offset behind
// what they have read.
const broken = -1

// validValue reads the value that begins at i and may open room more levels.
func validValue(text []byte, i, room int) int {
	if i >= len(text) {
		return broken
	}
	switch text[i] {
	case '"':
		return validString(text, i)
	case '{':
		return validObject(text, i, room-1)
	case '[':
		return validArray(text, i, room-1)
	case 't':
		return validWord(text, i, "true")
	case 'f':
		return validWord(text, i, "false")
	case 'n':
		return validWord(text, i, "null")
	}
	return validNumber(text, i)
}

func validObject(text []byte, i, room int) int {
	if room < 0 {
		return broken
	}
	i = skipSpace(text, i+1)
	if byteAt(text, i) == '}' {
		return i + 1
	}
	for byteAt(text, i) == '"' {
		if i = validString(text, i); i == broken {
			return broken
		}
		if i = skipSpace(text, i); byteAt(text, i) != ':' {
			return broken
		}
		if i = validValue(text, skipSpace(text, i+1), room); i == broken {
			return broken
		}
		switch i = skipSpace(text, i); byteAt(text, i) {
		case '}':
			return i + 1
		case ',':
			i = skipSpace(text, i+1)
		default:
			return broken
		}
	}
	return broken
}

func validArray(text []byte, i, room int) int {
	if room < 0 {
		return broken
	}
	i = skipSpace(text, i+1)
	if byteAt(text, i) == ']' {
		return i + 1
	}
	for {
		if i = validValue(text, i, room); i == broken {
			return broken
		}
		switch i = skipSpace(text, i); byteAt(text, i) {
		case ']':
			return i + 1
		case ',':
			i = skipSpace(text, i+1)
		default:
			return broken
		}
	}
}

func validWord(text []byte, i int, word string) int {
	if end := i + len(word); end <= len(text) && string(text[i:end]) == word {
		return end
	}
	return broken
}

func validNumber(text []byte, i int) int {
	if byteAt(text, i) == '-' {
		i++
	}
	first := i
	if i = skipDigits(text, i); i == first || text[first] == '0' && i > first+1 {
		return broken
	}
	if byteAt(text, i) == '.' {
		first = i + 1
		if i = skipDigits(text, first); i == first {
			return broken
		}
	}
	if c := byteAt(text, i); c != 'e' && c != 'E' {
		return i
	}
	i++
	if c := byteAt(text, i); c == '+' || c == '-' {
		i++
	}
	first = i
	if i = skipDigits(text, i); i == first {
		return broken
	}
	return i
}

func skipDigits(text []byte, i int) int {
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return i
}

// validString reads the string whose quote is at i.
func validString(text []byte, i int) int {
	for i = endOfPlain(text, i+1); i < len(text); i = endOfPlain(text, i) {
		switch c := text[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			i = validEscapes(text, i)
		case c < ' ':
			return broken
		default:
			i = validRunes(text, i)
		}
		if i == broken {
			return broken
		}
	}
	return broken
}

// validEscapes reads the escape at i and those that follow it at once.
func validEscapes(text []byte, i int) int {
	for byteAt(text, i) == '\\' {
		switch byteAt(text, i+1) {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			for _, c := range text[i+2 : min(i+6, len(text))] {
				if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
					return broken
				}
			}
			i += 6 // the end of the text is found by the caller
		default:
			return broken
		}
	}
	return i
}

// validRunes reads the characters from i on that are not ASCII.
func validRunes(text []byte, i int) int {
	for i < len(text) && text[i] >= utf8.RuneSelf {
		switch c := text[i]; { // most are of two or three bytes, and need no look at rare cases
		case 0xc2 <= c && c < 0xe0 && i+1 < len(text) && follows(text[i+1]):
			i += 2
		case 0xe1 <= c && c < 0xed && i+2 < len(text) && follows(text[i+1]) && follows(text[i+2]):
			i += 3
		default:
			r, size := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && size == 1 {
				return broken
			}
			i += size
		}
	}
	return i
}

// follows reports whether c continues a character of several bytes.
func follows(c byte) bool { return c&0xc0 == 0x80 }

// endOfPlain is the offset of the first byte from i on that needs a look in a
// string: the quote, a backslash, a control character or one that is not ASCII.
// It takes eight bytes at a time.
func endOfPlain(text []byte, i int) int {
	for ; i+8 <= len(text); i += 8 {
		if found := special(binary.LittleEndian.Uint64(text[i:])); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(text) && text[i] >= ' ' && text[i] < utf8.RuneSelf && text[i] != '"' && text[i] != '\\' {
		i++
	}
	return i
}

// special has the high bit of the first of eight bytes set that is a quote, a
// backslash, a control character or not ASCII, and no bit before it. In each
// difference the high bit tells; a borrow reaches only bytes behind the first that
// was found, and the high bits of what is not ASCII are wanted anyway.
func special(eight uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, slash, control := (eight^ones*'"')-ones, (eight^ones*'\\')-ones, eight-ones*' '
	return (quote | slash | control | eight) & highs
}

// byteAt is the byte at i, or 0 behind the end: no JSON has that outside a string.
func byteAt(text []byte, i int) byte {
	if i < len(text) {
		return text[i]
	}
	return 0
}
