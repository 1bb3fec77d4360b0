package fallback

import (
	"slices"
	"time"

	"understudy/internal/backend"
)

// retries reports whether position i is called again before another one is,
// after the failure err that was just counted.
func (r *run) retries(i int, err *backend.Error) bool {
	if r.streak > r.task.Plan.retries[i] || r.over || r.stopped || r.running > 0 || r.next().Fan > 1 {
		return false
	}
	if effect := err.Class.Effect(); effect != backend.Count && effect != backend.Cool {
		return false // the same call would fail the same way
	}
	if !r.goesOn() { // nobody else is asked: no call is kept for them
		return r.modelsLeft()
	}
	return r.sit.Calls+r.unasked() < r.task.Plan.MaxAttempts() && !r.overspent()
}

// unasked counts the models that the strategy wants and that were not called yet.
func (r *run) unasked() int {
	n := 0
	for _, i := range r.next().Order {
		if c := &r.sit.Chain[i]; c.Tries == 0 && !c.Degraded && c.unfit == nil {
			n++
		}
	}
	return n
}

// wanted are the positions that may be asked, the most wanted first: those that
// the strategy wants, and before them the one that a pause was made for.
func (r *run) wanted() []int {
	if r.over {
		return nil
	}
	order := r.allowed()
	at := slices.Index(order, r.promised)
	if at <= 0 {
		return order
	}
	first := make([]int, 1, len(order)) // the order may be all jobs'
	first[0] = r.promised
	return append(append(first, order[:at]...), order[at+1:]...)
}

// allowed are the positions that the strategy wants; when a retry is due and no
// other model may be asked, that and the degraded backends.
func (r *run) allowed() []int {
	order := r.next().Order
	if r.retry < 0 || r.goesOn() {
		return order
	}
	only := []int{r.retry}
	for _, i := range order {
		if r.sit.Chain[i].Degraded {
			only = append(only, i)
		}
	}
	return only
}

// retryIn returns the pause before the retry that is due, if that comes before
// everything else: when the pause fits into the hold, and then its turn comes.
func (r *run) retryIn(now time.Time) (time.Duration, bool) {
	if r.retry < 0 {
		return 0, false
	}
	pause := max(r.closedFor(r.retry, now), r.rest(r.retry, now))
	return pause, r.paused+pause <= r.engine.hold && (pause > 0 || r.room(r.retry, now) <= 0)
}

// turn is how often position i was called already, for the length of its backoff:
// the calls in a row when a retry is due, otherwise the rounds, but those that an outage
// gave: the breakers pace these.
func (r *run) turn(i int) int {
	if r.retry == i {
		return r.streak
	}
	if r.eased > 0 {
		return min(r.sit.Chain[i].Rounds, r.eased)
	}
	return r.sit.Chain[i].Rounds
}

// ease gives one more call, for an outage. From the first time on no backoff grows
// beyond the longest of then.
func (r *run) ease() {
	r.sit.Calls = r.task.Plan.MaxAttempts() - 1
	if r.eased > 0 {
		return
	}
	for i := range r.sit.Chain {
		r.eased = max(r.eased, r.sit.Chain[i].Rounds)
	}
}
