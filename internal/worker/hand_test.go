package worker

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// held is a job that a worker was handed under its first delivery.
type held struct {
	*task
	acks *nats.Subscription
}

// hold makes a worker that serves no job by itself, and hands it one. do is run
// while it has that job.
func (b *bundle) hold(do func(held)) {
	b.t.Helper()
	b.ensure("default", "other")
	cfg := b.config(model("vllm", llmtest.New(b.t)))
	cfg.Queues = []queue.Weighted{{Name: "other", Weight: 1}}
	w := b.start(cfg)
	source, err := queue.NewSource(queue.SourceConfig{
		Conn: w.nc, JS: w.js, Layout: w.layout, Queues: []queue.Weighted{{Name: "default", Weight: 1}},
		Slots: 1, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(b.t, err)
	acks, err := b.nc.SubscribeSync("$JS.ACK.>")
	require.NoError(b.t, err)
	b.publish("a", chat("hi"))
	ctx, cancel := context.WithCancel(b.t.Context())
	taken, free, done := make(chan *queue.Delivery, 1), make(chan struct{}), make(chan error, 1)
	go func() { // ends with the source, which the end of this function waits for
		done <- source.Run(ctx, func(d *queue.Delivery) {
			taken <- d
			<-free
		})
	}()
	defer func() {
		cancel()
		close(free)
		require.NoError(b.t, <-done)
	}()
	select {
	case d := <-taken:
		t := &task{w: w.Worker, d: d, id: d.ID, events: w.subjects.Event(d.Queue, d.ID), taken: time.Now(), startedAt: time.Now()}
		t.trail = []job.Attempt{{N: 1, Backend: "vllm", Outcome: job.OutcomeSkipped, StartedAt: time.Now()}}
		_ = t.understand()
		do(held{t, acks})
	case <-time.After(patience):
		require.FailNow(b.t, "the job did not come", b.logs.String())
	}
}

// tell stores an event of the job, as another worker.
func (h held) tell(b *bundle, kind job.EventType, data any) {
	b.t.Helper()
	e := job.NewEvent("w-2", kind, h.id, time.Now(), data)
	_, err := b.js.Publish(b.t.Context(), b.subjects.Event("default", h.id), e.Encode())
	require.NoError(b.t, err)
}

// said returns the verbs that went to the server about the job's delivery, but
// for those that extend its lease.
func (h held) said(b *bundle) (verbs []string) {
	b.t.Helper()
	require.NoError(b.t, h.w.nc.Flush())
	require.NoError(b.t, b.nc.Flush())
	for n, _, _ := h.acks.Pending(); n > 0; n-- {
		msg, err := h.acks.NextMsg(patience)
		require.NoError(b.t, err)
		if string(msg.Data) != "+WPI" {
			verbs = append(verbs, string(msg.Data[:4]))
		}
	}
	return verbs
}

func (b *bundle) newest(id string) job.EventType {
	b.t.Helper()
	msg := b.last("LLM_EVENTS", b.subjects.Event("default", id))
	require.NotNil(b.t, msg)
	e, err := job.DecodeEvent(msg.Data)
	require.NoError(b.t, err)
	return e.Type
}

func TestAHandBackIsLeftToTheWorkerThatTookTheJobMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.hold(func(h held) {
		h.tell(b, job.EventReceived, job.Received{Queue: "default", Delivery: 2, JobSeq: h.d.Seq})
		h.looked = time.Now().Add(-h.w.layout.Heartbeat() - time.Second)
		require.True(t, h.hand(t.Context(), time.Now().Add(time.Second), 0, "no backend can be called"))
		require.Equal(t, job.EventReceived, b.newest("a"), "not a word about it")
		require.Empty(t, h.said(b), "the other's lease is not ended")
	})
}

func TestAHandBackOfAJobWithAResultEndsIt(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.hold(func(h held) {
		r := &job.Result{ID: "a", Queue: "default", Status: job.Succeeded, Worker: "w-2"}
		_, err := h.w.store.Commit(t.Context(), r, h.d.Seq, 0)
		require.NoError(t, err)
		h.looked = time.Now().Add(-h.w.layout.Heartbeat() - time.Second)
		require.True(t, h.hand(t.Context(), time.Now().Add(time.Second), 0, "no backend can be called"))
		require.Equal(t, job.EventCompleted, types(b.events("a"))[0], "there is no other")
		require.Equal(t, []string{"+ACK"}, h.said(b))
		b.settled()
	})
}

func TestARedrivenJobIsHandedBackDespiteTheResultItReplaces(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.hold(func(h held) {
		_, err := h.w.store.Commit(t.Context(), &job.Result{ID: "a", Queue: "default", Status: job.Failed}, 99, 0)
		require.NoError(t, err)
		stored, err := h.w.store.Lookup(t.Context(), "default", "a")
		require.NoError(t, err)
		h.replaces = stored.Seq
		require.True(t, h.hand(t.Context(), time.Now().Add(time.Hour), 0, "no backend can be called"))
		require.Equal(t, job.EventWaiting, b.newest("a"))
		require.Equal(t, []string{"-NAK"}, h.said(b))
		require.WithinDuration(t, time.Now(), h.looked, patience)
	})
}

func TestAHandBackAsksNothingWhenThatWasDoneAMomentAgo(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.hold(func(h held) {
		reads, err := b.nc.SubscribeSync("$JS.API.STREAM.MSG.GET.>")
		require.NoError(t, err)
		require.NoError(t, b.nc.Flush())
		h.looked = time.Now()
		require.True(t, h.hand(t.Context(), time.Now().Add(time.Hour), 0, "no backend can be called"))
		require.Equal(t, []string{"-NAK"}, h.said(b))
		n, _, err := reads.Pending()
		require.NoError(t, err)
		require.Zero(t, n)
		require.Equal(t, job.EventWaiting, b.newest("a"))
	})
}

// What is said while there is no connection would be heard when others have the job.
func TestAHandBackIsNotSaidWithoutAConnection(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.hold(func(h held) {
		b.srv.Stop(t)
		b.eventually("the worker is cut off", func() bool { return !h.w.nc.IsConnected() })
		h.looked = time.Now()
		require.False(t, h.hand(t.Context(), time.Now().Add(time.Second), 0, "no backend can be called"))
		b.srv.Start(t)
		b.eventually("both are back", func() bool { return h.w.nc.IsConnected() && b.nc.IsConnected() })
		b.eventually("the stream is there", func() bool {
			_, err := h.w.store.History(t.Context(), "default", "a", results.Holder{})
			return err == nil
		})
		require.Empty(t, h.said(b))
		require.Nil(t, b.last("LLM_EVENTS", b.subjects.Event("default", "a")), "nothing was kept to be said later")
	})
}

// The word that it took the job may be stored after the worker stopped waiting for
// that: then it reads its own word when it tries again.
func TestAWorkerIsNoCrashToItself(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	b.publish("a", chat("hi"))
	consumer, err := b.js.Consumer(t.Context(), "LLM_JOBS", queue.ConsumerName("default"))
	require.NoError(t, err)
	msg, err := consumer.Next() // handed out at a stop, and given back
	require.NoError(t, err)
	meta, err := msg.Metadata()
	require.NoError(t, err)
	cfg := b.config(model("vllm", llmtest.New(t)))
	cfg.MaxCrashes = 1
	e := job.NewEvent(cfg.Name, job.EventReceived, "a", time.Now(), job.Received{Queue: "default", Delivery: 2, JobSeq: meta.Sequence.Stream})
	_, err = b.js.Publish(t.Context(), b.subjects.Event("default", "a"), e.Encode())
	require.NoError(t, err)
	require.NoError(t, msg.Nak())
	b.start(cfg)
	r := b.result("a")
	require.Equal(t, job.Succeeded, r.Status, "%+v", r.Error)
	require.Equal(t, 2, r.Deliveries)
}
