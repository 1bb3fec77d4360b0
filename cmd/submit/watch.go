package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// The numbers of watching.
const (
	// lookEvery is how long no event may come before it is looked up whether the
	// job has ended: an event can be dropped.
	lookEvery = 2 * time.Second
	// eventBuffer is how many events may wait to be printed.
	eventBuffer = 256
)

// watchOptions are the flags of watch.
type watchOptions struct {
	queue string
	json  bool
}

// watch prints events.
func (a *app) watch(ctx context.Context, o *watchOptions, args []string) error {
	k := key{o.queue, ">"}
	switch {
	case len(args) > 1:
		return usage("submit watch", "give one ID, not %d", len(args))
	case len(args) == 1:
		k = key{cmp.Or(o.queue, job.DefaultQueue), args[0]}
	}
	if err := checkKey(key{k.queue, cmp.Or(first(args), "any")}, "submit watch"); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	w := &watcher{app: a, c: c, key: k, json: o.json, one: len(args) == 1, in: make(chan jetstream.Msg, eventBuffer)}
	return w.run(ctx)
}

// first is the first of list, or the zero value.
func first[T any](list []T) T {
	if len(list) == 0 {
		var zero T
		return zero
	}
	return list[0]
}

// watcher prints the events of one job until it ends, or of all jobs until ctx
// is done.
type watcher struct {
	app  *app
	c    *client
	key  key
	one  bool // only one job, from its first stored event
	json bool
	in   chan jetstream.Msg

	known bool   // there were events, or the person was told that there are none
	life  uint64 // the job's sequence in the jobs stream, as its last event says
}

func (w *watcher) run(ctx context.Context) error {
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy}
	switch subjects := w.c.subjects; {
	case w.one:
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
		cfg.FilterSubjects = []string{subjects.Event(w.key.queue, w.key.id)}
	case w.key.queue != "":
		cfg.FilterSubjects = []string{subjects.Event(w.key.queue, ">")}
	default:
		cfg.FilterSubjects = []string{subjects.All("events"), subjects.All("breakers")}
	}
	consumer, err := w.c.events.OrderedConsumer(ctx, cfg)
	switch {
	case err != nil && ctx.Err() != nil: // refused by the server, say
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("read the events: %w", err)
	}
	reading, err := consumer.Consume(func(msg jetstream.Msg) {
		select {
		case w.in <- msg:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	defer reading.Stop()
	return w.loop(ctx)
}

func (w *watcher) loop(ctx context.Context) error {
	for {
		look := time.NewTimer(lookEvery)
		select {
		case msg := <-w.in:
			end, err := w.event(ctx, msg)
			if end || err != nil {
				look.Stop()
				return err
			}
		case <-look.C:
			if !w.one {
				continue
			}
			if end, err := w.look(ctx); end || err != nil {
				return err
			}
		case <-ctx.Done():
			look.Stop()
			return w.stopped(ctx)
		}
		look.Stop()
	}
}

// stopped is the end of a watch that was interrupted.
func (w *watcher) stopped(ctx context.Context) error {
	if w.one {
		w.app.note("submit: job %s goes on without being watched", w.key.id)
	}
	return context.Cause(ctx)
}

// event prints one event and tells whether it is the last.
func (w *watcher) event(ctx context.Context, msg jetstream.Msg) (end bool, err error) {
	e, foreign := job.DecodeEvent(msg.Data())
	if foreign != nil {
		return false, nil //nolint:nilerr // somebody else published to this subject
	}
	w.known = true
	if err := w.show(msg.Data(), e); err != nil {
		return true, err
	}
	switch e.Type { //nolint:exhaustive // the others neither begin nor end a life
	case job.EventReceived:
		var r job.Received
		if e.DataAs(&r) == nil {
			w.life = r.JobSeq
		}
		return false, nil
	case job.EventCompleted:
		return w.completed(ctx, msg, e)
	default:
		return false, nil
	}
}

// completed tells whether the end of a job is the last: it may have been
// redriven since. What cannot be told now is looked up a little later.
func (w *watcher) completed(ctx context.Context, msg jetstream.Msg, e *job.Event) (end bool, err error) {
	var c job.Completed
	meta, broken := msg.Metadata()
	if !w.one || broken != nil || meta.NumPending > 0 || e.DataAs(&c) != nil || w.again(ctx) {
		return false, nil //nolint:nilerr // the stored result will tell
	}
	return true, w.verdict(c.Status, deref(c.Class))
}

// again reports whether the job that ended is queued once more, or may be.
func (w *watcher) again(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	queued, err := w.c.queued(ctx, w.key)
	return err != nil || queued != nil && queued.Sequence != w.life
}

// look asks the store whether the job has ended, for the case that its last
// event was dropped.
func (w *watcher) look(ctx context.Context) (end bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, away := w.c.standing(ctx, w.key, 0)
	switch {
	case away != nil:
		return false, nil // the watch goes on when the server is back
	case len(w.in) > 0:
		return false, nil // no event was dropped: they come late, maybe the last one too
	case s.final && s.unreadable == nil && s.seq == 0:
		w.app.note("submit: job %s has ended; its last events are not stored any more, or were dropped", w.key.id)
		class := ""
		if s.result.Error != nil {
			class = s.result.Error.Code
		}
		return true, w.verdict(s.result.Status, class)
	case s.seq == 0 && !w.known:
		w.app.note("submit: nothing is known of job %s in queue %s yet; waiting for it", w.key.id, w.key.queue)
		if queues, err := w.c.queuesOf(ctx, w.key.id); err == nil && len(queues) > 0 {
			w.app.note("There is one in another queue: -queue %s", queues[0])
		}
	case s.seq != 0 && !w.known:
		w.app.note("submit: job %s is queued", w.key.id)
	}
	w.known = true
	return false, nil
}

// verdict is the end of a watch.
func (w *watcher) verdict(status job.Status, class string) error {
	if status == job.Succeeded {
		return nil
	}
	w.app.note("submit: job %s %s: %s", w.key.id, status, dash(oneLine(class, 64)))
	return errFailed
}

// show prints one event.
func (w *watcher) show(data []byte, e *job.Event) error {
	if w.json {
		line, err := compact(data)
		if err != nil {
			return err
		}
		return w.app.print(line)
	}
	return w.app.print([]byte(eventLine(e) + "\n"))
}
