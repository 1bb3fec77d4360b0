package doctor

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

func TestAQuestionWithoutAnAnswerIsAskedAgain(t *testing.T) {
	t.Parallel()
	b := bareBundle(t, natstest.Options{})
	var asked atomic.Int64
	heard := make(chan struct{})
	_, err := b.nc.Subscribe("$JS.API.DIRECT.GET.OTHER", func(msg *nats.Msg) { // in the place of a stream
		if msg.Reply == "" {
			close(heard)
			return
		}
		if asked.Add(1) < tries {
			return
		}
		answer := nats.NewMsg(msg.Reply)
		answer.Header.Set("Nats-Subject", "a")
		answer.Header.Set("Nats-Sequence", "7")
		_ = msg.RespondMsg(answer)
		end := nats.NewMsg(msg.Reply)
		end.Header.Set("Status", "204")
		_ = msg.RespondMsg(end)
	})
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	d := openDoor(b.srv.Conn(t))
	defer d.close()
	d.patience = 2 * time.Second // the one answer may be that late
	var got []uint64
	n, err := d.direct(t.Context(), "OTHER", question{Seq: 1}, func(m *stored) { got = append(got, m.seq) })
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, []uint64{7}, got)
	require.Equal(t, int64(tries), asked.Load())

	asked.Store(-tries) // and then given up
	d.patience = 200 * time.Millisecond
	_, err = d.direct(t.Context(), "OTHER", question{Seq: 1}, func(*stored) {})
	require.ErrorContains(t, err, "read OTHER: ")
	require.NoError(t, d.nc.Publish("$JS.API.DIRECT.GET.OTHER", nil)) // comes after the questions
	<-heard
	require.Equal(t, int64(0), asked.Load())
}
