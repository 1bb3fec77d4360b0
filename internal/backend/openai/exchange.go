package openai

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"understudy/internal/backend"
)

// Limits of the transport and of what is read.
const (
	dialTimeout = 3 * time.Second
	// idleTimeout is below the 60 s after which many servers and load balancers
	// drop an idle connection, so that the client is the one to close it.
	idleTimeout = 50 * time.Second
	// pingAfter and pingTimeout find an HTTP/2 connection whose peer is gone;
	// without them every later call would be put on it.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// maxErrorBody is how much of an error's body is read and kept.
	maxErrorBody = 64 << 10
	// lookahead is how far the beginning of an answer is searched for what it is.
	lookahead = 4 << 10
	// maxAhead is the longest answer that memory is taken for in one piece, before
	// it is there.
	maxAhead = 64 << 10
	// maxHeader bounds the header of an answer.
	maxHeader = 256 << 10
	// drainTime is how long the end of an answer is waited for that is complete
	// already. With it the connection is used again, without it closed.
	drainTime = 100 * time.Millisecond
)

// exchange is one HTTP call: what is to be sent, and what came of it.
type exchange struct {
	watch watch

	body    []byte
	reader  bytes.Reader // of body
	lines   *headerLines
	jobID   [1]string // as a header has it
	streams bool
	limit   int64
	chunk   func([]byte)
	started time.Time

	status int // 0 until there is a header
	header http.Header
	// raw is the body as sent; of a stream it is the event that ended it.
	raw []byte
	// assembled is set when the answer was a stream.
	assembled *assembly
	// done tells that the stream said it has ended.
	done bool
	// stray are the lines of the stream that belong to no event, and odd is the
	// last event that is no chunk: either may say why a stream ended too early.
	stray, odd []byte
	// failed is why the stream is an error; nil when it is none.
	failed     *Verdict
	firstToken time.Duration
	// err is why the answer could not be read to its end.
	err error
}

// newTransport returns the transport of one backend.
func newTransport(cfg Config) *http.Transport {
	dial := cfg.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}).DialContext
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial,
		TLSHandshakeTimeout:    2 * dialTimeout,
		MaxIdleConnsPerHost:    cfg.Concurrency,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		// A compressed stream would hold tokens back.
		DisableCompression: true,
	}
}

// newHTTPClient returns a client that follows no redirect, which would carry the
// key to another host, and keeps no cookies.
func newHTTPClient(transport *http.Transport) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// read reads the answer, as a stream if it looks like one: some providers
// stream unasked, others answer a streaming call with plain JSON.
func (x *exchange) read(resp *http.Response) {
	if x.status == http.StatusSwitchingProtocols {
		return // the connection is not ours to read
	}
	if x.status/100 == 2 {
		body := newBody(resp, x.limit)
		if x.looksStreamed(body) {
			x.readEvents(body)
			return
		}
		x.raw, x.err = readAll(body, x.limit, resp.ContentLength)
		return
	}
	x.raw, x.err = readAll(newBody(resp, maxErrorBody), maxErrorBody, resp.ContentLength)
	if errors.Is(x.err, errTooLong) {
		x.err = nil // what was read of it is enough
	}
}

// newBody returns a reader of the answer's body. Its buffer holds all of it, and
// one byte more to see the end, where the header says that the body is short.
func newBody(resp *http.Response, limit int64) *bufio.Reader {
	size := int64(lookahead)
	if resp.ContentLength >= 0 && resp.ContentLength <= min(limit, maxAhead) {
		size = resp.ContentLength + 1
	}
	return bufio.NewReaderSize(resp.Body, int(size))
}

// looksStreamed waits for the first bytes that say what the body is.
func (x *exchange) looksStreamed(body *bufio.Reader) bool {
	size := min(body.Size(), lookahead)
	for n := 1; n <= size; n++ {
		text, err := body.Peek(n)
		text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		if text = bytes.TrimLeft(text, "\r\n\t "); len(text) == 0 && err == nil {
			continue
		}
		if len(text) == 0 || text[0] == '{' || text[0] == '[' || text[0] == '<' {
			return false
		}
		if strings.HasPrefix(x.header.Get("Content-Type"), "text/event-stream") {
			return true
		}
		text, _ = body.Peek(min(n+len("event:"), size))
		return looksLikeEvents(text)
	}
	return false
}

// readAll reads at most limit bytes and says errTooLong when there are more. A
// body that fits into the buffer of its reader is that buffer, which nobody else
// may use from then on. The length is what the header says, negative when it does not.
func readAll(body *bufio.Reader, limit, length int64) ([]byte, error) {
	text, err := body.Peek(body.Size())
	switch {
	case err == nil || int64(len(text)) > limit:
		return readLong(&cappedReader{r: body, left: limit}, min(limit, length))
	case err == io.EOF:
		return text, nil
	}
	return text, err
}

// readLong reads what is probably of that length. It takes at most four times the
// memory of what has come, so that a header alone costs little.
func readLong(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(r)
	}
	text := make([]byte, 0, maxAhead)
	for {
		if len(text) == cap(text) {
			size := 4 * cap(text)
			if whole := int(length) + 1; whole > cap(text) { // one more to see the end
				size = min(size, whole)
			}
			text = append(make([]byte, 0, size), text...)
		}
		n, err := r.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err == io.EOF {
			return text, nil
		}
		if err != nil {
			return text, err
		}
	}
}

// readEvents reads a stream to its end, hands out its chunks and assembles them.
func (x *exchange) readEvents(body io.Reader) {
	x.assembled = new(assembly)
	events := newEventReader(body, x.limit)
	defer func() { x.stray = events.stray }()
	for {
		e, err := events.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				x.err = err
			}
			return
		}
		if isDone(e.data) {
			x.done = true
			x.drain(body)
			return
		}
		if !x.event(e) {
			return
		}
	}
}

// event takes one event and reports whether the stream goes on after it.
func (x *exchange) event(e event) bool {
	if !e.failed {
		if token, ok := x.assembled.quick(e.data); ok {
			return x.grown(e, token)
		}
	}
	return x.unusual(e)
}

// unusual is event for every event there is.
func (x *exchange) unusual(e event) bool {
	var chunk map[string]json.RawMessage
	bad := json.Unmarshal(e.data, &chunk) != nil || chunk == nil
	switch {
	case e.failed, failed(chunk), bad && saysFailed(capped(e.data)):
		v := Classify(x.status, x.header, capped(e.data))
		if !v.told {
			v.Class = backend.ServerError // an error that says nothing we know
		}
		x.failed, x.raw = &v, bytes.Clone(capped(e.data))
		x.keepUsage(chunk)
		return false
	case len(bytes.TrimSpace(e.data)) == 0, string(e.data) == "null":
		return true
	case bad:
		x.err, x.odd = errNotChunk, bytes.Clone(capped(e.data))
		return false
	}
	if isOdd(chunk) {
		x.odd = bytes.Clone(capped(e.data))
	}
	return x.grown(e, x.assembled.add(chunk))
}

// grown takes note of a chunk that was added to the answer.
func (x *exchange) grown(e event, token bool) bool {
	if token {
		if x.firstToken == 0 {
			x.firstToken = max(time.Since(x.started), 1)
		}
		x.watch.token()
	}
	if x.chunk != nil {
		x.chunk(e.data)
	}
	if x.assembled.overflow {
		x.err = errTooLong
		return false
	}
	return true
}

// isOdd reports whether an event is no chunk but may hold an explanation.
func isOdd(chunk map[string]json.RawMessage) bool {
	if _, ok := chunk["choices"]; ok {
		return false
	}
	for _, name := range []string{"detail", "message", "msg", "code", "errors", "error_message"} {
		if !isNull(chunk[name]) {
			return true
		}
	}
	return false
}

// explained returns what an incomplete stream says about why it ended, without
// the form of an error: in a choice, in words between the events, in an event
// that is no chunk. The words may be a model's: they cannot stop a chain.
func (x *exchange) explained() (Verdict, bool) {
	if errors.Is(x.err, errTooLong) {
		return Verdict{}, false
	}
	for _, text := range [][]byte{x.assembled.failure(), x.stray, x.odd} {
		whole := json.Valid(text)
		if len(text) == 0 || !whole && (text[0] == '{' || text[0] == '[') {
			continue // half an object holds what the model has said
		}
		v := Classify(x.status, x.header, text)
		if v.told && (v.Class.FallsBack() || whole) {
			x.raw = text
			return v, true
		}
	}
	return Verdict{}, false
}

// errNotChunk means that the data of an event is not a JSON object.
var errNotChunk = errors.New("an event of the stream is not a JSON object")

// keepUsage keeps what a failing chunk says about the consumption.
func (x *exchange) keepUsage(chunk map[string]json.RawMessage) {
	if usage := chunk["usage"]; !isNull(usage) {
		x.assembled.fields.set("usage", usage)
	}
}

// drain reads what follows the end marker, which should be nothing, so that the
// connection can be used again. A server that keeps the stream open loses it.
func (x *exchange) drain(body io.Reader) {
	x.watch.cutIn(drainTime)
	_, _ = io.Copy(io.Discard, io.LimitReader(body, maxErrorBody))
}
