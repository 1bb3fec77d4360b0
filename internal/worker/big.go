package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"understudy/internal/job"
	"understudy/internal/results"
)

// The numbers of the sweep of payloads that nobody refers to.
const (
	// sweepEvery is how often one worker of the fleet sweeps.
	sweepEvery = 6 * time.Hour
	// sweepLook is how often each looks whether it is time.
	sweepLook = time.Hour
	// sweepAge is how old a payload must be: its job may be yet to be published.
	sweepAge = 24 * time.Hour
	// sweepTimeout bounds one sweep.
	sweepTimeout = 10 * time.Minute
)

// load gets the payload of a job that is too big for a message, once. A payload
// that cannot be had makes the job a malformed one; the error is that of a server
// that does not answer.
func (t *task) load(ctx context.Context) error {
	name := t.d.Header.PayloadObject()
	if name == "" || t.object != "" || t.job != nil {
		return nil
	}
	payload, err := []byte(nil), error(&results.PayloadError{Reason: "the message has a payload of its own; it must be empty"})
	if len(t.d.Payload) == 0 {
		payload, err = t.w.store.LoadPayload(ctx, t.d.Queue, t.id, name, t.w.cfg.MaxPayload)
	}
	if _, final := errors.AsType[*results.PayloadError](err); final {
		t.malformed, t.job = err, t.w.decoder.Refused(t.d.Queue, t.id, t.d.Payload, t.d.Header)
		return nil
	}
	if err != nil {
		return err
	}
	t.object, t.d.Payload = name, payload
	return nil
}

// putAnswer moves the body of a result that does not fit a message to the object
// store. It returns why that cannot be.
func (t *task) putAnswer(ctx context.Context, r *job.Result) error {
	switch limit := t.w.cfg.MaxPayload; {
	case limit == 0:
		return errors.New("WORKER_MAX_PAYLOAD is 0")
	case r.Response == nil || r.Response.Object != "":
		return errors.New("it is not the answer that is too big")
	case int64(len(r.Response.Body)) > limit:
		return fmt.Errorf("its answer has %d, and WORKER_MAX_PAYLOAD is %d", len(r.Response.Body), limit)
	}
	name, err := t.w.store.PutAnswer(ctx, t.d.Queue, t.id, t.d.Seq, r.Response.Body)
	if err != nil {
		t.log().ErrorContext(ctx, "an answer that is too big for a message could not be put into the object store", "err", err)
		return err
	}
	of := r.Response // is dropped with its body
	r.Response = &job.Response{StatusCode: of.StatusCode, RequestID: of.RequestID, Object: name, Bytes: int64(len(of.Body))}
	return nil
}

// dropAnswer deletes the object of a result that does not count.
func (t *task) dropAnswer(ctx context.Context, r *job.Result) {
	if r.Response != nil {
		t.dropObject(ctx, "an answer that does not count", r.Response.Object, t.w.store.DropAnswer)
	}
}

// dropObject deletes an object that is of no use any more, where there is one. One
// that stays is collected later: by the sweep, or by its age.
func (t *task) dropObject(ctx context.Context, what, name string, drop func(context.Context, string) error) {
	if name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, returnTimeout)
	defer cancel()
	if err := drop(ctx, name); err != nil {
		t.log().WarnContext(ctx, "an object could not be deleted; it is collected later", "what", what, "err", err)
	}
}

// answerOf names the object of a stored result's answer; empty when it has none.
func answerOf(stored *results.Stored) string {
	r, err := job.DecodeResult(stored.Data)
	if err != nil || r.Response == nil {
		return ""
	}
	return r.Response.Object
}

// sweep now and then deletes payloads to which no job refers, until ctx is done.
// One worker of the fleet does, each time.
func (w *Worker) sweep(ctx context.Context) {
	if w.cfg.MaxPayload == 0 {
		return
	}
	tick := time.NewTicker(sweepLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		w.trySweep(ctx, time.Now().Add(-sweepAge))
	}
}

// trySweep deletes what was stored before a moment, when it is this worker's turn.
func (w *Worker) trySweep(ctx context.Context, before time.Time) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	mine, err := w.store.ClaimSweep(ctx, sweepEvery)
	if err == nil && mine {
		var n int
		if n, err = w.store.SweepPayloads(ctx, before); n > 0 {
			w.logger.InfoContext(ctx, "payloads without a job were deleted", "objects", n)
		}
	}
	if err != nil && ctx.Err() == nil {
		w.logger.WarnContext(ctx, "payloads without a job could not be collected", "err", err)
	}
}
