package fallback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// ErrBudget is the cause with which a job's context ends when its time is up.
// It wraps context.DeadlineExceeded.
var ErrBudget = fmt.Errorf("the job's time is up: %w", context.DeadlineExceeded)

// Observer hears of every attempt of a job, as it happens. Its methods are called
// one at a time and must not block.
type Observer interface {
	// Started is called when a call leaves; a.Outcome is empty yet. What it returns, which
	// may be nil, is called next, before the call leaves. That may block for a moment;
	// calls that run at once do so each for itself.
	Started(a job.Attempt) (hold func())
	// Ended is called with the finished entry of the trail, what follows included.
	Ended(a job.Attempt)
}

// Task is one job to run, or to go on with.
type Task struct {
	Plan *Plan
	// Request is the call to make. Its Started and Chunk hooks are the engine's.
	Request backend.Request
	// Chunk is called for every data chunk of a streamed answer, in the order of
	// its call, with the number of the attempt. It must not keep data, and is
	// called by several goroutines when calls run at once. May be nil.
	Chunk func(n int, data []byte)
	// Trail is what earlier deliveries of the job did; it is not changed.
	Trail []job.Attempt
	// Deadline is when the job's time is up; zero means never.
	Deadline time.Time
	// Observer hears of the attempts; it must not be nil.
	Observer Observer
}

// Run carries out the plan of one job. It blocks until there is an answer, the
// job has failed, nothing can be called for longer than the hold, the deadline
// has passed or ctx is done. A call that runs then is ended, and what it failed
// with counts as the end of the job's time, or as its cancellation.
//
// A failed call is repeated on the same backend first, where it has retries left
// ([Config.Retries]) and the failure may pass with time, if the pause before it
// fits into the hold. Retries count like all calls, and none is made for which a
// backend would go unasked that was not called yet. Strategies that run calls at
// once make none: the other backends are the retry.
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
	r, err := newRun(e, &t, actual{})
	if err != nil {
		return Outcome{Err: &backend.Error{Class: backend.InvalidJob, Message: err.Error(), Cause: err}, Trail: t.Trail}
	}
	return *r.loop(ctx)
}

// run is one job under way.
type run struct {
	engine   *Engine
	task     Task
	world    world
	strategy Strategy
	sit      Situation
	move     Move          // the strategy's word on the situation, if it was asked already
	asked    bool          // it was
	mine     bool          // the situation's chain belongs to this run: see change
	retry    int           // the position that is called again before another is; -1 for none
	promised int           // the position that a pause was made for; -1 for none
	running  int           // calls under way
	round    int           // how many turns the first of them had before
	since    time.Time     // when the last call ended, or the job began to wait
	paused   time.Duration // in this slot, since the last call
	cost     float64       // USD, of all calls
	ended    time.Time     // when the last failed call ended
	spread   float64       // the jitter drawn for it
	streak   int           // calls in a row of the position that failed last
	eased    int           // the most rounds of a position when an outage first gave a call; 0 before
	over     bool          // nobody can answer any more, not even without a model
	stopped  bool          // no model is called any more
	told     bool          // the trail says already how the job stopped
	last     *backend.Error
	measure  backend.Measure // of the request
	out      Outcome

	mu    sync.Mutex // guards what calls that run at once share
	trail []job.Attempt
	n     int // the highest number of an entry
}

func newRun(e *Engine, t *Task, w world) (*run, error) {
	policy := &t.Plan.Policy
	strategy, err := t.Plan.strategy(policy)
	if err != nil {
		return nil, &job.FieldError{Field: "policy.strategy", Reason: err.Error()}
	}
	r := &run{engine: e, task: *t, world: w, strategy: strategy, since: w.now(), retry: -1, promised: -1}
	r.task.Request.Keep(&r.measure)
	r.sit = Situation{
		Policy: policy, Job: t.Plan.job, Route: t.Plan.Route, Chain: t.Plan.candidates,
		Position: -1, Seed: seed(t.Request.JobID),
	}
	switch strategy.(type) {
	case sequential, conditional, errorType: // others might write to it
		r.sit.order = t.Plan.order
	}
	if e.fit.any.Load() {
		r.recallFit()
	}
	if r.trail = slices.Clone(t.Trail); len(r.trail) > 0 {
		r.replay()
	}
	return r, nil
}

// change returns position i, to be changed. Until the first change the chain is
// the plan's, which other jobs share.
func (r *run) change(i int) *Candidate {
	if !r.mine {
		r.sit.Chain, r.mine = slices.Clone(r.sit.Chain), true
	}
	return &r.sit.Chain[i]
}

// loop asks one backend after the other, or several at once.
func (r *run) loop(ctx context.Context) *Outcome {
	for {
		if err := r.interrupted(ctx); err != nil {
			return r.fail(err)
		}
		found := r.look()
		switch {
		case found.at < 0 && r.relieve():
		case found.at < 0:
			r.skip(found.passed, job.NextStop)
			return r.fail(r.last)
		case found.pause <= 0:
			r.skip(found.passed, job.NextFallback)
			won, final := r.ask(ctx, &found)
			if won != nil {
				return r.answered(won)
			}
			if final != nil {
				return r.fail(final)
			}
		default:
			if end := r.pause(ctx, &found); end != nil {
				return end
			}
		}
	}
}

// pause waits for the position found, or ends the run where that is not for here.
func (r *run) pause(ctx context.Context, found *look) *Outcome {
	switch {
	case found.queued:
		r.skip(found.passed, job.NextWait)
		return r.queue(found)
	case r.beyond(found.pause):
		r.skip(found.passed, job.NextStop)
		return r.fail(r.tooLate())
	case r.paused+found.pause > r.engine.hold:
		r.skip(found.passed, job.NextWait)
		return r.wait(found.pause)
	}
	r.skip(found.passed, job.NextWait)
	if r.world.sleep(ctx, found.pause) {
		r.paused += found.pause
		r.promised = found.at
	}
	return nil
}

// ask calls the position found, or lets it and others race. It returns the call
// that won, or the failure with which the job ends; neither when it goes on.
func (r *run) ask(ctx context.Context, found *look) (won *call, final *backend.Error) {
	r.promised = -1
	if r.next().Fan > 1 && !r.sit.Chain[found.at].Degraded {
		return r.volley(ctx, found)
	}
	c := r.newCall(found)
	c.attempt(ctx)
	if c.err == nil {
		r.succeed(c)
		return c, nil
	}
	return nil, r.settle(ctx, c)
}

// next is the strategy's word on the situation.
func (r *run) next() *Move {
	if !r.asked {
		r.move, r.asked = r.strategy.Next(&r.sit), true
		if !r.move.whole {
			r.move.Order = r.inOrder(r.move.Order)
		}
	}
	return &r.move
}

// interrupted tells whether the job's context is done, and as which class.
func (r *run) interrupted(ctx context.Context) *backend.Error {
	cause := r.world.interrupted(ctx)
	if cause == nil {
		return nil
	}
	if errors.Is(cause, ErrBudget) {
		return &backend.Error{Class: backend.Expired, Message: "the job's time is up", Cause: cause}
	}
	why := strings.TrimSuffix(cause.Error(), ": "+context.Canceled.Error()) // the worker stops, say
	if why == context.Canceled.Error() {
		why = "the job was cancelled"
	}
	return &backend.Error{Class: backend.Canceled, Message: why, Cause: cause}
}

// beyond reports whether a pause would leave nothing of the job's time.
func (r *run) beyond(pause time.Duration) bool {
	return !r.task.Deadline.IsZero() && !r.world.now().Add(pause).Before(r.task.Deadline)
}

// tooLate is the failure of a job whose next call would come after its end.
func (r *run) tooLate() *backend.Error {
	return &backend.Error{Class: backend.Expired, Message: "no backend can be called before the job's time is up", Cause: ErrBudget}
}

// settle records the failure of a call and decides what follows. It returns the
// failure with which the job ends, nil when it goes on.
func (r *run) settle(ctx context.Context, c *call) *backend.Error {
	err := c.err
	if !c.left { // refused between the look and the call, or never left
		r.turnedAway(c)
		return nil
	}
	if err.CostUSD != nil {
		r.cost += *err.CostUSD
	}
	if end := r.interrupted(ctx); end != nil { // whatever the call made of it
		cut := *err
		cut.Class, cut.Message = end.Class, end.Message
		r.close(c, &cut, job.NextStop)
		return end
	}
	r.since, r.paused = c.ended, 0 // what follows is told by the same clock that it goes by
	r.learn(c)
	r.note(c.at, err, c.entry.StartedAt, c.ended)
	if r.running > 0 {
		r.close(c, err, job.NextFallback)
		return nil
	}
	next, end := r.follow(c.at)
	r.close(c, err, next)
	return end
}

// note takes one failed call into account, of position i, or -1 for a backend
// that is no longer in the chain. What a degraded backend failed with changes
// nothing but that it was asked.
func (r *run) note(i int, err *backend.Error, started, ended time.Time) {
	again := i >= 0 && i == r.sit.Position && r.task.Plan.retries[i] > 0 && r.next().Fan <= 1
	r.asked = false
	var c *Candidate
	if i >= 0 {
		c = r.change(i)
		c.Tries++
		c.skipped = ""
	}
	if c != nil && c.Degraded {
		if r.last == nil {
			r.last = err
		}
		return
	}
	r.retry = -1
	r.last, r.ended, r.spread = err, ended, r.sit.Policy.spread(r.sit.Seed, started)
	r.sit.Failure, r.sit.Position = err, i
	r.sit.Calls++
	r.over = r.over || ends(err.Class)
	if c == nil {
		r.stopped = r.stopped || !r.goesOn()
		return
	}
	r.count(c, again)
	if isUnfit(err.Class) {
		c.unfit = &backend.Error{Class: err.Class, Message: "it cannot take this request, as it said before"}
	}
	if r.retries(i, err) {
		r.retry = i
	} else {
		r.stopped = r.stopped || !r.goesOn()
	}
	c.hinted = err.RetryAfter > 0
	c.notBefore = ended.Add(err.RetryAfter)
	if !c.hinted {
		c.notBefore = ended.Add(r.sit.Policy.delay(r.turn(i), r.sit.Policy.leastSpread()))
	}
}

// count counts one more call of c; again tells that it was called before this
// one too, so that it may have been a retry.
func (r *run) count(c *Candidate, again bool) {
	retries := r.task.Plan.retries[r.sit.Position]
	if again && r.streak <= retries {
		r.streak++
		return
	}
	r.streak = 1
	c.Rounds++
}

// goesOn reports whether another backend is asked after the last failure.
func (r *run) goesOn() bool {
	class := r.sit.Failure.Class
	if !r.sit.Policy.Enabled || ends(class) {
		return false
	}
	if judge, ok := r.strategy.(Judge); ok {
		return judge.GoesOn(&r.sit)
	}
	return r.sit.Policy.goesOn(class, r.sit.Failure.Status)
}

// follow decides what follows the failed call of position i, and returns the
// failure with which the job ends where it does.
func (r *run) follow(i int) (job.Next, *backend.Error) {
	relieved := r.relieve()
	found := r.look()
	switch {
	case found.at < 0:
		r.told = true
		return job.NextStop, r.last
	case found.queued:
		return job.NextWait, nil
	case r.beyond(found.pause):
		r.told = true
		return job.NextStop, r.tooLate()
	case relieved && found.pause > 0, found.pause > r.engine.hold:
		return job.NextWait, nil
	case found.at == i:
		return job.NextRetry, nil
	default:
		return job.NextFallback, nil
	}
}
