package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// The numbers of one job.
const (
	// panicDelay is the pause before a job whose run panicked is handed out again.
	panicDelay = 2 * time.Second
	// returnTimeout bounds the hand-back of a job at a stop.
	returnTimeout = 5 * time.Second
	// handAgain is the pause between tries to hand a job back at a stop.
	handAgain = 2 * time.Second
	// maxRedrives is as far as redrives are counted: anybody can send the header.
	maxRedrives = 1_000_000
	// fresh is how old a look at what is known of a job may be when the job begins.
	fresh = time.Second
	// retryLookup is the pause between tries to read what the server knows of a job.
	retryLookup = 500 * time.Millisecond
)

// errStopping is the cause with which running calls end at a stop. It wraps
// context.Canceled.
var errStopping = fmt.Errorf("the worker is stopping: %w", context.Canceled)

// task is one job in one slot.
//
//	free slot, then pull            queue.Source
//	lease heartbeat                 queue.Source
//	can its result be stored?       task.admit     -> wait for that
//	its payload, where it is big    task.load
//	has it a result already?        task.recall    -> send it again, ack
//	what happened before?           task.recall    -> poison, ack
//	decode, validate, route         task.accept    -> invalid_job
//	not_before                      task.due       -> wait for that
//	deadline                        task.call      -> expired
//	candidate, breaker, call        fallback.Engine
//	record and emit                 trail.go
//	commit, or dead letter          task.finish
//	reply, ack                      task.finish
//
// A job that cannot go on now is handed back with its trail (task.hand).
type task struct {
	w *Worker
	d *queue.Delivery
	fencing

	id        string   // as in subjects and results
	events    string   // the subject of its events
	job       *job.Job // see understand
	malformed error    // why the job was refused
	plan      *fallback.Plan
	route     string
	redrives  int
	crashes   int    // how many workers died or lost the job before
	replaces  uint64 // the failed result that a redriven job may replace
	taken     time.Time
	startedAt time.Time // of the first delivery: the time budget runs from here
	trail     []job.Attempt
	known     uint64 // the newest event that was there when the job was taken
	object    string // that holds the payload; empty when the message does
	replaced  string // the object of the answer that this run's result replaces
	released  bool   // its slot may be free already

	logging sync.Once
	logger  *slog.Logger // see log
}

// handle runs one job from its delivery to its settlement. It is where a panic
// of a job ends.
func (w *Worker) handle(ctx context.Context, d *queue.Delivery) {
	t := &task{w: w, d: d, id: safeID(d.ID), taken: time.Now()}
	t.events = w.subjects.Event(d.Queue, t.id)
	t.redrives, _ = strconv.Atoi(d.Header.Get(job.HeaderRedrives)) // absent or foreign: 0
	t.redrives = min(max(t.redrives, 0), maxRedrives)
	w.metrics.inFlight.Inc()
	defer t.release()
	defer func() {
		if p := recover(); p != nil {
			stack := debug.Stack()
			if of, ok := p.(*fallback.Panic); ok {
				stack = of.Stack
			}
			t.log().ErrorContext(ctx, "job panicked; it is handed out again", "stack", string(stack))
			t.drop(ctx, panicDelay)
		}
	}()
	w.at("after pull", t.id)
	if d.Number() > 1 {
		w.metrics.redeliveries.Inc()
	}
	if t.admit(ctx) && t.recall(ctx) && t.accept(ctx) && t.due(ctx) {
		t.call(ctx)
	}
}

// log returns a logger that names the job. Most jobs have one line and need none.
func (t *task) log() *slog.Logger {
	t.logging.Do(func() { // calls that run at once may be the first
		t.logger = t.w.logger.With("job_id", t.id, "queue", t.d.Queue, "delivery", t.d.Number())
	})
	return t.logger
}

// release gives the job's slot to the next one, once.
func (t *task) release() {
	if t.released {
		return
	}
	t.released = true
	t.w.metrics.inFlight.Dec()
	t.d.Release()
}

// safeID is id, but for what would make a subject a wildcard, or what JSON
// cannot hold: a publisher can send those, and no result may be stored or sought
// under them.
func safeID(id string) string {
	if utf8.ValidString(id) && !strings.ContainsAny(id, "*>") {
		return id
	}
	return strings.NewReplacer("*", "_", ">", "_").Replace(strings.ToValidUTF8(id, "_"))
}

// recall asks the server what it knows of the job. It reports whether the job
// is to be run.
func (t *task) recall(ctx context.Context) bool {
	for tries := 0; ; tries++ {
		run, err := t.tryRecall(ctx)
		if err == nil {
			return run
		}
		if tries == 0 {
			t.log().WarnContext(ctx, "what is known of the job could not be read or stored; it waits in its slot", "err", err)
		}
		select {
		case <-time.After(retryLookup):
		case <-ctx.Done(): // its trail is not known here: nothing is stored in its name
			t.drop(ctx, 0)
			return false
		}
	}
}

func (t *task) tryRecall(ctx context.Context) (run bool, err error) {
	t.startedAt = t.taken
	if err := t.load(ctx); err != nil {
		return false, err
	}
	look := t.begun()
	_ = t.understand() // while the server is at it
	t.looked = look.At
	stored, history, err := look.Wait(ctx)
	if err != nil {
		return false, err
	}
	if stored != nil {
		if !t.replaceable(stored) {
			return false, t.resend(ctx, stored)
		}
		t.replaces, t.replaced = stored.Seq, answerOf(stored)
	}
	t.trail, t.known = history.Trail, history.Seq
	if !history.StartedAt.IsZero() {
		t.startedAt = history.StartedAt
	}
	if err := t.received(ctx); err != nil {
		return false, err
	}
	for _, a := range history.Unknown {
		t.w.metrics.unknown.Inc()
		t.emit(t.report(job.EventAttemptUnknown).Attempt(&a))
	}
	// A delivery that no worker began, given back at a stop say, is no crash.
	t.crashes = min(max(t.d.Number()-1-history.Returns, 0), history.Crashes)
	if t.crashes >= t.w.cfg.MaxCrashes {
		t.refuse(ctx, backend.Poison, fmt.Sprintf("%d workers died or lost the job while they ran it", t.crashes))
		return false, nil
	}
	return true, nil
}

// arrived prepares the look at what is known of a job, before it has its slot.
func (w *Worker) arrived(d *queue.Delivery) {
	if d.Number() == 1 {
		d.Begun = w.store.Recall(d.Queue, safeID(d.ID), w.holder(d))
	}
}

// begun returns the look that was prepared when the job arrived, once and unless that is
// some time ago: it may have waited for its slot. Otherwise it begins one.
func (t *task) begun() *results.Recall {
	look, ok := t.d.Begun.(*results.Recall)
	t.d.Begun = nil
	if ok {
		if ago := wallClock().Sub(look.At); ago >= 0 && ago < fresh {
			return look
		}
	}
	look = t.w.store.Recall(t.d.Queue, t.id, t.holder())
	t.w.store.SendRecalls()
	return look
}

// replaceable reports whether a redriven job may replace the stored result.
func (t *task) replaceable(stored *results.Stored) bool {
	if t.redrives == 0 || stored.JobSeq == t.d.Seq {
		return false
	}
	r, err := job.DecodeResult(stored.Data)
	return err == nil && r.Status != job.Succeeded
}

// resend ends a job that has a result already: an earlier delivery, or an
// earlier job of the same id, committed it.
func (t *task) resend(ctx context.Context, stored *results.Stored) error {
	_ = t.understand() // only whom to tell is of interest
	r, err := job.DecodeResult(stored.Data)
	switch {
	case err != nil: // somebody else's, or a newer version's: it stands all the same
		t.log().ErrorContext(ctx, "the stored result cannot be read; it is sent as it is", "err", err)
	case stored.JobSeq == t.d.Seq: // it died between the commit and the ack
		if err := t.rebury(ctx, r); err != nil {
			return err
		}
		t.completed(r)
	default: // a job of an id that has ended: whoever published it may wait for the word
		if err := t.w.store.Reply(t.w.subjects.Done(t.d.Queue, t.id), stored.Data); err != nil {
			t.log().WarnContext(ctx, "result could not be announced again", "err", err)
		}
	}
	t.log().InfoContext(ctx, "job has a result already; it is sent again")
	t.settle(ctx, stored.Data)
	return nil
}

// rebury stores the dead letter of a committed job where that is still missing. A
// job that has left its queue had one, which was redriven or purged since.
func (t *task) rebury(ctx context.Context, r *job.Result) error {
	if r.Status != job.Failed && r.Status != job.Expired {
		return nil
	}
	buried, err := t.w.store.Buried(ctx, t.d.Queue, t.id, t.d.Seq)
	if err != nil || buried {
		return err
	}
	queued, err := t.w.store.Queued(ctx, t.d.Seq)
	if err != nil || !queued {
		return err
	}
	return t.bury(ctx, r)
}

// understand decodes the job, or as much of it as its result needs, once.
func (t *task) understand() error {
	if t.job != nil {
		return t.malformed
	}
	t.job, t.malformed = t.w.decoder.Decode(t.d.Queue, t.d.ID, t.d.Payload, t.d.Header)
	if t.malformed != nil {
		t.job = t.w.decoder.Refused(t.d.Queue, t.id, t.d.Payload, t.d.Header)
	}
	return t.malformed
}

// accept decodes, validates and routes the job. It reports whether to run it.
func (t *task) accept(ctx context.Context) bool {
	err := t.understand()
	if err == nil {
		err = t.job.CheckAhead(t.d.Published)
	}
	if err == nil {
		t.plan, err = t.w.engine.Plan(t.job)
	}
	if err != nil {
		t.route = ""
		class := backend.InvalidJob
		if payload, ok := errors.AsType[*results.PayloadError](err); ok && payload.TooBig {
			class = backend.TooLarge
		}
		t.refuse(ctx, class, err.Error())
		return false
	}
	t.route = t.plan.Route
	t.w.at("after decode", t.id)
	return true
}

// call runs the job through its chain until it ends or must wait.
func (t *task) call(ctx context.Context) {
	deadline := t.job.Deadline
	if t.plan.Budget > 0 {
		if end := t.startedAt.Add(t.plan.Budget); deadline.IsZero() || end.Before(deadline) {
			deadline = end
		}
	}
	ctx, t.abandon = context.WithCancelCause(ctx)
	defer t.abandon(nil)
	t.calling = ctx
	for {
		out := t.w.engine.Run(ctx, fallback.Task{
			Plan: t.plan, Trail: t.trail, Deadline: deadline, Observer: observer{t},
			Request: backend.Request{JobID: t.id, URL: t.job.URL, Body: t.job.Body, Model: t.job.Model, Stream: t.job.Stream},
			Chunk:   t.chunks(),
		})
		t.trail = out.Trail
		switch {
		case out.Response != nil:
			t.finish(ctx, t.success(out))
			return
		case t.elsewhere != nil:
			t.yield(ctx)
			return
		case out.Wait != nil:
			if t.hand(ctx, out.Wait.Until, 0, out.Wait.Why) {
				return
			}
			select { // the wait could not be stored: it is spent here
			case <-time.After(time.Until(out.Wait.Until)):
			case <-ctx.Done():
			}
		case errors.Is(context.Cause(ctx), errStopping):
			t.giveBack(ctx)
			return
		default:
			t.finish(ctx, t.failure(out))
			return
		}
	}
}

// chunks relays a streamed answer to whoever listens; nil when not asked for.
func (t *task) chunks() func(int, []byte) {
	if !t.job.Stream {
		return nil
	}
	return t.relay
}

// drop returns the job to the queue without a word about it. It counts as a
// worker lost.
func (t *task) drop(ctx context.Context, delay time.Duration) {
	settling, cancel := t.w.settling(ctx, returnTimeout)
	defer cancel()
	if err := t.d.Return(settling, delay); err != nil {
		t.log().WarnContext(ctx, "job could not be returned; its lease will run out", "err", err)
	}
}
