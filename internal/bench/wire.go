package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// frame is a message on its way between a client and the server.
type frame struct {
	published      bool // by the client; else delivered to it
	subject, reply string
	size           int // of headers and payload
	at             time.Time
}

// protocol finds the messages in the bytes of one direction of a connection.
type protocol struct {
	line []byte // begun, and not ended yet
	skip int    // bytes of a payload that are yet to come
}

// feed reads the next bytes, which were there at a moment, and hands every message
// that begins in them to tell.
func (p *protocol) feed(data []byte, at time.Time, tell func(frame)) {
	for len(data) > 0 {
		if p.skip > 0 {
			n := min(p.skip, len(data))
			data, p.skip = data[n:], p.skip-n
			continue
		}
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			p.line = append(p.line, data...)
			return
		}
		p.line = append(p.line, data[:end]...)
		data = data[end+1:]
		if f, ok := parseFrame(string(p.line)); ok {
			f.at = at
			p.skip = f.size + len("\r\n")
			tell(f)
		}
		p.line = p.line[:0]
	}
}

// parseFrame reads a line of the protocol; it reports false for those that are
// followed by no message.
func parseFrame(line string) (frame, bool) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return frame{}, false
	}
	verb, words := strings.ToUpper(words[0]), words[1:]
	f := frame{published: strings.HasSuffix(verb, "PUB")}
	sizes := 1 // numbers at the end
	switch verb {
	case "PUB", "MSG":
	case "HPUB", "HMSG":
		sizes = 2
	default:
		return frame{}, false
	}
	least := 1 + sizes // the subject
	if !f.published {
		least++ // the subscription
	}
	if len(words) < least {
		return frame{}, false
	}
	f.subject = words[0]
	if len(words) > least {
		f.reply = words[least-sizes]
	}
	var err error
	f.size, err = strconv.Atoi(words[len(words)-1])
	return f, err == nil
}

// relay is a proxy for one server that tells every message, in both directions,
// with the moment at which its head was there, before it is passed on.
type relay struct {
	listener net.Listener
	server   string
	tell     func(frame) // called by several goroutines
}

// newRelay listens; nothing is relayed until run.
func newRelay(ctx context.Context, server string, tell func(frame)) (*relay, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &relay{listener: l, server: strings.TrimPrefix(server, "nats://"), tell: tell}, nil
}

// url is where clients connect.
func (r *relay) url() string { return "nats://" + r.listener.Addr().String() }

// run relays until ctx is done, and returns when all connections are closed.
func (r *relay) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = r.listener.Close() }) // run sees that
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		client, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		server, err := new(net.Dialer).DialContext(ctx, "tcp", r.server)
		if err != nil {
			return errors.Join(err, client.Close())
		}
		cut := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() }) // the pumps see that
		wg.Go(func() {                                                                  // ends with either connection
			defer cut()
			r.pump(server, client)
		})
		wg.Go(func() { r.pump(client, server) }) // ends with either connection
	}
}

// pump copies one direction until it ends, and ends the other with it.
func (r *relay) pump(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }() // the other pump may have
	var p protocol
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		at := time.Now()
		if n > 0 {
			p.feed(buf[:n], at, r.tell) // first: the answer may be faster than what follows here
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil { // a client that misses something says so itself
			return
		}
	}
}
