package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// gate is a network between a command and the server that a test can cut.
type gate struct {
	mu    sync.Mutex // guards the rest
	shut  bool
	conns []net.Conn
}

var errCut = errors.New("the network is cut")

// Dial implements nats.CustomDialer.
func (g *gate) Dial(network, address string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, errCut
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), network, address)
	if err == nil {
		g.conns = append(g.conns, conn)
	}
	return conn, err
}

// cut breaks every connection and lets none through.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
}

// mend lets connections through again.
func (g *gate) mend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// gated returns a command behind a gate.
func (b *bench) gated() (*command, *gate) {
	b.t.Helper()
	g := &gate{}
	c := b.command("")
	inner := c.load()
	c.load = func() environment {
		env := inner
		env.connect = func(opts ...nats.Option) (*nats.Conn, error) {
			return inner.connect(append(opts, nats.SetCustomDialer(g))...)
		}
		return env
	}
	return c, g
}
