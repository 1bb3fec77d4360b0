package main

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between the workers and a server, and is the network that breaks.
type proxy struct {
	addr   string
	target string

	mu    sync.Mutex // guards the rest
	pairs map[*pair]bool
	made  int // connections so far
}

// pair is one connection through the proxy.
type pair struct {
	client, server net.Conn
	mu             sync.Mutex // guards dead
	dead           bool       // nothing passes any more, and nobody is told
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l := listen(t)
	p := &proxy{addr: l.Addr().String(), target: target, pairs: make(map[*pair]bool)}
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the listener
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.target)
			if err != nil {
				_ = client.Close()
				continue
			}
			c := &pair{client: client, server: server}
			p.mu.Lock()
			p.pairs[c] = true
			p.made++
			p.mu.Unlock()
			wg.Go(func() { p.pass(c, client, server) }) // end with their connections
			wg.Go(func() { p.pass(c, server, client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.reset()
		wg.Wait()
		p.reset() // what was accepted meanwhile
	})
	return p
}

// pass copies from one side to the other until one of them ends.
func (p *proxy) pass(c *pair, from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		dead := c.dead
		c.mu.Unlock()
		if dead && err == nil {
			continue
		}
		if n > 0 && !dead {
			if _, writeErr := to.Write(buf[:n]); writeErr != nil {
				err = writeErr
			}
		}
		if err == nil {
			continue
		}
		_ = from.Close()
		if !dead { // the other side of a dead one is not told
			_ = to.Close()
			p.mu.Lock()
			delete(p.pairs, c)
			p.mu.Unlock()
		}
		return
	}
}

// reset breaks every connection with a TCP reset.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		for _, side := range []net.Conn{c.client, c.server} {
			if tcp, ok := side.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = side.Close()
		}
	}
	clear(p.pairs)
}

// blackhole lets nothing more through the connections there are, and leaves them
// open. New ones work.
func (p *proxy) blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.mu.Lock()
		c.dead = true
		c.mu.Unlock()
	}
}

// connections counts those that were ever made.
func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

func TestTheProxyCanBeResetAndBlackholed(t *testing.T) {
	t.Parallel()
	l := listen(t)
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with its connection
				defer c.Close()
				buf := make([]byte, 1)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	p := newProxy(t, l.Addr().String())
	dial := func() net.Conn {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	echo := func(c net.Conn) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 1))
		return err
	}
	first := dial()
	require.NoError(t, echo(first))
	p.reset()
	require.Error(t, echo(first))

	second := dial()
	require.NoError(t, echo(second))
	p.blackhole()
	answered := make(chan error, 1)
	go func() { answered <- echo(second) }() // ends with the connection
	third := dial()
	require.NoError(t, echo(third))
	require.Empty(t, answered, "nothing came back, not even an end")
	require.Equal(t, 3, p.connections())
	require.NoError(t, second.Close())
	require.Error(t, <-answered)
}
