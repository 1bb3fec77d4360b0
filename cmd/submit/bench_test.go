package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
	"understudy/internal/queue"
	"understudy/internal/results"
	"understudy/internal/worker"
)

// patience bounds every wait of a test; it is no pass condition, only its end.
const patience = 60 * time.Second

// noon is the time of every command under test.
func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// bench is a private server with our streams, and what a stand-in for a worker
// needs.
type bench struct {
	t        *testing.T
	srv      *natstest.Server
	js       jetstream.JetStream
	subjects job.Subjects
	store    *results.Store
	ctx      context.Context // outlives the test's, for what its cleanup waits for
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := bareBench(t, natstest.Options{})
	b.ensure("default", "low")
	return b
}

// bareBench is a bench without streams.
func bareBench(t *testing.T, opts natstest.Options) *bench {
	t.Helper()
	srv := natstest.RunWith(t, opts)
	js, err := jetstream.New(srv.Conn(t))
	require.NoError(t, err)
	subjects, err := job.NewSubjects(job.DefaultPrefix)
	require.NoError(t, err)
	return &bench{t: t, srv: srv, js: js, subjects: subjects, ctx: context.WithoutCancel(t.Context())}
}

func (b *bench) ensure(queues ...string) {
	b.t.Helper()
	_, err := queue.Layout{Subjects: b.subjects}.Ensure(b.t.Context(), b.js, queues)
	require.NoError(b.t, err)
	b.store, err = results.Open(b.t.Context(), b.js.Conn(), b.js, b.subjects)
	require.NoError(b.t, err)
}

// buffer is an output that several goroutines write and a test waits on.
type buffer struct {
	mu      sync.Mutex // guards the rest
	b       bytes.Buffer
	changed chan struct{} // closed at the next write
}

func newBuffer() *buffer { return &buffer{changed: make(chan struct{})} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await blocks until the buffer holds text.
func (b *buffer) await(tb testing.TB, text string) {
	tb.Helper()
	end := time.After(patience)
	for {
		b.mu.Lock()
		changed, found := b.changed, strings.Contains(b.b.String(), text)
		b.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-end:
			require.FailNow(tb, "the text did not come", "%q in:\n%s", text, b.String())
		}
	}
}

// command is one run of the command under test.
type command struct {
	*app
	t         *testing.T
	out, err  *buffer
	interrupt context.CancelFunc
	code      chan int
}

// command returns the command, not yet run, with standard input that holds text.
func (b *bench) command(stdin string) *command {
	b.t.Helper()
	return newCommand(b.t, stdin, environment{
		subjects: b.subjects,
		connect: func(opts ...nats.Option) (*nats.Conn, error) {
			return nats.Connect(b.srv.URL, append(opts, nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))...)
		},
	})
}

func newCommand(t *testing.T, stdin string, env environment) *command {
	t.Helper()
	c := &command{t: t, out: newBuffer(), err: newBuffer(), code: make(chan int, 1)}
	c.app = &app{
		stdin: strings.NewReader(stdin), stdout: c.out, stderr: &syncWriter{w: c.err}, now: noon,
		load: func() environment { return env },
	}
	return c
}

// start runs the command in the background, until the test ends.
func (c *command) start(args ...string) *command {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c.interrupt = cancel
	go func() { c.code <- c.run(ctx, args) }()
	c.t.Cleanup(func() {
		cancel()
		c.wait()
	})
	return c
}

// wait returns the exit code; it may be called again.
func (c *command) wait() int {
	c.t.Helper()
	select {
	case code := <-c.code:
		c.code <- code
		return code
	case <-time.After(patience):
		require.FailNow(c.t, "the command did not end", c.err.String())
		return -1
	}
}

// submit runs a command to its end.
func (b *bench) submit(args ...string) (code int, out, stderr string) {
	b.t.Helper()
	return b.submitWith("", args...)
}

// submitWith is submit with standard input.
func (b *bench) submitWith(stdin string, args ...string) (code int, out, stderr string) {
	b.t.Helper()
	c := b.command(stdin).start(args...)
	code = c.wait()
	return code, c.out.String(), c.err.String()
}

// publish queues a job.
func (b *bench) publish(queueName, id, payload string, headers ...string) {
	b.t.Helper()
	msg := nats.NewMsg(b.subjects.Job(queueName, id))
	msg.Data = []byte(payload)
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	_, err := b.js.PublishMsg(b.t.Context(), msg)
	require.NoError(b.t, err)
}

// messages is how many messages a stream holds; -1 while the server does not say.
func (b *bench) messages(stream string) int {
	s, err := b.js.Stream(b.t.Context(), stream)
	if err != nil {
		return -1
	}
	return int(s.CachedInfo().State.Msgs)
}

// queued is how many jobs are queued or running; -1 while the server does not say.
func (b *bench) queued() int { return b.messages(b.subjects.JobsStream()) }

// awaitQueued blocks until so many jobs are queued or running.
func (b *bench) awaitQueued(n int) {
	b.t.Helper()
	eventually(b.t, func() bool { return b.queued() == n })
}

// eventually blocks until cond holds. Unlike require.Eventually it asks in the
// goroutine of the test, which cond may fail.
func eventually(tb testing.TB, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		require.True(tb, time.Now().Before(end), "it did not come to that")
	}
}

// limit gives the jobs stream room for n jobs; -1 is no limit.
func (b *bench) limit(n int64) {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), b.subjects.JobsStream())
	require.NoError(b.t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = n
	_, err = b.js.UpdateStream(b.t.Context(), cfg)
	require.NoError(b.t, err)
}

// letters are the ids that have dead letters.
func (b *bench) letters() []string {
	b.t.Helper()
	list := []string{}
	for l, err := range b.store.Letters(b.t.Context(), "", "") {
		require.NoError(b.t, err)
		list = append(list, l.ID)
	}
	return list
}

// file writes a file and returns its name.
func (b *bench) file(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), name)
	require.NoError(b.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// requireBytes requires JSON to be the same byte for byte.
func requireBytes(tb testing.TB, want string, have []byte) {
	tb.Helper()
	require.True(tb, bytes.Equal([]byte(want), have), "want %s\nhave %s", want, have)
}

// read returns what is in a file.
func read(tb testing.TB, name string) string {
	tb.Helper()
	data, err := os.ReadFile(name)
	require.NoError(tb, err)
	return string(data)
}

// work runs a real worker whose backends are scripted providers, in a chain.
func (b *bench) work(scripts ...llmtest.Script) {
	b.t.Helper()
	allow, err := job.ParseReplyRule(job.DefaultReplyAllow)
	require.NoError(b.t, err)
	policy := fallback.DefaultPolicy()
	policy.BaseDelay, policy.MaxDelay = time.Millisecond, 10*time.Millisecond
	cfg := worker.Config{
		Name: "w-1", Concurrency: 32, ReplyAllow: allow, ShutdownGrace: 5 * time.Second,
		Routes:  []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
		Connect: func(opts ...nats.Option) (*nats.Conn, error) { return nats.Connect(b.srv.URL, opts...) },
	}
	for i, script := range scripts {
		provider := llmtest.New(b.t, script)
		cfg.Backends = append(cfg.Backends, worker.Backend{
			Name:    fmt.Sprintf("model%d", i+1),
			OpenAI:  openai.Config{BaseURL: provider.URL(), Model: "test", Timeout: 30 * time.Second},
			Breaker: breaker.Config{Failures: 1000},
		})
	}
	w, err := worker.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case <-w.Ready():
	case err := <-done:
		done <- err
		require.NoError(b.t, err)
	}
	b.store, err = results.Open(b.t.Context(), b.js.Conn(), b.js, b.subjects)
	require.NoError(b.t, err)
}
