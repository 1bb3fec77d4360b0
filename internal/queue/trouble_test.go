package queue

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// quick is a source that notices a lost pull within a second, and doubts one as the
// product does.
func (b *bundle) quick(slots int, opts ...nats.Option) *Source {
	b.t.Helper()
	s := b.source(slots, opts...)
	s.expires, s.lost = 200*time.Millisecond, 500*time.Millisecond
	s.hold, s.doubt = pullHold, pullDoubt
	return s
}

// tryAck settles a job whose ack may be lost; then it comes again.
func tryAck(d *Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.Ack(ctx)
}

func TestASourceSurvivesTheLossOfItsConsumer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 2 * time.Second}, "default", "other")
	all := ids("j", 300)
	b.publish("default", all...)
	var done handled
	half := make(chan struct{})
	b.run(b.quick(8), func(d *Delivery) {
		if done.add(d) == 100 {
			close(half)
		}
		tryAck(d) // nobody takes the ack of a consumer that is gone
	})
	receive(t, half)
	require.NoError(t, b.js.DeleteConsumer(t.Context(), "LLM_JOBS", "q-default"))
	until(t, "all are done", func() bool { return b.stored() == 0 })
	require.Subset(t, done.list(), all)
	require.Equal(t, -1, b.info("default").Config.MaxAckPending)
}

func TestASourceSurvivesTheLossOfItsStream(t *testing.T) {
	t.Parallel()
	for name, remake := range map[string]func(*bundle){
		"made anew by the source":   func(*bundle) {},
		"made anew by someone else": func(b *bundle) { b.ensure() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, Layout{}, "default", "other")
			var done handled
			s := b.quick(8)
			s.lost, s.doubt = 3*time.Second, patience // none may come twice, on a busy machine either
			b.run(s, func(d *Delivery) { tryAck(d); done.add(d) })
			b.publish("default", ids("a", 20)...)
			until(t, "the first are done", func() bool { return done.count() == 20 })
			require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_JOBS"))
			remake(b)
			until(t, "the stream is there", func() bool {
				_, err := b.js.Stream(t.Context(), "LLM_JOBS")
				return err == nil
			})
			b.publish("default", ids("b", 20)...)
			b.publish("other", ids("c", 20)...)
			until(t, "the others are done", func() bool { return done.count() == 60 })
			require.Equal(t, 1, done.maxNumber())
		})
	}
}

// While the stream's sequence starts anew, an old job with the same one runs.
func TestAJobOfANewStreamIsNotTakenForOneThatStillRuns(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	begun, end := make(chan *Delivery, 2), make(chan struct{})
	b.run(b.quick(2), func(d *Delivery) {
		begun <- d
		<-end
		tryAck(d)
	})
	b.publish("default", "a")
	require.Equal(t, uint64(1), receive(t, begun).Seq)
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_JOBS"))
	b.ensure()
	b.publish("default", "a")
	require.Equal(t, uint64(1), receive(t, begun).Seq)
	close(end)
	until(t, "both are done", func() bool { return b.stored() == 0 })
}

func TestASourceSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 2 * time.Second}, "default", "other")
	all := ids("j", 400)
	b.publish("default", all...)
	b.publish("other", ids("o", 10)...)
	var done handled
	half := make(chan struct{})
	b.run(b.quick(8), func(d *Delivery) {
		if done.add(d) == 100 {
			close(half)
		}
		tryAck(d)
	})
	receive(t, half)
	b.srv.Restart(t)
	until(t, "all are done", func() bool {
		s, err := b.js.Stream(t.Context(), "LLM_JOBS")
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
	require.Subset(t, done.list(), append(all, ids("o", 10)...))
}

// After an outage the server must not hear of more pulls than there are
// slots: what comes beyond them would have to go back, and count as a delivery.
func TestASourceAsksOnceAfterAnOutage(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 4 * time.Second})
	var tries atomic.Int64
	var d dialer
	s := b.source(8, nats.SetCustomDialer(natstest.Wrap(d.wrap)), nats.ReconnectErrHandler(func(*nats.Conn, error) { tries.Add(1) }))
	s.expires, s.lost = 50*time.Millisecond, 2*time.Second // that late may an answer be on a busy machine
	begun, end := make(chan *Delivery, 100), make(chan struct{})
	b.run(s, func(d *Delivery) {
		begun <- d
		<-end
		b.ack(d)
	})
	until(t, "it works", func() bool { return !s.Health().LastGood.IsZero() })
	d.away(true)
	until(t, "the source has noticed", func() bool { return tries.Load() > 10 })
	before, since := s.Health().LastGood, time.Now()
	until(t, "a pull could have been lost twice", func() bool { return time.Since(since) > 2*(s.expires+s.lost) })
	require.Equal(t, before, s.Health().LastGood)
	acks := b.watch("$JS.ACK.>")
	b.publish("default", ids("j", 61)...)
	d.away(false)
	for range 8 {
		receive(t, begun)
	}
	require.True(t, s.Health().LastGood.After(before))
	close(end)
	settled := make(map[string]bool)
	for len(settled) < 61 {
		msg := receive(t, acks)
		require.NotContains(t, string(msg.Data), "-NAK", "a job came for which there was no slot")
		if string(msg.Data) == "+ACK" {
			settled[strings.Split(msg.Subject, ".")[5]] = true // by stream sequence
		}
	}
}

// dialer makes connections that can break, or become half open: they stay, but
// nothing comes through any more.
type dialer struct {
	mu      sync.Mutex // guards the rest
	conns   []*halfOpen
	refuses bool
}

type halfOpen struct {
	net.Conn
	dead atomic.Bool
}

// wrap is a [natstest.Wrap].
func (d *dialer) wrap(conn net.Conn) (net.Conn, error) {
	c := &halfOpen{Conn: conn}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuses {
		return nil, net.ErrClosed
	}
	d.conns = append(d.conns, c)
	return c, nil
}

// cut makes every connection of now half open, and returns how many there were.
func (d *dialer) cut() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.dead.Store(true)
	}
	return len(d.conns)
}

// away breaks every connection and refuses new ones, until it is called with
// false.
func (d *dialer) away(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuses = away
	for _, c := range d.conns {
		_ = c.Close() // the older ones are closed already
	}
}

func (c *halfOpen) Write(b []byte) (int, error) {
	if c.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *halfOpen) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.dead.Load() {
			return n, err
		}
	}
}

func TestASourceNoticesAHalfOpenConnection(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: time.Second}, "default", "other")
	var d dialer
	s := b.quick(8, nats.SetCustomDialer(natstest.Wrap(d.wrap)))
	var done handled
	b.run(s, func(d *Delivery) { tryAck(d); done.add(d) })
	b.publish("default", ids("a", 20)...)
	until(t, "the first are done", func() bool { return done.count() == 20 })
	for n := range 2 {
		require.Greater(t, d.cut(), n)
		b.publish("default", ids("b", 10)...)
		b.publish("other", ids("c", 10)...)
		until(t, "the others are done", func() bool { return b.stored() == 0 })
	}
	require.Subset(t, done.list(), append(ids("b", 10), ids("c", 10)...))
}

// The server forgets the pulls of a connection that broke.
func TestASourceAsksAnewOnANewConnection(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	var d dialer
	s := b.source(2, nats.SetCustomDialer(natstest.Wrap(d.wrap)))
	s.expires = time.Hour
	done := make(chan string, 1)
	b.run(s, func(d *Delivery) { b.ack(d); done <- d.ID })
	for _, id := range []string{"a", "b", "c"} {
		until(t, "a pull stands at the server", func() bool { return b.info("default").NumWaiting == 1 })
		d.away(true)
		until(t, "the server has noticed", func() bool { return b.info("default").NumWaiting == 0 })
		b.publish("default", id)
		d.away(false)
		require.Equal(t, id, receive(t, done))
	}
}

func TestHealthGoesStaleOnAHalfOpenConnection(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	var d dialer
	s := b.source(2, nats.SetCustomDialer(natstest.Wrap(d.wrap)))
	s.expires, s.lost = 10*time.Millisecond, time.Hour // it never finds out
	b.run(s, func(d *Delivery) { b.ack(d) })
	until(t, "it works", func() bool { return !s.Health().LastGood.IsZero() })
	before := s.Health().LastGood
	until(t, "an idle source is asking all the time", func() bool { return s.Health().LastGood.After(before) })
	d.cut()
	until(t, "nothing stands at the server", func() bool { return b.info("default").NumWaiting == 0 })
	before = s.Health().LastGood
	b.publish("default", "a")
	until(t, "the job is not taken", func() bool { return time.Since(before) > 300*time.Millisecond })
	require.Equal(t, before, s.Health().LastGood)
	require.Equal(t, uint64(1), b.stored())
}

// One queue without answers must show, however well the others do.
func TestHealthIsThatOfTheWorstQueue(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "good", "bad")
	s := b.source(16)
	good, bad := s.pollers[0], s.pollers[1]
	require.Zero(t, s.Health().LastGood)
	good.good()
	require.True(t, good.answered.Equal(s.Health().LastGood))
	cancelled, cancel := contextThatEnds(t)
	cancel()
	bad.fail(cancelled, ended{reason: endRefused})
	require.Zero(t, s.Health().LastGood) // never
	bad.good()
	since := bad.answered
	require.True(t, since.Equal(s.Health().LastGood))
	bad.fail(cancelled, ended{reason: endRefused})
	good.good()
	require.True(t, since.Equal(s.Health().LastGood))
	bad.good()
	require.True(t, bad.answered.Equal(s.Health().LastGood))
	require.Equal(t, Health{Slots: 16, LastGood: s.Health().LastGood}, s.Health())
}

func TestTheServersWordEndsAPull(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	p := b.source(1).pollers[0]
	for _, tc := range []struct {
		status, description string
		reason              endReason
		err                 string
	}{
		{"404", "No Messages", endEmpty, ""},
		{"408", "Request Timeout", endEmpty, ""},
		{"408", "Requests Pending", endBusy, ""},
		{"408", "Interest Expired", endBusy, ""},
		{"409", "Consumer Deleted", endRefused, "the server answered 409 Consumer Deleted"},
		{"409", "Leadership Change", endRefused, "the server answered 409 Leadership Change"},
		{"409", "Server Shutdown", endRefused, "the server answered 409 Server Shutdown"},
		{"409", "Exceeded MaxWaiting", endRefused, "the server answered 409 Exceeded MaxWaiting"},
		{"409", "Consumer is push based", endRefused, "the server answered 409 Consumer is push based"},
		{"503", "", endRefused, "the server answered 503 "},
		{"400", "Bad Request", endRefused, "the server answered 400 Bad Request"},
		{"999", "", endRefused, "the server answered 999 "},
	} {
		msg := nats.NewMsg("inbox.7")
		msg.Header.Set("Status", tc.status)
		msg.Header.Set("Description", tc.description)
		e := p.status(msg, "7")
		require.Equal(t, "7", e.pull)
		require.Equal(t, tc.reason, e.reason, tc.description)
		if tc.err == "" {
			require.NoError(t, e.err, tc.description)
		} else {
			require.EqualError(t, e.err, tc.err)
		}
	}
}

// Whatever the server says, the source asks again.
func TestASourceAsksAgainAfterAnyWord(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	asked := b.watch("$JS.API.CONSUMER.MSG.NEXT.LLM_JOBS.q-default")
	s := b.source(5)
	s.expires = time.Hour
	var done handled
	b.run(s, func(d *Delivery) { b.ack(d); done.add(d) })
	say := func(reply, status, description string) {
		msg := nats.NewMsg(reply)
		msg.Header.Set("Status", status)
		msg.Header.Set("Description", description)
		require.NoError(t, b.nc.PublishMsg(msg))
	}
	first := receive(t, asked)
	last := first
	for _, word := range [][2]string{
		{"409", "Consumer Deleted"},
		{"409", "Leadership Change"},
		{"409", "Server Shutdown"},
		{"409", "Exceeded MaxWaiting"},
		{"503", ""},
		{"404", "No Messages"},
		{"408", "Request Timeout"},
		{"408", "Requests Pending"},
		{"418", "I'm a teapot"},
	} {
		say(first.Reply, "404", "No Messages") // late word on a pull that is over: no new one
		say(last.Reply, word[0], word[1])
		msg := receive(t, asked)
		require.NotEqual(t, last.Reply, msg.Reply)
		var pull struct {
			Batch   int           `json:"batch"`
			NoWait  bool          `json:"no_wait"`
			Expires time.Duration `json:"expires"`
		}
		require.NoError(t, json.Unmarshal(msg.Data, &pull))
		require.Equal(t, 5, pull.Batch)
		require.True(t, pull.NoWait)
		require.Equal(t, time.Hour, pull.Expires)
		first, last = last, msg
	}
	require.NoError(t, b.nc.Publish(last.Reply, []byte("nonsense"))) // somebody guessed the inbox
	b.publish("default", ids("j", 10)...)
	until(t, "jobs still come", func() bool { return done.count() == 10 })
}

func TestALostConsumerThatCannotBeMadeIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	s := b.quick(2)
	var done handled
	b.run(s, func(d *Delivery) { b.ack(d); done.add(d) })
	until(t, "it works", func() bool { return !s.Health().LastGood.IsZero() })
	until(t, "its subjects are taken, though the source is quick", func() bool {
		_ = b.js.DeleteStream(t.Context(), "LLM_JOBS") // gone already, the second time
		_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "TAKEN", Subjects: []string{"llm.jobs.>"}})
		_, gone := b.js.Stream(t.Context(), "LLM_JOBS")
		return err == nil && errors.Is(gone, jetstream.ErrStreamNotFound)
	})
	since := time.Now()
	until(t, "health is stale", func() bool { return time.Since(s.Health().LastGood) > 500*time.Millisecond })
	require.True(t, s.Health().LastGood.Before(since.Add(200*time.Millisecond)))
	require.NoError(t, b.js.DeleteStream(t.Context(), "TAKEN"))
	until(t, "the stream is there", func() bool {
		_, err := b.js.Stream(t.Context(), "LLM_JOBS")
		return err == nil
	})
	b.publish("default", "a")
	until(t, "jobs come again", func() bool { return done.count() == 1 })
}
