package fallback

import (
	"fmt"
	"slices"
	"time"

	"understudy/internal/backend"
)

// look is what one look at the candidates found.
type look struct {
	at     int           // whom to call, -1 for nobody
	pause  time.Duration // before that, 0 for none
	queued bool          // the pause is for a turn within the limits of at
	wait   time.Duration // the longest that its call may wait for that, as in backend.Request
	passed []passed      // those passed over, the most wanted first
}

// passed is a candidate that is not called, and why.
type passed struct {
	at    int
	class backend.Class
	why   string
	pause time.Duration // until it might be, 0 for never
}

// look finds the most wanted candidate that can be called now, or the one that
// can be called first. A degraded backend that refuses calls is not waited for.
func (r *run) look() look {
	now := r.world.now() // one moment, or equal pauses would differ
	found := look{at: -1, wait: r.turnWait(now)}
	if pause, ok := r.retryIn(now); ok {
		found.at, found.pause = r.retry, pause
		return found
	}
	full, models := look{at: -1}, r.modelsLeft()
	for _, i := range r.wanted() {
		if !r.candidate(i, models) {
			continue
		}
		pause, over := r.obstacle(i, now)
		if over.class != "" {
			found.passed = append(found.passed, over)
		}
		switch {
		case over.class == backend.RateLimit && r.staysInLine():
			full.at, full.pause = i, over.pause
			return r.queueUp(found, full, now)
		case over.class == backend.RateLimit:
			if full.at < 0 || over.pause < full.pause {
				full.at, full.pause = i, over.pause
			}
			continue
		case over.class != "" && (over.pause == 0 || r.sit.Chain[i].Degraded):
			continue // it is not waited for
		}
		if found.at < 0 || pause < found.pause {
			found.at, found.pause = i, pause
		}
		if pause <= 0 {
			break
		}
	}
	return r.queueUp(found, full, now)
}

// obstacle is what keeps position i from being called now: the pause before it
// can be, and, where the trail is to tell, why.
func (r *run) obstacle(i int, now time.Time) (pause time.Duration, over passed) {
	c := &r.sit.Chain[i]
	if c.unfit != nil {
		return 0, passed{at: i, class: c.unfit.Class, why: c.unfit.Message}
	}
	if closed := r.closedFor(i, now); closed > 0 {
		why := fmt.Sprintf("the breaker is open for %s", closed.Round(time.Millisecond))
		return max(closed, r.rest(i, now)), passed{i, backend.CircuitOpen, why, closed}
	}
	if pause = r.rest(i, now); pause > 0 {
		return pause, passed{}
	}
	if room := r.room(i, now); room > 0 {
		why := fmt.Sprintf("its limits leave no room for %s", room.Round(time.Millisecond))
		return 0, passed{i, backend.RateLimit, why, room}
	}
	return 0, passed{}
}

// queueUp lets the job wait for its turn at a backend whose limits are full,
// where that comes before everything else.
func (r *run) queueUp(found, full look, now time.Time) look {
	if full.at < 0 || found.at >= 0 && found.pause < full.pause {
		return found
	}
	found.at, found.pause, found.queued = full.at, full.pause, true
	patience := r.patience(now)
	patient := full.pause <= patience
	if patient || r.beyond(full.pause) && r.beyond(r.engine.hold) { // its Complete does the waiting
		found.pause, found.queued, found.wait = 0, false, 0
		if patient {
			found.wait = patience
		}
		found.passed = slices.DeleteFunc(found.passed, func(p passed) bool { return p.at == full.at })
	}
	return found
}

// candidate reports whether position i may be asked now; models tells that a
// model may be.
func (r *run) candidate(i int, models bool) bool {
	c := &r.sit.Chain[i]
	if r.running > 0 && (c.flown || c.Degraded || c.Rounds > r.round) {
		return false
	}
	if c.Degraded {
		return c.Tries == 0
	}
	return models
}

// inOrder returns the positions a strategy named, without those that do not
// exist or come twice, and after them the degraded backends that it left out.
func (r *run) inOrder(wanted []int) []int {
	order, named := make([]int, 0, len(r.sit.Chain)), make([]bool, len(r.sit.Chain))
	for _, i := range wanted {
		if i >= 0 && i < len(named) && !named[i] {
			order, named[i] = append(order, i), true
		}
	}
	for i := range r.sit.Chain {
		if c := &r.sit.Chain[i]; c.Degraded && !c.Mapped && !named[i] {
			order = append(order, i)
		}
	}
	return order
}

// modelsLeft reports whether the job may call a model once more.
func (r *run) modelsLeft() bool {
	return !r.stopped && !r.overspent() && r.sit.Calls+r.running < r.task.Plan.MaxAttempts()
}

// overspent reports whether the job has cost what it may.
func (r *run) overspent() bool {
	limit := r.sit.Policy.MaxCostUSD
	return limit > 0 && r.cost >= limit
}

// relieve gives an exhausted job one more call in an outage of every backend,
// which is not the job's fault.
func (r *run) relieve() bool {
	if r.over || r.stopped || r.overspent() || r.modelsLeft() || !r.outage() {
		return false
	}
	r.ease()
	return true
}

// outage reports whether no model is there to blame the job: every one refuses
// calls, or some refuse them because they failed and the others fail too, though
// not often enough yet to refuse. No degraded backend may be left to answer
// instead. A model that refused when it was last looked at, and was not called
// since, is out too: that it would take one call now, as a probe, does not say
// that it is back. One that can never take this job says nothing.
func (r *run) outage() bool {
	models, refusing, failed, now := 0, 0, false, r.world.now()
	for i := range r.sit.Chain {
		c := &r.sit.Chain[i]
		refuses := r.closedFor(i, now) > 0
		switch {
		case c.unfit != nil, c.Mapped && !slices.Contains(r.next().Order, i): // nobody that the job may ask
			continue
		case c.Degraded && c.Tries == 0 && !refuses:
			return false
		case c.Degraded:
			continue
		case refuses || c.skipped == backend.CircuitOpen:
			refusing++
			failed = failed || r.failing(i)
		case !r.failing(i):
			return false
		}
		models++
	}
	return models > 0 && (refusing == models || failed)
}

// failing reports whether a backend's latest calls failed by its own fault, for
// this job or others.
func (r *run) failing(i int) bool {
	h, ok := r.task.Plan.chain[i].(backend.Health)
	return ok && h.Failing()
}

// closedFor is how long the backend itself refuses calls, 0 for not at all.
func (r *run) closedFor(i int, now time.Time) time.Duration {
	closed := left(r.sit.Chain[i].closed, now)
	if g, ok := r.task.Plan.chain[i].(backend.Gate); ok {
		closed = max(closed, g.Ready())
	}
	return closed
}

// room is how long a call of position i would wait for its turn within the
// backend's limits, 0 where the job waits for that.
func (r *run) room(i int, now time.Time) time.Duration {
	limited, ok := r.task.Plan.chain[i].(backend.Limited)
	if !ok {
		return 0
	}
	room := max(limited.Room(&r.task.Request), left(r.sit.Chain[i].full, now))
	if room > 0 && r.sit.Policy.OnLimit != OnLimitFallback && room <= r.patience(now) {
		return 0
	}
	return room
}

// left is how long it is until a moment, 0 when it has passed or never was.
func left(until, now time.Time) time.Duration {
	if until.IsZero() {
		return 0
	}
	return max(until.Sub(now), 0)
}

// staysInLine reports whether the job leaves its slot to wait for its turn at a
// backend whose limits are full, though another one may be free. A race does not:
// the others run meanwhile.
func (r *run) staysInLine() bool {
	return r.sit.Policy.OnLimit != OnLimitFallback && r.next().Fan <= 1
}

// turnWait is how long a call may wait for its turn, as in [backend.Request].
func (r *run) turnWait(now time.Time) time.Duration {
	if patience := r.patience(now); patience > 0 && r.sit.Policy.OnLimit != OnLimitFallback {
		return patience
	}
	return -1
}

// patience is how long the job may wait in its slot for its turn at a backend:
// the longer, the longer it has waited, so that none is handed back for ever.
func (r *run) patience(now time.Time) time.Duration {
	hold := r.engine.hold
	return min(hold+now.Sub(r.since), 5*hold)
}

// rest is how long position i is left alone because of what it answered: for its
// hint; without one, for the backoff of its round from the end of the last call
// if it opens the round, else at least from the end of its own.
func (r *run) rest(i int, now time.Time) time.Duration {
	c := &r.sit.Chain[i]
	if c.Tries == 0 {
		return 0
	}
	wait := c.notBefore.Sub(now)
	if !c.hinted && r.opensRound(c) {
		wait = max(wait, r.ended.Add(r.sit.Policy.delay(r.turn(i), r.spread)).Sub(now))
	}
	return max(wait, 0)
}

// opensRound reports whether nobody had more turns than c.
func (r *run) opensRound(c *Candidate) bool {
	for i := range r.sit.Chain {
		if other := &r.sit.Chain[i]; !other.Degraded && other.Rounds > c.Rounds {
			return false
		}
	}
	return true
}
