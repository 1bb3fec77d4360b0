package results

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
	"understudy/internal/queue"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// bundle is a server with the streams, and a Store over a connection of its own.
type bundle struct {
	t        *testing.T
	srv      *natstest.Server
	nc       *nats.Conn // of the test
	js       jetstream.JetStream
	subjects job.Subjects
	store    *Store
}

func newBundle(t *testing.T, opts natstest.Options, conn ...nats.Option) *bundle {
	t.Helper()
	b := &bundle{t: t, srv: natstest.RunWith(t, opts)}
	var err error
	b.subjects, err = job.NewSubjects("llm")
	require.NoError(t, err)
	b.nc = b.srv.Conn(t)
	b.js, err = jetstream.New(b.nc)
	require.NoError(t, err)
	_, err = queue.Layout{Subjects: b.subjects}.Ensure(t.Context(), b.js, []string{"default"})
	require.NoError(t, err)
	b.store = b.open(conn...)
	return b
}

// open returns another Store over a connection of its own.
func (b *bundle) open(conn ...nats.Option) *Store {
	b.t.Helper()
	nc := b.srv.Conn(b.t, conn...)
	js, err := jetstream.New(nc)
	require.NoError(b.t, err)
	s, err := Open(b.t.Context(), nc, js, b.subjects)
	require.NoError(b.t, err)
	return s
}

// config is how a stream is set up.
func (b *bundle) config(stream string) jetstream.StreamConfig {
	b.t.Helper()
	s, err := b.js.Stream(b.t.Context(), stream)
	require.NoError(b.t, err)
	return s.CachedInfo().Config
}

// change changes how a stream is set up.
func (b *bundle) change(stream string, how func(*jetstream.StreamConfig)) {
	b.t.Helper()
	cfg := b.config(stream)
	how(&cfg)
	_, err := b.js.UpdateStream(b.t.Context(), cfg)
	require.NoError(b.t, err)
}

// messages returns everything a stream holds.
func (b *bundle) messages(stream string) []*jetstream.RawStreamMsg {
	b.t.Helper()
	var s jetstream.Stream
	require.Eventually(b.t, func() bool { // a request may go down with the connection of a server that was restarted
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		var err error
		s, err = b.js.Stream(ctx, stream)
		return err == nil
	}, patience, time.Millisecond)
	var all []*jetstream.RawStreamMsg
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
		msg, err := s.GetMsg(b.t.Context(), seq)
		if err == nil {
			all = append(all, msg)
		}
	}
	require.Len(b.t, all, int(s.CachedInfo().State.Msgs))
	return all
}

// names are the objects of a bucket.
func (b *bundle) names(bucket string) []string {
	b.t.Helper()
	names := []string{}
	stream, err := b.js.Stream(b.t.Context(), bucketStream(bucket))
	if err != nil {
		require.ErrorIs(b.t, err, jetstream.ErrStreamNotFound)
		return names
	}
	subjects, err := subjectsBelow(b.t.Context(), stream, metas(bucket))
	require.NoError(b.t, err)
	for _, subject := range slices.Sorted(maps.Keys(subjects)) {
		o, err := readEntry(b.t.Context(), stream, bucket, subject)
		require.NoError(b.t, err)
		if o != nil && !o.Deleted {
			names = append(names, o.Name)
		}
	}
	return names
}

// watch returns what is published to subject.
func (b *bundle) watch(subject string) <-chan *nats.Msg {
	b.t.Helper()
	ch := make(chan *nats.Msg, 10000)
	nc := b.srv.Conn(b.t)
	_, err := nc.ChanSubscribe(subject, ch)
	require.NoError(b.t, err)
	require.NoError(b.t, nc.Flush())
	return ch
}

// none proves that ch, a core subscription to subjects that include mark,
// received nothing but what is published now.
func (b *bundle) none(ch <-chan *nats.Msg, mark string) {
	b.t.Helper()
	require.NoError(b.t, b.nc.Publish(mark, []byte("mark")))
	require.Equal(b.t, "mark", string(receive(b.t, ch).Data))
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

// result returns the result of job id, with an answer of at least size bytes.
func result(id string, size int) *job.Result {
	text, err := json.Marshal(strings.Repeat("x", size))
	if err != nil {
		panic(err)
	}
	return &job.Result{
		ID: id, CustomID: id, Queue: "default", Status: job.Succeeded, Worker: "w-1",
		Response:   &job.Response{StatusCode: 200, Body: text},
		FinishedAt: time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC),
	}
}

// dialer makes connections that break when the server sends what lost says.
type dialer struct {
	mu   sync.Mutex // guards the rest
	lost []byte     // nil: nothing
	hit  int
}

// lose breaks the next connection on which text arrives, before it is read.
func (d *dialer) lose(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost = []byte(text)
}

func (d *dialer) hits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hit
}

// wrap is a [natstest.Wrap].
func (d *dialer) wrap(conn net.Conn) (net.Conn, error) { return &brittle{Conn: conn, d: d}, nil }

type brittle struct {
	net.Conn
	d *dialer
}

func (c *brittle) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if c.d.lost != nil && bytes.Contains(b[:n], c.d.lost) {
		c.d.lost = nil
		c.d.hit++
		return 0, net.ErrClosed
	}
	return n, err
}

// soon is a context that ends by itself.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
