package main

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"
)

// The points of a job's life, as the hooks in the worker name them. pointDuring
// is known from the provider.
const (
	pointPull       = "before pull"
	pointPulled     = "after pull"
	pointDecoded    = "after decode"
	pointCalling    = "before the call"
	pointDuring     = "during the call"
	pointAnswered   = "after the answer"
	pointCommitting = "before commit"
	pointCommitted  = "after commit"
	pointBuried     = "after dead letter"
	pointAcking     = "before ack"
)

// hooks hears of every point that a job comes to in a worker built with the tag
// faults, and can hold it there.
type hooks struct {
	addr string

	mu    sync.Mutex // guards the rest
	holds []*hold
	seen  map[string]int // by worker and point
	// watch, if not nil, is asked at every point; the worker waits for its end.
	watch func(worker, point, id string)
}

// hold is a point at which a job is held.
type hold struct {
	worker, point, id string
	reached           chan struct{}
	released          chan struct{}
	once              sync.Once
}

// release lets the job go on.
func (h *hold) release() { h.once.Do(func() { close(h.released) }) }

func newHooks(t *testing.T) *hooks {
	t.Helper()
	l := listen(t)
	h := &hooks{addr: l.Addr().String(), seen: make(map[string]int)}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards conns
	conns := make(map[net.Conn]bool)
	wg.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() { // ends with the connection
				h.serve(c)
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		h.releaseAll()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return h
}

func (h *hooks) serve(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 {
			return
		}
		h.reach(f[0], f[1], f[2])
		if _, err := c.Write([]byte("go\n")); err != nil {
			return
		}
	}
}

// reach is called when a worker comes to a point, and returns when it may go on.
func (h *hooks) reach(worker, point, id string) {
	h.mu.Lock()
	h.seen[worker+"\t"+point]++
	watch := h.watch
	var held *hold
	for _, x := range h.holds {
		if x.worker == worker && x.point == point && x.id == id {
			select {
			case <-x.reached: // only the first time
			default:
				held = x
				close(x.reached)
			}
		}
	}
	h.mu.Unlock()
	if watch != nil {
		watch(worker, point, id)
	}
	if held != nil {
		<-held.released
	}
}

// hold holds a job at a point, once.
func (h *hooks) hold(worker, point, id string) *hold {
	x := &hold{worker: worker, point: point, id: id, reached: make(chan struct{}), released: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holds = append(h.holds, x)
	return x
}

func (h *hooks) releaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.holds {
		x.release()
	}
}

// count is how often a worker came to a point.
func (h *hooks) count(worker, point string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[worker+"\t"+point]
}
