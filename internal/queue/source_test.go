package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASourceHoldsNoMoreThanItsSlots(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	b.publish("default", ids("j", 10)...)
	begun, end := make(chan *Delivery, 10), make(chan struct{})
	var done handled
	b.run(b.source(4), func(d *Delivery) {
		begun <- d
		<-end
		b.ack(d)
		done.add(d)
	})
	for range 4 {
		require.Equal(t, 1, receive(t, begun).Number())
	}
	info := b.info("default") // nothing sits unread behind the slots
	require.Equal(t, 4, info.NumAckPending)
	require.Equal(t, uint64(6), info.NumPending)
	close(end)
	until(t, "all are done", func() bool { return done.count() == 10 })
	require.ElementsMatch(t, ids("j", 10), done.list())
	require.Equal(t, 1, done.maxNumber())
	require.Zero(t, b.info("default").NumRedelivered)
	require.Zero(t, b.stored())
}

func TestADeliveryCarriesTheJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	got := make(chan *Delivery, 1)
	b.run(b.source(1), func(d *Delivery) { b.ack(d); got <- d })
	msg := newMsg("llm.jobs.default.batch.7", "the payload")
	msg.Header.Set("traceparent", "00-1")
	ack, err := b.js.PublishMsg(t.Context(), msg)
	require.NoError(t, err)
	d := receive(t, got)
	require.Equal(t, "default", d.Queue)
	require.Equal(t, "batch.7", d.ID)
	require.Equal(t, ack.Sequence, d.Seq)
	require.Equal(t, "the payload", string(d.Payload))
	require.Equal(t, "00-1", d.Header.Get("traceparent"))
	require.WithinDuration(t, time.Now(), d.Published, patience)
}

func TestASlotThatIsTakenKeepsNoJobFromAnotherWorker(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	b.publish("default", "long")
	begun, end := make(chan struct{}), make(chan struct{})
	var first, second handled
	b.run(b.source(1), func(d *Delivery) {
		if first.add(d) == 1 {
			close(begun)
			<-end
		}
		b.ack(d)
	})
	receive(t, begun)
	b.run(b.source(1), func(d *Delivery) { second.add(d); b.ack(d) })
	b.publish("default", ids("j", 20)...)
	until(t, "the free worker has done the rest", func() bool { return second.count() == 20 })
	require.ElementsMatch(t, ids("j", 20), second.list())
	require.Equal(t, []string{"long"}, first.list())
	require.Equal(t, 1, second.maxNumber())
	close(end)
	until(t, "the long job is done", func() bool { return b.stored() == 0 })
}

func TestABurstIsHandledExactlyOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	var done handled
	b.run(b.source(64), func(d *Delivery) { b.ack(d); done.add(d) })
	all := ids("j", 5000)
	for part := range slices.Chunk(all, 1000) {
		b.publish("default", part...)
	}
	until(t, "all are done", func() bool { return done.count() >= 5000 })
	require.ElementsMatch(t, all, done.list())
	require.Equal(t, 1, done.maxNumber())
	require.Zero(t, b.stored())
}

func TestALatePublishWakesAnIdleSource(t *testing.T) {
	t.Parallel()
	for name, queues := range map[string][]string{
		"one queue":    {"default"},
		"three queues": {"high=6", "default=3", "low"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, Layout{}, names(queues)...)
			b.queues = queues
			s := b.source(16)
			s.expires = time.Hour // only the server can wake it
			got := make(chan string)
			b.run(s, func(d *Delivery) { b.ack(d); got <- d.Queue + " " + d.ID })
			for i, queue := range names(queues) {
				until(t, "a pull stands at the server", func() bool { return b.info(queue).NumWaiting == 1 })
				for n := range 3 { // the second and third come while the source pulls anew
					b.publish(queue, fmt.Sprintf("late%d-%d", i, n))
				}
				var came []string
				for range 3 {
					came = append(came, receive(t, got))
				}
				require.ElementsMatch(t, []string{
					fmt.Sprintf("%s late%d-0", queue, i), fmt.Sprintf("%s late%d-1", queue, i), fmt.Sprintf("%s late%d-2", queue, i),
				}, came)
			}
			require.Equal(t, 16, s.Health().Slots)
			require.NotZero(t, s.Health().LastGood)
		})
	}
}

// names are the queues without their weights.
func names(queues []string) []string {
	var all []string
	for _, q := range queues {
		name, _, _ := strings.Cut(q, "=")
		all = append(all, name)
	}
	return all
}

func TestWeightsShareTheSlots(t *testing.T) {
	t.Parallel()
	for name, slots := range map[string]int{"many slots": 100, "few slots": 4, "one slot": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queues := []string{"high=6", "default=3", "low=1"}
			b := newBundle(t, Layout{}, names(queues)...)
			b.queues = queues
			total := 0
			for queue, n := range map[string]int{"high": 700, "default": 400, "low": 200} {
				b.publish(queue, ids("j", n)...)
				total += n
			}
			var done handled
			got := make(chan string, total)
			b.run(b.source(slots), func(d *Delivery) { b.ack(d); done.add(d); got <- d.Queue })
			share := make(map[string]int)
			for range 1000 {
				share[receive(t, got)]++
			}
			require.InDelta(t, 600, share["high"], 60, share)
			require.InDelta(t, 300, share["default"], 30, share)
			require.InDelta(t, 100, share["low"], 10, share)
			until(t, "no queue starves", func() bool { return done.count() == total })
			require.Equal(t, 1, done.maxNumber())
			require.Zero(t, b.stored())
		})
	}
}

func TestIdleQueuesDoNotBlockABusyOne(t *testing.T) {
	t.Parallel()
	queues := []string{"idle1=50", "idle2=50", "busy=1"}
	b := newBundle(t, Layout{}, names(queues)...)
	b.queues = queues
	s := b.source(12)
	s.expires = time.Hour
	begun, end := make(chan *Delivery, 100), make(chan struct{})
	b.run(s, func(d *Delivery) {
		begun <- d
		<-end
		b.ack(d)
	})
	b.publish("busy", ids("j", 50)...)
	for range 10 { // each idle queue keeps one slot to listen with
		require.Equal(t, "busy", receive(t, begun).Queue)
	}
	for _, queue := range []string{"idle1", "idle2"} { // which is there at once when it is needed
		b.publish(queue, "late")
		require.Equal(t, queue, receive(t, begun).Queue)
	}
	require.Equal(t, 12, s.Health().Held)
	require.Equal(t, 10, b.info("busy").NumAckPending)
	close(end)
	until(t, "all are done", func() bool { return b.stored() == 0 })
}

// A queue whose backlog another worker has taken must not go on holding the
// slots that were meant for it.
func TestSlotsForABacklogThatIsGoneGoToTheOthers(t *testing.T) {
	t.Parallel()
	queues := []string{"gone=100", "busy=1"}
	b := newBundle(t, Layout{}, names(queues)...)
	b.queues = queues
	s := b.source(12)
	s.expires = time.Hour
	s.pollers[0].backlog = true // as it was when last heard of
	s.pollers[1].backlog = true
	b.publish("busy", ids("j", 50)...)
	begun, end := make(chan *Delivery, 100), make(chan struct{})
	b.run(s, func(d *Delivery) {
		begun <- d
		<-end
		b.ack(d)
	})
	for range 11 {
		require.Equal(t, "busy", receive(t, begun).Queue)
	}
	close(end)
	until(t, "all are done", func() bool { return b.stored() == 0 })
}

func TestMoreQueuesThanSlotsTakeTurns(t *testing.T) {
	t.Parallel()
	queues := ids("q", 10)
	b := newBundle(t, Layout{}, queues...)
	for _, queue := range queues {
		b.publish(queue, ids("j", 20)...)
	}
	var done handled
	b.run(b.source(2), func(d *Delivery) { b.ack(d); done.add(d) })
	until(t, "all are done", func() bool { return done.count() == 200 })
	require.Equal(t, 1, done.maxNumber())
	b.publish("q7", "late")
	until(t, "a late one too", func() bool { return done.count() == 201 })
	require.Zero(t, b.stored())
}

func TestASourceThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	for want, cfg := range map[string]SourceConfig{
		"slots: 0 is below 1":              {Queues: []Weighted{{"default", 1}}},
		"queues: none given":               {Slots: 1},
		"queue high: weight 0 is below 1":  {Slots: 1, Queues: []Weighted{{"high", 0}}},
		"queue high: weight -1 is below 1": {Slots: 1, Queues: []Weighted{{"high", -1}}},
	} {
		cfg.Conn = b.nc
		_, err := NewSource(cfg)
		require.EqualError(t, err, want)
	}
}

func TestHostileIDsReachTheHandler(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	hostile := []string{
		"*", ">", "a.*", "a.>", "*.b",
		strings.Repeat("x", 1000),
		"1.2.3.4.5.6.7.8.9",
		"ünïcode\u202e", "a$b", "$JS", "%s%n", "{{.}}", `"quoted"`,
	}
	got := make(chan *Delivery, 100)
	stop := b.run(b.source(3), func(d *Delivery) { b.ack(d); got <- d })
	var want []string
	for _, id := range hostile {
		msg := newMsg("llm.jobs.default."+id, id)
		msg.Header.Set("Status", "409") // looks like the server's own word
		if _, err := b.js.PublishMsg(t.Context(), msg); err != nil {
			continue // the server's own rule: it did not become a job
		}
		want = append(want, id)
	}
	require.Subset(t, want, hostile[5:], "only wildcards may be refused")
	empty := newMsg("llm.jobs.default.empty", "")
	empty.Header.Set("Status", "404")
	_, err := b.js.PublishMsg(t.Context(), empty)
	require.NoError(t, err)
	var came []string
	for range append(want, "empty") {
		d := receive(t, got)
		came = append(came, d.ID)
		if d.ID != "empty" {
			require.Equal(t, d.ID, string(d.Payload))
		}
	}
	require.ElementsMatch(t, append(want, "empty"), came)
	stop()
	require.Zero(t, b.stored())
}
