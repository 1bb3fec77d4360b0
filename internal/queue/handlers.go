package queue

import (
	"sync"
	"sync/atomic"
)

// sparest is how many goroutines are kept for the next jobs. A job goes deep: with
// a new goroutine for each, growing its stack takes a twentieth of a worker's time.
const sparest = 256

// handlers are the goroutines that handle jobs. They are used again.
type handlers struct {
	work  chan *Delivery // for spare ones; has room for as many as there are
	spare atomic.Int64   // that wait for work, or are about to; only Source's owner takes from it
	wg    sync.WaitGroup
}

// run handles d in a goroutine that is not busy. handle is the same for every call.
func (h *handlers) run(d *Delivery, handle func(*Delivery)) {
	if h.spare.Load() > 0 {
		h.spare.Add(-1)
		h.work <- d
		return
	}
	h.wg.Go(func() { // ends in stop, or earlier where there are spare ones enough
		for ok := true; ok; d, ok = <-h.work {
			handle(d)
			if !h.keep() {
				return
			}
		}
	})
}

// keep counts the caller as a spare one, unless there are enough.
func (h *handlers) keep() bool {
	for {
		n := h.spare.Load()
		if n >= sparest {
			return false
		}
		if h.spare.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// stop waits for the handlers and ends their goroutines. No run may follow.
func (h *handlers) stop() {
	close(h.work)
	h.wg.Wait()
}
