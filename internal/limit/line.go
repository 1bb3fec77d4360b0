package limit

import (
	"context"
	"time"
)

// turn is what one call holds of the limits.
type turn struct {
	price
	cost   float64   // tokens reserved
	start  time.Time // when it left
	marks  [2]mark   // what was believed then of the provider's requests and tokens
	marked bool
}

// waiter is a call in line.
type waiter struct {
	turn
	wake       chan struct{} // of one: look again
	at         time.Time     // first in line: when it looks by itself; zero: not
	granted    bool
	prev, next *waiter
}

// line is the calls that wait, first come first served.
type line struct {
	first, last *waiter
	load
}

// push puts a waiter at the end.
func (q *line) push(w *waiter) {
	w.prev = q.last
	if q.last != nil {
		q.last.next = w
	} else {
		q.first = w
	}
	q.last = w
	q.add(1, w.cost)
}

// remove takes a waiter out.
func (q *line) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next = nil, nil
	q.add(-1, -w.cost)
}

// enter reserves what t needs, if nobody waits and there is room. Otherwise it
// returns t's place in line, or how far away its turn is if that is further than
// patience (see [backend.Request]).
func (l *Limiter) enter(t *turn, patience time.Duration) (w *waiter, far time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	t.cost = l.cost(t.price)
	if l.line.first == nil && l.wait(t.cost, now) <= 0 {
		l.reserve(t, now)
		return nil, 0
	}
	if patience != 0 {
		if far = l.room(t.cost, l.line.load, now); far > max(patience, 0) {
			return nil, far
		}
	}
	w = &waiter{turn: *t, wake: make(chan struct{}, 1)}
	l.line.push(w)
	l.advance(now)
	return w, 0
}

// await waits until w has its turn, or ctx is done: then it returns false, and w
// has nothing.
func (l *Limiter) await(ctx context.Context, w *waiter) bool {
	var timer *time.Timer
	var ticks <-chan time.Time
	for {
		select {
		case <-w.wake:
		case <-ticks:
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // also where its turn came at the same moment
			if timer != nil {
				timer.Stop()
			}
			l.leave(w)
			return false
		}
		wait, granted := l.look(w)
		switch {
		case granted:
			if timer != nil {
				timer.Stop()
			}
			return true
		case wait == forever:
			ticks = nil
			continue
		case timer == nil:
			timer = time.NewTimer(wait)
		default:
			timer.Reset(wait)
		}
		ticks = timer.C
	}
}

// look lets the line advance and tells a waiter whether it has its turn or else
// when to look again.
func (l *Limiter) look(w *waiter) (wait time.Duration, granted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !w.granted && l.line.first == w && !w.at.IsZero() && !now.Before(w.at) {
		l.advance(now)
	}
	switch {
	case w.granted:
		return 0, true
	case w.at.IsZero():
		return forever, false
	}
	return w.at.Sub(now), false
}

// leave takes a waiter out of line, or back what it was given at the last moment.
func (l *Limiter) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.granted {
		l.inflight--
		l.refund(&w.turn)
	} else {
		l.line.remove(w)
	}
	l.advance(time.Now())
}

// advance gives their turn to all for whom there is room now, and tells the
// first of the others when to look again. It must be called after every change
// that may make room. l.mu is held.
func (l *Limiter) advance(now time.Time) {
	for w := l.line.first; w != nil; w = l.line.first {
		wait := l.wait(w.cost, now)
		if wait > 0 {
			var at time.Time
			if wait != forever {
				at = now.Add(wait)
			}
			if at != w.at {
				w.at = at
				w.poke()
			}
			return
		}
		l.line.remove(w)
		l.reserve(&w.turn, now)
		w.granted = true
		w.poke()
	}
}

// poke makes the waiter look again; one that is about to does so once.
func (w *waiter) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wait is how long a call of that cost would wait if it were the first in line;
// forever when that depends on other calls. l.mu is held.
func (l *Limiter) wait(cost float64, now time.Time) time.Duration {
	if l.cfg.Concurrency > 0 && l.inflight >= l.cfg.Concurrency {
		return forever
	}
	probe := max(l.last.Add(longest).Sub(now), 0)
	if l.running() > 0 {
		probe = forever
	}
	own := max(l.requests.ownWait(1, now), l.tokens.ownWait(cost, now))
	theirs := max(l.requests.theirs.wait(1, now), l.tokens.theirs.wait(cost, now))
	if theirs == forever && l.running() == 0 {
		theirs = 0 // nobody is left to tell when
	}
	return max(own, min(theirs, probe), l.blocked.Sub(now))
}

// running is how many calls are under way.
func (l *Limiter) running() int { return l.inflight + int(l.loose.Load()) }

// reserve takes what t needs. l.mu is held.
func (l *Limiter) reserve(t *turn, now time.Time) {
	l.inflight++
	l.last = now
	if l.first.IsZero() {
		l.first = now
	}
	t.start, t.marked = now, true
	t.marks = [2]mark{l.requests.take(1, now), l.tokens.take(t.cost, now)}
}

// refund gives back what t has not used. l.mu is held.
func (l *Limiter) refund(t *turn) {
	l.requests.refund(1, t.marks[0])
	l.tokens.refund(t.cost, t.marks[1])
}
