package job

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// The functions of this file append one member of an object to dst: name, which
// stands there with its quotes, its colon and the comma or brace before it, and
// a value. They write what [encoder] writes of the same value, without reflection.

// appendText appends a string. It is copied first and looked at then, eight bytes
// at a time, because most strings need no escape.
func appendText[T ~string](dst []byte, name string, s T) []byte {
	return appendRest(append(append(dst, name...), '"'), s)
}

// appendRest appends a string whose quote, and maybe its beginning, is there already.
func appendRest[T ~string](dst []byte, s T) []byte {
	start := len(dst)
	dst = append(dst, s...)
	if plain := endOfPlain(dst, start); plain < len(dst) {
		dst = appendEscaped(dst[:plain], string(s[plain-start:]))
	}
	return append(dst, '"')
}

// appendEscaped appends the inside of a string as encoding/json does, save for
// < > & and for bytes that are not UTF-8: each run of them becomes one U+FFFD.
func appendEscaped(dst []byte, s string) []byte {
	inRun := false
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		bad := c == utf8.RuneError && size == 1
		switch {
		case bad && !inRun:
			dst = append(dst, "\ufffd"...)
		case bad:
		case c == '\u2028', c == '\u2029':
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigit(byte(c)))
		case c >= ' ' && c != '"' && c != '\\':
			dst = append(dst, s[i:i+size]...)
		default:
			dst = appendEscape(dst, byte(c))
		}
		inRun = bad
		i += size
	}
	return dst
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '\b':
		c = 'b'
	case '\f':
		c = 'f'
	case '\n':
		c = 'n'
	case '\r':
		c = 'r'
	case '\t':
		c = 't'
	case '"', '\\':
	default:
		return append(dst, '\\', 'u', '0', '0', hexDigit(c>>4), hexDigit(c))
	}
	return append(dst, '\\', c)
}

// hexDigit is the digit of the lower half of c.
func hexDigit(c byte) byte { return "0123456789abcdef"[c&0xf] }

func appendTextOrNull[T ~string](dst []byte, name string, s *T) []byte {
	if s == nil {
		return appendNull(dst, name)
	}
	return appendText(dst, name, *s)
}

func appendNull(dst []byte, name string) []byte {
	return append(append(dst, name...), "null"...)
}

func appendInt[T int | int64](dst []byte, name string, n T) []byte {
	return strconv.AppendInt(append(dst, name...), int64(n), 10)
}

func appendIntOrNull(dst []byte, name string, n *int64) []byte {
	if n == nil {
		return appendNull(dst, name)
	}
	return appendInt(dst, name, *n)
}

// appendFloatOrNull appends a number in the form that encoding/json gives it:
// null too for one that JSON cannot hold.
func appendFloatOrNull(dst []byte, name string, f *float64) []byte {
	if f == nil || math.IsNaN(*f) || math.IsInf(*f, 0) {
		return appendNull(dst, name)
	}
	dst = append(dst, name...)
	abs := math.Abs(*f)
	if abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(dst, *f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, *f, 'e', -1, 64)
	if n := len(dst); dst[n-3] == '-' && dst[n-2] == '0' { // e-09 is e-9
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// appendTime appends a time in the form of [timeLayout].
func appendTime(dst []byte, name string, t time.Time) []byte {
	t = writable(t).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(append(dst, name...), '"')
	dst = append(appendTwo(appendTwo(dst, year/100), year%100), '-')
	dst = append(appendTwo(dst, int(month)), '-')
	dst = append(appendTwo(dst, day), 'T')
	dst = append(appendTwo(dst, hour), ':')
	dst = append(appendTwo(dst, minute), ':')
	dst = append(appendTwo(dst, second), '.')
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(appendTwo(append(dst, byte('0'+ms/100)), ms%100), 'Z', '"')
}

// appendTwo appends a number below 100 as two digits.
func appendTwo(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendRaw appends raw JSON byte for byte, and what is none as a string of it.
func appendRaw(dst []byte, name string, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return appendNull(dst, name)
	}
	return append(append(dst, name...), RawBody(raw)...)
}
