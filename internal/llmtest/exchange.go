package llmtest

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// exchange is the sending of one reply.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	rc      *http.ResponseController
	call    Call
	closing <-chan struct{}

	status  int  // sent to the client, 0 while there is none
	aborted bool // the client went early
}

// send plays the whole reply:
//
//	Delay, Until -> [Hang, Reset, Garbage] -> header -> BodyDelay ->
//	[Silence] -> body or stream, whole or broken
func (x *exchange) send(r Reply) {
	x.wait(r.Delay)
	if r.Until != nil {
		x.waitFor(r.Until, maxWait)
	}
	if x.r.Context().Err() != nil {
		x.leave()
	}
	switch r.Fault {
	case Hang:
		x.hang()
	case Reset:
		x.reset()
	case Garbage:
		x.garbage()
	case NoFault, Silence, ResetBody, CutLength, CutChunked, CutAfter:
	default: // a script with a fault that does not exist
		x.status = http.StatusNotImplemented
		http.Error(x.w, fmt.Sprintf("the script names an unknown fault %q", r.Fault), x.status)
		return
	}
	if x.call.Stream && r.Body == nil && r.Status < http.StatusBadRequest && x.call.Endpoint != Embeddings {
		x.stream(r)
		return
	}
	x.body(r)
}

// header writes the header. A length of -1 leaves it to net/http.
func (x *exchange) header(r Reply, contentType string, length int) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Request-Id", fmt.Sprintf("req-%d", x.call.N))
	for name, value := range r.Header {
		h.Set(name, value)
	}
	if r.RetryAfter != "" {
		h.Set("Retry-After", r.RetryAfter)
	}
	if r.RetryAfterDate != 0 {
		h.Set("Retry-After", time.Now().Add(r.RetryAfterDate).UTC().Format(http.TimeFormat))
	}
	if length >= 0 {
		h.Set("Content-Length", strconv.Itoa(length))
	}
	x.status = r.Status
	x.w.WriteHeader(r.Status)
}

// body writes a reply that is not streamed.
func (x *exchange) body(r Reply) {
	b, err := payloadOf(x.call, r)
	if err != nil {
		x.status = http.StatusNotImplemented
		http.Error(x.w, err.Error(), x.status)
		return
	}
	length := b.len()
	if r.Fault == CutChunked || r.Fault == CutAfter {
		length = -1
	}
	x.header(r, "application/json", length)
	if r.BodyDelay > 0 || r.Fault == Silence {
		x.check(x.rc.Flush())
		x.wait(r.BodyDelay)
	}
	switch r.Fault {
	case Silence:
		x.hang()
	case ResetBody:
		x.check(b.writeTo(x.w, b.len()/2))
		x.check(x.rc.Flush())
		x.reset()
	case CutLength, CutChunked:
		x.check(b.writeTo(x.w, b.len()/2))
		x.cut()
	case CutAfter:
		x.check(b.writeTo(x.w, b.len()))
		x.cut()
	case NoFault, Hang, Reset, Garbage:
		x.check(b.writeTo(x.w, b.len()))
	}
}

// wait pauses for d, or ends the exchange when the client goes or the provider closes.
func (x *exchange) wait(d time.Duration) {
	if d > 0 {
		x.waitFor(nil, d)
	}
}

// waitFor returns when ch is closed or d has passed. When the client goes or the
// provider closes before, it ends the exchange.
func (x *exchange) waitFor(ch <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ch:
	case <-x.r.Context().Done():
		x.leave()
	case <-x.closing:
		panic(http.ErrAbortHandler)
	}
}

// hang waits until the client goes, then breaks the connection.
func (x *exchange) hang() {
	x.wait(maxWait)
	panic(http.ErrAbortHandler)
}

// check ends the exchange when a write failed: nobody listens any more.
func (x *exchange) check(err error) {
	if err != nil {
		x.leave()
	}
}

// leave ends the exchange because the client went early, or because the provider
// closed under it.
func (x *exchange) leave() {
	select {
	case <-x.closing:
	default:
		x.aborted = true
	}
	panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
}

// cut sends what was written and closes the connection early.
func (x *exchange) cut() {
	x.check(x.rc.Flush())
	panic(http.ErrAbortHandler)
}

// hijack takes the connection over from net/http.
func (x *exchange) hijack() net.Conn {
	conn, _, err := x.rc.Hijack()
	x.check(err)
	return conn
}

// reset closes the connection with an RST instead of a FIN, and ends the exchange.
func (x *exchange) reset() {
	conn := x.hijack()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a connection that is gone
	}
	_ = conn.Close() // nothing was to be kept
	panic(http.ErrAbortHandler)
}

// garbage answers in another protocol, and ends the exchange.
func (x *exchange) garbage() {
	conn := x.hijack()
	_, _ = conn.Write([]byte("\x16\x03\x01 SSH-2.0-OpenSSH_9.6\r\n\r\n")) // the client may be gone
	_ = conn.Close()
	panic(http.ErrAbortHandler)
}
