package queue

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestAnAckThatNobodyAnswersFollowsItsJobToTheNextDelivery(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "default")
	nc := b.srv.Conn(t)
	silent := b.watch("old") // as the consumer that was deleted, and made anew
	_, err := nc.Subscribe("new", func(m *nats.Msg) { _ = m.Respond(nil) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())

	published := time.Now()
	d := &Delivery{Queue: "default", ID: "a", Seq: 1, Published: published, nc: b.srv.Conn(t), reply: "old", number: 1}
	acked := make(chan error, 1)
	go func() { acked <- d.Ack(t.Context()) }()
	require.Equal(t, "+ACK", string(receive(t, silent).Data))
	require.True(t, d.adopt(&Delivery{Queue: "default", ID: "a", Seq: 1, Published: published, reply: "new", number: 1}))
	require.NoError(t, receive(t, acked))
}
