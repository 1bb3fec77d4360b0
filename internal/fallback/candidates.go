package fallback

import (
	"slices"
	"time"

	"understudy/internal/backend"
)

// look is what one look at the candidates found.
type look struct {
	at       int           // whom to call, -1 for nobody
	pause    time.Duration // before that, 0 for none
	refusing []refusal     // those passed over because they refuse calls
}

// refusal is a candidate that refuses calls for a time.
type refusal struct {
	at     int
	closed time.Duration
}

// look finds the most wanted candidate that can be called now, or the one that
// can be called first. A degraded backend that refuses calls is not waited for.
func (r *run) look() look {
	found, now := look{at: -1}, time.Now() // one moment, or equal pauses would differ
	for _, i := range r.candidates() {
		closed := r.closedFor(i)
		if closed > 0 {
			found.refusing = append(found.refusing, refusal{i, closed})
			if r.sit.Chain[i].Degraded {
				continue
			}
		}
		pause := max(closed, r.rest(i, now))
		if found.at < 0 || pause < found.pause {
			found.at, found.pause = i, pause
		}
		if pause <= 0 {
			break
		}
	}
	return found
}

// candidates are the positions that may be asked now, the most wanted first.
func (r *run) candidates() []int {
	if r.over {
		return nil
	}
	if r.order == nil {
		r.order = r.inOrder(r.strategy.Next(&r.sit).Order)
	}
	models := r.modelsLeft()
	var left []int
	for _, i := range r.order {
		if c := &r.sit.Chain[i]; !c.Degraded && models || c.Degraded && c.Tries == 0 {
			left = append(left, i)
		}
	}
	return left
}

// inOrder returns the positions a strategy named, without those that do not
// exist, and after them the degraded backends that it left out.
func (r *run) inOrder(wanted []int) []int {
	order := make([]int, 0, len(r.sit.Chain))
	for _, i := range wanted {
		if i >= 0 && i < len(r.sit.Chain) && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	for i, c := range r.sit.Chain {
		if c.Degraded && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order
}

// prefer puts position i first, until the next failed call.
func (r *run) prefer(i int) {
	r.order = append([]int{i}, slices.DeleteFunc(r.order, func(other int) bool { return other == i })...)
}

// modelsLeft reports whether the job may call a model once more.
func (r *run) modelsLeft() bool {
	return !r.stopped && !r.overspent() && r.calls < r.task.Plan.maxAttempts()
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
	r.calls = r.task.Plan.maxAttempts() - 1
	return true
}

// outage reports whether no model is there to blame the job: every one refuses
// calls, or some refuse them because they failed and the others fail too, though
// not often enough yet to refuse. No degraded backend may be left to answer
// instead. A model that refused when it was last looked at, and was not called
// since, is out too: that it would take one call now, as a probe, does not say
// that it is back.
func (r *run) outage() bool {
	models, refusing, failed := 0, 0, false
	for i, c := range r.sit.Chain {
		refuses := r.closedFor(i) > 0
		switch {
		case c.Degraded && c.Tries == 0 && !refuses:
			return false
		case c.Degraded:
			continue
		case refuses || c.skipped:
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
	closed := max(time.Until(r.sit.Chain[i].closed), 0)
	if g, ok := r.task.Plan.chain[i].(backend.Gate); ok {
		closed = max(closed, g.Ready())
	}
	return closed
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
		wait = max(wait, r.ended.Add(r.sit.Policy.delay(c.Tries, r.spread)).Sub(now))
	}
	return max(wait, 0)
}

// opensRound reports whether nobody was called more often than c.
func (r *run) opensRound(c *Candidate) bool {
	return !slices.ContainsFunc(r.sit.Chain, func(other Candidate) bool { return !other.Degraded && other.Tries > c.Tries })
}
