package results

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

// outbox returns an Outbox over a connection of its own.
func (b *bundle) outbox() *Outbox {
	b.t.Helper()
	o, err := NewOutbox(b.srv.Conn(b.t), nil, slog.New(slog.DiscardHandler))
	require.NoError(b.t, err)
	return o
}

// run runs o until the returned function is called, which waits for its end.
func (b *bundle) run(o *Outbox) (stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // ends in the cleanup
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.Run(ctx)
	}()
	stop = func() {
		cancel()
		receive(b.t, ended)
	}
	b.t.Cleanup(stop)
	return stop
}

// event is one whose CloudEvents subject is text.
func event(text string) job.EncodedEvent {
	return job.NewEvent("w-1", job.EventDeadLettered, text, time.UnixMilli(0), job.DeadLettered{Queue: "default"}).Encoded()
}

// texts are the CloudEvents subjects of what the events stream holds, by NATS subject.
func (b *bundle) texts() map[string][]string {
	b.t.Helper()
	all := make(map[string][]string)
	for _, msg := range b.messages("LLM_EVENTS") {
		e, err := job.DecodeEvent(msg.Data)
		require.NoError(b.t, err)
		all[msg.Subject] = append(all[msg.Subject], e.Subject)
	}
	return all
}

func TestEventsKeepTheirOrderPerSubject(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	stop := b.run(o)
	want := make(map[string][]string)
	var wg sync.WaitGroup
	for j := range 5 {
		subject := "llm.events.default.job" + strconv.Itoa(j)
		for i := range 400 {
			want[subject] = append(want[subject], strconv.Itoa(i))
		}
		wg.Go(func() {
			for i := range 400 {
				o.Emit(subject, event(strconv.Itoa(i)), "")
			}
		})
	}
	wg.Wait()
	stop()
	require.Equal(t, want, b.texts())
	require.Zero(t, o.Dropped())
}

func TestAStopSendsWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	var want []string
	for i := range 1000 {
		want = append(want, strconv.Itoa(i))
		o.Emit("llm.events.default.a", event(strconv.Itoa(i)), "")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Run(ctx)
	require.Equal(t, want, b.texts()["llm.events.default.a"])
	require.Zero(t, o.Dropped())
}

// An event that Run has in hand when it is stopped counts as those behind it do.
func TestAStopDropsNothingOfWhatIsSent(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 64 { // the stop and the event are seen in either order
		o := b.outbox()
		o.Emit("llm.events.default.a", job.NewEvent("w-1", job.EventCompleted, "1", time.UnixMilli(0), job.DeadLettered{}).Encoded(), "")
		o.Run(ctx)
		require.Zero(t, o.Dropped())
	}
	require.Len(t, b.messages("LLM_EVENTS"), 64)
}

func TestAStoredEventComesAfterThoseBeforeIt(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	b.run(o)
	var want []string
	for round := range 5 {
		for i := range 50 {
			want = append(want, fmt.Sprint(round, i))
			o.Emit("llm.events.default.a", event(fmt.Sprint(round, i)), "")
		}
		want = append(want, "stored")
		require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.a", event("stored"), ""))
		require.Equal(t, want, b.texts()["llm.events.default.a"])
	}
	require.Zero(t, o.Dropped())
}

func TestCopiesGoToWhoWantsThem(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	b.run(o)
	got := b.watch("_INBOX.me")
	o.Emit("llm.events.default.a", event("1"), "_INBOX.me")
	o.Emit("llm.events.default.a", event("2"), "")
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.a", event("3"), "_INBOX.me"))
	for i, want := range []string{"1", "3"} {
		msg := receive(t, got)
		e, err := job.DecodeEvent(msg.Data)
		require.NoError(t, err)
		require.Equal(t, want, e.Subject)
		require.Equal(t, b.messages("LLM_EVENTS")[2*i].Data, msg.Data)
		require.Empty(t, msg.Reply) // nobody is asked to answer a copy
	}
	b.none(got, "_INBOX.me")
}

func TestAFullOutboxDropsAndCounts(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox() // nobody empties it
	e := event("1")
	for range outboxSize {
		o.Emit("llm.events.default.a", e, "")
	}
	require.Zero(t, o.Dropped())
	for range 10 {
		o.Emit("llm.events.default.a", e, "")
	}
	require.ErrorIs(t, o.EmitStored(t.Context(), "llm.events.default.a", e, ""), ErrOutboxFull)
	require.Equal(t, uint64(11), o.Dropped())
}

func TestEmittingNeverBlocksWithoutAServer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	stop := b.run(o)
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.a", event("before"), ""))
	b.srv.Stop(t)
	e := event("lost")
	const n = outboxSize + 2*outboxPending
	for range n {
		o.Emit("llm.events.default.a", e, "") // would hang the test if it blocked
	}
	require.Error(t, o.EmitStored(soon(t), "llm.events.default.a", e, "")) // full, or too late
	stop()                                                                 // gives up after a moment
	require.Equal(t, uint64(n+1), o.Dropped())
	b.srv.Start(t)
}

func TestAnEventThatCannotBeStoredIsCountedOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: 4096})
	o := b.outbox()
	stop := b.run(o)
	// The server's connection says nothing of it: the client refuses it.
	require.ErrorIs(t, o.EmitStored(t.Context(), "llm.events.default.a", event(strings.Repeat("x", 4096)), ""), nats.ErrMaxPayload)
	require.Equal(t, uint64(1), o.Dropped())
	o.Emit("llm.events.default.a", event(strings.Repeat("x", 4096)), "")
	// No stream has this subject.
	require.ErrorIs(t, o.EmitStored(t.Context(), "llm.nothing", event("1"), ""), jetstream.ErrNoStreamResponse)
	require.Equal(t, uint64(3), o.Dropped())
	o.Emit("llm.nothing", event("2"), "")
	stop() // waits for its retries
	require.Equal(t, uint64(4), o.Dropped())
	require.Empty(t, b.messages("LLM_EVENTS"))
}

func TestAStreamThatRefusesIsAnError(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	b.change("LLM_EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs, cfg.Discard = 1, jetstream.DiscardNew })
	o := b.outbox()
	b.run(o)
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.a", event("1"), ""))
	require.ErrorContains(t, o.EmitStored(t.Context(), "llm.events.default.a", event("2"), ""), "maximum messages exceeded")
	require.Equal(t, uint64(1), o.Dropped())
}

func TestEmittingAfterTheEndIsCounted(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	stop := b.run(o)
	stop()
	o.Emit("llm.events.default.a", event("1"), "")
	require.ErrorIs(t, o.EmitStored(t.Context(), "llm.events.default.a", event("2"), ""), ErrOutboxClosed)
	require.Equal(t, uint64(2), o.Dropped())
}

func TestAStopTellsWhatBecameOfAnEvent(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	b.srv.Stop(t)
	waiting := make(chan error, 1)
	go func() { waiting <- o.EmitStored(t.Context(), "llm.events.default.a", event("1"), "") }()
	require.Eventually(t, func() bool { return len(o.queue) == 1 }, patience, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Run(ctx)
	err := receive(t, waiting)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrOutboxClosed) // it was sent, and has no answer
	require.Equal(t, uint64(1), o.Dropped())
	b.srv.Start(t)
}

// Who waits for an event that Run did not come to is told.
func TestAStopLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	b.srv.Stop(t)
	waiting := make(chan error, 1)
	for range outboxPending { // as many as may wait for the stream's word
		o.Emit("llm.events.default.a", event("1"), "")
	}
	go func() { waiting <- o.EmitStored(t.Context(), "llm.events.default.a", event("2"), "") }()
	for len(o.queue) <= outboxPending { // until it is in
		select {
		case err := <-waiting:
			require.FailNow(t, "it did not wait", "%v", err)
		case <-time.After(time.Millisecond):
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Run(ctx)
	require.Error(t, receive(t, waiting))
	require.Equal(t, uint64(outboxPending+1), o.Dropped())
	b.srv.Start(t)
}

// TestTheOutboxSaysWhetherEventsAreStored, and goes on by itself.
func TestTheOutboxSaysWhetherEventsAreStored(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	limit := func(bytes int64) {
		b.change("LLM_EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxBytes, cfg.Discard = bytes, jetstream.DiscardNew })
	}
	o, err := NewOutbox(b.srv.Conn(t), nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		o.Run(ctx)
	}()
	e := job.Report{Worker: "w-1", Type: job.EventReceived, Subject: "a", Time: time.Now()}.Received(&job.Received{Queue: "default", Delivery: 1})
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.a", e, ""))
	require.Empty(t, o.Failing())
	limit(1)
	require.ErrorContains(t, o.EmitStored(t.Context(), "llm.events.default.a", e, ""), "maximum bytes exceeded")
	require.Eventually(t, func() bool { return o.Failing() == "maximum bytes exceeded" }, patience, time.Millisecond)
	require.Equal(t, uint64(1), o.Dropped())
	limit(-1)
	require.Eventually(t, func() bool {
		o.Emit("llm.events.default.a", e, "") // nobody waits for its word, and yet it is heard
		return o.Failing() == ""
	}, patience, 10*time.Millisecond)
	cancel()
	receive(t, gone)
}

// attempts emits n events of attempts, none of which is the last of its job.
func attempts(o *Outbox, n int) {
	for i := range n {
		e := job.Report{Worker: "w-1", Type: job.EventAttemptStarted, Subject: strconv.Itoa(i), Time: time.UnixMilli(0)}
		o.Emit("llm.events.default.j"+strconv.Itoa(i), e.Attempt(&job.Attempt{N: 1}), "")
	}
}

func TestEventsOutliveAMomentWithoutAStream(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	cfg := b.config("LLM_EVENTS")
	o := b.outbox()
	stop := b.run(o)
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.before", event("before"), ""))
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_EVENTS"))
	const n = 10 * outboxGroup
	attempts(o, n)
	require.Eventually(t, func() bool { return o.behind.Load() == 0 }, patience, time.Millisecond)
	require.NoError(t, o.nc.Flush())
	_, err := b.js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return o.asked.Load() == 0 }, patience, time.Millisecond)
	stop()
	// 500 ms may be too short on a busy machine: then it is counted. A stream that is made
	// between the events of a group has only the last of them.
	require.InDelta(t, n-int(o.Dropped()), len(b.texts()), outboxGroup-1)
}

func TestEventsWithoutAStreamAreCounted(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox()
	b.run(o)
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.before", event("before"), ""))
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_EVENTS"))
	attempts(o, 10*outboxGroup)
	require.Eventually(t, func() bool { return o.Dropped() == 10*outboxGroup }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return o.asked.Load() == 0 }, patience, time.Millisecond)
}

// What a stream refuses for its size says nothing of the others.
func TestALongEventAsksForItself(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	b.change("LLM_EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = outboxSmall })
	o := b.outbox()
	stop := b.run(o)
	why := strings.Repeat("x", outboxSmall)
	long := job.Report{Worker: "w-1", Type: job.EventAttemptFailed, Subject: "long", Time: time.UnixMilli(0)}.Attempt(&job.Attempt{N: 1, Error: &why})
	for range 20 {
		o.Emit("llm.events.default.long", long, "")
		o.Emit("llm.events.default.short", event("short"), "")
	}
	stop()
	require.Len(t, b.texts()["llm.events.default.short"], 20)
	require.GreaterOrEqual(t, o.Dropped(), uint64(20))
}

// More groups fail than may wait to be heard, and then the stream is there again.
func TestTheOutboxOutlivesALongOutage(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	cfg := b.config("LLM_EVENTS")
	o := b.outbox()
	b.run(o)
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.before", event("before"), ""))
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_EVENTS"))
	const n = 2 * outboxPending * outboxGroup
	for range n / outboxSize {
		attempts(o, outboxSize)
		require.Eventually(t, func() bool { return o.behind.Load() == 0 }, patience, time.Millisecond)
	}
	require.Eventually(t, func() bool { return o.Dropped() == n }, patience, time.Millisecond)
	require.NotEmpty(t, o.Failing())
	_, err := b.js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.after", event("after"), ""))
	require.Empty(t, o.Failing())
}
