package queue

import (
	"context"
	"errors"
	"log/slog"
	"slices"
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

// patience bounds every wait of these tests. It is below the default lease, so
// that a job which only comes back with its lease fails the test.
const patience = 20 * time.Second

// bundle is a server with the streams and some queues, and what talks to it.
type bundle struct {
	t      *testing.T
	srv    *natstest.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	layout Layout
	queues []string
}

// newBundle makes the streams and the queues; "default" where none is named.
func newBundle(t *testing.T, layout Layout, queues ...string) *bundle {
	t.Helper()
	if len(queues) == 0 {
		queues = []string{"default"}
	}
	b := &bundle{t: t, srv: natstest.Run(t), layout: layout, queues: queues}
	b.layout.Subjects = subjects(t)
	b.nc = b.srv.Conn(t)
	b.js = newJetStream(t, b.nc)
	b.ensure()
	return b
}

func subjects(t *testing.T) job.Subjects {
	t.Helper()
	s, err := job.NewSubjects("llm")
	require.NoError(t, err)
	return s
}

func newJetStream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

func (b *bundle) ensure() {
	b.t.Helper()
	_, err := b.layout.Ensure(b.t.Context(), b.js, b.queues)
	require.NoError(b.t, err)
}

// source is a Source over a connection of its own. However busy the machine is, it
// takes no answer for late that comes at all: it would ask twice, and what came
// beyond its slots would have to go back.
func (b *bundle) source(slots int, opts ...nats.Option) *Source {
	b.t.Helper()
	return b.sourceOn(b.srv.Conn(b.t, opts...), slots)
}

func (b *bundle) sourceOn(nc *nats.Conn, slots int) *Source {
	b.t.Helper()
	cfg := SourceConfig{
		Conn: nc, JS: newJetStream(b.t, nc), Layout: b.layout, Slots: slots,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, q := range b.queues {
		name, weight, _ := strings.Cut(q, "=")
		n, err := strconv.Atoi(weight)
		if err != nil {
			n = 1
		}
		cfg.Queues = append(cfg.Queues, Weighted{Name: name, Weight: n})
	}
	s, err := NewSource(cfg)
	require.NoError(b.t, err)
	s.hold, s.doubt = patience, patience
	return s
}

// run runs s until the returned function is called, which waits for its end; the
// test's cleanup calls it too.
func (b *bundle) run(s *Source, handle func(*Delivery)) (stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // ends in the cleanup, after the test's own
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if !b.t.Failed() { // a failed test may have left its handlers waiting
			require.NoError(b.t, receive(b.t, ended))
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// publish stores jobs and waits for the acks.
func (b *bundle) publish(queue string, ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		_, err := b.js.PublishAsync(b.layout.Subjects.Job(queue, id), []byte(`{"messages":[]}`))
		require.NoError(b.t, err)
	}
	receive(b.t, b.js.PublishAsyncComplete())
}

// info is what the server says of a queue's consumer.
func (b *bundle) info(queue string) *jetstream.ConsumerInfo {
	b.t.Helper()
	c := answer(b, func(ctx context.Context) (jetstream.Consumer, error) {
		return b.js.Consumer(ctx, "LLM_JOBS", ConsumerName(queue))
	})
	return c.CachedInfo()
}

// stored counts the jobs in the stream.
func (b *bundle) stored() uint64 {
	b.t.Helper()
	s := answer(b, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, "LLM_JOBS") })
	return s.CachedInfo().State.Msgs
}

// answer is what the server answers. A request that gets no answer in its time, as
// happens on a busy machine, is made again.
func answer[T any](b *bundle, ask func(context.Context) (T, error)) T {
	b.t.Helper()
	for end := time.Now().Add(patience); ; {
		v, err := ask(b.t.Context())
		if !errors.Is(err, context.DeadlineExceeded) || time.Now().After(end) {
			require.NoError(b.t, err)
			return v
		}
	}
}

// watch returns what is published to subject.
func (b *bundle) watch(subject string) <-chan *nats.Msg {
	b.t.Helper()
	nc := b.srv.Conn(b.t)
	ch := make(chan *nats.Msg, 10000)
	_, err := nc.ChanSubscribe(subject, ch)
	require.NoError(b.t, err)
	require.NoError(b.t, nc.Flush())
	return ch
}

// ids returns n job ids: prefix0, prefix1 and so on.
func ids(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = prefix + strconv.Itoa(i)
	}
	return all
}

// receive returns the next of ch, or its zero value when ch is closed.
func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
		panic("unreachable")
	}
}

// until waits for what sends no event. It asks on the goroutine of its caller, so
// that cond may fail the test.
func until(t *testing.T, why string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		require.True(t, time.Now().Before(end), "never: %s", why)
	}
}

// handled collects the jobs that were handled.
type handled struct {
	mu  sync.Mutex // guards the rest
	ids []string
	max int // the highest delivery number
}

func (h *handled) add(d *Delivery) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = append(h.ids, d.ID)
	h.max = max(h.max, d.Number())
	return len(h.ids)
}

func (h *handled) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ids)
}

func (h *handled) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ids)
}

func (h *handled) maxNumber() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.max
}

// ack settles a job in a handler. An ack whose answer does not come in its time, as
// happens on a busy machine, is sent again.
func (b *bundle) ack(d *Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // a handler may run in the cleanup
	defer cancel()
	err := d.Ack(ctx)
	for errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		b.t.Logf("once more: %v", err)
		err = d.Ack(ctx)
	}
	if err != nil {
		b.t.Errorf("ack %s: %v", d.ID, err)
	}
}
