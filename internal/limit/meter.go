package limit

import (
	"math"
	"time"
)

// meter is the account of one dimension, of calls or of tokens: what we allow
// ourselves and what the provider allows. It is the only place that knows how
// much is left, and is guarded by the limiter's lock.
type meter struct {
	own    bucket
	theirs allowance
}

// ownWait is how long until we allow ourselves need more, 0 when the provider's
// limit is the stricter one, so that it alone decides how much can go at once.
func (m *meter) ownWait(need float64, now time.Time) time.Duration {
	if m.own.rate <= 0 || m.theirs.within(m.own.rate) {
		return 0
	}
	return m.own.wait(need, now)
}

// take takes n from both, and remembers what was believed before. While the
// provider's limit alone decides, ours runs up no debt: it would fall due when
// that changes.
func (m *meter) take(n float64, now time.Time) mark {
	m.own.refill(now)
	least := -float64(time.Hour/time.Second) * m.own.rate
	if m.theirs.within(m.own.rate) {
		least = min(m.own.level, 0)
	}
	m.own.level = max(m.own.level-n, least)
	return m.theirs.take(n, now)
}

// refund gives back all that a call took: it used nothing.
func (m *meter) refund(n float64, mk mark) {
	m.own.level = min(m.own.level+n, m.own.burst)
	m.theirs.giveBack(mk.taken)
}

// correct replaces n, which was reserved, by what was used.
func (m *meter) correct(n, used float64, mk mark) {
	if n > used {
		m.own.level = min(m.own.level+(n-used)*(1-m.own.kept), m.own.burst)
	} else {
		m.own.level -= used - n
	}
	m.theirs.giveBack(max(mk.taken-used, 0) * m.theirs.share)
}

// ended takes notice that a call has ended.
func (m *meter) ended(start time.Time) {
	m.own.kept = max(m.own.kept-0.001, 0)
	m.theirs.ended(start)
}

// drain leaves so much that need is there after the hold: an unexpected refusal
// shows that there was less than believed.
func (m *meter) drain(need float64, hold time.Duration, now time.Time) {
	m.own.drain(need, hold, now)
	m.own.kept = min(m.own.kept+0.1, 1)
	m.own.burst = max(1, m.own.rate*leastBurst, m.own.burst/2)
	if m.theirs.known {
		m.theirs.refill(now)
		m.theirs.level = min(m.theirs.level, need-m.theirs.rate*hold.Seconds())
	}
}

const (
	// firstBurst is how many seconds' worth can go at once: it is not known
	// whether the provider allows more.
	firstBurst = 1.0
	// leastBurst is what refusals reduce that to: less would be below what timers
	// and networks keep apart.
	leastBurst = 0.25
)

// bucket is a token bucket of our own: what is not used at once is there later,
// up to burst. The zero value stands for no limit.
type bucket struct {
	rate, burst float64 // per second; at most
	level       float64 // below 0 when more was used than was there
	at          time.Time
	kept        float64 // share of what is not used that is not given back; grows with refusals
}

// newBucket returns a full bucket, or the zero value for no limit.
func newBucket(perMinute int64, now time.Time) bucket {
	rate := float64(perMinute) / 60
	if rate == 0 {
		return bucket{}
	}
	burst := max(1, rate*firstBurst)
	return bucket{rate: rate, burst: burst, level: burst, at: now}
}

// refill brings the level up to now.
func (b *bucket) refill(now time.Time) {
	if now.After(b.at) {
		b.level = min(b.burst, b.level+b.rate*now.Sub(b.at).Seconds())
		b.at = now
	}
}

// wait is how long until need is there. What is more than fits waits for a full
// bucket, and leaves it with a debt.
func (b *bucket) wait(need float64, now time.Time) time.Duration {
	b.refill(now)
	return seconds(min(need, b.burst)-b.level, b.rate)
}

// drain leaves so much that need is there after the hold, and not more.
func (b *bucket) drain(need float64, hold time.Duration, now time.Time) {
	b.refill(now)
	b.level = min(b.level, min(need, b.burst)-b.rate*hold.Seconds())
}

// seconds is how long n takes at a rate per second, rounded up to a tick, so
// that it is there when the time has passed; forever at no rate.
func seconds(n, rate float64) time.Duration {
	switch {
	case n <= 1e-6:
		return 0
	case rate <= 0 || n/rate > 1e9:
		return forever
	}
	return time.Duration(math.Ceil(n/rate*1e9)) + 1
}
