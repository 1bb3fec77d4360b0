package llmtest

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how much is under way in one direction before a write blocks.
const pipeBuffer = 64 << 10

// Pipe is a network in memory: a [net.Listener] whose connections
// [Pipe.DialContext] makes. Everything that blocks on it blocks on channels
// alone, so that inside a testing/synctest bubble a client and a server over a
// Pipe take no time. It is made by [NewPipe], inside that bubble, and safe for
// concurrent use.
type Pipe struct {
	accepts chan *pipeConn
	closed  chan struct{}

	mu      sync.Mutex // guards all below
	conns   map[*pipeConn]struct{}
	refuses bool
	refused int
	over    bool
}

var _ net.Listener = (*Pipe)(nil)

// NewPipe returns a pipe that accepts connections.
func NewPipe() *Pipe {
	return &Pipe{accepts: make(chan *pipeConn), closed: make(chan struct{}), conns: map[*pipeConn]struct{}{}}
}

// Accept implements [net.Listener].
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepts:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]. The connections stay; new ones are refused.
func (p *Pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.over = true
		close(p.closed)
	}
	return nil
}

// Addr implements [net.Listener].
func (p *Pipe) Addr() net.Addr { return pipeAddr{} }

// DialContext connects to the listener, whatever the address says. It blocks
// until somebody accepts.
func (p *Pipe) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	if p.refuses || p.over {
		p.refused++
		p.mu.Unlock()
		return nil, refusal()
	}
	client, server := newPipeConns(p)
	p.conns[server] = struct{}{}
	p.mu.Unlock()
	select {
	case p.accepts <- server:
		return client, nil
	case <-p.closed:
		_ = server.Close() // nobody has it
		return nil, refusal()
	case <-ctx.Done():
		_ = server.Close()
		return nil, ctx.Err()
	}
}

// refusal is the error of a connection that nobody accepts.
func refusal() error {
	return &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr{}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// Break resets every connection and refuses new ones, as a machine does whose
// server has died, until [Pipe.Mend].
func (p *Pipe) Break() {
	p.mu.Lock()
	p.refuses = true
	conns := make([]*pipeConn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.out.end(syscall.ECONNRESET)
		c.in.end(syscall.ECONNRESET)
	}
}

// Mend lets connections be made again.
func (p *Pipe) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = false
}

// Refused is how many connections were refused so far.
func (p *Pipe) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Open is how many connections the server has not closed.
func (p *Pipe) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *Pipe) forget(c *pipeConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

type pipeAddr struct{}

// Network implements [net.Addr].
func (pipeAddr) Network() string { return "pipe" }

// String implements [net.Addr].
func (pipeAddr) String() string { return "pipe" }

// pipeConn is one end of a connection.
type pipeConn struct {
	pipe     *Pipe
	in, out  *flow
	readEnd  *deadline
	writeEnd *deadline
}

func newPipeConns(p *Pipe) (client, server *pipeConn) {
	up, down := newFlow(), newFlow()
	client = &pipeConn{pipe: p, in: down, out: up, readEnd: newDeadline(), writeEnd: newDeadline()}
	server = &pipeConn{pipe: p, in: up, out: down, readEnd: newDeadline(), writeEnd: newDeadline()}
	return client, server
}

// Read implements [net.Conn].
func (c *pipeConn) Read(b []byte) (int, error) { return c.in.read(b, c.readEnd) }

// Write implements [net.Conn].
func (c *pipeConn) Write(b []byte) (int, error) { return c.out.write(b, c.writeEnd) }

// Close implements [net.Conn]. What was written can still be read.
func (c *pipeConn) Close() error {
	c.out.end(io.EOF)
	c.in.abandon()
	c.readEnd.set(time.Time{})
	c.writeEnd.set(time.Time{})
	c.pipe.forget(c)
	return nil
}

// LocalAddr implements [net.Conn].
func (c *pipeConn) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr implements [net.Conn].
func (c *pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

// SetDeadline implements [net.Conn].
func (c *pipeConn) SetDeadline(t time.Time) error {
	c.readEnd.set(t)
	c.writeEnd.set(t)
	return nil
}

// SetReadDeadline implements [net.Conn].
func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.readEnd.set(t)
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.writeEnd.set(t)
	return nil
}

// flow is what is under way in one direction.
type flow struct {
	mu      sync.Mutex // guards all below
	buf     bytes.Buffer
	err     error         // what a reader gets after buf; nil while the writer is there
	gone    bool          // the reader has closed
	changed chan struct{} // closed and replaced at every change
}

func newFlow() *flow { return &flow{changed: make(chan struct{})} }

// notify wakes who waits. f.mu is held.
func (f *flow) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *flow) read(b []byte, until *deadline) (int, error) {
	for {
		end := until.passed()
		f.mu.Lock()
		changed := f.changed
		switch {
		case f.gone:
			f.mu.Unlock()
			return 0, net.ErrClosed
		case isDone(end):
			f.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case f.buf.Len() > 0 || len(b) == 0:
			n, _ := f.buf.Read(b) // fails only when empty
			f.notify()
			f.mu.Unlock()
			return n, nil
		case f.err != nil:
			defer f.mu.Unlock()
			return 0, f.err
		}
		f.mu.Unlock()
		select {
		case <-changed:
		case <-end:
		}
	}
}

func (f *flow) write(b []byte, until *deadline) (n int, err error) {
	for {
		end := until.passed()
		f.mu.Lock()
		changed := f.changed
		switch {
		case f.err != nil && f.err != io.EOF: //nolint:errorlint // it is never wrapped
			defer f.mu.Unlock()
			return n, f.err
		case f.err != nil:
			f.mu.Unlock()
			return n, net.ErrClosed
		case f.gone:
			f.mu.Unlock()
			return n, syscall.EPIPE
		case isDone(end):
			f.mu.Unlock()
			return n, os.ErrDeadlineExceeded
		}
		if room := min(pipeBuffer-f.buf.Len(), len(b)); room > 0 {
			f.buf.Write(b[:room]) // never fails
			n, b = n+room, b[room:]
			f.notify()
		}
		f.mu.Unlock()
		if len(b) == 0 {
			return n, nil
		}
		select {
		case <-changed:
		case <-end:
		}
	}
}

// end ends the flow from the writer's side, or for both when it is reset: then
// what is under way is lost.
func (f *flow) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	if err != io.EOF { //nolint:errorlint // it is never wrapped
		f.buf.Reset()
	}
	f.notify()
}

// abandon ends the flow from the reader's side.
func (f *flow) abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	f.buf.Reset()
	f.notify()
}

// deadline is a moment after which nothing is waited for any more.
type deadline struct {
	mu    sync.Mutex // guards all below
	timer *time.Timer
	done  chan struct{} // closed when it has passed
}

func newDeadline() *deadline { return &deadline{done: make(chan struct{})} }

// set replaces the deadline; the zero time means none. Who waits for the old one
// is woken.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if !isDone(d.done) {
		close(d.done)
	}
	done := make(chan struct{})
	d.done = done
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		close(done)
	default:
		d.timer = time.AfterFunc(left, func() { d.pass(done) })
	}
}

// pass closes done unless the deadline was replaced.
func (d *deadline) pass(done chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == done {
		close(done)
		d.timer = nil
	}
}

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func isDone(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
