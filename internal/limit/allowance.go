package limit

import (
	"math"
	"time"

	"understudy/internal/backend"
)

const (
	// spell is the shortest time until a reset from which a rate is derived:
	// providers round to seconds.
	spell = 2 * time.Second
	// vote is the least difference between what two laws foretell that tells them
	// apart.
	vote = 3 * time.Second
	// slack is how much later than told a window is taken to end: calls do not all
	// take the same time to arrive.
	slack = 100 * time.Millisecond
	// scouts is how many calls find out whether a window has ended.
	scouts = 16
	// early is how many answers are believed before it is learned what is given back:
	// the first ones make up for a careful beginning.
	early = 100
	// sure is how many votes decide for a window.
	sure = 2
)

// allowance is what we believe of one limit of the provider. It is a ledger: what
// our calls take is taken off when they leave, and the provider's answers
// correct it. There are two laws by which it is filled again, and which it is
// shows only in the answers: a bucket fills all the time; a window is full again
// at its reset, and until then not at all.
//
// Nobody knows whether an answer's figures are of the moment when its call came
// or when its answer left, and between the two other calls of ours were counted.
// So a figure is compared with what was believed at both moments, and believed
// as far as both comparisons agree. Of two answers, the one whose call left
// later counts.
type allowance struct {
	known     bool
	limit     float64 // 0 when it was never told
	burst     float64 // the most that was ever left
	level     float64
	at        time.Time // when level was right
	rate      float64   // per second, 0 when it is not known; the law of a bucket
	reset     time.Time // when it is whole, zero when it is not known; the law of a window
	began     time.Time // the last reset that has passed
	period    time.Duration
	late      int          // votes for figures being of the moment of the answer
	ends      [2]time.Time // the reset by the latest answer, counted from either moment
	votes     int          // for a window
	scouts    int          // calls since a reset of which it is not sure that it was right; -1: sure
	believed  int          // answers
	rest      float64      // what was left before that reset
	proof     bool         // they would be refused if it was not
	exact     bool         // reset is from a refusal, which comes at once
	reserve   float64      // left alone, grows with refusals
	share     float64      // of what was reserved and not used is given back, as answers show
	corrected float64      // sum of all corrections
	crowd     float64      // what was believed, corrections taken off, before the calls of the last slack
	crowdAt   time.Time
	newest    time.Time // when the newest call left whose answer was believed
	ref       sample    // an earlier answer, to compare
}

// mark is what was believed before a call left, with all corrections taken off.
type mark struct {
	known bool
	base  float64
	crowd float64 // the same, before those that left just before it and may arrive after it
	taken float64
}

// take takes n off.
func (a *allowance) take(n float64, now time.Time) mark {
	a.refill(now)
	base := a.level - a.corrected
	if now.Sub(a.crowdAt) > slack || a.crowdAt.Before(a.began) {
		a.crowd, a.crowdAt = base, now
	}
	m := mark{known: a.known, base: base, crowd: max(base, a.crowd), taken: n}
	if a.scouts >= 0 {
		a.scouts++
		a.proof = a.proof && a.rest < m.taken
	}
	a.level -= m.taken
	return m
}

// giveBack gives back what a call took and did not use.
func (a *allowance) giveBack(n float64) { a.level += min(n, max(a.burst-a.level, 0)) }

// ended takes notice that a call has ended, whatever it says.
func (a *allowance) ended(start time.Time) {
	if a.scouts > 0 && !start.Before(a.began) {
		a.scouts = -1
		a.late--
		if a.proof {
			a.late = min(a.late, -sure)
		}
	}
	a.reserve *= 0.9998
}

// sample is one answer's figures.
type sample struct {
	start time.Time
	took  time.Duration
	used  float64
	reset time.Duration
}

// step is how much its reset may be off: providers round it, many to seconds.
func (s sample) step() time.Duration {
	if s.reset%time.Second == 0 {
		return time.Second
	}
	return 10 * time.Millisecond
}

// allows reports whether a bucket of that rate would tell such figures.
func (s sample) allows(rate float64) bool {
	return rate*(s.reset+s.step()).Seconds() >= s.used-1 && rate*(s.reset-s.step()).Seconds() <= s.used+1
}

// report is what one answer says, and about which call.
type report struct {
	backend.Allowance
	mark    mark
	start   time.Time
	cost    float64 // what the call took off
	others  int     // calls under way beside it
	refused bool    // it took nothing, because too little was left
	retry   time.Duration
	ours    float64 // our own rate per second, 0 for none
}

// window reports whether it is filled by the law of a window.
func (a *allowance) window() bool { return a.votes >= sure || a.known && a.limit == 0 && a.rate == 0 }

// refill brings the level up to now.
func (a *allowance) refill(now time.Time) {
	if !a.known {
		return
	}
	if a.window() {
		if !a.reset.IsZero() && !now.Before(a.reset) {
			a.began, a.newest, a.rest, a.proof = a.reset, a.reset, a.level, true
			a.level = max(a.level, a.burst)
			a.reset = time.Time{}
			a.known = a.limit > 0
			if a.scouts = -1; a.late == 0 && !a.exact {
				a.scouts = 0
			}
		}
	} else if now.After(a.at) && a.level < a.burst {
		a.level = min(a.burst, a.level+a.rate*now.Sub(a.at).Seconds())
	}
	a.at = now
}

// wait is how long until the provider would take need more; forever when only
// another answer can tell.
func (a *allowance) wait(need float64, now time.Time) time.Duration {
	if !a.known {
		return 0
	}
	a.refill(now)
	missing := min(need+a.reserve, max(a.burst, 1)) - a.level
	switch {
	case !a.known:
		return 0
	case a.scouts >= scouts:
		return forever
	case missing <= 1e-6:
		return 0
	case !a.window():
		return seconds(missing, a.rate)
	case a.reset.IsZero():
		return forever
	}
	return a.reset.Sub(now)
}

// within reports whether the limit is at or below rate per second, given for a
// minute, so that keeping it keeps ours.
func (a *allowance) within(rate float64) bool {
	if !a.known || a.limit == 0 || a.limit > rate*60+0.5 {
		return false
	}
	if a.window() {
		return a.period == 0 || a.limit/a.period.Seconds() <= rate*1.1
	}
	return a.rate <= rate*1.1
}

// learn takes what an answer says.
func (a *allowance) learn(r *report, now time.Time) {
	if limit := float64(r.Limit); limit > 0 && limit != a.limit {
		a.limit, a.burst, a.ref = limit, 0, sample{}
	}
	remaining := float64(r.Remaining)
	a.burst = max(a.burst, remaining)
	if !r.refused {
		a.burst = max(a.burst, remaining+r.cost)
	}
	if a.limit > 0 {
		a.burst = min(a.burst, a.limit)
	}
	a.refill(now)
	stale := r.start.Before(a.newest)
	if !stale || r.refused {
		a.law(r, now)
	}
	if a.window() && a.limit > 0 {
		a.burst = a.limit
	}
	switch {
	case !a.known:
		a.known, a.at, a.newest = true, now, r.start
		a.level = remaining - float64(r.others)*r.cost
	case stale || !r.mark.known:
		if r.refused {
			a.correct(min(remaining-a.level, 0))
		}
	default:
		a.newest = r.start
		a.believe(r, remaining)
	}
	if r.refused && remaining < r.cost {
		most := a.burst / 2
		if a.window() {
			most = a.burst / 50
		}
		a.reserve = min(a.reserve+2*r.cost, most)
		a.share /= 2
	}
}

// believe corrects the level as far as what was believed when the call left and
// what is believed now agree.
func (a *allowance) believe(r *report, remaining float64) {
	then, crowd := r.mark.base+a.corrected, r.mark.crowd+a.corrected
	if !r.refused {
		then, crowd = then-r.mark.taken, crowd-r.mark.taken
	}
	a.believed++
	low, high := remaining-max(crowd, a.level), remaining-min(then, a.level)
	switch {
	case low > 0:
		a.correct(low)
		if a.believed >= early {
			a.share = min(a.share+0.02*min(low/r.cost, 1), 1)
		}
	case r.refused:
		a.correct(min(low, 0))
	case high+1 < 0: // a part of a call is not told
		a.correct(high + 1)
		a.share = max(a.share-0.05*min(-(high+1)/r.cost, 1), 0)
	}
}

// correct changes the level.
func (a *allowance) correct(by float64) {
	a.level += by
	a.corrected += by
}

// law learns by which law the limit is filled, and its figures.
func (a *allowance) law(r *report, now time.Time) {
	s := sample{start: r.start, took: now.Sub(r.start), used: a.limit - float64(r.Remaining), reset: r.Reset}
	if s.reset <= 0 {
		return
	}
	a.compare(s)
	if r.refused && float64(r.Remaining) < r.cost && a.votes < sure && s.reset > 2*vote && r.retry > s.reset*4/5 &&
		seconds(r.cost, a.rate) < r.retry/4 {
		a.votes = sure // a bucket would have some soon
	}
	a.windowEnds(r, s, now)
	a.pace(r, s)
}

// pace learns the rate of a bucket. Figures are rounded: of two answers, the one
// by which more was used tells better, so that what an answer does not contradict
// stays.
func (a *allowance) pace(r *report, s sample) {
	if a.limit <= 0 || s.used <= 0 {
		return
	}
	rate := s.used / s.reset.Seconds()
	switch {
	case a.rate > 0 && s.allows(a.rate):
	case s.reset >= spell && s.used >= a.limit/100:
		a.rate = rate
	case r.ours > 0 && a.limit <= r.ours*60+0.5: // too short to tell, but ours is no less
		a.rate = r.ours
		if !s.allows(r.ours) {
			a.rate = min(r.ours, rate)
		}
	case a.rate == 0:
		a.rate = rate
	}
}

// compare lets an answer vote for one of the laws: as a bucket, the time until
// it is full is in proportion to what was used; as a window, it is what is left
// of the time an earlier answer told. Votes are not saved up: what was wrong is
// unlearned by one answer.
func (a *allowance) compare(s sample) {
	ref := a.ref
	asWindow := ref.reset - s.start.Sub(ref.start)
	if ref.reset < 2*spell || ref.used <= 0 || asWindow < time.Second || s.start.Before(ref.start) {
		a.ref = s
		return
	}
	asBucket := time.Duration(min(float64(ref.reset)*s.used/ref.used, float64(math.MaxInt64/2)))
	if (asWindow - asBucket).Abs() < vote+(s.took-ref.took).Abs() {
		return
	}
	if (s.reset - asWindow).Abs() < (s.reset - asBucket).Abs() {
		a.votes = min(a.votes+1, sure)
	} else {
		a.votes = max(a.votes-1, -sure)
	}
	a.ref = s
}

// windowEnds learns when the window ends: counted from when the call left, or
// from the answer once that has turned out right.
func (a *allowance) windowEnds(r *report, s sample, now time.Time) {
	fresh := a.reset.IsZero()
	if r.refused && a.window() && !a.began.IsZero() && r.start.Sub(a.began).Abs() < time.Second && s.reset > 2*slack &&
		(a.period == 0 || s.reset < a.period*3/4) {
		a.late, a.scouts = 2*sure, -1 // it was too early for a call: windows end later than believed
	}
	ends := [2]time.Time{r.start.Add(s.reset), now.Add(s.reset)}
	left, came := ends[0].Sub(a.ends[0]).Abs(), ends[1].Sub(a.ends[1]).Abs()
	switch {
	case min(left, came) > time.Second || (left-came).Abs() < time.Second:
	case came < left:
		a.late = min(a.late+1, 2*sure)
	default:
		a.late = max(a.late-1, -2*sure)
	}
	a.ends = ends
	end := ends[0].Add(slack)
	if a.late > 0 || r.refused {
		end = ends[1].Add(slack)
	}
	if fresh && a.window() && !a.began.IsZero() && end.Sub(a.began) > time.Second {
		a.period = end.Sub(a.began)
	}
	if fresh || end.After(a.reset) || a.reset.Sub(end) > time.Second { // what is less is rounding
		a.reset, a.exact = end, r.refused
	}
}
