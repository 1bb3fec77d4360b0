package queue

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server cuts off a client for which more than 64 MiB wait.
func TestManyLongJobsDoNotComeAtOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	const n = 80
	payload := strings.Repeat("x", 1_000_000)
	for _, id := range ids("j", n) {
		_, err := b.js.PublishMsgAsync(newMsg("llm.jobs.default."+id, payload))
		require.NoError(t, err)
	}
	receive(t, b.js.PublishAsyncComplete())
	pulls := b.watch("$JS.API.CONSUMER.MSG.NEXT.>")
	begun, end := make(chan *Delivery, n), make(chan struct{})
	s := b.source(n)
	stop := b.run(s, func(d *Delivery) {
		begun <- d
		<-end
		b.ack(d)
	})
	seen := make(map[string]bool)
	for range n {
		d := receive(t, begun)
		require.Equal(t, 1, d.Number())
		require.Len(t, d.Payload, len(payload))
		seen[d.ID] = true
	}
	require.Len(t, seen, n)
	close(end)
	stop()
	require.Zero(t, b.stored())
	var pull pullRequest
	require.NoError(t, json.Unmarshal(receive(t, pulls).Data, &pull))
	require.Equal(t, int64(pullBytes), pull.MaxBytes)
	require.Zero(t, s.cfg.Conn.Stats().Reconnects)
}

// What was stored when the server took more must not stay for ever.
func TestAJobThatNoPullMayBringComesAlone(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	for _, id := range []string{"a", "b", "long", "c", "long2", "long3", "d"} {
		payload := strings.Repeat("x", 100)
		if strings.HasPrefix(id, "long") {
			payload = strings.Repeat("x", 3000)
		}
		_, err := b.js.PublishMsg(t.Context(), newMsg("llm.jobs.default."+id, payload))
		require.NoError(t, err)
	}
	s := b.source(4)
	s.pullBytes, s.subjectRoom = 1000, 1000-s.cfg.Conn.MaxPayload() // as if the server took no more
	require.Equal(t, int64(1000), s.room())
	var done handled
	b.run(s, func(d *Delivery) { b.ack(d); done.add(d) })
	until(t, "all are done", func() bool { return done.count() == 7 })
	require.Equal(t, 1, done.maxNumber())
	require.NotZero(t, s.Health().LastGood)
}
