package queue

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func contextThatEnds(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), 50*time.Millisecond)
}

func TestAStopWaitsForTheHandlersAndHandsTheRestBackAtOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}) // a lease of 30 s: nobody waits for it here
	all := ids("j", 300)
	b.publish("default", all...)
	var first, second handled
	end := make(chan struct{})
	begun := make(chan struct{}, 300)
	s := b.source(8)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(d *Delivery) { //nolint:contextcheck // settling outlives the stop
			if first.add(d) > 100 {
				begun <- struct{}{}
				<-end
			}
			b.ack(d)
		})
	}()
	for range 8 {
		receive(t, begun)
	}
	cancel()
	b.run(b.source(8), func(d *Delivery) { second.add(d); b.ack(d) })
	until(t, "the other worker has done the rest", func() bool { return second.count() >= 192 })
	select {
	case err := <-ended:
		require.FailNow(t, "Run returned before its handlers", "%v", err)
	default:
	}
	require.Equal(t, 8, s.Health().Held)
	close(end)
	require.NoError(t, receive(t, ended))
	require.Zero(t, s.Health().Held)
	require.Equal(t, 108, first.count())
	require.ElementsMatch(t, all, append(first.list(), second.list()...))
	until(t, "the queue is empty", func() bool { return b.stored() == 0 })
}

// Stops at every moment: nothing that was under way may be left to its lease.
func TestNoJobIsStrandedByAStopUnderLoad(t *testing.T) {
	t.Parallel()
	for name, slots := range map[string]int{"one slot": 1, "many slots": 32} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queues := []string{"high", "default"}
			b := newBundle(t, Layout{}, queues...)
			for _, queue := range queues {
				b.publish(queue, ids("j", 500)...)
			}
			var done handled
			for round := range 20 {
				s := b.source(slots)
				ctx, cancel := context.WithCancel(t.Context())
				n := done.count()
				if round%4 == 0 {
					cancel() // before it has begun
				}
				require.NoError(t, s.Run(ctx, func(d *Delivery) {
					b.ack(d)
					if done.add(d) > n+round {
						cancel()
					}
				}))
				cancel()
				require.Zero(t, s.Health().Held)
			}
			b.run(b.source(64), func(d *Delivery) { b.ack(d); done.add(d) })
			until(t, "all are done", func() bool { return done.count() >= 1000 })
			require.Equal(t, 1000, done.count())
			require.Zero(t, b.stored())
		})
	}
}

func TestJobsThatArriveAfterTheLastSlotWasFreedGoBack(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	acks := b.watch("$JS.ACK.>")
	s := b.source(1)
	d := func(reply string) arrived {
		return arrived{inlet: &inlet{poller: s.pollers[0]}, d: &Delivery{nc: b.nc, reply: reply}}
	}
	s.inbox <- d("$JS.ACK.early") // after the owner has taken its last look
	close(s.gone)
	s.takeAll(t.Context(), nil)
	require.Equal(t, "$JS.ACK.early", receive(t, acks).Subject)
	for len(s.inbox) < cap(s.inbox) {
		s.inbox <- freed{}
	}
	s.tell(d("$JS.ACK.late")) // and when nobody listens any more
	msg := receive(t, acks)
	require.Equal(t, "$JS.ACK.late", msg.Subject)
	require.Equal(t, "-NAK", string(msg.Data))
}

// What has arrived when the source stops is as good as never taken.
func TestJobsThatArriveDuringAStopGoBack(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	nc := b.srv.Conn(t)
	acks := b.watch("$JS.ACK.>")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := 0
	for range 50 {
		s := b.sourceOn(nc, 8)
		for ; len(s.inbox) < cap(s.inbox); n++ {
			d := &Delivery{nc: nc, Seq: uint64(n), reply: "$JS.ACK." + strconv.Itoa(n)}
			s.inbox <- arrived{inlet: &inlet{poller: s.pollers[0]}, d: d}
		}
		require.NoError(t, s.Run(ctx, func(d *Delivery) { t.Errorf("%s was begun", d.reply) }))
		require.Empty(t, s.inbox)
	}
	for range n {
		require.Equal(t, "-NAK", string(receive(t, acks).Data))
	}
}

func TestAStopWithoutAServerEnds(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	s := b.source(2)
	s.expires = time.Hour
	stop := b.run(s, func(d *Delivery) { b.ack(d) })
	until(t, "a pull stands at the server", func() bool { return b.info("default").NumWaiting == 1 })
	b.srv.Stop(t)
	stop()
	b.srv.Start(t)
}

func TestRunOnAClosedConnectionFails(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "high", "low")
	nc := b.srv.Conn(t)
	s := b.sourceOn(nc, 1)
	nc.Close()
	require.ErrorContains(t, s.Run(t.Context(), func(*Delivery) {}), "subscribe for queue high: nats: connection closed")
}

func TestAConnectionThatClosesLeavesRunToItsContext(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	nc := b.srv.Conn(t)
	s := b.sourceOn(nc, 2)
	stop := b.run(s, func(d *Delivery) { b.ack(d) })
	until(t, "it works", func() bool { return b.info("default").NumWaiting == 1 })
	nc.Close()
	until(t, "the server has noticed", func() bool { return b.info("default").NumWaiting == 0 })
	stop()
}
