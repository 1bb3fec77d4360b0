package natstest

import (
	"context"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between clients and a server, and is the network that is slow or
// breaks without a word. Until it is told otherwise it passes everything on at
// once. Its methods are safe for concurrent use.
type Proxy struct {
	// URL is where clients connect instead; it names no user.
	URL string

	delay atomic.Int64 // of each piece, a time.Duration
	// swallowed is of the connections of now: it is set for all of them at once,
	// and those that come after it share another one.
	swallowed atomic.Pointer[atomic.Bool]
}

// RunProxy starts a proxy on 127.0.0.1 and a random port, in front of the server
// at the URL target, which may be restarted meanwhile. The test's cleanup stops
// it, closes its connections and waits for their end.
func RunProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	to, err := url.Parse(target)
	if err != nil {
		tb.Fatalf("read the URL of the NATS server: %v", err)
	}
	ctx := context.WithoutCancel(tb.Context()) // clients may still connect in the test's cleanup
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("start a proxy: %v", err)
	}
	p := &Proxy{URL: "nats://" + listener.Addr().String()}
	p.swallowed.Store(new(atomic.Bool))
	var accepting, passing sync.WaitGroup
	var conns []net.Conn  // belongs to the goroutine that accepts, until it ends
	accepting.Go(func() { // ends with the listener
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(ctx, "tcp", to.Host)
			if err != nil { // the server is stopped
				_ = client.Close()
				continue
			}
			conns = append(conns, client, server)
			swallowed := p.swallowed.Load()
			passing.Go(func() { p.pass(server, client, swallowed) }) // both end with their connections
			passing.Go(func() { p.pass(client, server, swallowed) })
		}
	})
	tb.Cleanup(func() {
		_ = listener.Close()
		accepting.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
		passing.Wait()
	})
	return p
}

// Delay makes everything take d longer from now on, in each direction. Each piece
// of up to 32 KiB waits for the one before it, so the link is narrow, too.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Swallow makes a black hole of the connections of now: they stay open, but
// nothing comes through any more in either direction, not even their end. New
// connections work.
func (p *Proxy) Swallow() { p.swallowed.Swap(new(atomic.Bool)).Store(true) }

// pass copies until one side is closed and then closes both, unless the connection
// is swallowed: then the other side is not told.
func (p *Proxy) pass(to, from net.Conn, swallowed *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if d := time.Duration(p.delay.Load()); d > 0 {
			<-time.After(d)
		}
		if swallowed.Load() {
			if err != nil {
				return
			}
			continue
		}
		_, writeErr := to.Write(buf[:n])
		if err != nil || writeErr != nil {
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}
