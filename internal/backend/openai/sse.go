package openai

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// errTooLong means that an answer is longer than the configuration allows.
var errTooLong = errors.New("the answer is longer than the limit")

// cappedReader fails with errTooLong after left bytes.
type cappedReader struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (c *cappedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if int64(n) > c.left {
		return int(c.left), errTooLong
	}
	c.left -= int64(n)
	return n, err
}

// event is one server-sent event with data.
type event struct {
	// failed tells that the event calls itself an error, by its name or its field.
	failed bool
	data   []byte
}

// eventReader reads server-sent events as providers send them rather than as
// they should: lines end in LF, CRLF or CR; the blank line between events and
// the one at the end may be missing; data may span lines; an error may stand in
// an error field, behind a mark, or be a bare line of JSON, and its name may come
// after its data. Comments are skipped. The reader holds at most one event, and
// never more than its limit.
type eventReader struct {
	lines *bufio.Scanner
	data  []byte
	// pending tells that data holds a line that was not complete JSON by itself.
	pending bool
	// failed tells that the event calls itself an error so far.
	failed bool
	// handed is the length of the event that was returned before its end.
	handed int
	// stray is what stands in lines that belong to no event, such as the words of
	// a proxy, capped.
	stray []byte
}

// newEventReader reads at most limit bytes of r, comments included.
func newEventReader(r io.Reader, limit int64) *eventReader {
	e := &eventReader{lines: bufio.NewScanner(&cappedReader{r: r, left: limit})}
	e.lines.Buffer(make([]byte, 0, 4096), int(min(limit+2, 1<<30)))
	e.lines.Split((&lineSplitter{}).split)
	return e
}

// next returns the next event; its data is good until the next call. At the end
// of the stream it returns io.EOF, and io.ErrUnexpectedEOF when the stream ends
// inside an event.
func (e *eventReader) next() (event, error) {
	if e.pending { // what the last call returned
		e.handed = len(e.data)
		e.reset()
	}
	for e.lines.Scan() {
		line := e.lines.Bytes()
		if len(line) == 0 {
			if e.pending {
				return e.event(), nil
			}
			e.handed = 0
			e.reset()
			continue
		}
		if e.line(line) {
			return e.event(), nil
		}
	}
	if err := e.lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = errTooLong
		}
		return event{}, err
	}
	switch {
	case e.pending && (e.failed || isJSON(e.data)):
		return e.event(), nil
	case e.pending:
		e.keep(e.data)
		return event{}, io.ErrUnexpectedEOF
	}
	return event{}, io.EOF
}

// line takes one line that is not blank, and reports whether it completes an
// event. Only data of a single line can: what spans lines ends with a blank one,
// so that no line is looked at twice.
func (e *eventReader) line(line []byte) bool {
	line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	if len(line) > 0 && line[0] == '{' && isJSON(line) {
		e.data, e.pending = append(e.data[:0], line...), true
		return true
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch name := string(field); {
	case name == "event":
		e.failed = e.failed || isErrorName(value)
		if e.failed && e.handed > 0 { // its data came first
			e.data, e.pending, e.handed = e.data[:e.handed], true, 0
			return true
		}
		return false
	case strings.EqualFold(name, "error"):
		e.failed = true
	case name == "data":
		e.failed = e.failed || hasErrorMark(value)
	default: // a comment, an id, a retry time, or nothing we know
		if !isFieldName(name) {
			e.keep(line)
		}
		return false
	}
	if e.pending {
		e.data = append(append(e.data, '\n'), value...)
		return false
	}
	e.data, e.pending = append(e.data[:0], value...), true
	return whole(e.data)
}

// keep adds a line to those that belong to no event.
func (e *eventReader) keep(line []byte) {
	e.stray = capped(append(append(e.stray, capped(line)...), '\n'))
}

// event is the event collected so far. Its mark as an error ends with it; the
// data stays until the next call.
func (e *eventReader) event() event { return event{failed: e.failed, data: e.data} }

func (e *eventReader) reset() { e.data, e.pending, e.failed = e.data[:0], false, false }

// isErrorName reports whether an event of that name is an error: "error",
// "response.error", "internalServerException".
func isErrorName(name []byte) bool {
	lower := strings.ToLower(string(bytes.TrimSpace(name)))
	return strings.HasSuffix(lower, "error") || strings.HasSuffix(lower, "exception")
}

// hasErrorMark reports whether data is marked as an error: "[ERROR] overloaded".
func hasErrorMark(data []byte) bool {
	const mark = "[error]"
	data = bytes.TrimSpace(data)
	return len(data) >= len(mark) && strings.EqualFold(string(data[:len(mark)]), mark)
}

// isFieldName reports whether what stands before a colon can be the name of a
// field, if one that means nothing to us. That of a comment is empty.
func isFieldName(name string) bool {
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_-") == ""
}

// whole reports whether data can be nothing but a complete event.
func whole(data []byte) bool {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return false
	}
	return isDone(data) || data[0] == '{' && data[len(data)-1] == '}' && isJSON(data)
}

// isDone reports whether data is the end marker.
func isDone(data []byte) bool { return string(bytes.TrimSpace(data)) == "[DONE]" }

// lineSplitter splits at LF, CRLF and CR. A CR ends its line at once, so that
// nobody waits for the LF that may follow.
type lineSplitter struct{ afterCR bool }

func (s *lineSplitter) split(data []byte, atEOF bool) (int, []byte, error) {
	skipped := 0
	if s.afterCR && len(data) > 0 {
		s.afterCR = false
		if data[0] == '\n' {
			data, skipped = data[1:], 1
		}
	}
	if i := lineEnd(data); i >= 0 {
		s.afterCR = data[i] == '\r'
		return skipped + i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return skipped + len(data), data, nil
	}
	return skipped, nil, nil
}

// lineEnd returns where the first line ends, -1 when it does not.
//
// It looks at a window at a time: what lies behind a line that ends in "\r" must not
// be searched for a "\n" with each such line.
func lineEnd(data []byte) int {
	for begin := 0; begin < len(data); begin += lineWindow {
		window := data[begin:min(begin+lineWindow, len(data))]
		end := bytes.IndexByte(window, '\n')
		if end >= 0 {
			window = window[:end]
		}
		if i := bytes.IndexByte(window, '\r'); i >= 0 {
			return begin + i
		}
		if end >= 0 {
			return begin + end
		}
	}
	return -1
}

// lineWindow is how much of a stream is searched for the end of a line at a time.
const lineWindow = 4 << 10

// looksLikeEvents reports whether text is the beginning of an event stream
// rather than of a JSON or HTML body.
func looksLikeEvents(text []byte) bool {
	text = bytes.TrimLeft(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), "\r\n\t ")
	for _, field := range []string{":", "data:", "event:", "id:", "retry:", "error:"} {
		if bytes.HasPrefix(text, []byte(field)) {
			return true
		}
	}
	return false
}
