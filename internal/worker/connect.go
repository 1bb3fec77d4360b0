package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
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
)

// connect connects to the embedded server or to the configured one.
func (w *Worker) connect(embedded *server.Server) error {
	opts := []nats.Option{
		nats.Name("understudy worker " + w.cfg.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(reconnectBuffer),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPingsOut),
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
		w.nc, err = w.cfg.Connect(opts...)
	}
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	return nil
}
