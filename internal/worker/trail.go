package worker

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"understudy/internal/job"
)

// observer turns the attempts of one job into events, numbers and log lines. It
// implements fallback.Observer.
type observer struct{ t *task }

// Started implements fallback.Observer. A call of which nobody would know, did this
// process die in it, is held until its event is safe.
func (o observer) Started(a job.Attempt) (hold func()) {
	t := o.t
	t.w.at("before the call", t.id)
	if !t.fence() {
		t.unmade = a.N
		return nil
	}
	ahead := t.w.outbox.EmitAhead(t.events, t.report(job.EventAttemptStarted).Attempt(&a), t.eventsTo())
	return func() { ahead.Wait(t.calling) }
}

// Ended implements fallback.Observer.
func (o observer) Ended(a job.Attempt) {
	t := o.t
	if t.elsewhere != nil && a.N == t.unmade { // it never left
		return
	}
	switch a.Outcome {
	case job.OutcomeSucceeded:
		t.emit(t.report(job.EventAttemptSucceeded).Attempt(&a))
	case job.OutcomeSkipped:
		t.emit(t.report(job.EventAttemptSkipped).Attempt(&a))
		t.w.metrics.skipped(&a)
	case job.OutcomeFailed:
		t.emit(t.report(job.EventAttemptFailed).Attempt(&a))
	case job.OutcomeUnknown:
		return
	}
	t.logAttempt(&a)
	if a.Outcome == job.OutcomeSkipped {
		return
	}
	t.w.at("after the answer", t.id)
	t.w.metrics.attempt(&a, operation(t.job.URL))
}

// logAttempt says how an attempt ended: which backend, how long, which class and
// why the next, but not in the provider's words: they may quote the prompt.
// Nothing is put together for a line that is not written.
func (t *task) logAttempt(a *job.Attempt) {
	level := slog.LevelDebug
	if a.Outcome == job.OutcomeFailed {
		level = slog.LevelWarn
	}
	if !t.w.logger.Enabled(context.Background(), level) {
		return
	}
	log := t.log().With("attempt", a.N, "backend", a.Backend)
	class, next := told(a)
	switch a.Outcome { //nolint:exhaustive // the others are no attempts of this worker
	case job.OutcomeSucceeded:
		log.Debug("attempt succeeded", "duration_ms", a.DurationMS)
	case job.OutcomeSkipped:
		log.Debug("backend skipped", "class", class, "next", next)
	case job.OutcomeFailed:
		args := []any{"class", class, "status", a.Status, "duration_ms", a.DurationMS, "next", next}
		if a.RetryAfterMS != nil {
			args = append(args, "retry_after_ms", *a.RetryAfterMS)
		}
		log.Warn("attempt failed", args...)
	}
}

// told is the class of an attempt and what followed, empty where there is none.
func told(a *job.Attempt) (class, next string) {
	if a.Class != nil {
		class = *a.Class
	}
	if a.Next != nil {
		next = string(*a.Next)
	}
	return class, next
}

// operation is the OpenTelemetry GenAI name of what a URL does.
func operation(url string) string {
	switch url {
	case job.URLEmbeddings:
		return "embeddings"
	case job.URLCompletions:
		return "text_completion"
	default:
		return "chat"
	}
}

// report is an event of this job, now.
func (t *task) report(kind job.EventType) job.Report {
	return job.Report{Worker: t.w.cfg.Name, Type: kind, Subject: t.id, Time: time.Now()}
}

// emit sends an event of this job. It never blocks.
func (t *task) emit(e job.EncodedEvent) {
	t.w.outbox.Emit(t.events, e, t.eventsTo())
}

func (t *task) eventsTo() string {
	if t.job == nil {
		return ""
	}
	return t.job.EventsTo
}

// received says that this worker has taken the job. At a redelivery it waits
// until that is stored: crashes are counted by it.
func (t *task) received(ctx context.Context) error {
	_ = t.understand() // the copy of the event needs to know its reader
	e := t.report(job.EventReceived).Received(&job.Received{Queue: t.d.Queue, Delivery: t.d.Number(), Redrives: t.redrives, JobSeq: t.d.Seq})
	if t.d.Number() == 1 {
		t.emit(e)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, returnTimeout)
	defer cancel()
	if err := t.w.outbox.EmitStored(ctx, t.events, e, t.eventsTo()); err != nil {
		return fmt.Errorf("store that the job was taken: %w", err)
	}
	return nil
}

// completed says that the result is stored.
func (t *task) completed(r *job.Result) {
	c := job.Completed{
		Queue: r.Queue, Status: r.Status, Route: r.Route, Backend: r.Backend, Degraded: r.Degraded,
		Attempts: calls(r.Attempts), DurationMS: r.DurationMS, CostUSD: r.CostUSD,
	}
	if r.Error != nil {
		c.Class = &r.Error.Code
	}
	t.emit(t.report(job.EventCompleted).Completed(&c))
}

// relay sends one chunk of a streamed answer to whoever listens: on the job's
// subject for chunks, and to its reader of events. Calls that run at once do so
// at once; the attempt's number tells their chunks apart.
func (t *task) relay(attempt int, data []byte) {
	for _, subject := range []string{t.w.subjects.Chunks(t.d.Queue, t.id), t.eventsTo()} {
		if subject == "" {
			continue
		}
		msg := nats.NewMsg(subject)
		msg.Header.Set(job.HeaderAttempt, strconv.Itoa(attempt))
		msg.Data = data // copied into the connection's buffer before PublishMsg returns
		if err := t.w.nc.PublishMsg(msg); err != nil {
			t.log().Debug("chunk could not be relayed", "err", err)
		}
	}
}
