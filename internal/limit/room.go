package limit

import (
	"math"
	"time"

	"understudy/internal/backend"
)

const (
	// glance is the least time that a call waits which does not go at once.
	glance = time.Millisecond
	// firstLook is when those that are deferred look first whether an answer has
	// told how much can go at once: many calls take no longer. After that they look
	// each time twice as much has passed since the first call.
	firstLook = time.Second
	// hopedSpent is the share of reserved tokens that is used, until answers have
	// told.
	hopedSpent = 0.75
)

// Room implements [backend.Limited]: it returns how long a call of req would wait
// behind those in line, 0 for not at all. Jobs that were deferred do not count.
func (l *Limiter) Room(req *backend.Request) time.Duration {
	if !l.active.Load() {
		return 0
	}
	p := l.estimate(req)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room(l.cost(p), l.line.load, time.Now())
}

// Defer implements [backend.Limited]: it returns in how long req should come
// back, which is when there is room behind those in line and those deferred
// before, at most five minutes. Those deferred keep nothing: whoever comes in
// time while there is room goes first.
//
// Until an answer has come, nobody knows how much can go at once. So many as a
// minute allows come back soon to find out, and the others as if those could go.
// Tokens are counted as they will be used, not as they would be reserved: coming
// too early costs a look, coming too late what nobody used.
func (l *Limiter) Defer(req *backend.Request) time.Duration {
	if !l.active.Load() {
		return 0
	}
	p := l.estimate(req)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	cost := l.cost(p)
	least := min(l.room(cost, l.line.load, now), longest)
	cost *= l.spent.or(hopedSpent)
	l.away.advance(now)
	wait := max(l.gap(cost, load{}, now), least)
	if hoped := l.hope(); !l.heard && hoped != (load{}) {
		soon := min(max(now.Sub(l.first), firstLook), longest)
		squad := l.away.until(now.Add(soon))
		if (hoped.calls == 0 || squad.calls < hoped.calls) && (hoped.tokens == 0 || squad.tokens < hoped.tokens) {
			wait = min(wait, soon)
		} else {
			wait = min(wait, max(l.gap(cost, hoped, now), soon))
		}
	}
	if wait < longest { // who comes then finds no room yet
		l.away.add(now.Add(wait), cost)
	}
	return wait
}

// gap is how long until there is room for a call of that cost behind those in
// line and those that come back before it, but for so many of them. l.mu is held.
func (l *Limiter) gap(cost float64, but load, now time.Time) time.Duration {
	ahead, gap := l.line.load, longest
	again, wait := true, longest
	for s := l.away.second; s < l.away.second+len(l.away.comes); s++ {
		if again {
			behind := ahead
			behind.add(-min(but.calls, ahead.calls), -min(but.tokens, ahead.tokens))
			wait = l.room(cost, behind, now)
		}
		switch {
		case now.Add(wait).After(l.away.begin(s)):
			gap = longest
		case gap == longest:
			gap = min(wait, longest)
		}
		calls, tokens := l.away.in(s)
		ahead.add(calls, tokens)
		again = calls > 0
	}
	return gap
}

// hope is what may go at once when nothing is known of the provider: what our own
// limits allow in a minute, 0 where there is none.
func (l *Limiter) hope() load {
	return load{int(l.cfg.RPM), float64(l.cfg.TPM)}
}

// room is how long a call of that cost would wait behind others. l.mu is held.
func (l *Limiter) room(cost float64, ahead load, now time.Time) time.Duration {
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
	calls := float64(ahead.calls + 1)
	return max(
		wait, glance, l.places(ahead.calls), min(l.blocked.Sub(now), longest),
		l.requests.room(calls, 1, now), l.tokens.room(ahead.tokens+cost, cost, now),
	)
}

// places is how long until a place is free behind so many others, as calls have
// taken so far. l.mu is held.
func (l *Limiter) places(ahead int) time.Duration {
	if l.cfg.Concurrency <= 0 {
		return 0
	}
	ends := ahead + 1 + l.inflight - l.cfg.Concurrency // how many calls must end first
	return seconds(float64(ends)*l.took.or(1), float64(l.cfg.Concurrency))
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
	case a.limit > 0:
		period := a.period
		if period == 0 { // not known before one has begun
			period = max(time.Minute, a.reset.Sub(now))
		}
		resets := min(math.Ceil(missing/a.limit-1e-6), 1000) // of which the first is a.reset
		return a.reset.Sub(now) + time.Duration(resets-1)*period
	}
	return a.reset.Sub(now)
}
