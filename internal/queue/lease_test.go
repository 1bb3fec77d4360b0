package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

func newMsg(subject, data string) *nats.Msg {
	msg := nats.NewMsg(subject)
	msg.Data = []byte(data)
	return msg
}

func TestALongJobKeepsItsLease(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 4 * time.Second}) // a busy machine may be away for half of it
	acks := b.watch("$JS.ACK.>")
	b.publish("default", "long")
	end, done := make(chan struct{}), make(chan int)
	stop := b.run(b.source(2), func(d *Delivery) {
		<-end
		b.ack(d)
		done <- d.Number()
	})
	subject := ""
	for range 6 { // extended every quarter of the lease: it has run out by now
		msg := receive(t, acks)
		require.Equal(t, "+WPI", string(msg.Data))
		require.True(t, strings.HasPrefix(msg.Subject, "$JS.ACK.LLM_JOBS.q-default.1.1."), msg.Subject)
		subject = msg.Subject
	}
	require.Zero(t, b.info("default").NumRedelivered)
	close(end)
	require.Equal(t, 1, receive(t, done))
	msg := receive(t, acks)
	for string(msg.Data) == "+WPI" {
		msg = receive(t, acks)
	}
	require.Equal(t, "+ACK", string(msg.Data))
	require.Equal(t, subject, msg.Subject)
	require.NotEmpty(t, msg.Reply) // the server is asked to confirm
	stop()
	require.Zero(t, b.stored())
}

func TestAReturnedJobComesBackAfterItsDelay(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		delay time.Duration
		bytes string
	}{
		"at once":           {0, "-NAK"},
		"not in the past":   {-time.Second, "-NAK"},
		"after a delay":     {300 * time.Millisecond, `-NAK {"delay":300000000}`},
		"after a short one": {time.Nanosecond, `-NAK {"delay":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, Layout{})
			acks := b.watch("$JS.ACK.>")
			type seen struct {
				number int
				at     time.Time
			}
			taken := make(chan seen, 2)
			b.run(b.source(1), func(d *Delivery) {
				taken <- seen{d.Number(), time.Now()}
				if d.Number() == 1 {
					if err := d.Return(t.Context(), tc.delay); err != nil {
						t.Errorf("return: %v", err)
					}
					return
				}
				b.ack(d)
			})
			b.publish("default", "a")
			first, second := receive(t, taken), receive(t, taken)
			require.Equal(t, []int{1, 2}, []int{first.number, second.number})
			require.GreaterOrEqual(t, second.at.Sub(first.at), tc.delay)
			require.Equal(t, tc.bytes, string(receive(t, acks).Data))
			require.Equal(t, "+ACK", string(receive(t, acks).Data))
		})
	}
}

// A job that waits keeps neither its slot nor anybody else's.
func TestParkedJobsDoNotStallTheQueue(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	b.publish("default", ids("parked", 50)...)
	var parked, done handled
	s := b.source(2)
	b.run(s, func(d *Delivery) {
		if strings.HasPrefix(d.ID, "parked") {
			if err := d.Return(t.Context(), time.Hour); err != nil {
				t.Errorf("return: %v", err)
			}
			parked.add(d)
			return
		}
		b.ack(d)
		done.add(d)
	})
	until(t, "all are parked", func() bool { return parked.count() == 50 })
	b.publish("default", ids("j", 50)...)
	until(t, "the others are done", func() bool { return done.count() == 50 })
	require.Equal(t, 50, b.info("default").NumAckPending)
	require.Equal(t, 50, parked.count())
	require.Equal(t, uint64(50), b.stored())
}

// The server can hand a job out again while its first handler still has a line
// to go after Return.
func TestAReturnedJobIsTakenAgainBeforeItsHandlerHasEnded(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	again, done := make(chan struct{}), make(chan int, 2)
	stop := b.run(b.source(2), func(d *Delivery) {
		if d.Number() == 1 {
			if err := d.Return(t.Context(), 0); err != nil {
				t.Errorf("return: %v", err)
			}
			receive(t, again)
			done <- 1
			return
		}
		close(again)
		done <- d.Number()
		b.ack(d)
	})
	b.publish("default", "a")
	require.ElementsMatch(t, []int{1, 2}, []int{receive(t, done), receive(t, done)})
	stop()
	require.Zero(t, b.stored())
}

func TestAReturnedJobIsNotExtended(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	acks := b.watch("$JS.ACK.>")
	held := make(chan *Delivery, 1)
	end := make(chan struct{})
	s := b.source(1)
	b.run(s, func(d *Delivery) { held <- d; <-end })
	b.publish("default", "a")
	d := receive(t, held)
	require.NoError(t, d.extend())
	require.NoError(t, d.Return(t.Context(), time.Hour))
	require.NoError(t, d.extend()) // would bring it back after a lease instead of an hour
	require.NoError(t, d.nc.Flush())
	require.Equal(t, "+WPI", string(receive(t, acks).Data))
	require.Equal(t, `-NAK {"delay":3600000000000}`, string(receive(t, acks).Data))
	close(end)
	require.NoError(t, b.nc.Publish("$JS.ACK.mark", nil))
	require.Equal(t, "$JS.ACK.mark", receive(t, acks).Subject)
}

// The server forgets to hear a worker now and then: the same worker gets the job
// a second time while it runs it.
func TestASecondDeliveryOfARunningJobIsAdopted(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	require.NoError(t, b.js.DeleteConsumer(t.Context(), "LLM_JOBS", "q-default"))
	impatient := b.layout.Consumer("default")
	impatient.AckWait = 200 * time.Millisecond // and the worker extends every 7.5 s
	_, err := b.js.CreateConsumer(t.Context(), "LLM_JOBS", impatient)
	require.NoError(t, err)
	acks := b.watch("$JS.ACK.>")
	var begun handled
	done := make(chan struct{})
	s := b.source(3)
	stop := b.run(s, func(d *Delivery) {
		begun.add(d)
		until(t, "the job was handed out again", func() bool { return d.Number() >= 3 })
		b.ack(d)
		close(done)
	})
	b.publish("default", "a")
	receive(t, done)
	require.Equal(t, 1, begun.count())
	msg := receive(t, acks)
	require.Equal(t, "+ACK", string(msg.Data))
	require.False(t, strings.HasPrefix(msg.Subject, "$JS.ACK.LLM_JOBS.q-default.1."), msg.Subject) // the newest lease
	stop()
	require.Zero(t, s.Health().Held)
	require.Zero(t, b.stored())
}

func TestAnotherJobWithTheSameSequenceIsNotAdopted(t *testing.T) {
	t.Parallel()
	at := time.Now()
	running := func() *Delivery {
		return &Delivery{Queue: "default", ID: "a", Seq: 1, Published: at, reply: "old", number: 1}
	}
	for name, tc := range map[string]struct {
		newer *Delivery
		want  bool
	}{
		"the same":          {&Delivery{Queue: "default", ID: "a", Published: at.UTC()}, true},
		"another id":        {&Delivery{Queue: "default", ID: "b", Published: at}, false},
		"another queue":     {&Delivery{Queue: "high", ID: "a", Published: at}, false},
		"published anew":    {&Delivery{Queue: "default", ID: "a", Published: at.Add(1)}, false},
		"another life of a": {&Delivery{Queue: "default", ID: "a", Published: at.Add(time.Hour)}, false},
	} {
		tc.newer.Seq, tc.newer.reply, tc.newer.number = 1, "new", 2
		d := running()
		require.Equal(t, tc.want, d.adopt(tc.newer), name)
		if tc.want {
			require.Equal(t, "new", d.replySubject(), name)
			require.Equal(t, 2, d.Number(), name)
		} else {
			require.Equal(t, "old", d.replySubject(), name)
			require.Equal(t, 1, d.Number(), name)
		}
	}
}

func TestTheLeaseOfAJobOutlivesItsReturnedForerunner(t *testing.T) {
	t.Parallel()
	l := leases{bySeq: make(map[uint64]*Delivery)}
	first, second := &Delivery{Seq: 7}, &Delivery{Seq: 7}
	l.add(first)
	l.add(second)
	l.remove(first)
	require.Same(t, second, l.get(7))
	require.Equal(t, []*Delivery{second}, l.all())
	l.remove(second)
	require.Empty(t, l.all())
}

func TestSettlingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	held := make(chan *Delivery, 1)
	end := make(chan struct{})
	b.run(b.source(1), func(d *Delivery) { held <- d; <-end })
	defer close(end)
	b.publish("default", "a")
	d := receive(t, held)
	b.srv.Stop(t)
	ctx, cancel := contextThatEnds(t)
	defer cancel()
	require.ErrorContains(t, d.Ack(ctx), "settle job a (+ACK): ")
	require.ErrorContains(t, d.Return(ctx, time.Second), "settle job a (-NAK): ")
	b.srv.Start(t)
}

func TestANakOfADeletedConsumerFailsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	b.publish("default", "a")
	c, err := b.js.Consumer(t.Context(), "LLM_JOBS", "q-default")
	require.NoError(t, err)
	batch, err := c.Fetch(1)
	require.NoError(t, err)
	msg := receive(t, batch.Messages())
	require.NoError(t, b.js.DeleteConsumer(t.Context(), "LLM_JOBS", "q-default"))
	d := &Delivery{Queue: "default", ID: "a", nc: b.nc, reply: msg.Reply()}
	require.ErrorIs(t, d.Ack(t.Context()), nats.ErrNoResponders)
	_, err = b.js.Consumer(t.Context(), "LLM_JOBS", "q-default")
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
}
