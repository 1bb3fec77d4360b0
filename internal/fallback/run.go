package fallback

import (
	"context"
	"errors"
	"fmt"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// ErrBudget is the cause with which a job's context ends when its time is up.
// It wraps context.DeadlineExceeded.
var ErrBudget = fmt.Errorf("the job's time is up: %w", context.DeadlineExceeded)

// Observer hears of every attempt of a job, in order. Its methods are called
// from the goroutine that runs the job and must not block.
type Observer interface {
	// Started is called when a call leaves; a.Outcome is empty yet.
	Started(a job.Attempt)
	// Ended is called with the finished entry of the trail, what follows included.
	Ended(a job.Attempt)
}

// Task is one job to run, or to go on with.
type Task struct {
	Plan *Plan
	// Request is the call to make. Its Started hook is the engine's.
	Request backend.Request
	// Trail is what earlier deliveries of the job did; it is not changed.
	Trail []job.Attempt
	// Deadline is when the job's time is up; zero means never.
	Deadline time.Time
	// Observer hears of the attempts; it must not be nil.
	Observer Observer
}

// Wait says that nothing can be called now.
type Wait struct {
	// Until is the earliest moment at which something can, or later: see [Engine.Run].
	Until time.Time
	// Why is a clause for people.
	Why string
}

// Outcome is how a run ended: exactly one of Response, Err and Wait is set.
type Outcome struct {
	// Response is the accepted answer, of Backend.
	Response *backend.Response
	Backend  string
	// Err is the failure that decided the job. Class [backend.Canceled] means
	// that the context was cancelled, [backend.Expired] that the time is up.
	Err *backend.Error
	// Wait tells the caller to hand the job back and come again.
	Wait *Wait
	// Trail is everything that was attempted, earlier deliveries included.
	Trail []job.Attempt
	// First and Last are the first and the last failed call, those left out that
	// were cancelled; nil without one.
	First, Last *job.Failure
}

// Run carries out the plan of one job. It blocks until there is an answer, the
// job has failed, nothing can be called for longer than the hold, the deadline
// has passed or ctx is done. A call that runs then is ended, and what it failed
// with counts as the end of the job's time, or as its cancellation.
//
// Waits that are handed back grow with the time the job has waited, from a
// second to 15 s, so that a wave of jobs does not come back for every look at a
// breaker that is being probed.
func (e *Engine) Run(ctx context.Context, t Task) Outcome {
	if !t.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, t.Deadline, ErrBudget)
		defer cancel()
	}
	r, err := newRun(e, &t)
	if err != nil {
		return Outcome{Err: &backend.Error{Class: backend.InvalidJob, Message: err.Error(), Cause: err}, Trail: t.Trail}
	}
	return r.loop(ctx)
}

// refusalPause is how long a backend is left alone that refused a call without
// saying for how long.
const refusalPause = time.Second

// The limits of how much longer than it must a handed-back job stays away.
const (
	minWait = time.Second
	maxWait = 15 * time.Second
)

// run is one job under way.
type run struct {
	engine   *Engine
	task     *Task
	strategy Strategy
	sit      Situation
	trail    []job.Attempt
	order    []int          // the strategy's word on the situation; nil when it was not asked yet
	current  *job.Attempt   // the call under way; nil before it leaves
	since    time.Time      // when the last call ended, or the job began to wait
	paused   time.Duration  // in this slot, since the last call
	calls    int            // calls that count against the attempt cap
	cost     float64        // USD, of all calls
	last     *backend.Error // of the last failed call of a model, or else of any
	ended    time.Time      // when that call ended
	spread   float64        // the jitter drawn for it
	stopped  bool           // only backends that answer without a model are left
	over     bool           // nobody is asked any more
}

func newRun(e *Engine, t *Task) (*run, error) {
	policy := &t.Plan.Policy
	strategy, err := t.Plan.strategy(policy)
	if err != nil {
		return nil, &job.FieldError{Field: "policy", Reason: err.Error()}
	}
	r := &run{engine: e, task: t, strategy: strategy, since: time.Now()}
	r.sit = Situation{Policy: policy, Chain: make([]Candidate, len(t.Plan.chain)), Position: -1}
	for i, b := range t.Plan.chain {
		d, ok := b.(backend.Degrader)
		r.sit.Chain[i] = Candidate{Name: b.Name(), Degraded: ok && d.Degraded()}
	}
	r.replay(t.Trail)
	return r, nil
}

// loop asks one backend after the other.
func (r *run) loop(ctx context.Context) Outcome {
	for {
		if err := r.interrupted(ctx); err != nil {
			return r.fail(err)
		}
		found := r.look()
		switch {
		case found.at < 0 && r.relieve():
		case found.at < 0:
			r.skip(found.refusing, job.NextStop)
			return r.fail(r.last)
		case found.pause <= 0:
			r.skip(found.refusing, job.NextFallback)
			resp, err := r.attempt(ctx, found.at)
			if err == nil {
				return Outcome{Response: resp, Backend: r.sit.Chain[found.at].Name, Trail: r.trail}
			}
			if final := r.settle(ctx, found.at, err); final != nil {
				return r.fail(final)
			}
		case r.beyond(found.pause):
			r.skip(found.refusing, job.NextStop)
			return r.fail(r.tooLate())
		case r.paused+found.pause > r.engine.hold:
			r.skip(found.refusing, job.NextWait)
			return r.wait(found.pause)
		default:
			r.skip(found.refusing, job.NextWait)
			if sleep(ctx, found.pause) {
				r.paused += found.pause
				r.prefer(found.at) // it was promised
			}
		}
	}
}

// interrupted tells whether the job's context is done, and as which class.
func (r *run) interrupted(ctx context.Context) *backend.Error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrBudget) {
		return &backend.Error{Class: backend.Expired, Message: "the job's time is up", Cause: cause}
	}
	return &backend.Error{Class: backend.Canceled, Message: "the job was cancelled", Cause: cause}
}

// beyond reports whether a pause would leave nothing of the job's time.
func (r *run) beyond(pause time.Duration) bool {
	return !r.task.Deadline.IsZero() && !time.Now().Add(pause).Before(r.task.Deadline)
}

// tooLate is the failure of a job whose next call would come after its end.
func (r *run) tooLate() *backend.Error {
	return &backend.Error{Class: backend.Expired, Message: "no backend can be called before the job's time is up", Cause: ErrBudget}
}

// settle records the failure of a call and decides what follows. It returns the
// failure with which the job ends, nil when it goes on.
func (r *run) settle(ctx context.Context, i int, err *backend.Error) *backend.Error {
	if r.current == nil { // refused between the look and the call, or never left
		closed := refusalPause
		if err.RetryAfter > 0 {
			closed = max(err.RetryAfter, time.Millisecond)
		}
		r.sit.Chain[i].closed = time.Now().Add(closed)
		return nil
	}
	if err.CostUSD != nil {
		r.cost += *err.CostUSD
	}
	if end := r.interrupted(ctx); end != nil { // whatever the call made of it
		cut := *err
		cut.Class, cut.Message = end.Class, end.Message
		r.close(&cut, job.NextStop)
		return end
	}
	r.note(i, err, r.current.StartedAt, time.Now())
	next, end := r.next(i)
	r.close(err, next)
	return end
}

// note takes one failed call into account, of position i, or -1 for a backend
// that is no longer in the chain. What a degraded backend failed with changes
// nothing but that it was asked.
func (r *run) note(i int, err *backend.Error, started, ended time.Time) {
	r.order = nil
	var c *Candidate
	if i >= 0 {
		c = &r.sit.Chain[i]
		c.Tries++
		c.skipped = false
	}
	if c != nil && c.Degraded {
		if r.last == nil {
			r.last = err
		}
		return
	}
	r.last, r.ended, r.spread = err, ended, r.sit.Policy.spread(r.task.Request.JobID, started)
	r.sit.Class, r.sit.Status, r.sit.Position = err.Class, err.Status, i
	r.calls++
	r.over = r.over || ends(err.Class)
	r.stopped = r.stopped || !r.sit.Policy.goesOn(err.Class, err.Status)
	if c == nil {
		return
	}
	c.hinted = err.RetryAfter > 0
	c.notBefore = ended.Add(err.RetryAfter)
	if !c.hinted {
		c.notBefore = ended.Add(r.sit.Policy.delay(c.Tries, r.sit.Policy.leastSpread()))
	}
}

// next decides what follows the failed call of position i, and returns the
// failure with which the job ends where it does.
func (r *run) next(i int) (job.Next, *backend.Error) {
	relieved := r.relieve()
	found := r.look()
	switch {
	case found.at < 0:
		return job.NextStop, r.last
	case r.beyond(found.pause):
		return job.NextStop, r.tooLate()
	case relieved && found.pause > 0, found.pause > r.engine.hold:
		return job.NextWait, nil
	case found.at == i:
		return job.NextRetry, nil
	default:
		return job.NextFallback, nil
	}
}

// fail ends the job.
func (r *run) fail(err *backend.Error) Outcome {
	if err == nil { // a chain without anybody to ask
		err = &backend.Error{Class: backend.CircuitOpen, Message: "no backend of the chain can be called"}
	}
	first, last := failures(r.trail)
	return Outcome{Err: err, Trail: r.trail, First: first, Last: last}
}

// wait hands the job back, for at least as long as it has waited already.
func (r *run) wait(pause time.Duration) Outcome {
	least := min(max(time.Since(r.since), minWait), maxWait)
	if !r.task.Deadline.IsZero() {
		least = min(least, time.Until(r.task.Deadline)/2)
	}
	first, last := failures(r.trail)
	w := &Wait{Until: time.Now().Add(max(pause, least)), Why: "no backend of the chain can be called now"}
	return Outcome{Wait: w, Trail: r.trail, First: first, Last: last}
}

// sleep pauses for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
