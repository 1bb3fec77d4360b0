package results

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// yields is how often a wait lets others run before it asks to be woken: a wake-up
// for each call costs a worker at full speed 4 us of CPU a job, and the server 3.
const yields = 2

// Writes tells when a NATS connection has written what was published.
//
// The client gathers what is published and writes it a moment later. What it has not
// written yet is gone when the process dies; what it has written is the kernel's to
// send, whatever becomes of the process. The client has no word for that moment: its
// Flush waits for the server's answer.
//
// It sees the connections that are made with its [Writes.Option]. The zero value is
// ready for use, and safe for concurrent use.
type Writes struct {
	open    atomic.Int32 // connections
	writing atomic.Int32 // writes under way

	mu   sync.Mutex    // guards next
	next chan struct{} // closed after the next write; nil while nobody waits for one
}

// Option lets w see a connection. It goes around the dialer of the options
// before it, so it comes last. A connection to a server in this process is not seen.
// The client gives each address of a host the whole time to connect then.
func (w *Writes) Option() nats.Option {
	return func(o *nats.Options) error {
		d := &writesDialer{inner: o.CustomDialer, writes: w}
		switch {
		case d.inner != nil:
		case o.Dialer != nil:
			d.inner = o.Dialer
		default:
			d.inner = &net.Dialer{Timeout: o.Timeout}
		}
		o.CustomDialer = d
		return nil
	}
}

// wait blocks until all that the caller has published on nc is written, until limit or
// while ctx is not done. It reports whether it is, which nobody knows while nc is not
// connected: false.
func (w *Writes) wait(ctx context.Context, nc *nats.Conn, limit <-chan time.Time) bool {
	if w.open.Load() == 0 {
		return false
	}
	for range yields { // the client mostly writes as soon as it is let, and then nobody has to be woken
		runtime.Gosched()
		if known, all := w.look(nc); known {
			return all
		}
	}
	written := w.written()
	// The client writes all there is and keeps publishers out meanwhile. So either this
	// finds nothing left, or what it finds is written, and all before it, when the write
	// that begins next, or is under way, is over.
	if known, all := w.look(nc); known {
		return all
	}
	for {
		select {
		case <-written:
		case <-limit:
			return false
		case <-ctx.Done():
			return false
		}
		// With TLS, or over a websocket, one write of the client is several here.
		if written = w.written(); w.writing.Load() == 0 {
			_, err := nc.Buffered() // waits for the last of them
			return err == nil
		}
	}
}

// look reports whether all is written, where that is known without a wait. While a write
// is under way nc is not asked anything: the answer would come after the end of that.
func (w *Writes) look(nc *nats.Conn) (known, all bool) {
	switch {
	case w.writing.Load() > 0:
		return false, false
	case !nc.IsConnected():
		return true, false
	}
	left, err := nc.Buffered()
	return left <= 0, err == nil // below 0 with an error
}

// written is closed after the next write that ends.
func (w *Writes) written() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next = make(chan struct{})
	}
	return w.next
}

// wrote tells who waits of the end of a write.
func (w *Writes) wrote() {
	w.writing.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next != nil {
		close(w.next)
		w.next = nil
	}
}

// writesDialer makes connections that tell writes of their writes.
type writesDialer struct {
	inner  nats.CustomDialer
	writes *Writes
}

// Dial implements [nats.CustomDialer].
func (d *writesDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := d.inner.Dial(network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // the dialer's own error is what the client expects
	}
	d.writes.open.Add(1)
	return &seenConn{Conn: conn, writes: d.writes}, nil
}

// SkipTLSHandshake is what the client asks a dialer that does TLS itself.
func (d *writesDialer) SkipTLSHandshake() bool {
	skipping, ok := d.inner.(interface{ SkipTLSHandshake() bool })
	return ok && skipping.SkipTLSHandshake()
}

// seenConn is a connection whose writes are seen.
type seenConn struct {
	net.Conn
	writes *Writes
	closed sync.Once
}

// Write implements [net.Conn]. A write that fails ends the waiting, too: the client
// gives the connection up.
func (s *seenConn) Write(p []byte) (int, error) {
	s.writes.writing.Add(1)
	defer s.writes.wrote()
	return s.Conn.Write(p)
}

// Close implements [net.Conn].
func (s *seenConn) Close() error {
	s.closed.Do(func() { s.writes.open.Add(-1) })
	return s.Conn.Close()
}
