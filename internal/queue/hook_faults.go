//go:build faults

package queue

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// A build with the tag faults is for tests that break things. It differs from
// the normal one in two ways: it tells a harness of the points a job comes to and
// waits there for its word, and its lease can be shortened.

// Reach tells the harness at the address UNDERSTUDY_FAULTS that this process
// has come to a point with a job, and blocks until the harness answers. Without
// the variable, or when the harness is gone, it returns at once.
func Reach(point, id string) {
	addr := os.Getenv("UNDERSTUDY_FAULTS")
	if addr == "" {
		return
	}
	c := line.Get()
	for range 2 { // a line that was kept may have been closed
		if c == nil {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			c = &wire{conn, bufio.NewReader(conn)}
		}
		if _, err := fmt.Fprintf(c.conn, "%s\t%s\t%s\n", os.Getenv("WORKER_NAME"), point, id); err == nil {
			if _, err = c.answers.ReadString('\n'); err == nil {
				line.Put(c)
				return
			}
		}
		_ = c.conn.Close()
		c = nil
	}
}

// wire is a connection to the harness, used by one goroutine at a time.
type wire struct {
	conn    net.Conn
	answers *bufio.Reader
}

// wires are those that nobody uses at the moment.
type wires struct {
	mu   sync.Mutex // guards idle
	idle []*wire
}

// line holds the connections of this process to the harness.
var line wires

// Get takes a connection, nil when there is none.
func (w *wires) Get() *wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.idle) == 0 {
		return nil
	}
	c := w.idle[len(w.idle)-1]
	w.idle = w.idle[:len(w.idle)-1]
	return c
}

// Put gives a connection back.
func (w *wires) Put(c *wire) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = append(w.idle, c)
}

func at(point string) { Reach(point, "") }

func shortLease() time.Duration {
	d, err := time.ParseDuration(os.Getenv("UNDERSTUDY_LEASE"))
	if err != nil {
		return 0
	}
	return d
}
