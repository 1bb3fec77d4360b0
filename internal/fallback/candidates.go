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
	found, now := look{at: -1, wait: -1}, r.world.now() // one moment, or equal pauses would differ
	if patience := r.patience(); patience > 0 && r.sit.Policy.OnLimit != OnLimitFallback {
		found.wait = patience
	}
	if pause, ok := r.retryIn(now); ok {
		found.at, found.pause = r.retry, pause
		return found
	}
	full := look{at: -1}
	for _, i := range r.candidates() {
		pause, over := r.obstacle(i, now)
		if over.class != "" {
			found.passed = append(found.passed, over)
		}
		switch {
		case over.class == backend.RateLimit && r.staysInLine():
			return r.queueUp(found, look{at: i, pause: over.pause})
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
	return r.queueUp(found, full)
}

// obstacle is what keeps position i from being called now: the pause before it
// can be, and, where the trail is to tell, why.
func (r *run) obstacle(i int, now time.Time) (pause time.Duration, over passed) {
	c := &r.sit.Chain[i]
	if c.unfit != nil {
		return 0, passed{at: i, class: c.unfit.Class, why: c.unfit.Message}
	}
	if closed := r.closedFor(i); closed > 0 {
		why := fmt.Sprintf("the breaker is open for %s", closed.Round(time.Millisecond))
		return max(closed, r.rest(i, now)), passed{i, backend.CircuitOpen, why, closed}
	}
	if pause = r.rest(i, now); pause > 0 {
		return pause, passed{}
	}
	if room := r.room(i); room > 0 {
		why := fmt.Sprintf("its limits leave no room for %s", room.Round(time.Millisecond))
		return 0, passed{i, backend.RateLimit, why, room}
	}
	return 0, passed{}
}

// queueUp lets the job wait for its turn at a backend whose limits are full,
// where that comes before everything else.
func (r *run) queueUp(found, full look) look {
	if full.at < 0 || found.at >= 0 && found.pause < full.pause {
		return found
	}
	found.at, found.pause, found.queued = full.at, full.pause, true
	patient := full.pause <= r.patience()
	if patient || r.beyond(full.pause) && r.beyond(r.engine.hold) { // its Complete does the waiting
		found.pause, found.queued, found.wait = 0, false, 0
		if patient {
			found.wait = r.patience()
		}
		found.passed = slices.DeleteFunc(found.passed, func(p passed) bool { return p.at == full.at })
	}
	return found
}

// candidates are the positions that may be asked now, the most wanted first.
func (r *run) candidates() []int {
	if r.over {
		return nil
	}
	models := r.modelsLeft()
	var left []int
	for _, i := range r.wanted() {
		c := &r.sit.Chain[i]
		switch {
		case r.running > 0 && (c.flown || c.Degraded || c.Rounds > r.round):
		case c.Degraded && c.Tries == 0, !c.Degraded && models:
			left = append(left, i)
		}
	}
	if at := slices.Index(left, r.promised); at > 0 {
		left = slices.Insert(slices.Delete(left, at, at+1), 0, r.promised)
	}
	return left
}

// inOrder returns the positions a strategy named, without those that do not
// exist or come twice, and after them the degraded backends that it left out.
func (r *run) inOrder(wanted []int) []int {
	order := make([]int, 0, len(r.sit.Chain))
	for _, i := range wanted {
		if i >= 0 && i < len(r.sit.Chain) && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	for i, c := range r.sit.Chain {
		if c.Degraded && !c.Mapped && !slices.Contains(order, i) {
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
	r.sit.Calls = r.task.Plan.MaxAttempts() - 1
	return true
}

// outage reports whether no model is there to blame the job: every one refuses
// calls, or some refuse them because they failed and the others fail too, though
// not often enough yet to refuse. No degraded backend may be left to answer
// instead. A model that refused when it was last looked at, and was not called
// since, is out too: that it would take one call now, as a probe, does not say
// that it is back. One that can never take this job says nothing.
func (r *run) outage() bool {
	models, refusing, failed := 0, 0, false
	for i, c := range r.sit.Chain {
		refuses := r.closedFor(i) > 0
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
func (r *run) closedFor(i int) time.Duration {
	closed := max(r.sit.Chain[i].closed.Sub(r.world.now()), 0)
	if g, ok := r.task.Plan.chain[i].(backend.Gate); ok {
		closed = max(closed, g.Ready())
	}
	return closed
}

// room is how long a call of position i would wait for its turn within the
// backend's limits, 0 where the job waits for that.
func (r *run) room(i int) time.Duration {
	limited, ok := r.task.Plan.chain[i].(backend.Limited)
	if !ok {
		return 0
	}
	room := max(limited.Room(&r.task.Request), r.sit.Chain[i].full.Sub(r.world.now()))
	if r.sit.Policy.OnLimit != OnLimitFallback && room <= r.patience() {
		return 0
	}
	return room
}

// staysInLine reports whether the job leaves its slot to wait for its turn at a
// backend whose limits are full, though another one may be free. A race does not:
// the others run meanwhile.
func (r *run) staysInLine() bool {
	return r.sit.Policy.OnLimit != OnLimitFallback && r.next().Fan <= 1
}

// patience is how long the job may wait in its slot for its turn at a backend:
// the longer, the longer it has waited, so that none is handed back for ever.
func (r *run) patience() time.Duration {
	hold := r.engine.hold
	return min(hold+r.world.now().Sub(r.since), 5*hold)
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
	return !slices.ContainsFunc(r.sit.Chain, func(other Candidate) bool { return !other.Degraded && other.Rounds > c.Rounds })
}
