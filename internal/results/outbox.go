package results

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// The sizes of the outbox.
const (
	// outboxSize is how many events may wait to be sent: about two seconds of a
	// worker at full speed.
	outboxSize = 16384
	// outboxGroup is how many events share one word of the stream, at most: beyond
	// 16 little more is saved.
	outboxGroup = 16
	// outboxPending is how many words of the stream may be waited for.
	outboxPending = 4096
	// outboxAckTimeout is how long the stream has to take an event.
	outboxAckTimeout = 10 * time.Second
	// outboxSmall is the longest event that does not ask for itself, in bytes: what has
	// no error's text in it is shorter.
	outboxSmall = 2 << 10
	// outboxAgain is how often a group is sent again that nobody answered for, and
	// outboxPause the pause before that. They are the JetStream client's own.
	outboxAgain = 2
	outboxPause = 250 * time.Millisecond
	// outboxFresh is how old the last word of the stream may be for an event to be sent
	// on the goroutine of who emits it.
	outboxFresh = time.Second
	// outboxStall is how often a stop is looked for while the window is full.
	outboxStall = 200 * time.Millisecond
	// outboxDrain bounds the wait for the last events at a stop.
	outboxDrain = 3 * time.Second
)

// Why an event was dropped unsent.
var (
	// ErrOutboxFull says that the outbox is full.
	ErrOutboxFull = errors.New("the outbox is full")
	// ErrOutboxClosed says that [Outbox.Run] has ended.
	ErrOutboxClosed = errors.New("the outbox is closed")
)

// Outbox sends events in order, without blocking who emits them. An event that
// cannot be sent or stored is dropped and counted. It is safe for concurrent use.
//
// A stream stores what one connection sends in order. So of some events only the
// last asks for the stream's word, which halves what an event costs: one after
// which none of its job follows, unless a word is waited for already, or else each
// sixteenth. When nobody answers, which a stream does for a moment when its leader
// changes, all of them are sent again. When the word is bad, or does not come, all of
// them count as dropped: at the edges of an outage the count can be too high or too
// low by less than one such group. What a stream may refuse for its size asks for
// itself, as does [Outbox.EmitStored].
type Outbox struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	queue   chan letter
	dropped atomic.Uint64
	closed  chan struct{}  // closed when Run has ended
	groups  chan group     // sent, in order
	waiting sync.WaitGroup // for the stream's word
	logger  *slog.Logger
	heard   atomic.Int64 // unix nanoseconds of the last good word
	behind  atomic.Int64 // events that are in queue, or taken from it and not sent yet
	asked   atomic.Int64 // words of the stream that are waited for

	mu      sync.Mutex  // guards unasked, and is held while an event is sent
	running atomic.Bool // between the begin of Run and its stop; changes while mu is held
	unasked []letter    // of the group being sent, but for its last

	// failing is why the last event that was heard of could not be stored; nil when
	// it was.
	failing atomic.Pointer[string]
}

// group are events whose last one waits for the stream's word.
type group struct {
	word    jetstream.PubAckFuture
	letters []letter
	sent    time.Time
}

// letter is an event on its way.
type letter struct {
	subject string
	copyTo  string
	data    []byte
	follows bool         // another event of its job follows
	stored  chan<- error // told when the stream has it; nil for nobody
}

// NewOutbox returns an Outbox over nc; nothing is sent until [Outbox.Run].
func NewOutbox(nc *nats.Conn, logger *slog.Logger) (*Outbox, error) {
	o := &Outbox{
		nc: nc, queue: make(chan letter, outboxSize), groups: make(chan group, outboxPending), closed: make(chan struct{}), logger: logger,
	}
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(outboxPending),
		jetstream.WithPublishAsyncTimeout(outboxAckTimeout),
	)
	if err != nil {
		return nil, fmt.Errorf("open JetStream for events: %w", err)
	}
	o.js = js
	return o, nil
}

// Emit hands in an event for subject, and a copy for copyTo where that is not
// empty. It waits for nothing but, at most, for the connection to take the event: one
// caller at a time, when it has just been alive, until its write deadline.
func (o *Outbox) Emit(subject string, e job.EncodedEvent, copyTo string) {
	l := letter{subject: subject, copyTo: copyTo, data: e.Text, follows: follows(e.Type)}
	if e.Type == job.EventBreakerChanged || !o.direct(l) { // a breaker's listener may not wait at all
		_ = o.put(l) // counted
	}
}

// direct sends l on the caller's goroutine, where that cannot take long: then it
// goes to the server together with what the caller sends next, and nobody needs to
// be woken for it. A server that has just answered takes a little more; if it does
// not, one caller at a time finds out, and the events of the others take the queue.
func (o *Outbox) direct(l letter) bool {
	ago := time.Since(time.Unix(0, o.heard.Load()))
	if ago < 0 || ago > outboxFresh || o.behind.Load() > 0 || !o.mu.TryLock() {
		return false
	}
	defer o.mu.Unlock()
	full := len(o.groups) > cap(o.groups)/2 || o.asked.Load() > outboxPending/2
	if !o.running.Load() || full || o.behind.Load() > 0 { // what is behind comes first
		return false
	}
	o.send(nil, l) // there is room: it does not wait
	return true
}

// follows reports whether another event of the same job follows one of type t.
func follows(t job.EventType) bool {
	switch t { //nolint:exhaustive // the others are the last of a job, or of none
	case job.EventReceived, job.EventAttemptStarted, job.EventAttemptSucceeded, job.EventAttemptFailed, job.EventAttemptSkipped, job.EventAttemptUnknown:
		return true
	default:
		return false
	}
}

// EmitStored is [Outbox.Emit], but it waits until the stream has the event, for
// the few that must not be lost. It returns why it could not be stored.
func (o *Outbox) EmitStored(ctx context.Context, subject string, e job.EncodedEvent, copyTo string) error {
	stored := make(chan error, 1)
	if err := o.put(letter{subject: subject, copyTo: copyTo, data: e.Text, stored: stored}); err != nil {
		return err
	}
	select {
	case err := <-stored:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-o.closed:
	}
	select {
	case err := <-stored:
		return err
	default:
		return ErrOutboxClosed
	}
}

// Dropped counts the events that were lost.
func (o *Outbox) Dropped() uint64 { return o.dropped.Load() }

// Failing says why the last event could not be stored; it is empty when it was.
func (o *Outbox) Failing() string {
	if why := o.failing.Load(); why != nil {
		return *why
	}
	return ""
}

// lost counts events that could not be sent or stored.
func (o *Outbox) lost(events int, err error) {
	o.dropped.Add(uint64(events))
	why := reason(err)
	if o.failing.Swap(&why) == nil {
		o.logger.Warn("events cannot be stored; they are dropped and counted until they can be", "err", why)
	}
}

// kept notes that an event was stored.
func (o *Outbox) kept() {
	if o.failing.Swap(nil) != nil {
		o.logger.Info("events are stored again", "dropped", o.Dropped())
	}
}

// put hands l to Run, or counts it as dropped and says why.
func (o *Outbox) put(l letter) error {
	select {
	case <-o.closed:
		o.dropped.Add(1)
		return ErrOutboxClosed
	default:
	}
	o.behind.Add(1)
	select {
	case o.queue <- l:
		return nil
	default:
		o.behind.Add(-1)
		o.dropped.Add(1)
		return ErrOutboxFull
	}
}

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
		o.logger.WarnContext(ctx, "events were not all stored at the stop", "pending", o.js.PublishAsyncPending())
		o.js.CleanupPublisher() // what has no answer yet fails; the rest ends with the connection
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
	o.asked.Add(1)
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
