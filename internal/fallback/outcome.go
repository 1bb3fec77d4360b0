package fallback

import (
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

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

// The limits of how much longer than it must a handed-back job stays away.
const (
	minWait = time.Second
	maxWait = 15 * time.Second
)

// answered ends the job with the answer of a call.
func (r *run) answered(c *call) *Outcome {
	r.out = Outcome{Response: c.resp, Backend: c.name, Trail: r.trail}
	return &r.out
}

// fail ends the job.
func (r *run) fail(err *backend.Error) *Outcome {
	if err == nil { // a chain without anybody to ask
		err = &backend.Error{Class: backend.CircuitOpen, Message: "no backend of the chain can be called"}
	}
	first, last := failures(r.happened())
	r.out = Outcome{Err: err, Trail: r.trail, First: first, Last: last}
	return &r.out
}

// wait hands the job back, for at least as long as it has waited already.
func (r *run) wait(pause time.Duration) *Outcome {
	least := min(max(r.world.now().Sub(r.since), minWait), maxWait)
	if !r.task.Deadline.IsZero() {
		least = min(least, r.task.Deadline.Sub(r.world.now())/2)
	}
	return r.handBack(max(pause, least), "no backend of the chain can be called now")
}

// queue hands the job back until its turn within the limits of a backend comes.
func (r *run) queue(found *look) *Outcome {
	pause := found.pause
	if limited, ok := r.task.Plan.chain[found.at].(backend.Limited); ok {
		pause = limited.Defer(&r.task.Request)
	}
	if !r.task.Deadline.IsZero() {
		pause = min(pause, r.task.Deadline.Sub(r.world.now())/2)
	}
	return r.handBack(pause, "the limits of "+r.sit.Chain[found.at].Name+" leave no room now")
}

func (r *run) handBack(pause time.Duration, why string) *Outcome {
	first, last := failures(r.happened())
	w := &Wait{Until: r.world.now().Add(pause), Why: why}
	r.out = Outcome{Wait: w, Trail: r.trail, First: first, Last: last}
	return &r.out
}
