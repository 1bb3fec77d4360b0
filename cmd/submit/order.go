package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// order is one job to publish and to await.
type order struct {
	key
	payload []byte
	// newID tells that the id was made for this order: nobody else knows it.
	newID bool
	// unawaited tells that nobody waits for the result.
	unawaited bool
	// patience is how long to wait; 0 means for ever.
	patience time.Duration
	// chunk gets the chunks of a streamed answer; nil for none.
	chunk func(msg *nats.Msg)
}

// checkJob validates a job as a worker would, but for what only the worker knows:
// its routes, its backends, and to whom it may reply.
func (a *app) checkJob(k key, payload []byte, command string) error {
	d, err := a.decoder()
	if err != nil {
		return err
	}
	j, err := d.Decode(k.queue, k.id, payload, nil)
	if err == nil {
		err = j.CheckAhead(a.now())
	}
	if err != nil {
		return usage(command, "%v", err)
	}
	return nil
}

// decoder returns a decoder that allows every reply subject: which ones are
// allowed is for the workers to say.
func (a *app) decoder() (*job.Decoder, error) {
	anybody, err := job.ParseReplyRule(">")
	if err != nil {
		return nil, err
	}
	return job.NewDecoder(a.environment().subjects, anybody), nil
}

// place publishes a job and waits for its result. A job of the same id that has
// a result, or is queued already, is not run again.
func (a *app) place(ctx context.Context, c *client, o order) (outcome, error) {
	col, err := c.collect(ctx, c.subjects.Done(o.queue, o.id))
	if err != nil {
		return outcome{}, err
	}
	defer col.close()
	if o.chunk != nil {
		col.chunk = o.chunk
		if err := col.subscribe(c.subjects.Chunks(o.queue, o.id)); err != nil {
			return outcome{}, err
		}
	}
	out, known, err := a.known(ctx, c, o)
	if known || err != nil {
		return out, err
	}
	col.expect(o.key, 0)
	if o.patience > 0 {
		patient, cancel := context.WithTimeoutCause(ctx, o.patience+waitSlack, &tooLongError{o.patience})
		defer cancel()
		ctx = patient
	}
	if err := a.store(ctx, c, o); err != nil {
		return outcome{}, err
	}
	return a.await(ctx, col, o.key)
}

// known returns the result of a job that has one already.
func (a *app) known(ctx context.Context, c *client, o order) (out outcome, known bool, err error) {
	if o.newID {
		return outcome{}, false, nil
	}
	s, err := c.standing(ctx, o.key, 0)
	if err != nil || !s.final {
		return outcome{}, false, err
	}
	a.note("submit: job %s has a result already; it is not run again", o.id)
	return c.whole(ctx, s.outcome), true, nil
}

// store publishes the job of an order, unless it is queued already.
func (a *app) store(ctx context.Context, c *client, o order) error {
	err := c.enqueue(ctx, o.key, o.payload, a.pressure(o.queue))
	switch {
	case !errors.Is(err, results.ErrInFlight):
		if err != nil && ctx.Err() != nil {
			a.note("submit: whether job %s is queued is not known; to see: submit result %s%s", o.id, o.id, queueHint(o.queue))
		}
		return err
	case o.newID: // an earlier try of its own
		return a.assure(ctx, c, o)
	}
	queued, err := c.queued(ctx, o.key)
	if err != nil {
		return err
	}
	if queued == nil { // it has just ended, or the try before this one is not stored yet
		return a.assure(ctx, c, o)
	}
	same, err := c.store.SamePayload(ctx, queued, o.payload)
	if err != nil {
		return err
	}
	if !same {
		return usage("", "another job with the id %s is queued or running: choose another -id, or await that one: submit result %s%s -wait 10m",
			o.id, o.id, queueHint(o.queue))
	}
	if o.unawaited {
		a.note("submit: job %s is queued or running already", o.id)
		return nil
	}
	a.note("submit: job %s is queued or running already; it is awaited", o.id)
	return nil
}

// assure waits until an order that was refused as one too many is stored: the try
// before it may be on its way still, or lost for want of a quorum.
func (a *app) assure(ctx context.Context, c *client, o order) error {
	for {
		stored, err := c.store.Accepted(ctx, o.queue, o.id)
		if stored || err != nil && ctx.Err() != nil {
			return err
		}
		if err == nil {
			if err = c.enqueue(ctx, o.key, o.payload, a.pressure(o.queue)); !errors.Is(err, results.ErrInFlight) {
				return err
			}
		}
		if !sleep(ctx, firstPause) {
			return context.Cause(ctx)
		}
	}
}

// queueHint is the flag that a command needs to find a job of queue.
func queueHint(queue string) string {
	if queue == job.DefaultQueue {
		return ""
	}
	return " -queue " + queue
}

// await waits for the result of one job that is queued. When it ends without
// one, it says how to go on.
func (a *app) await(ctx context.Context, col *collector, k key) (outcome, error) {
	col.quiet = func(ctx context.Context) { a.whyQuiet(ctx, col.c, k.queue) }
	out, err := col.next(ctx)
	if err != nil {
		a.note("submit: job %s is queued or running; it goes on without this command. To await it: submit result %s%s -wait 10m",
			k.id, k.id, queueHint(k.queue))
	}
	return out, err
}

// whyQuiet tells the person when no worker serves the queue.
func (a *app) whyQuiet(ctx context.Context, c *client, name string) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	consumer, err := c.js.Consumer(ctx, c.subjects.JobsStream(), queue.ConsumerName(name))
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		a.note("submit: no worker has ever served queue %s; its jobs wait (is the name right?)", name)
	case err != nil:
		return // it is only a hint
	default:
		if info := consumer.CachedInfo(); info.NumWaiting == 0 && info.NumAckPending == 0 {
			a.note("submit: no worker serves queue %s at the moment; its jobs wait", name)
		}
	}
}

// form is how a result is printed.
type form int

// The forms.
const (
	asStored form = iota // indented for people, as stored for programs
	asLine               // on one line
)

// printResult prints a result. A job that is gone has none.
func (a *app) printResult(o outcome, f form) error {
	if o.data == nil {
		return nil
	}
	data, err := o.data, error(nil)
	switch {
	case o.unreadable != nil:
	case f == asLine:
		data, err = compact(o.data)
	case a.terminals.out:
		data, err = pretty(o.data)
		data = []byte(plain(string(data)))
	}
	if err != nil {
		return err
	}
	if !strings.HasSuffix(string(data), "\n") {
		data = append(bytes.Clone(data), '\n')
	}
	return a.print(data)
}
