package queue

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAReleasedSlotTakesTheNextJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 4 * time.Second}) // shorter than the test
	acks := b.watch("$JS.ACK.>")
	b.publish("default", ids("j", 4)...)
	begun, end := make(chan *Delivery, 4), make(chan struct{})
	s := b.source(1)
	var done handled
	stop := b.run(s, func(d *Delivery) {
		d.Release()
		d.Release() // once more makes no second slot
		begun <- d
		<-end
		b.ack(d)
		done.add(d)
	})
	// One that is settled without a slot, and one that kept it: no more than one slot
	// has been given away twice.
	first, second := receive(t, begun), receive(t, begun)
	require.NotEqual(t, first.ID, second.ID)
	for range 2 * 6 { // both leases are extended every quarter: they have run out by now
		require.Equal(t, "+WPI", string(receive(t, acks).Data))
	}
	require.Empty(t, begun)
	require.Equal(t, 2, b.info("default").NumAckPending)
	require.Equal(t, 1, s.Health().Held)
	close(end)
	until(t, "all are done", func() bool { return done.count() == 4 })
	require.Equal(t, 1, done.maxNumber())
	require.Zero(t, b.info("default").NumRedelivered)
	stop()
	require.Zero(t, s.Health().Held)
	require.Zero(t, s.settling.Load())
	require.Zero(t, b.stored())
}

// Whoever hears of arrivals hears when there are no more for now, and has then heard
// of all that came; of jobs that come together, not after each.
func TestQuietComesAfterTheLastArrival(t *testing.T) {
	t.Parallel()
	const jobs = 64
	b := newBundle(t, Layout{})
	b.publish("default", ids("j", jobs)...)
	s := b.source(jobs)
	var arrivals int // both are called on the subscription's goroutine
	var heard, quiets atomic.Int64
	s.cfg.Arrived = func(d *Delivery) {
		d.Begun = d.ID
		for arrivals == 0 { // until all have come
			if n, _, err := s.pollers[0].inlet.sub.Pending(); n >= jobs || err != nil {
				break
			}
			runtime.Gosched()
		}
		arrivals++
	}
	s.cfg.Quiet = func() {
		heard.Store(int64(arrivals))
		quiets.Add(1)
	}
	var done handled
	b.run(s, func(d *Delivery) {
		if d.Begun == d.ID {
			done.add(d)
		}
		b.ack(d)
	})
	until(t, "all are done", func() bool { return done.count() == jobs })
	until(t, "all are heard of", func() bool { return heard.Load() == jobs })
	require.LessOrEqual(t, quiets.Load(), int64(2)) // one more for the word that there are no more
	b.publish("default", "one")
	until(t, "one more is heard of", func() bool { return heard.Load() == jobs+1 })
}

func TestAStopWaitsForWhatIsSettled(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	b.publish("default", "a")
	begun, end := make(chan struct{}), make(chan struct{})
	var done handled
	stop := b.run(b.source(1), func(d *Delivery) {
		d.Release()
		close(begun)
		<-end
		b.ack(d)
		done.add(d)
	})
	receive(t, begun)
	time.AfterFunc(100*time.Millisecond, func() { close(end) })
	stop()
	require.Equal(t, 1, done.count())
	require.Zero(t, b.stored())
}

func TestHandlersAreUsedAgain(t *testing.T) {
	t.Parallel()
	h := handlers{work: make(chan *Delivery, sparest)}
	hold, held := make(chan struct{}), make(chan string, 2*sparest)
	handle := func(d *Delivery) {
		held <- d.ID
		if d.ID == "long" {
			<-hold
		}
	}
	for range 100 { // one after the other
		h.run(&Delivery{ID: "short"}, handle)
		require.Equal(t, "short", receive(t, held))
		until(t, "it is spare", func() bool { return h.spare.Load() == 1 })
	}
	for range 2 * sparest { // all at once
		h.run(&Delivery{ID: "long"}, handle)
	}
	for range 2 * sparest {
		require.Equal(t, "long", receive(t, held))
	}
	close(hold)
	until(t, "the most that are kept", func() bool { return h.spare.Load() == sparest })
	h.stop()
}
