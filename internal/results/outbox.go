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
	// outboxAhead bounds the wait for an event that is to leave ahead of something.
	outboxAhead = time.Second
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
	writes  *Writes // of nc; nil where the server is in this process
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
	owing   atomic.Int64 // unix nanoseconds of when the first of them was asked for

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
	follows bool            // another event of its job follows
	sent    chan<- struct{} // closed when it was handed to the connection; nil for nobody
	stored  chan<- error    // told when the stream has it; nil for nobody
}

// NewOutbox returns an Outbox over nc, which writes sees; it is nil where the server is
// in this process. Nothing is sent until [Outbox.Run].
func NewOutbox(nc *nats.Conn, writes *Writes, logger *slog.Logger) (*Outbox, error) {
	o := &Outbox{
		nc: nc, writes: writes, queue: make(chan letter, outboxSize), groups: make(chan group, outboxPending), closed: make(chan struct{}), logger: logger,
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

// EmitAhead is [Outbox.Emit] for an event that has to outlive this process though it
// dies in the next moment: when the Wait of what it returns is over, the event is written
// to the connection, or, where the server is in this process, stored.
func (o *Outbox) EmitAhead(subject string, e job.EncodedEvent, copyTo string) Ahead {
	l := letter{subject: subject, copyTo: copyTo, data: e.Text, follows: follows(e.Type)}
	a := Ahead{o: o}
	switch trouble := o.stalled() || o.failing.Load() != nil; {
	case o.writes == nil && !trouble:
		stored := make(chan error, 1)
		l.stored, a.stored = stored, stored
	case o.direct(l):
		return a
	case !trouble:
		sent := make(chan struct{})
		l.sent, a.sent = sent, sent
	default:
		a = Ahead{}
	}
	if o.put(l) != nil {
		return Ahead{}
	}
	return a
}

// Ahead is an event that is to leave ahead of something. The zero value is none.
type Ahead struct {
	o      *Outbox
	stored <-chan error    // as in letter; nil where that is not waited for
	sent   <-chan struct{} // likewise
}

// Wait blocks until the event is safe from the death of this process. While the stream or
// the connection is in trouble, after a second, or when ctx is done, it returns all the
// same: an event holds no job up.
func (a Ahead) Wait(ctx context.Context) {
	if a.o == nil {
		return
	}
	timer := time.NewTimer(outboxAhead)
	defer timer.Stop()
	if a.stored != nil || a.sent != nil {
		select {
		case <-a.stored: //nolint:errcheck // counted, and the job goes on either way
			return
		case <-a.sent:
		case <-a.o.closed:
			return
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		}
	}
	if a.o.writes != nil {
		a.o.writes.wait(ctx, a.o.nc, timer.C)
	}
}

// ask counts one more word of the stream that is waited for. o.mu is held.
func (o *Outbox) ask() {
	if o.asked.Load() == 0 {
		o.owing.Store(time.Now().UnixNano()) // before it counts, or it would seem long ago
	}
	o.asked.Add(1)
}

// stalled reports whether the stream owes a word for some time and has not said a good
// one since.
func (o *Outbox) stalled() bool {
	return o.asked.Load() > 0 && time.Since(time.Unix(0, max(o.heard.Load(), o.owing.Load()))) > outboxFresh
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
	case <-o.closed:
	}
	select {
	case err := <-stored: // at the same moment
		return err
	default:
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ErrOutboxClosed
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
