package worker

import (
	"context"
	"fmt"
	"time"

	"understudy/internal/results"
)

// errElsewhere is the cause with which a job's calls end here when another worker
// has stored its result. It wraps context.Canceled.
var errElsewhere = fmt.Errorf("the job has a result already: %w", context.Canceled)

// lookTimeout bounds one look for a result before a call.
const lookTimeout = 2 * time.Second

// fencing is what [task.fence] keeps of a job.
type fencing struct {
	looked    time.Time       // when the server was last asked for a result
	calling   context.Context //nolint:containedctx // of the calls, which abandon ends; an observer has none of its own
	abandon   context.CancelCauseFunc
	elsewhere *results.Stored // another worker's result, for which the calls were ended
	unmade    int             // the number of the call that did not leave for that
}

// fence reports whether a call may be made now. A worker that was frozen or cut
// off for longer than its lease wakes in the middle of a job that others may
// have ended meanwhile, and JetStream does not tell it so. The result does: it is
// looked for before a call, unless that was done a moment ago and nobody else can
// have been handed the job since. While the server cannot be asked, no call is
// made: its answer could not be stored either.
//
// It cannot help a call that left just before the result was stored. It is
// called by the observer, one call at a time.
func (t *task) fence() bool {
	for t.d.Number() > 1 || t.longAgo() {
		ctx, cancel := context.WithTimeout(t.calling, lookTimeout)
		ended, err := t.endedElsewhere(ctx)
		cancel()
		switch {
		case ended:
			t.abandon(errElsewhere)
			return false
		case err == nil:
			t.looked = wallClock()
			return true
		case t.calling.Err() != nil: // the call ends before it leaves
			return true
		}
		t.log().WarnContext(t.calling, "whether the job has a result could not be read before a call; trying again", "err", err)
		sleep(t.calling, retryLookup)
	}
	return true
}

// endedElsewhere asks whether the job has a result that another worker stored, and
// keeps it.
func (t *task) endedElsewhere(ctx context.Context) (bool, error) {
	stored, err := t.w.store.Lookup(ctx, t.d.Queue, t.id)
	if err != nil || stored == nil || stored.Seq == t.replaces {
		return false, err
	}
	t.elsewhere = stored
	return true, nil
}

// wallClock is now by the clock that goes on while a machine is suspended.
func wallClock() time.Time { return time.Now().Round(0) }

// longAgo reports whether the last look is longer ago than a heartbeat, or the
// clock was set back.
func (t *task) longAgo() bool {
	ago := wallClock().Sub(t.looked)
	return ago < 0 || ago > t.w.layout.Heartbeat()
}

// yield ends a job whose result another worker has stored.
func (t *task) yield(ctx context.Context) {
	settling, cancel := t.w.settling(ctx, 0)
	defer cancel()
	if err := t.resend(settling, t.elsewhere); err != nil {
		t.log().WarnContext(settling, "job could not be ended after another worker's result; its lease will run out", "err", err)
	}
}
