package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/soak"
)

// faulty builds the command with the tag faults, once, beside the normal one.
var faulty = sync.OnceValues(func() (string, error) {
	out := filepath.Join(filepath.Dir(binary), "worker-faults")
	build := exec.Command("go", "build", "-tags", "faults", "-o", out, ".")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return out, nil
})

// shortLease is the lease in the cells of the matrix: a tenth of the real one.
const shortLease = 3 * time.Second

// rig is a stage on which things are broken: servers and workers in processes of
// their own, a network in between, a provider, and the hooks in the workers.
type rig struct {
	t        *testing.T
	servers  []*natsd
	proxy    *proxy // nil in a cluster
	nc       *nats.Conn
	js       jetstream.JetStream
	hooks    *hooks
	provider *llmtest.Provider
	log      *callLog
	lease    time.Duration // 0 means the real one

	mu      sync.Mutex // guards the rest
	holds   map[string]*hold
	workers map[string]*exec.Cmd
}

// newRig starts servers, one or a cluster of three, with little room to store.
func newRig(t *testing.T, servers int, script llmtest.Script) *rig {
	t.Helper()
	return newRigWith(t, servers, smallStore, script)
}

func newRigWith(t *testing.T, servers, store int, script llmtest.Script) *rig {
	t.Helper()
	r := &rig{
		t: t, servers: newServers(t, servers, store), hooks: newHooks(t), lease: shortLease,
		holds: make(map[string]*hold), workers: make(map[string]*exec.Cmd), log: newCallLog(t),
	}
	var urls []string
	for _, s := range r.servers {
		urls = append(urls, url(testUser, s.addr))
	}
	if servers == 1 {
		r.proxy = newProxy(t, r.servers[0].addr)
	}
	var err error
	r.nc, err = nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	require.NoError(t, err)
	t.Cleanup(r.nc.Close)
	r.js, err = jetstream.New(r.nc)
	require.NoError(t, err)
	if script == nil {
		script = plain
	}
	r.provider = llmtest.NewWith(t, llmtest.Config{ForgetCalls: true, OnEnd: r.log.ended, Script: func(c llmtest.Call) llmtest.Reply {
		reply := script(c)
		if h := r.during(c); h != nil {
			reply.Until = h.released
		}
		r.log.begun(c, reply)
		return reply
	}})
	t.Cleanup(func() {
		for _, w := range r.workers {
			_ = w.Process.Kill()
			_ = w.Wait()
		}
	})
	return r
}

// idOf is the job a call is for.
func idOf(c llmtest.Call) string { return c.Header.Get("X-Client-Request-Id") }

// plain answers, but for the jobs that are to fail.
func plain(c llmtest.Call) llmtest.Reply {
	if strings.HasPrefix(idOf(c), "fail") {
		return llmtest.Fail(400, "no")
	}
	return llmtest.Reply{}
}

// during is the hold of a call, nil for none.
func (r *rig) during(c llmtest.Call) *hold {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.holds[idOf(c)]
	if h == nil {
		return nil
	}
	delete(r.holds, idOf(c))
	close(h.reached)
	return h
}

// hold holds a job at a point of a worker's, once.
func (r *rig) hold(worker, point, id string) *hold {
	if point != pointDuring {
		return r.hooks.hold(worker, point, id)
	}
	h := &hold{reached: make(chan struct{}), released: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds[id] = h
	return h
}

// addrs is where the workers connect.
func (r *rig) addrs() string {
	if r.proxy != nil {
		return url(workerUser, r.proxy.addr)
	}
	var urls []string
	for _, s := range r.servers {
		urls = append(urls, url(workerUser, s.addr))
	}
	return strings.Join(urls, ",")
}

// work starts a worker process.
func (r *rig) work(name string, vars ...string) *exec.Cmd {
	r.t.Helper()
	bin, err := faulty()
	require.NoError(r.t, err)
	cmd := exec.CommandContext(context.WithoutCancel(r.t.Context()), bin)
	cmd.Dir = r.t.TempDir()
	logs, err := os.Create(filepath.Join(cmd.Dir, "log"))
	require.NoError(r.t, err)
	cmd.Stderr = logs
	cmd.Env = append([]string{
		"HOME=" + cmd.Dir, "NATS_URL=" + r.addrs(), "WORKER_NAME=" + name, "UNDERSTUDY_FAULTS=" + r.hooks.addr,
		"VLLM_BASE_URL=" + r.provider.URL(), "VLLM_TIMEOUT=60", "WORKER_HTTP_ADDR=", "WORKER_CONCURRENCY=8",
		"WORKER_REPLICAS=" + strconv.Itoa(len(r.servers)), "WORKER_SHUTDOWN_GRACE=1",
		"FALLBACK_BASE_DELAY=0.05", "FALLBACK_MAX_DELAY=0.2", "WORKER_LOG_LEVEL=debug", "WORKER_LOG_FORMAT=json",
	}, vars...)
	if r.lease > 0 {
		cmd.Env = append(cmd.Env, "UNDERSTUDY_LEASE="+r.lease.String())
	}
	require.NoError(r.t, cmd.Start())
	require.NoError(r.t, logs.Close())
	r.mu.Lock()
	r.workers[name] = cmd
	r.mu.Unlock()
	r.t.Cleanup(func() {
		if r.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(cmd.Dir, "log"))
			r.t.Logf("log of %s:\n%s", name, tail(text))
		}
	})
	return cmd
}

// tail is the end of a log.
func tail(text []byte) []byte {
	const most = 6000
	if len(text) > most {
		text = text[len(text)-most:]
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text
}

// end stops a worker in order.
func (r *rig) end(cmd *exec.Cmd) {
	r.t.Helper()
	require.NoError(r.t, cmd.Process.Signal(os.Interrupt))
	require.NoError(r.t, cmd.Wait())
}

// await waits until cond is true; it is an error of the test when it never is.
func (r *rig) await(what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !cond(); pause(20 * time.Millisecond) {
		require.True(r.t, time.Now().Before(end), what)
	}
}

// pause waits; only a test that breaks things may.
func pause(d time.Duration) { <-time.After(d) }

// state is the state of a stream; zero while it cannot be read.
func (r *rig) state(stream string) jetstream.StreamState {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Second)
	defer cancel()
	s, err := r.js.Stream(ctx, stream)
	if err != nil {
		return jetstream.StreamState{}
	}
	return s.CachedInfo().State
}

// ready waits until the worker has made the streams and asks for jobs.
func (r *rig) ready(name string) {
	r.t.Helper()
	r.await(name+" is ready", func() bool { return r.hooks.count(name, pointPull) > 0 })
}

// errUnsure says that a publish may or may not have been stored.
var errUnsure = errors.New("whether the job was stored is not known")

// publish stores a job.
func (r *rig) publish(id string) error {
	return r.put(id, `{"model":"m","messages":[{"role":"user","content":"hello"}]}`)
}

// put stores a job with that payload. An id is published once: after an error
// nobody knows whether it was stored.
func (r *rig) put(id, payload string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	if _, err := r.js.Publish(ctx, "llm.jobs.default."+id, []byte(payload), jetstream.WithRetryAttempts(0)); err != nil {
		return errors.Join(errUnsure, err)
	}
	return nil
}

// finished waits until n jobs are done and have left the queue.
func (r *rig) finished(n int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d jobs are done", n), func() bool {
		return r.state("LLM_RESULTS").LastSeq >= uint64(n) && r.state("LLM_JOBS").Msgs == 0
	})
}

// stopAll ends the workers, so that their last events are stored.
func (r *rig) stopAll() {
	r.t.Helper()
	for name, w := range r.workers {
		if w.ProcessState == nil {
			r.end(w)
		}
		delete(r.workers, name)
	}
}

// evidence reads what the run left behind.
func (r *rig) evidence() *soak.Evidence {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	require.NoError(r.t, r.provider.Wait(ctx, func(s llmtest.Stats) bool { return s.InFlight == 0 }))
	e := &soak.Evidence{Accepted: r.state("LLM_JOBS").LastSeq, ResultsEnd: r.state("LLM_RESULTS").LastSeq}
	for stream, into := range map[string]*[]soak.Message{
		"LLM_RESULTS": &e.Results, "LLM_EVENTS": &e.Events, "LLM_DEAD": &e.Dead,
	} {
		*into = r.messages(ctx, stream)
	}
	for seq := range e.Accepted { // few, if any: a second consumer may not read a work queue
		if r.state("LLM_JOBS").Msgs == 0 {
			break
		}
		s, err := r.js.Stream(ctx, "LLM_JOBS")
		require.NoError(r.t, err)
		if m, err := s.GetMsg(ctx, seq+1); err == nil {
			e.Jobs = append(e.Jobs, soak.Message{Subject: m.Subject, Seq: m.Sequence, Time: m.Time, Data: m.Data})
		}
	}
	e.Calls = r.log.read()
	return e
}

// messages reads a stream whole.
func (r *rig) messages(ctx context.Context, stream string) []soak.Message {
	r.t.Helper()
	s, err := r.js.Stream(ctx, stream)
	require.NoError(r.t, err)
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	var c jetstream.Consumer
	r.await(stream+" can be read", func() bool {
		try, cancel := context.WithTimeout(ctx, 5*time.Second) // a cluster that elects a leader forgets requests
		defer cancel()
		c, err = r.js.OrderedConsumer(try, stream, jetstream.OrderedConsumerConfig{})
		return err == nil
	})
	it, err := c.Messages()
	require.NoError(r.t, err)
	defer it.Stop()
	var all []soak.Message
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		require.NoError(r.t, err, stream)
		meta, err := m.Metadata()
		require.NoError(r.t, err)
		seq, _ := strconv.ParseUint(m.Headers().Get(job.HeaderJobSeq), 10, 64)
		all = append(all, soak.Message{Subject: m.Subject(), Seq: meta.Sequence.Stream, Time: meta.Timestamp, JobSeq: seq, Data: m.Data()})
		if meta.NumPending == 0 {
			return all
		}
	}
}

// check stops the workers and judges what is left of the run.
func (r *rig) check() *soak.Report {
	r.t.Helper()
	r.stopAll()
	report := soak.Check(r.evidence())
	for _, f := range report.Findings {
		r.t.Error(f)
	}
	return report
}

// callLog is the provider's own log, one JSON line for each call.
type callLog struct {
	t    *testing.T
	path string

	mu    sync.Mutex // guards the rest
	file  *os.File
	whole map[int]bool // the calls that get a good answer
}

func newCallLog(t *testing.T) *callLog {
	t.Helper()
	l := &callLog{t: t, path: filepath.Join(t.TempDir(), "calls.jsonl"), whole: make(map[int]bool)}
	var err error
	l.file, err = os.Create(l.path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.file.Close() })
	return l
}

// begun notes what a call is to get.
func (l *callLog) begun(c llmtest.Call, r llmtest.Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole[c.N] = r.Status == 0 && r.Fault == llmtest.NoFault && r.Stream.End == llmtest.EndDone
}

// ended writes the line of a call that is over.
func (l *callLog) ended(c llmtest.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, err := json.Marshal(soak.Call{
		Time: c.Time, Job: idOf(c), Provider: "p", Status: c.Status, Aborted: c.Aborted, Whole: l.whole[c.N],
	})
	delete(l.whole, c.N)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		l.t.Errorf("call log: %v", err)
	}
}

func (l *callLog) read() []soak.Call {
	l.t.Helper()
	f, err := os.Open(l.path)
	require.NoError(l.t, err)
	defer f.Close()
	calls, err := soak.ReadCalls(f)
	require.NoError(l.t, err)
	return calls
}
