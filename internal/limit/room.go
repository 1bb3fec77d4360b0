package limit

import (
	"math"
	"time"

	"understudy/internal/backend"
)

// glance is the least time that a call waits which does not go at once.
const glance = time.Millisecond

// Room implements [backend.Limited]: it returns how long a call of req would wait
// behind those in line, 0 for not at all. Jobs that were deferred do not count.
func (l *Limiter) Room(req *backend.Request) time.Duration {
	if !l.active.Load() {
		return 0
	}
	p := l.estimate(req)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room(l.cost(p), time.Now())
}

// Defer implements [backend.Limited]: it returns in how long req should come
// back, which is when there is room behind those in line and those deferred
// before, at most five minutes. Those deferred keep nothing: whoever comes in
// time while there is room goes first.
func (l *Limiter) Defer(req *backend.Request) time.Duration {
	if !l.active.Load() {
		return 0
	}
	p := l.estimate(req)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	cost := l.cost(p)
	at := now.Add(min(l.room(cost, now), longest))
	if behind := l.deferred.Add(l.spacing(cost)); behind.After(at) {
		at = behind
	}
	if last := now.Add(longest); at.After(last) {
		at = last
	}
	l.deferred = at
	return at.Sub(now)
}

// room is how long a call of that cost would wait at the end of the line. l.mu
// is held.
func (l *Limiter) room(cost float64, now time.Time) time.Duration {
	first := cost
	if l.line.first != nil {
		first = l.line.first.cost
	}
	wait := l.wait(first, now)
	if l.line.first == nil && wait <= 0 {
		return 0
	}
	if wait == forever {
		wait = 0
	}
	calls := float64(l.line.calls + 1)
	wait = max(
		wait, glance, l.places(), min(l.blocked.Sub(now), longest),
		l.requests.room(calls, 1, now), l.tokens.room(l.line.tokens+cost, cost, now),
	)
	return wait
}

// places is how long until a place is free behind those in line, as calls have
// taken so far. l.mu is held.
func (l *Limiter) places() time.Duration {
	if l.cfg.Concurrency <= 0 {
		return 0
	}
	ends := l.line.calls + 1 + l.inflight - l.cfg.Concurrency // how many calls must end first
	return seconds(float64(ends)*l.took.or(1), float64(l.cfg.Concurrency))
}

// spacing is the time between two calls of that cost in the long run. l.mu is
// held.
func (l *Limiter) spacing(cost float64) time.Duration {
	space := max(l.requests.spacing(1), l.tokens.spacing(cost))
	if l.cfg.Concurrency > 0 {
		space = max(space, seconds(l.took.or(1), float64(l.cfg.Concurrency)))
	}
	return min(space, longest)
}

// room is how long until sum is there, of which the last takes need.
func (m *meter) room(sum, need float64, now time.Time) time.Duration {
	var own time.Duration
	if m.own.rate > 0 && !m.theirs.within(m.own.rate) {
		m.own.refill(now)
		own = seconds(sum-need+min(need, m.own.burst)-m.own.level, m.own.rate)
	}
	theirs := m.theirs.room(sum, need, now)
	if theirs == forever {
		theirs = 0 // nobody knows
	}
	return max(own, theirs)
}

// room is how long until sum is there, of which the last takes need.
func (a *allowance) room(sum, need float64, now time.Time) time.Duration {
	wait := a.wait(sum, now)
	missing := sum - need + min(need+a.reserve, max(a.burst, 1)) - a.level
	switch {
	case !a.known || missing <= 1e-6:
		return 0
	case !a.window():
		return seconds(missing, a.rate)
	case a.reset.IsZero():
		return wait
	case a.limit > 0 && a.period > 0:
		return a.reset.Sub(now) + seconds(min(math.Floor(missing/a.limit), 1000), 1/a.period.Seconds())
	}
	return a.reset.Sub(now)
}

// spacing is the time that need takes to come back in the long run, 0 when it is
// not known.
func (m *meter) spacing(need float64) time.Duration {
	rate := m.own.rate
	if a := &m.theirs; a.known {
		theirs := a.rate
		if a.window() {
			theirs = 0
			if a.period > 0 {
				theirs = a.limit / a.period.Seconds()
			}
		}
		if theirs > 0 && (rate == 0 || theirs < rate) {
			rate = theirs
		}
	}
	if rate <= 0 {
		return 0
	}
	return seconds(need, rate)
}
