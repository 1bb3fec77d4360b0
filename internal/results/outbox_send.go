package results

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Run sends what is emitted until ctx is done, then what is left, and returns
// when the stream has answered for all of it or a few seconds have passed.
func (o *Outbox) Run(ctx context.Context) {
	o.waiting.Go(func() { // ends when groups is closed, below; a word comes within outboxAckTimeout, which the publisher enforces
		for g := range o.groups {
			_ = o.hear(g)
		}
	})
	end, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(outboxDrain, cancel) })()
	o.run(true)
	for ctx.Err() == nil {
		select {
		case l := <-o.queue:
			o.take(end.Done(), l)
		case <-ctx.Done():
		}
	}
	o.run(false)
	for len(o.queue) > 0 && end.Err() == nil {
		o.take(end.Done(), <-o.queue)
	}
	select {
	case <-o.js.PublishAsyncComplete():
	case <-end.Done():
		if pending := o.js.PublishAsyncPending(); pending > 0 {
			o.logger.WarnContext(ctx, "events were not all stored at the stop", "pending", pending)
			o.js.CleanupPublisher() // what has no answer yet fails; the rest ends with the connection
		}
	}
	close(o.groups)
	o.waiting.Wait()
	if (o.Failing() != "" || !o.nc.IsConnected()) && len(o.unasked) > 0 { // of jobs that were broken off
		o.lost(len(o.unasked), ErrOutboxClosed)
	}
	close(o.closed)
	for len(o.queue) > 0 { // too late for these
		<-o.queue
		o.dropped.Add(1)
	}
}

// run says whether events may be sent other than by Run.
func (o *Outbox) run(running bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running.Store(running)
}

// take sends an event from the queue.
func (o *Outbox) take(stop <-chan struct{}, l letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send(stop, l)
	o.behind.Add(-1)
}

// send publishes one event. While the stream is slow it blocks, at a stop no
// longer than until stop: the queue behind it is what takes a burst. o.mu is held.
func (o *Outbox) send(stop <-chan struct{}, l letter) {
	if l.sent != nil {
		defer close(l.sent)
	}
	if l.copyTo != "" {
		if err := o.nc.Publish(l.copyTo, l.data); err != nil {
			o.logger.Warn("event could not be copied", "err", err)
		}
	}
	later := l.follows || len(o.queue) > 0 || o.asked.Load() > 0
	if later && l.stored == nil && len(l.data) <= outboxSmall && len(o.unasked)+1 < outboxGroup { // one that comes later asks
		if err := o.nc.Publish(l.subject, l.data); err != nil {
			o.lost(1, err)
			return
		}
		o.unasked = append(o.unasked, l)
		return
	}
	g := group{letters: append(o.unasked, l), sent: time.Now()}
	o.unasked = nil
	o.ask()
	var err error
	if g.word, err = o.publish(stop, &nats.Msg{Subject: l.subject, Data: l.data}); err != nil {
		o.asked.Add(-1)
		o.lost(len(g.letters), err)
		if l.stored != nil {
			l.stored <- err
		}
		return
	}
	if l.stored == nil {
		select {
		case o.groups <- g:
			return
		default:
		}
		select {
		case o.groups <- g:
		case <-stop:
			o.asked.Add(-1)
			o.lost(len(g.letters), ErrOutboxClosed) // sent, but nobody will know
		}
		return
	}
	o.waiting.Go(func() { l.stored <- o.hear(g) }) // ends within outboxAckTimeout; Run waits for it
}

// hear waits for the stream's word on a group.
func (o *Outbox) hear(g group) error {
	defer o.asked.Add(-1)
	for tries := 1; ; tries++ {
		select {
		case <-g.word.Ok():
			o.heard.Store(time.Now().UnixNano())
			o.kept()
			return nil
		case err := <-g.word.Err():
			if tries > outboxAgain || !errors.Is(err, jetstream.ErrNoStreamResponse) || !o.again(&g) {
				o.lost(len(g.letters), err)
				return err
			}
		}
	}
}

// again sends a group again for which nobody answered, and reports whether it could.
// Those of its events that were stored all the same are stored twice, with the same
// id. In an outage only the first group waits for its end: the others would pile up
// behind it. It must not wait for mu, whose holder may wait for a group to be heard.
func (o *Outbox) again(g *group) bool {
	if o.failing.Load() != nil || !o.running.Load() { // a stop fails what has no answer, but not what is sent after
		return false
	}
	if o.heard.Load() < g.sent.UnixNano() { // else the stream is back already
		<-time.After(outboxPause)
	}
	g.sent = time.Now()
	last := len(g.letters) - 1
	for _, l := range g.letters[:last] {
		if o.nc.Publish(l.subject, l.data) != nil {
			return false
		}
	}
	word, err := o.js.PublishMsgAsync(&nats.Msg{Subject: g.letters[last].subject, Data: g.letters[last].data},
		jetstream.WithRetryAttempts(0), jetstream.WithStallWait(outboxStall))
	g.word = word
	return err == nil
}

// publish publishes msg. While the window of unanswered events is full it waits
// for room, up to outboxAckTimeout, when the oldest must have been answered, or
// until stop.
func (o *Outbox) publish(stop <-chan struct{}, msg *nats.Msg) (jetstream.PubAckFuture, error) {
	for end := time.Now().Add(outboxAckTimeout); ; {
		future, err := o.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0), jetstream.WithStallWait(outboxStall))
		if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) || time.Now().After(end) {
			return future, err
		}
		select {
		case <-stop:
			return nil, err
		default:
		}
	}
}
