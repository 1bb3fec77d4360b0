package results

import (
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

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
	mu   sync.Mutex    // guards next
	next chan struct{} // closed after the next write; nil while nobody waits for one
}

// Option lets w see a connection. It goes around the dialer of the options
// before it, so it comes last. A connection to a server in this process is not seen.
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

// wait blocks until all that the caller has published on nc is written, for at most
// limit. It reports whether it is, which nobody knows while nc is not connected: false.
func (w *Writes) wait(nc *nats.Conn, limit time.Duration) bool {
	if !nc.IsConnected() {
		return false
	}
	written := w.written()
	// A write takes all there is and keeps publishers out meanwhile. So either this
	// finds nothing left, or what it finds is written, and all before it, with the next
	// write that ends.
	if left, err := nc.Buffered(); left == 0 || err != nil {
		return err == nil
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-written:
		return true
	case <-timer.C:
		return false
	}
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

// wrote tells who waits of a write.
func (w *Writes) wrote() {
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
	return &seenConn{conn, d.writes}, nil
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
}

// Write implements [net.Conn]. A write that fails ends the waiting, too: the client
// gives the connection up.
func (s *seenConn) Write(p []byte) (int, error) {
	defer s.writes.wrote()
	return s.Conn.Write(p)
}
