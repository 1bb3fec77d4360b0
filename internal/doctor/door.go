package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The patience with one request.
const (
	// answerTimeout bounds the wait for the answer to a request. A denied one is
	// known at once.
	answerTimeout = 5 * time.Second
	// gatherTimeout bounds the wait for the answers of all workers, and
	// gatherSilence is how long none may come before there are no more.
	gatherTimeout = 3 * time.Second
	gatherSilence = 400 * time.Millisecond
)

// DeniedError says that this user may not do something.
type DeniedError struct {
	// Verb is "publish" or "subscribe".
	Verb string
	// Subject is what it was about.
	Subject string
}

// Error implements error.
func (e *DeniedError) Error() string {
	return fmt.Sprintf("this user may not %s to %s", e.Verb, e.Subject)
}

// door is the way to the server. It hears of denied requests, which NATS reports
// on the connection and not to whoever waits. Its methods are safe for
// concurrent use.
type door struct {
	nc      *nats.Conn
	denied  *regexp.Regexp // what NATS says of a violation: verb and subject
	restore func()         // gives the connection its own error handler back
	// patience is the wait for an answer: answerTimeout.
	patience time.Duration

	mu      sync.Mutex // guards the rest
	waiting map[string]context.CancelCauseFunc
	last    int
	deaf    *DeniedError // no answer can be received
}

// openDoor takes over the connection's error handler until [door.close].
func openDoor(nc *nats.Conn) *door {
	d := &door{
		nc: nc, patience: answerTimeout, waiting: make(map[string]context.CancelCauseFunc),
		denied: regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`),
	}
	before := nc.ErrorHandler()
	d.restore = func() { nc.SetErrorHandler(before) }
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) && d.refused(err.Error()) {
			return
		}
		if before != nil {
			before(nc, sub, err)
		}
	})
	return d
}

func (d *door) close() { d.restore() }

// refused tells whoever waits for it of a violation.
func (d *door) refused(text string) bool {
	m := d.denied.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.EqualFold(m[1], "subscription") {
		prefix, _, _ := strings.Cut(m[2], ".")
		d.deaf = &DeniedError{Verb: "subscribe", Subject: prefix + ".>"}
		for _, cancel := range d.waiting {
			cancel(d.deaf)
		}
		return true
	}
	for key, cancel := range d.waiting {
		if subject, _, _ := strings.Cut(key, " "); subject == m[2] {
			cancel(&DeniedError{Verb: "publish", Subject: m[2]})
		}
	}
	return true
}

// await returns a context that ends, with its cause, when a request to subject
// is denied. The returned function must be called.
func (d *door) await(ctx context.Context, subject string, patience time.Duration) (context.Context, func()) {
	ctx, stop := context.WithTimeout(ctx, patience)
	ctx, cancel := context.WithCancelCause(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	key := fmt.Sprintf("%s %d", subject, d.last)
	d.waiting[key] = cancel
	if d.deaf != nil {
		cancel(d.deaf)
	}
	return ctx, func() {
		d.mu.Lock()
		delete(d.waiting, key)
		d.mu.Unlock()
		cancel(nil)
		stop()
	}
}

// cause is why a request failed: the denial, where it was one.
func cause(ctx context.Context, err error) error {
	if denied, ok := errors.AsType[*DeniedError](context.Cause(ctx)); ok {
		return denied
	}
	return err
}

// request asks and returns the answer. The error is a *[DeniedError] where NATS
// does not permit it.
func (d *door) request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	ctx, done := d.await(ctx, msg.Subject, d.patience)
	defer done()
	answer, err := d.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return nil, cause(ctx, fmt.Errorf("ask %s: %w", msg.Subject, err))
	}
	return answer, nil
}

// api asks the JetStream API and decodes its answer into v. The error wraps a
// *[jetstream.APIError] where the server refuses.
func (d *door) api(ctx context.Context, subject string, question, v any) error {
	msg := nats.NewMsg("$JS.API." + subject)
	if question != nil {
		data, err := json.Marshal(question)
		if err != nil {
			return fmt.Errorf("ask %s: %w", subject, err)
		}
		msg.Data = data
	}
	answer, err := d.request(ctx, msg)
	if err != nil {
		return err
	}
	var refusal struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &refusal); err != nil {
		return fmt.Errorf("the answer to %s is no JSON", msg.Subject)
	}
	if refusal.Error != nil {
		return fmt.Errorf("ask %s: %w", msg.Subject, refusal.Error)
	}
	if err := json.Unmarshal(answer.Data, v); err != nil {
		return fmt.Errorf("the answer to %s cannot be read: %w", msg.Subject, err)
	}
	return nil
}

// gather asks everybody and hands each answer to visit, with the time that
// passed since the question, until visit reports that it has enough or no more
// come. No answer is no error.
func (d *door) gather(ctx context.Context, subject string, visit func(data []byte, passed time.Duration) (enough bool)) error {
	ctx, done := d.await(ctx, subject, gatherTimeout)
	defer done()
	sub, err := d.nc.SubscribeSync(d.nc.NewInbox())
	if err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // closed with the connection at the latest
	asked := time.Now()
	if err := d.nc.PublishRequest(subject, sub.Subject, nil); err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	for wait := gatherTimeout; ; wait = gatherSilence {
		next, cancel := context.WithTimeout(ctx, wait)
		msg, err := sub.NextMsgWithContext(next)
		cancel()
		if denied, ok := errors.AsType[*DeniedError](context.Cause(ctx)); ok {
			return denied
		}
		switch {
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("ask %s: %w", subject, err)
		}
		if visit(msg.Data, time.Since(asked)) {
			return nil
		}
	}
}
