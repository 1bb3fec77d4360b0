package openai

import (
	"context"
	"errors"
	"fmt"
	"time"

	"understudy/internal/backend"
)

// What a limit is about.
const (
	noAnswer     = "no answer in"
	noFirstToken = "no first token in"
	noToken      = "no token for"
	noEnd        = "no end of the answer in"
)

// limitError is the cause of a call that one of the backend's own limits ended.
type limitError struct {
	what  string
	limit time.Duration
	// adaptive tells that the limit follows from the backend's latency.
	adaptive bool
}

// Error implements error.
func (e *limitError) Error() string {
	if e.adaptive {
		return fmt.Sprintf("%s %s (adaptive)", e.what, e.limit)
	}
	return fmt.Sprintf("%s %s", e.what, e.limit)
}

// Unwrap makes errors.Is(err, context.DeadlineExceeded) hold.
func (e *limitError) Unwrap() error { return context.DeadlineExceeded }

// watch ends a call that is too slow, by cancelling its context with a
// [limitError] as the cause. It belongs to the goroutine of the call.
type watch struct {
	cancel  context.CancelCauseFunc
	silence time.Duration // between tokens; 0 when the whole call is limited
	timer   *time.Timer
	spoke   bool
}

// start starts the clock of one call and returns its context. The watch must be
// stopped.
func (w *watch) start(ctx context.Context, p pace) context.Context {
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.silence = p.silence
	limit := limitError{what: noAnswer, limit: p.limit, adaptive: p.adaptive}
	if p.silence > 0 {
		limit.what = noFirstToken
	}
	w.arm(limit)
	return ctx
}

// token tells that a token has come.
func (w *watch) token() {
	if w.silence == 0 {
		return
	}
	if w.spoke {
		w.timer.Reset(w.silence)
		return
	}
	w.spoke = true
	w.timer.Stop()
	w.arm(limitError{what: noToken, limit: w.silence})
}

func (w *watch) arm(limit limitError) {
	w.timer = time.AfterFunc(limit.limit, func() {
		cause := limit // allocated only when it is needed
		w.cancel(&cause)
	})
}

// cutIn ends the call after d at the latest, whatever its other limits are.
func (w *watch) cutIn(d time.Duration) {
	w.timer.Stop()
	w.arm(limitError{what: noEnd, limit: d})
}

// stop ends the clock and releases the context.
func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// ended returns why a context that is done is done: the class, the words for it
// and the cause. A call that the job's own budget cut says nothing about the
// backend: jobs in a hurry must not open the breaker of a healthy one.
func ended(ctx context.Context) (backend.Class, string, error) {
	cause := context.Cause(ctx)
	if own, ok := errors.AsType[*limitError](cause); ok {
		return backend.Timeout, own.Error(), cause
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return backend.Expired, "the job's time budget ran out", cause
	}
	return backend.Canceled, "the call was cancelled", cause
}
