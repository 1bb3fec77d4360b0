package worker

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"understudy/internal/job"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// hand gives the job back until a moment, or some time before it, with its trail.
// It reports whether the job left this worker: it has done so too when others
// have ended or taken it meanwhile.
func (t *task) hand(ctx context.Context, until time.Time, before time.Duration, why string) bool {
	settling, cancel := t.w.settling(ctx, returnTimeout)
	defer cancel()
	if held, err := t.held(settling); err != nil {
		t.log().WarnContext(ctx, "whether the job is still this worker's could not be read before it is handed back", "err", err)
		return false
	} else if !held {
		if t.elsewhere != nil {
			t.yield(ctx)
		} else {
			t.log().InfoContext(ctx, "job was taken by another worker; it is left there")
		}
		return true
	}
	w := job.Waiting{
		Queue: t.d.Queue, Why: why, Until: until, Delivery: t.d.Number(), JobSeq: t.d.Seq,
		StartedAt: t.startedAt, Attempts: t.trail, Crashes: t.crashes,
	}
	if err := t.w.outbox.EmitStored(settling, t.events, t.report(job.EventWaiting).Data(w), t.eventsTo()); err != nil {
		t.log().WarnContext(ctx, "the job's wait could not be stored", "err", err)
		return false
	}
	if err := t.d.Return(settling, max(time.Until(until)-before, 0)); err != nil {
		t.log().WarnContext(ctx, "job could not be returned; its lease will run out", "err", err)
	}
	t.w.metrics.waits.Inc()
	t.log().InfoContext(ctx, "job waits", "why", why, "until", until, "attempt", len(t.trail))
	return true
}

// held reports whether the job is still this worker's to hand back, see
// [task.fence]. The server is asked unless that was done a moment ago and nobody
// else can have been handed the job since. A result that is there is kept in
// elsewhere.
func (t *task) held(ctx context.Context) (bool, error) {
	if !t.w.nc.IsConnected() { // what is said now would be heard late
		return false, nats.ErrDisconnected
	}
	if !t.longAgo() {
		return true, nil
	}
	looked := wallClock()
	if ended, err := t.endedElsewhere(ctx); ended || err != nil {
		return false, err
	}
	lost, err := t.w.store.Lost(ctx, t.d.Queue, t.id, t.holder(), t.known)
	if err != nil || lost {
		return false, err
	}
	t.looked = looked
	return true, nil
}

// holder is this worker as the one that has the job.
func (t *task) holder() results.Holder { return t.w.holder(t.d) }

// holder is this worker as the one that was handed d.
func (w *Worker) holder(d *queue.Delivery) results.Holder {
	return results.Holder{Worker: w.cfg.Name, JobSeq: d.Seq, Delivery: d.Number()}
}

// giveBack returns the job to the queue, with its trail, because this worker stops.
func (t *task) giveBack(ctx context.Context) {
	settling, cancel := t.w.settling(ctx, 0)
	defer cancel()
	for !t.hand(ctx, time.Now(), 0, "the worker is stopping") {
		if len(t.trail) == 0 || settling.Err() != nil { // else what was tried would be lost
			t.drop(ctx, 0)
			return
		}
		sleep(settling, handAgain)
	}
}
