package natstest

import (
	"errors"
	"net"

	"github.com/nats-io/nats.go"
)

// Wrap is a [nats.CustomDialer] that makes something else of each connection, or
// refuses it with an error.
type Wrap func(net.Conn) (net.Conn, error)

var _ nats.CustomDialer = Wrap(nil)

// Dial implements [nats.CustomDialer].
func (w Wrap) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address) //nolint:noctx // nats.CustomDialer has no context
	if err != nil {
		return nil, err
	}
	wrapped, err := w(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return wrapped, nil
}
