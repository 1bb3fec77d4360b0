package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/results"
)

// The numbers of publishing.
const (
	// firstPause and lastPause bound the growing pause between tries.
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	// ackTimeout is how long the stream has to take a job.
	ackTimeout = 5 * time.Second
	// remake is the age from which on a payload that is not published yet is stored
	// anew: an object without a job is collected after a day.
	remake = time.Hour
	// lastWord is how long it still has when the person has given up.
	lastWord = time.Second
)

// enqueue publishes a job and waits until the stream has it. While the queue is
// full or the stream does not answer it waits and tries again; tell hears of
// that. The error wraps [results.ErrInFlight] when a job of that id is queued or
// running, which may also be this one, of a try whose answer was lost.
//
// A payload that does not fit a message goes to the object store first, where
// there is one.
func (c *client) enqueue(ctx context.Context, k key, payload []byte, tell *pressure) error {
	var msg *nats.Msg
	var made time.Time
	err := persist(ctx, tell, func(try context.Context) (err error) {
		// Not within the time of one try: it may be big. And again when it took
		// long: the workers collect objects that no job refers to.
		if msg == nil || time.Since(made) > remake {
			made = time.Now().Round(0) // a clock that goes on while the machine sleeps
			if msg, err = c.store.JobMessage(ctx, k.queue, k.id, payload, nil, ""); err != nil {
				return results.Refusal(err)
			}
		}
		_, err = c.js.PublishMsg(try, msg)
		return results.Refusal(err)
	})
	if errors.Is(err, results.ErrNoPayloads) {
		return usage("", "job %s has %d bytes; %s", k.id, len(payload), c.tooBig())
	}
	if err != nil && msg != nil {
		c.takeBack(ctx, k, msg, err)
	}
	return err
}

// tooBig says what to do about a job that does not fit a message.
func (c *client) tooBig() string {
	return fmt.Sprintf("the server takes %d (max_payload). Bigger ones need the object store %s: workers make it, unless WORKER_MAX_PAYLOAD is 0",
		c.nc.MaxPayload(), c.subjects.PayloadsBucket())
}

// takeBack deletes the object of a job that the stream has refused. Where it may
// have been stored after all, or nobody knows, the object stays: the workers
// collect it if no job refers to it.
func (c *client) takeBack(ctx context.Context, k key, msg *nats.Msg, refused error) {
	name := job.Header(msg.Header).PayloadObject()
	if name == "" || ctx.Err() != nil {
		return
	}
	if errors.Is(refused, results.ErrInFlight) {
		queued, err := c.queued(ctx, k)
		if err != nil || queued == nil || job.Header(queued.Header).PayloadObject() == name {
			return // it is stored, or may be yet
		}
	}
	_ = c.store.DropPayload(ctx, name) // else it is collected
}

// persist calls try until it succeeds, or fails in a way that does not pass.
func persist(ctx context.Context, tell *pressure, try func(ctx context.Context) error) error {
	pause := firstPause
	for ctx.Err() == nil {
		err := once(ctx, try)
		switch {
		case err == nil:
			tell.gone()
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !passes(err):
			return err
		}
		tell.felt(err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, lastPause)
		case <-tell.room:
			pause = firstPause
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return context.Cause(ctx)
}

// once makes one try. When ctx ends meanwhile it goes on for a moment: what was
// sent may be stored, and then the person should be told so.
func once(ctx context.Context, try func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastWord, cancel) })
	defer stop()
	return try(bounded)
}

// passes reports whether the same publish may succeed later.
func passes(err error) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, results.ErrInFlight), errors.Is(err, nats.ErrMaxPayload):
		return false
	case errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting):
		return true
	case errors.As(err, &api):
		return api.Code >= 500 // a full queue, for one
	}
	return false
}

// sleep pauses for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pressure tells the person that jobs cannot be queued at the moment, and that
// they can again, once each. It is safe for concurrent use.
type pressure struct {
	note  func(format string, args ...any)
	queue string
	state chan struct{} // holds one while jobs cannot be queued
	room  chan struct{} // wakes one that waits for room
}

func (a *app) pressure(queue string) *pressure {
	return &pressure{note: a.note, queue: queue, state: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// felt notes that a job could not be queued because of err.
func (p *pressure) felt(err error) {
	select {
	case p.state <- struct{}{}:
	default: // said already
		return
	}
	if errors.Is(err, results.ErrQueueFull) {
		p.note("submit: queue %s is full; waiting for room, nothing is lost (%s)", p.queue, reason(err))
		return
	}
	p.note("submit: the stream of jobs does not answer; trying again (%s)", reason(err))
}

// freed notes that a job is about to leave the queue.
func (p *pressure) freed() {
	select {
	case p.room <- struct{}{}:
	default: // somebody is being woken
	}
}

// gone notes that a job could be queued.
func (p *pressure) gone() {
	select {
	case <-p.state:
		p.note("submit: queue %s takes jobs again", p.queue)
	default:
	}
}

// reason is what the server said, or the error.
func reason(err error) string {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return fmt.Sprintf("%s, code %d", api.Description, api.ErrorCode)
	}
	return err.Error()
}
