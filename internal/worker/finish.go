package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/results"
)

// result returns what every result of the job has.
func (t *task) result(status job.Status) *job.Result {
	now := time.Now()
	r := &job.Result{
		ID: t.id, CustomID: t.job.CustomID, Status: status, Queue: t.d.Queue, Route: t.route,
		Attempts: t.trail, QueuedMS: max(t.startedAt.Sub(later(t.d.Published, t.job.NotBefore)).Milliseconds(), 0),
		DurationMS: max(now.Sub(t.startedAt).Milliseconds(), 0), Deliveries: t.d.Number(), Redrives: t.redrives,
		Worker: t.w.cfg.Name, FinishedAt: now, Metadata: t.job.Metadata,
	}
	for _, a := range t.trail {
		if a.CostUSD != nil {
			if r.CostUSD == nil {
				r.CostUSD = new(float64)
			}
			*r.CostUSD += *a.CostUSD
		}
	}
	return r
}

func (t *task) success(out fallback.Outcome) *job.Result {
	resp := out.Response
	r := t.result(job.Succeeded)
	r.Response = job.NewResponse(resp.Status, resp.RequestID, resp.Body)
	r.Backend, r.Model, r.Degraded, r.Usage = out.Backend, resp.Model, resp.Degraded, resp.Usage
	return r
}

func (t *task) failure(out fallback.Outcome) *job.Result {
	err := out.Err
	status := job.Failed
	switch {
	case errors.Is(err, backend.Expired):
		status = job.Expired
	case errors.Is(err, backend.Canceled):
		status = job.Cancelled
	}
	r := t.result(status)
	r.Backend, r.Model = err.Backend, err.Model
	r.Error = &job.Error{Code: string(err.Class), Message: err.Message, First: out.First, Last: out.Last}
	if err.Status != 0 {
		r.Response = job.NewResponse(err.Status, err.RequestID, err.Body)
	}
	return r
}

// refuse ends a job without a call.
func (t *task) refuse(ctx context.Context, class backend.Class, message string) {
	_ = t.understand() // only whom to tell is of interest
	r := t.result(job.Failed)
	r.Error = &job.Error{Code: string(class), Message: message}
	t.finish(ctx, r)
}

// finish makes the result the job's one end: commit, dead letter, events,
// reply, ack, in this order. When the worker is stopped hard in between, the
// next delivery goes on from there.
func (t *task) finish(ctx context.Context, r *job.Result) {
	settling, cancel := t.w.settling(ctx, 0)
	defer cancel()
	t.w.at("before commit", t.id)
	data, err := t.commit(settling, r)
	for errors.Is(err, results.ErrCommitted) {
		stored, lookupErr := t.w.store.Lookup(settling, t.d.Queue, t.id)
		switch {
		case lookupErr == nil && stored == nil: // what it was to replace has aged out meanwhile
			t.replaces = 0
			data, err = t.commit(settling, r)
			continue
		case lookupErr == nil && t.own(stored, r): // only the word of it was lost
			data, err = stored.Data, nil
			continue
		case lookupErr == nil:
			t.dropAnswer(settling, r)
			if lookupErr = t.resend(settling, stored); lookupErr == nil {
				return
			}
		}
		t.log().WarnContext(ctx, "the result that is there already could not be read; trying again", "err", lookupErr)
		sleep(settling, retryLookup)
		if settling.Err() != nil {
			return
		}
	}
	if err != nil {
		t.log().ErrorContext(ctx, "result could not be committed; the job will run again", "status", r.Status, "err", err)
		return
	}
	t.w.at("after commit", t.id)
	t.dropObject(settling, "the answer before", t.replaced, t.w.store.DropAnswer)
	if r.Status == job.Failed || r.Status == job.Expired {
		if err := t.bury(settling, r); err != nil {
			t.log().ErrorContext(ctx, "dead letter could not be stored; it will be tried again", "err", err)
			return
		}
		t.w.at("after dead letter", t.id)
	}
	t.completed(r)
	t.account(ctx, r)
	t.settle(settling, data)
}

// own reports whether a stored result is the one this run has just committed.
func (t *task) own(stored *results.Stored, r *job.Result) bool {
	there, err := job.DecodeResult(stored.Data)
	return err == nil && stored.JobSeq == t.d.Seq && there.Worker == r.Worker &&
		there.FinishedAt.Equal(r.FinishedAt.Truncate(time.Millisecond))
}

// commit stores the result. An answer that does not fit the server's limit goes to
// the object store; where that cannot be, the result becomes a failed one that says so.
func (t *task) commit(ctx context.Context, r *job.Result) ([]byte, error) {
	data, err := t.w.store.Commit(ctx, r, t.d.Seq, t.replaces)
	var tooBig *results.TooBigError
	if !errors.As(err, &tooBig) {
		return data, err
	}
	why := t.putAnswer(ctx, r)
	if why == nil {
		if data, err = t.w.store.Commit(ctx, r, t.d.Seq, t.replaces); !errors.As(err, &tooBig) {
			return data, err
		}
		t.dropAnswer(ctx, r)
	}
	if ctx.Err() != nil { // a hard stop: nothing is wrong with the answer
		return nil, context.Cause(ctx)
	}
	if r.Status != job.Succeeded { // the provider's answer is what is too big: leave it out
		r.Response = nil
	} else {
		r.Status, r.Response = job.Failed, nil
		r.Error = &job.Error{Code: string(backend.TooLarge), Message: tooBig.Error()}
		if why != nil {
			r.Error.Message += "; " + why.Error()
		}
	}
	data, err = t.w.store.Commit(ctx, r, t.d.Seq, t.replaces)
	if errors.As(err, &tooBig) { // metadata or trail
		r.Metadata, r.Attempts = nil, nil
		data, err = t.w.store.Commit(ctx, r, t.d.Seq, t.replaces)
	}
	return data, err
}

// bury stores the dead letter that belongs to a result.
func (t *task) bury(ctx context.Context, r *job.Result) error {
	letter := &job.DeadLetter{
		ID: r.ID, Queue: r.Queue, Error: r.Error, Headers: t.d.Header, Attempts: r.Attempts,
		Deliveries: r.Deliveries, Redrives: r.Redrives, Worker: r.Worker, Time: r.FinishedAt,
	}
	if r.Error != nil {
		letter.Reason, letter.FirstError, letter.LastError = r.Error.Code, r.Error.First, r.Error.Last
	}
	if err := t.w.store.Bury(ctx, letter, t.d.Payload, t.d.Seq); err != nil {
		return err
	}
	t.w.metrics.deadLetters.WithLabelValues(t.d.Queue, letter.Reason).Inc()
	t.emit(t.report(job.EventDeadLettered).Data(job.DeadLettered{Queue: t.d.Queue, Reason: letter.Reason, Redrives: r.Redrives}))
	return nil
}

// ackTries is how often an ack is tried that nobody is there for. The consumer is
// gone then: it is made anew by a pull, which needs a free slot, maybe this one, and
// hands the job out again.
const ackTries = 3

// settle sends the result to whoever asked, and lets the job leave the queue.
func (t *task) settle(ctx context.Context, data []byte) {
	if err := t.w.store.Reply(t.job.ReplyTo, data); err != nil {
		t.log().WarnContext(ctx, "result could not be sent", "err", err)
	}
	t.w.at("before ack", t.id)
	t.release()
	for tries := 1; ctx.Err() == nil; tries++ {
		err := t.d.Ack(ctx)
		if err == nil {
			t.dropObject(ctx, "the job's payload", t.object, t.w.store.DropPayload)
			return
		}
		if errors.Is(err, nats.ErrNoResponders) && tries >= ackTries {
			t.log().WarnContext(ctx, "nobody takes the ack; the next delivery will be acknowledged", "err", err)
			return
		}
		t.log().WarnContext(ctx, "ack failed; trying again", "err", err)
		sleep(ctx, retryLookup)
	}
}

// account counts and logs the end of a job.
func (t *task) account(ctx context.Context, r *job.Result) {
	m := t.w.metrics
	m.jobs.WithLabelValues(r.Queue, r.Route, string(r.Status)).Inc()
	m.jobDuration.WithLabelValues(r.Queue, r.Route).Observe(float64(r.DurationMS) / 1000)
	class := ""
	if r.Error != nil {
		class = r.Error.Code
	}
	t.w.logger.LogAttrs(ctx, slog.LevelInfo, "job ended",
		slog.String("job_id", t.id), slog.String("queue", t.d.Queue), slog.Int("delivery", t.d.Number()),
		slog.String("status", string(r.Status)), slog.String("route", r.Route), slog.String("backend", r.Backend),
		slog.String("class", class), slog.Int("attempt", calls(r.Attempts)), slog.Bool("degraded", r.Degraded),
		slog.Int64("duration_ms", r.DurationMS))
}

// calls counts the entries of a trail that were calls.
func calls(trail []job.Attempt) int {
	n := 0
	for _, a := range trail {
		if a.Outcome != job.OutcomeSkipped {
			n++
		}
	}
	return n
}

// sleep pauses for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
