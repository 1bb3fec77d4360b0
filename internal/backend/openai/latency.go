package openai

import (
	"errors"
	"slices"
	"sync"
	"time"

	"understudy/internal/backend"
)

const (
	// ringSize is how many of the latest calls count: enough for a p99, and few
	// enough that yesterday's are forgotten.
	ringSize = 256
	// minSamples is how many calls have to be known before anything follows from
	// them.
	minSamples = 20
	// idleTime is how long a backend may be without an answer before it may have
	// put its model away.
	idleTime = 5 * time.Minute
	// coldFactor is how many times the median a cold start takes at least.
	coldFactor = 3
)

// Percentiles are those of the latest 256 times at most, by nearest rank; all 0
// when there are none.
type Percentiles struct {
	P50, P95, P99 time.Duration
	// Samples is how many times they are of.
	Samples int
}

// Latency is how long the latest calls of a [Client] took.
type Latency struct {
	// Percentiles are those of whole calls: of answers, and of calls that the
	// client's own time limit cut, with the time they took until then.
	Percentiles
	// FirstToken are those of the time until the first token of streamed calls,
	// and of those that the limit on it cut.
	FirstToken Percentiles
	// ColdStarts is how many calls waited for a model that was not ready. Their
	// times are in none of the percentiles.
	ColdStarts uint64
}

// Latency returns how long the latest calls took. It is safe for concurrent use
// and never waits for a call.
func (c *Client) Latency() Latency {
	l := &c.latency
	l.mu.Lock()
	defer l.mu.Unlock()
	return Latency{Percentiles: l.whole.percentiles(), FirstToken: l.first.percentiles(), ColdStarts: l.coldStarts}
}

// latencies keeps how long the latest calls of one client took. The zero value
// is ready for use.
type latencies struct {
	// mu guards everything below; it is held for a moment only.
	mu           sync.Mutex
	whole, first ring
	lastAnswer   time.Time
	coldStarts   uint64
}

// ring holds the latest times.
type ring struct {
	times [ringSize]time.Duration
	next  int
	n     int // how many there are
	// sorted are the same times in order: to keep them so takes less than to sort
	// them for every call.
	sorted [ringSize]time.Duration
}

// add takes one more time, and forgets the oldest when the ring is full.
func (r *ring) add(d time.Duration) {
	if r.n == ringSize {
		i, _ := slices.BinarySearch(r.sorted[:], r.times[r.next])
		copy(r.sorted[i:], r.sorted[i+1:])
		r.n--
	}
	i, _ := slices.BinarySearch(r.sorted[:r.n], d)
	copy(r.sorted[i+1:], r.sorted[i:r.n])
	r.sorted[i] = d
	r.times[r.next] = d
	r.next = (r.next + 1) % ringSize
	r.n++
}

// percentiles are those of the times in the ring.
func (r *ring) percentiles() Percentiles {
	if r.n == 0 {
		return Percentiles{}
	}
	rank := func(percent int) time.Duration { return r.sorted[(r.n*percent+99)/100-1] }
	return Percentiles{P50: rank(50), P95: rank(95), P99: rank(99), Samples: r.n}
}

// pace is the time that a call gets.
type pace struct {
	// limit is that of the whole call, or of its first token.
	limit time.Duration
	// silence is how long a stream may pause between tokens; 0 when limit is that
	// of the whole call.
	silence time.Duration
	// adaptive tells that limit is less than what is configured.
	adaptive bool
	// cold tells that the backend may have to load its model first.
	cold bool
}

// pace returns the time for a call that leaves now. While a cold start is
// possible it is all that is configured: what is known of the backend is about
// one that has its model at hand.
func (c *Client) pace(streams bool) pace {
	p := pace{limit: c.cfg.Timeout}
	l := &c.latency
	l.mu.Lock()
	defer l.mu.Unlock()
	times := &l.whole
	if streams && c.cfg.FirstTokenTimeout > 0 {
		p.limit, p.silence, times = c.cfg.FirstTokenTimeout, c.cfg.Timeout, &l.first
	}
	p.cold = l.lastAnswer.IsZero() || time.Since(l.lastAnswer) >= idleTime
	if !c.cfg.AdaptiveTimeout || p.cold || times.n < minSamples {
		return p
	}
	usual := (times.percentiles().P99 * 3 / 2).Round(time.Millisecond)
	if usual = max(usual, p.limit/4); usual < p.limit {
		p.limit, p.adaptive = usual, true
	}
	return p
}

// learn takes in how long a call took that is over. What its own limit cut
// counts as well: so the limit follows a backend that becomes slower, step by
// step, up to what is configured. Other failures say nothing about the time that
// an answer takes.
func (c *Client) learn(p pace, x *exchange, err error) {
	if x.started.IsZero() {
		return // never sent
	}
	took := time.Since(x.started)
	whole, first := took, x.firstToken
	if err != nil {
		e := backend.AsError(err, c.cfg.Name)
		limit, cut := errors.AsType[*limitError](e.Cause)
		switch {
		case e.Class == backend.Overloaded && p.cold && isLoading(e):
			c.latency.countColdStart()
			return
		case e.Class != backend.Timeout || !cut:
			return
		case limit.what == noFirstToken:
			whole, first = 0, took
		}
	}
	c.latency.add(p, err == nil, whole, first)
}

func (l *latencies) countColdStart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coldStarts++
}

// add takes in one call: the time it took and the time until its first token,
// each 0 when there is none.
func (l *latencies) add(p pace, answered bool, whole, first time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answered {
		l.lastAnswer = time.Now()
	}
	if p.cold {
		times, took := &l.whole, whole
		if p.silence > 0 && first > 0 { // how long the rest takes is the answer's length
			times, took = &l.first, first
		}
		if times.n >= minSamples && took > coldFactor*times.percentiles().P50 {
			l.coldStarts++
			return
		}
	}
	if whole > 0 {
		l.whole.add(whole)
	}
	if first > 0 {
		l.first.add(first)
	}
}
