package fallback

import (
	"cmp"
	"slices"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// maxTrail caps the entries of a job's trail, or its max_attempts where that is
// more. Only a job that waits through a very long outage comes near it; then
// entries are dropped, those first that cost no attempt, and the numbering shows
// the gap. What is left still tells that the attempts are used up.
const maxTrail = 200

// skip records the candidates that are passed over, each once until it is called
// or the reason changes. Nothing follows the failure with which a job stopped.
func (r *run) skip(over []passed, next job.Next) {
	if next == job.NextStop && r.told {
		return
	}
	for _, p := range over {
		if r.sit.Chain[p.at].skipped == p.class {
			continue
		}
		c := r.change(p.at)
		c.skipped = p.class
		class, follows := string(p.class), next
		a := &job.Attempt{
			N: r.number(), Backend: c.Name, Outcome: job.OutcomeSkipped, Class: &class, Error: &p.why,
			StartedAt: r.world.now(), Next: &follows,
		}
		if p.pause > 0 {
			a.RetryAfterMS = new(p.pause.Milliseconds())
		}
		r.record(a)
	}
}

// number numbers the next entry.
func (r *run) number() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	return r.n
}

// record adds an entry to the trail, which is in the order of the numbers, and
// tells the observer.
func (r *run) record(a *job.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(a)
	r.task.Observer.Ended(*a)
}

// add puts an entry where its number belongs. r.mu is held.
func (r *run) add(a *job.Attempt) {
	at := len(r.trail)
	for at > 0 && r.trail[at-1].N > a.N { // of calls that ran at once
		at--
	}
	r.trail = append(r.trail, *a)
	if at < len(r.trail)-1 {
		copy(r.trail[at+1:], r.trail[at:])
		r.trail[at] = *a
	}
	if len(r.trail) > maxTrail {
		r.shorten()
	}
}

// shorten drops what is too much of the trail.
func (r *run) shorten() {
	for len(r.trail) > max(maxTrail, r.task.Plan.MaxAttempts()) {
		drop := 1
		for drop < len(r.trail) && (counts(&r.trail[drop]) || r.trail[drop].Outcome == job.OutcomeSucceeded) {
			drop++
		}
		if drop >= len(r.trail)-1 {
			drop = len(r.trail) / 2
		}
		r.trail = slices.Delete(r.trail, drop, drop+1)
	}
}

// counts reports whether an entry is a failed call that may cost an attempt. One
// that was cancelled (the worker was stopped) costs none and says nothing about
// the backend, and no more does one that a crash made unknowable.
func counts(a *job.Attempt) bool {
	cancelled := a.Class != nil && backend.Class(*a.Class) == backend.Canceled
	return a.Outcome == job.OutcomeFailed && (!cancelled || !stops(a))
}

// stops reports whether the job ended with an entry, or its worker did.
func stops(a *job.Attempt) bool { return a.Next == nil || *a.Next == job.NextStop }

// replay brings the run to where earlier deliveries left the job.
func (r *run) replay() {
	told := r.happened()
	for at := range told {
		a := &told[at]
		r.n = max(r.n, a.N)
		i := r.sit.position(a.Backend)
		if i >= 0 && a.Outcome == job.OutcomeSkipped && a.Class != nil {
			r.change(i).skipped = backend.Class(*a.Class)
		}
		if a.CostUSD != nil {
			r.cost += *a.CostUSD
		}
		if counts(a) {
			r.replayFailure(i, a)
		}
	}
	newest := &told[len(told)-1]
	r.told = counts(newest) && stops(newest)
	for at := range slices.Backward(told) {
		a := &told[at]
		if a.Next == nil || *a.Next != job.NextWait {
			break
		}
		r.since = ended(a)
		if a.Outcome != job.OutcomeSkipped {
			break
		}
	}
}

// happened returns the trail in the order in which it came about. That is the
// order of the numbers but for calls that ran at once: they are numbered as they
// left, and of those that ended together the last is the one that tells what the
// job did then.
func (r *run) happened() []job.Attempt {
	if r.next().Fan <= 1 {
		return r.trail
	}
	told := slices.Clone(r.trail)
	slices.SortStableFunc(told, func(a, b job.Attempt) int {
		if order := ended(&a).Truncate(time.Millisecond).Compare(ended(&b).Truncate(time.Millisecond)); order != 0 {
			return order
		}
		return cmp.Compare(waits(&a), waits(&b))
	})
	return told
}

// waits is 1 for an entry after which the job did not go on at once.
func waits(a *job.Attempt) int {
	if a.Next != nil && *a.Next != job.NextFallback {
		return 1
	}
	return 0
}

// replayFailure takes one failed call into account.
func (r *run) replayFailure(i int, a *job.Attempt) {
	err := &backend.Error{Backend: a.Backend, Status: a.Status, Model: a.Model, Code: a.Code, Type: a.Type}
	if a.Class != nil {
		err.Class = backend.Class(*a.Class)
	}
	if a.Error != nil {
		err.Message = *a.Error
	}
	if a.RetryAfterMS != nil {
		err.RetryAfter = time.Duration(*a.RetryAfterMS) * time.Millisecond
	}
	r.note(i, err, a.StartedAt, ended(a))
	if a.Next != nil && *a.Next == job.NextWait && r.sit.Calls >= r.task.Plan.MaxAttempts() {
		r.ease() // see relieve: only an outage makes an exhausted job wait
	}
}

// ended is when the call of an entry ended.
func ended(a *job.Attempt) time.Time {
	return a.StartedAt.Add(time.Duration(a.DurationMS) * time.Millisecond)
}

// failures returns the first and the last failed call of a trail, cancelled ones
// left out, nil without one.
func failures(trail []job.Attempt) (first, last *job.Failure) {
	for i := range trail {
		a := &trail[i]
		if !counts(a) {
			continue
		}
		f := &job.Failure{Backend: a.Backend, Status: a.Status}
		if a.Class != nil {
			f.Class = *a.Class
		}
		if a.Error != nil {
			f.Message = *a.Error
		}
		if first == nil {
			first = f
		}
		last = f
	}
	return first, last
}
