package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"understudy/internal/queue"
	"understudy/internal/results"
)

// The numbers of the connection. The defaults of the client give up after two
// minutes and notice a half-open connection after four.
const (
	pingInterval    = 10 * time.Second
	maxPingsOut     = 2
	reconnectWait   = 500 * time.Millisecond
	reconnectJitter = 500 * time.Millisecond
	// reconnectBuffer holds what is published while the server is away, in bytes.
	reconnectBuffer = 64 << 20
	// writeTimeout bounds one write to the server. A connection that takes nothing for so
	// long is no use; meanwhile whoever publishes waits.
	writeTimeout = 10 * time.Second
	// ensureTry bounds one try to make the streams.
	ensureTry = 5 * time.Second
)

// connect connects to the embedded server or to the configured one.
func (w *Worker) connect(embedded *server.Server) error {
	opts := []nats.Option{
		nats.Name("understudy worker " + w.cfg.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(reconnectBuffer),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPingsOut),
		nats.FlusherTimeout(writeTimeout),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				w.logger.Warn("connection to NATS lost; reconnecting", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			w.logger.Info("connected to NATS again", "url", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			w.logger.Error("NATS reported an error", "subject", subject, "err", err)
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			select {
			case w.lost <- errors.Join(ErrConnectionLost, nc.LastError()):
			default: // nobody needs to hear it twice
			}
		}),
	}
	var err error
	if embedded != nil {
		w.nc, err = nats.Connect("", append(opts, nats.InProcessServer(embedded))...)
	} else {
		w.written = new(results.Writes)
		w.nc, err = w.cfg.Connect(append(opts, w.written.Option())...)
	}
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	return nil
}

// ensure makes the streams and consumers that are missing. A cluster without a
// leader answers nothing, and what it was asked is forgotten when it has one:
// it is asked again until ctx is done.
func (w *Worker) ensure(ctx context.Context, queues []string) ([]queue.Difference, error) {
	for {
		try, cancel := context.WithTimeout(ctx, ensureTry)
		differences, err := w.layout.Ensure(try, w.js, queues)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return differences, err
		}
		w.logger.WarnContext(ctx, "the streams could not be made; trying again", "err", err)
	}
}
