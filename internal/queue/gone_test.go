package queue

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnAckWithoutAnAnswerEndsWhenTheJobHasLeftTheStream(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "default")
	b.publish("default", "a", "b")
	b.watch("silent") // as a server that has forgotten the delivery
	stream, err := b.js.Stream(t.Context(), "LLM_JOBS")
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), 1)) // the ack came, its answer did not

	nc := b.srv.Conn(t)
	left := &Delivery{Queue: "default", ID: "a", Seq: 1, nc: nc, stream: "LLM_JOBS", reply: "silent", number: 1}
	require.NoError(t, left.Ack(t.Context()))
	there := &Delivery{Queue: "default", ID: "b", Seq: 2, nc: nc, stream: "LLM_JOBS", reply: "silent", number: 1}
	require.ErrorIs(t, there.Ack(t.Context()), context.DeadlineExceeded)
}
