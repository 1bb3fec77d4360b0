package doctor

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
	"understudy/internal/queue"
	"understudy/internal/worker"
)

// patience bounds every wait of a test.
const patience = time.Minute

// bundle is an installation to be looked at.
type bundle struct {
	t      *testing.T
	srv    *natstest.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	layout queue.Layout
	// later is how much later than now the examination believes it is.
	later time.Duration
	user  []nats.Option // of the one who examines
}

// newBundle is a healthy installation: streams, two queues and a worker.
func newBundle(t *testing.T) *bundle {
	t.Helper()
	b := bareBundle(t, natstest.Options{})
	b.ensure("default", "low")
	b.worker("w-1", nil)
	return b
}

// bareBundle is a server.
func bareBundle(t *testing.T, opts natstest.Options, user ...nats.Option) *bundle {
	t.Helper()
	srv := natstest.RunWith(t, opts)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	b := &bundle{t: t, srv: srv, nc: srv.Conn(t, user...), layout: queue.Layout{Subjects: subjects}}
	b.js, err = jetstream.New(b.nc)
	require.NoError(t, err)
	return b
}

func (b *bundle) ensure(queues ...string) {
	b.t.Helper()
	_, err := b.layout.Ensure(b.t.Context(), b.js, queues)
	require.NoError(b.t, err)
}

// says changes what a worker says of itself.
type says struct {
	version, prefix, queues string
	slots                   int
	status                  *worker.Status
	silent                  bool
	skew                    time.Duration
}

// worker answers as a worker does.
func (b *bundle) worker(name string, change func(*says)) {
	b.t.Helper()
	s := says{version: "1.0.0", prefix: "llm", queues: "default,low", slots: 4, status: &worker.Status{}}
	if change != nil {
		change(&s)
	}
	cfg := micro.Config{
		Name: worker.ServiceName, Version: s.version, Metadata: map[string]string{
			worker.MetaWorker: name, worker.MetaPrefix: s.prefix, worker.MetaQueues: s.queues, worker.MetaConcurrency: strconv.Itoa(s.slots),
		},
	}
	if !s.silent {
		cfg.StatsHandler = func(*micro.Endpoint) any {
			status := *s.status
			status.Time = time.Now().Add(s.skew)
			return status
		}
	}
	nc := b.srv.Conn(b.t, b.user...)
	svc, err := micro.AddService(nc, cfg)
	require.NoError(b.t, err)
	require.NoError(b.t, svc.AddEndpoint("submit", micro.HandlerFunc(func(micro.Request) {}), micro.WithEndpointSubject(s.prefix+".submit")))
	require.NoError(b.t, nc.Flush()) // the server knows of it
	b.t.Cleanup(func() { _ = svc.Stop() })
}

func (b *bundle) now() time.Time { return time.Now().Add(b.later) }

// examine returns every finding.
func (b *bundle) examine(opts ...nats.Option) []Finding {
	b.t.Helper()
	findings, err := b.tryExamine(opts...)
	require.NoError(b.t, err)
	return findings
}

// tryExamine is examine where it may fail.
func (b *bundle) tryExamine(opts ...nats.Option) ([]Finding, error) {
	b.t.Helper()
	return Examine(b.t.Context(), Config{Conn: b.srv.Conn(b.t, opts...), Layout: b.layout, Pause: 10 * time.Millisecond, Now: b.now})
}

// until examines again and again until the findings are as wanted.
func (b *bundle) until(why string, wanted func([]Finding) bool) {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		findings, err := b.tryExamine()
		if err == nil && wanted(findings) {
			return
		}
		require.True(b.t, time.Now().Before(end), "never: %s: %v: %+v", why, err, bad(findings))
	}
}

// bad are the findings above a note.
func bad(findings []Finding) []Finding {
	var list []Finding
	for _, f := range findings {
		if f.Level == Warning || f.Level == Problem {
			list = append(list, f)
		}
	}
	return list
}

// found is the one finding of a check about something.
func found(t *testing.T, findings []Finding, check, where string) Finding {
	t.Helper()
	var list []Finding
	for _, f := range findings {
		if f.Check == check && f.Where == where && f.Level != OK {
			list = append(list, f)
		}
	}
	require.Len(t, list, 1, "%s of %s in %+v", check, where, findings)
	return list[0]
}

// publish stores a message.
func (b *bundle) publish(subject string, data []byte, headers ...string) uint64 {
	b.t.Helper()
	msg := nats.NewMsg(subject)
	msg.Data = data
	for i := 0; i+1 < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	ack, err := b.js.PublishMsg(b.t.Context(), msg)
	require.NoError(b.t, err)
	return ack.Sequence
}

// job queues a job and returns its sequence.
func (b *bundle) job(queueName, id string, headers ...string) uint64 {
	b.t.Helper()
	return b.publish(b.layout.Subjects.Job(queueName, id), []byte(`{"messages":[]}`), headers...)
}

// take takes the next job of a queue.
func (b *bundle) take(queueName string) jetstream.Msg {
	b.t.Helper()
	c, err := b.js.Consumer(b.t.Context(), "LLM_JOBS", queue.ConsumerName(queueName))
	require.NoError(b.t, err)
	msg, err := c.Next(jetstream.FetchMaxWait(patience))
	require.NoError(b.t, err)
	return msg
}

// finish takes the next job of a queue out of it.
func (b *bundle) finish(queueName string) {
	b.t.Helper()
	require.NoError(b.t, b.take(queueName).DoubleAck(b.t.Context()))
}

// event stores an event of job id of the queue default.
func (b *bundle) event(id, workerName string, t job.EventType, at time.Time, data any) {
	b.t.Helper()
	b.publish(b.layout.Subjects.Event("default", id), job.NewEvent(workerName, t, id, at, data).Encode())
}

// result stores a result of the queue default.
func (b *bundle) result(id string, status job.Status, seq uint64) {
	b.t.Helper()
	r := &job.Result{ID: id, Queue: "default", Status: status, Worker: "w-1", FinishedAt: time.Now()}
	if status != job.Succeeded {
		r.Error = &job.Error{Code: "timeout", Message: "no answer in 5s"}
	}
	b.publish(b.layout.Subjects.Result("default", id), r.Encode(), job.HeaderJobSeq, strconv.FormatUint(seq, 10))
}

// letter stores a dead letter of the queue default.
func (b *bundle) letter(id, reason, payload string) {
	b.t.Helper()
	l := &job.DeadLetter{ID: id, Queue: "default", Reason: reason, Job: []byte(payload), Time: time.Now()}
	b.publish(b.layout.Subjects.Dead("default", id), l.Encode())
}

// edit changes a stream.
func (b *bundle) edit(name string, change func(*jetstream.StreamConfig)) {
	b.t.Helper()
	s, err := b.js.Stream(b.t.Context(), name)
	require.NoError(b.t, err)
	cfg := s.CachedInfo().Config
	change(&cfg)
	_, err = b.js.UpdateStream(b.t.Context(), cfg)
	require.NoError(b.t, err)
}

// remake makes a stream anew, with settings that the server does not change.
func (b *bundle) remake(name string, change func(*jetstream.StreamConfig)) {
	b.t.Helper()
	s, err := b.js.Stream(b.t.Context(), name)
	require.NoError(b.t, err)
	cfg := s.CachedInfo().Config
	change(&cfg)
	require.NoError(b.t, b.js.DeleteStream(b.t.Context(), name))
	_, err = b.js.CreateStream(b.t.Context(), cfg)
	require.NoError(b.t, err)
}

// editConsumer changes the consumer of the queue default.
func (b *bundle) editConsumer(change func(*jetstream.ConsumerConfig)) {
	b.t.Helper()
	cfg := b.layout.Consumer("default")
	change(&cfg)
	_, err := b.js.UpdateConsumer(b.t.Context(), "LLM_JOBS", cfg)
	require.NoError(b.t, err)
}

// reconcile returns every standing by id.
func (b *bundle) reconcile(change func(*ReconcileConfig)) map[string]Standing {
	b.t.Helper()
	cfg := ReconcileConfig{Conn: b.srv.Conn(b.t), Layout: b.layout, Now: b.now}
	if change != nil {
		change(&cfg)
	}
	all := make(map[string]Standing)
	for s, err := range Reconcile(context.WithoutCancel(b.t.Context()), cfg) {
		require.NoError(b.t, err)
		require.NotContains(b.t, all, s.ID)
		all[s.ID] = s
	}
	return all
}

// words are the parts of a finding that people read.
func words(f Finding) string {
	return strings.Join([]string{string(f.Level), f.Check, f.Where, f.What, f.Mend}, " | ")
}
