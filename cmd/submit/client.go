package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/results"
)

// The numbers of the connection.
const (
	// connectTimeout bounds the first connection to one server.
	connectTimeout = 5 * time.Second
	// openTimeout bounds the look at the streams at the start.
	openTimeout = 10 * time.Second
	// A lost connection is tried again for about five minutes.
	reconnectWait  = 500 * time.Millisecond
	maxReconnects  = 600
	reconnectSlack = 200 * time.Millisecond
	// pingInterval and maxPingsOut find a connection that is only half open.
	pingInterval = 10 * time.Second
	maxPingsOut  = 2
)

// environment is what the environment says.
type environment struct {
	subjects job.Subjects
	// connect connects to NATS; its error is one line for people.
	connect func(opts ...nats.Option) (*nats.Conn, error)
	// problems make the rest useless; warnings do not.
	problems, warnings []string
}

// client is the connection to NATS and what is behind it. It is safe for
// concurrent use.
type client struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects job.Subjects
	store    *results.Store

	jobs, results, events jetstream.Stream

	// missed is told when messages of subscriptions may have been lost.
	missed chan struct{}
	// down is told of every loss of the connection.
	down atomic.Bool
}

// connect connects to NATS and opens the streams. The returned context ends,
// with its cause, when the connection is lost for good or forbidden; the
// returned function closes it.
func (a *app) connect(ctx context.Context) (context.Context, *client, func(), error) {
	env := a.environment()
	for _, w := range env.warnings {
		a.note("submit: warning: %s", w)
	}
	if len(env.problems) > 0 {
		return nil, nil, nil, usage("", "%s", strings.Join(env.problems, "\n"))
	}
	c := &client{subjects: env.subjects, missed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancelCause(ctx)
	nc, err := env.connect(a.options(c, cancel)...)
	if err != nil {
		cancel(nil)
		return nil, nil, nil, &unreachableError{err}
	}
	done := func() {
		cancel(nil)
		nc.Close()
	}
	c.nc = nc
	if err := c.open(ctx); err != nil {
		done()
		return nil, nil, nil, err
	}
	return ctx, c, done, nil
}

// options are how the connection behaves. Its callbacks run in goroutines of
// the NATS client.
func (a *app) options(c *client, cancel context.CancelCauseFunc) []nats.Option {
	return []nats.Option{
		nats.Name("understudy submit"),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(maxReconnects),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectSlack, reconnectSlack),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPingsOut),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && !c.down.Swap(true) {
				a.note("submit: the connection to NATS is lost; trying to get it back")
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			if c.down.Swap(false) {
				a.note("submit: connected to NATS again at %s", nc.ConnectedUrlRedacted())
			}
			c.suspect()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				cancel(usage("", "NATS does not permit it: %s", strings.TrimPrefix(err.Error(), "nats: ")))
				return
			}
			c.suspect() // a slow consumer
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			cancel(&unreachableError{fmt.Errorf("the connection to NATS is lost: %w", cmp.Or(nc.LastError(), nats.ErrConnectionClosed))})
		}),
	}
}

// suspect notes that messages may have been lost.
func (c *client) suspect() {
	select {
	case c.missed <- struct{}{}:
	default: // noted already
	}
}

// open opens the streams, which the workers make.
func (c *client) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var err error
	if c.js, err = jetstream.New(c.nc); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	for name, handle := range map[string]*jetstream.Stream{
		c.subjects.ResultsStream(): &c.results, c.subjects.EventsStream(): &c.events,
	} {
		if *handle, err = c.js.Stream(ctx, name); err != nil {
			return c.noStream(ctx, name, err)
		}
	}
	if c.jobs, err = results.OpenAtLeader(ctx, c.js, c.subjects.JobsStream()); err != nil {
		return c.noStream(ctx, c.subjects.JobsStream(), err)
	}
	if c.store, err = results.Open(ctx, c.nc, c.js, c.subjects); err != nil {
		return c.noStream(ctx, c.subjects.DeadStream(), err)
	}
	return nil
}

// noStream says why a stream could not be opened.
func (c *client) noStream(ctx context.Context, name string, err error) error {
	at := c.nc.ConnectedUrlRedacted()
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return usage("", "NATS at %s has no stream %s: start a worker first, it makes the streams", at, name)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return usage("", "NATS at %s has no JetStream: start the server with -js", at)
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return context.Cause(ctx)
	}
	return &unreachableError{fmt.Errorf("JetStream at %s does not answer: %w", at, err)}
}
