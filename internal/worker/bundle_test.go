package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/leaktest"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
	"understudy/internal/queue"
)

func TestMain(m *testing.M) {
	known := leaktest.ObjectStores()
	goleak.VerifyTestMain(leaktest.Patient(m, known...), known...)
}

// patience bounds every wait of a test; it is no pass condition, only its end.
const patience = 2 * time.Minute

// bundle is a private server, its streams, and what a publisher has.
type bundle struct {
	t        *testing.T
	srv      *natstest.Server
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects job.Subjects
	logs     *buffer
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	srv := natstest.Run(t)
	nc := srv.Conn(t)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	return &bundle{t: t, srv: srv, nc: nc, js: js, subjects: subjects, logs: new(buffer)}
}

// buffer collects logs of several goroutines.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// config is a worker with the named backends in a chain.
func (b *bundle) config(backends ...Backend) Config {
	b.t.Helper()
	allow, err := job.ParseReplyRule(job.DefaultReplyAllow)
	require.NoError(b.t, err)
	policy := fallback.DefaultPolicy()
	policy.BaseDelay, policy.MaxDelay = 20*time.Millisecond, 100*time.Millisecond
	return Config{
		Name: "w-1", Concurrency: 16, ReplyAllow: allow, Backends: backends,
		ShutdownGrace: 5 * time.Second,
		Routes:        []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
		Connect: func(opts ...nats.Option) (*nats.Conn, error) {
			return nats.Connect(b.srv.URL, opts...)
		},
	}
}

// model is a backend that is a scripted provider, whose calls have time.
func model(name string, p *llmtest.Provider) Backend {
	return Backend{Name: name, OpenAI: openai.Config{BaseURL: p.URL(), Model: name + "-model", Timeout: patience}, Breaker: breaker.Config{Failures: 1000}}
}

// running is a worker under test.
type running struct {
	*Worker
	stop func() error // stops it and returns what Run returned; may be called twice
}

// start runs a worker until the test ends or stop is called.
func (b *bundle) start(cfg Config) running {
	b.t.Helper()
	logger := slog.New(slog.NewTextHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w, err := New(cfg, logger, prometheus.NewRegistry())
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	b.t.Cleanup(func() { _ = stop() })
	select {
	case <-w.Ready():
	case err := <-done:
		done <- err
		require.NoError(b.t, err)
	case <-time.After(patience):
		require.FailNow(b.t, "the worker did not start", b.logs.String())
	}
	return running{w, stop}
}

// ensure makes the streams before any worker does.
func (b *bundle) ensure(queues ...string) {
	b.t.Helper()
	_, err := queue.Layout{Subjects: b.subjects}.Ensure(b.t.Context(), b.js, queues)
	require.NoError(b.t, err)
}

// publish stores a job.
func (b *bundle) publish(id string, payload []byte, headers ...string) {
	b.t.Helper()
	msg := nats.NewMsg(b.subjects.Job("default", id))
	msg.Data = payload
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	_, err := b.js.PublishMsg(b.t.Context(), msg)
	require.NoError(b.t, err)
}

// chat is a job with a bare chat body.
func chat(prompt string) []byte {
	return fmt.Appendf(nil, `{"model":"auto","messages":[{"role":"user","content":%q}]}`, prompt)
}

// last returns the last message of a subject, nil if there is none.
func (b *bundle) last(stream, subject string) *jetstream.RawStreamMsg {
	b.t.Helper()
	return answer(b, func() (*jetstream.RawStreamMsg, error) {
		s, err := b.js.Stream(b.t.Context(), stream)
		if err != nil {
			return nil, err
		}
		msg, err := s.GetLastMsgForSubject(b.t.Context(), subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, nil
		}
		return msg, err
	})
}

// stream returns the state of a stream.
func (b *bundle) stream(name string) jetstream.StreamState {
	b.t.Helper()
	return answer(b, func() (jetstream.StreamState, error) {
		s, err := b.js.Stream(b.t.Context(), name)
		if err != nil {
			return jetstream.StreamState{}, err
		}
		return s.CachedInfo().State, nil
	})
}

// answer is what the server answers. A request that fails is made again: on a busy
// machine its answer may come too late, and a server that was restarted may not
// be ready.
func answer[T any](b *bundle, ask func() (T, error)) T {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		v, err := ask()
		if err == nil {
			return v
		}
		require.True(b.t, time.Now().Before(end), "no answer: %v\n%s", err, b.logs)
	}
}

// result waits for the result of a job.
func (b *bundle) result(id string) *job.Result {
	b.t.Helper()
	sub, err := b.nc.SubscribeSync(b.subjects.Done("default", id))
	require.NoError(b.t, err)
	defer func() { _ = sub.Unsubscribe() }()
	require.NoError(b.t, b.nc.Flush())
	if b.last("LLM_RESULTS", b.subjects.Result("default", id)) == nil {
		_, err := sub.NextMsg(patience)
		require.NoError(b.t, err, "no result of job %s\n%s", id, b.logs)
	}
	msg := b.last("LLM_RESULTS", b.subjects.Result("default", id))
	require.NotNil(b.t, msg)
	r, err := job.DecodeResult(msg.Data)
	require.NoError(b.t, err)
	return r
}

// letter returns the dead letter of a job; nil if there is none.
func (b *bundle) letter(id string) *job.DeadLetter {
	b.t.Helper()
	msg := b.last("LLM_DEAD", b.subjects.Dead("default", id))
	if msg == nil {
		return nil
	}
	d, err := job.DecodeDeadLetter(msg.Data)
	require.NoError(b.t, err)
	return d
}

// settled waits until no job is left in the queue.
func (b *bundle) settled() {
	b.t.Helper()
	b.eventually("the queue is empty", func() bool { return b.stream("LLM_JOBS").Msgs == 0 })
}

// eventually waits for what sends no event. It asks on the goroutine of its caller, so
// that cond may fail the test.
func (b *bundle) eventually(what string, cond func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		require.True(b.t, time.Now().Before(end), "never: %s\n%s", what, b.logs)
	}
}

// events returns the stored events of a job, in order, once the last one is
// that of its end.
func (b *bundle) events(id string) []*job.Event {
	b.t.Helper()
	b.eventually("the job's last event is stored", func() bool {
		msg := b.last("LLM_EVENTS", b.subjects.Event("default", id))
		if msg == nil {
			return false
		}
		e, err := job.DecodeEvent(msg.Data)
		return err == nil && e.Type == job.EventCompleted
	})
	s, err := b.js.Stream(b.t.Context(), "LLM_EVENTS")
	require.NoError(b.t, err)
	var events []*job.Event
	for seq := uint64(0); ; {
		msg, err := s.GetMsg(b.t.Context(), seq+1, jetstream.WithGetMsgSubject(b.subjects.Event("default", id)))
		if err != nil {
			require.ErrorIs(b.t, err, jetstream.ErrMsgNotFound)
			return events
		}
		seq = msg.Sequence
		e, err := job.DecodeEvent(msg.Data)
		require.NoError(b.t, err)
		events = append(events, e)
	}
}

func types(events []*job.Event) []job.EventType {
	list := make([]job.EventType, len(events))
	for i, e := range events {
		list[i] = e.Type
	}
	return list
}

// trail is a job's attempts in short: backend:class>next.
func trail(attempts []job.Attempt) []string {
	list := make([]string, len(attempts))
	for i, a := range attempts {
		class, next := string(a.Outcome), ""
		if a.Class != nil {
			class = *a.Class
		}
		if a.Next != nil {
			next = ">" + string(*a.Next)
		}
		list[i] = fmt.Sprintf("%s:%s%s", a.Backend, class, next)
	}
	return list
}

// crash takes the next job as a worker that dies of it would.
func (b *bundle) crash(consumer jetstream.Consumer) {
	b.t.Helper()
	msg, err := consumer.Next()
	require.NoError(b.t, err)
	meta, err := msg.Metadata()
	require.NoError(b.t, err)
	_, _, id, err := b.subjects.Parse(msg.Subject())
	require.NoError(b.t, err)
	e := job.NewEvent("dead", job.EventReceived, id, time.Now(), job.Received{
		Queue: "default", Delivery: int(meta.NumDelivered), JobSeq: meta.Sequence.Stream,
	})
	_, err = b.js.Publish(b.t.Context(), b.subjects.Event("default", id), e.Encode())
	require.NoError(b.t, err)
	require.NoError(b.t, msg.Nak())
}
