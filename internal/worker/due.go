package worker

import (
	"context"
	"fmt"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
	"understudy/internal/results"
)

// The numbers of a job that is put off.
const (
	// early is how long before its moment such a job comes back, to spend the rest
	// in a slot: a redelivery takes some ms, which nobody should wait for.
	early = 500 * time.Millisecond
	// parkAgain is how often a job is offered back when that could not be noted.
	parkAgain = 5 * time.Second
)

// later is the later of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// due waits for the moment before which the job may not be run: in the queue, and
// at the end in its slot. It reports whether to run the job now.
func (t *task) due(ctx context.Context) bool {
	at := t.job.NotBefore
	if at.IsZero() {
		return true
	}
	if !t.job.Deadline.IsZero() && !at.Before(t.job.Deadline) {
		r := t.result(job.Expired)
		r.Error = &job.Error{Code: string(backend.Expired), Message: fmt.Sprintf("not_before %s is not before the deadline %s",
			at.Format(time.RFC3339Nano), t.job.Deadline.Format(time.RFC3339Nano))}
		t.finish(ctx, r)
		return false
	}
	for left := time.Until(at); left > 0; left = time.Until(at) {
		pause := left
		if left > 2*early {
			if t.hand(ctx, at, early, "it is not due yet") {
				return false
			}
			pause = min(left-early, parkAgain)
		}
		sleep(ctx, pause)
		if ctx.Err() != nil {
			t.giveBack(ctx)
			return false
		}
	}
	t.startedAt = later(t.startedAt, at) // the time budget runs from here
	return true
}

// admit waits while results cannot be stored: what a job costs now could not be
// kept. It reports whether to go on; a job that is given back was never begun.
func (t *task) admit(ctx context.Context) bool {
	select {
	case <-t.w.store.Unblocked():
		return true
	default:
	}
	if !t.w.unblocks(ctx, t.w.store.Unblocked()) {
		t.drop(ctx, 0)
		return false
	}
	t.taken = time.Now() // its time budget has not run meanwhile
	return true
}

// unblocks waits until free is closed, and reports whether a job that waited for
// that may begin: not when the worker is stopping, though both came at once.
func (w *Worker) unblocks(ctx context.Context, free <-chan struct{}) bool {
	select {
	case <-free:
		return !w.isStopping()
	case <-w.stopping:
	case <-ctx.Done():
	}
	return false
}

// blocked hears of every job that begins or ceases to be held because something
// cannot be stored. It must not block.
func (w *Worker) blocked(b results.Blockage) {
	gauge := w.metrics.blocked.WithLabelValues(string(b.Kind))
	before := w.held[b.Kind]
	w.held[b.Kind] = b.Jobs
	gauge.Set(float64(b.Jobs))
	switch {
	case b.Jobs == 0 && w.isStopping(): // maybe given up
	case b.Jobs == 0:
		w.logger.Info("what jobs come to can be stored again; jobs are taken", "kind", string(b.Kind))
	case before == 0:
		w.logger.Error("what jobs come to cannot be stored; they are held, and no more are taken until it can", "kind", string(b.Kind), "err", b.Why)
	}
}

// isStopping reports whether no more jobs are to be taken.
func (w *Worker) isStopping() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}
