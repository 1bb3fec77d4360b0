package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// clustered is a bundle over three servers, and what an independent checker
// needs: the provider's own call log.
type clustered struct {
	*bundle
	cluster  *natstest.Cluster
	provider *llmtest.Provider
}

func newClustered(t *testing.T, script llmtest.Script) *clustered {
	t.Helper()
	c := natstest.RunCluster(t, 3)
	nc := c.Conn(t)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	return &clustered{
		bundle:   &bundle{t: t, nc: nc, js: js, subjects: subjects, logs: new(buffer)},
		cluster:  c,
		provider: llmtest.New(t, script),
	}
}

// worker starts a worker that is configured for the cluster.
func (c *clustered) worker(name string, replicas int) running {
	c.t.Helper()
	cfg := c.config(model("vllm", c.provider))
	cfg.Name, cfg.Replicas, cfg.Concurrency, cfg.HTTPAddr = name, replicas, 8, "127.0.0.1:0"
	cfg.Connect = func(opts ...nats.Option) (*nats.Conn, error) { return nats.Connect(c.cluster.URL(), opts...) }
	return c.start(cfg)
}

// tryPublish makes one try to store a job.
func (c *clustered) tryPublish(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := c.js.Publish(ctx, c.subjects.Job("default", id), chat("job-"+id+"!"))
	return results.Refusal(err)
}

// mustPublish stores a job as a careful publisher does: with the same id until
// the stream has it. It returns how many tries failed.
func (c *clustered) mustPublish(ctx context.Context, id string) (failed int) {
	for ctx.Err() == nil {
		err := c.tryPublish(ctx, id)
		if err == nil || errors.Is(err, results.ErrInFlight) && c.known(ctx, id) {
			return failed
		}
		failed++
		sleep(ctx, 20*time.Millisecond)
	}
	return failed
}

// known reports whether a job that was refused because its id is in flight is
// there, or has a result: the write of an earlier try may be under way yet, and
// then it may still fail. It asks the leaders, for a replica may lag behind.
func (c *clustered) known(ctx context.Context, id string) bool {
	for stream, subject := range map[string]string{
		"LLM_JOBS": c.subjects.Job("default", id), "LLM_RESULTS": c.subjects.Result("default", id),
	} {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second) // no leader, no answer
		msg, err := c.nc.RequestWithContext(ask, "$JS.API.STREAM.MSG.GET."+stream, []byte(`{"last_by_subj":"`+subject+`"}`))
		cancel()
		if err == nil && strings.Contains(string(msg.Data), `"message":`) {
			return true
		}
	}
	return false
}

// state is the state of a stream; zero while nobody answers.
func (c *clustered) state(stream string) jetstream.StreamState {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return jetstream.StreamState{}
	}
	return s.CachedInfo().State
}

// ready asks a worker's /readyz.
func (c *clustered) ready(w running) bool {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://"+w.HTTPAddr()+"/readyz", nil)
	require.NoError(c.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)
	require.NoError(c.t, resp.Body.Close())
	return resp.StatusCode == http.StatusOK
}

// check compares the streams with the provider's call log: one result of each of
// the jobs 0 to n-1, every call told by it and none after it. It returns the
// results by worker, and the number of calls whose outcome a job never learned.
func (c *clustered) check(n int) (by map[string]int, unknown int) {
	c.t.Helper()
	c.eventually("every job has its result", func() bool { return c.state("LLM_RESULTS").Msgs >= uint64(n) })
	c.eventually("the queue is empty", func() bool {
		return c.state("LLM_RESULTS").Msgs >= uint64(n) && c.state("LLM_JOBS").Msgs == 0
	})
	state := c.state("LLM_RESULTS")
	require.EqualValues(c.t, n, state.Msgs, "results")
	require.EqualValues(c.t, n, state.LastSeq, "no job had a second result")
	require.Zero(c.t, c.state("LLM_DEAD").LastSeq, "no dead letter")

	calls := make(map[string][]llmtest.Call)
	for _, call := range c.provider.Calls() {
		_, rest, _ := strings.Cut(string(call.Body), "job-")
		id, _, _ := strings.Cut(rest, "!")
		calls[id] = append(calls[id], call)
	}
	by = make(map[string]int)
	for i := range n {
		id := clusterID(i)
		var msg *jetstream.RawStreamMsg
		c.eventually("a copy of the result of "+id, func() bool { // a replica may lag behind
			msg = c.last("LLM_RESULTS", c.subjects.Result("default", id))
			return msg != nil
		})
		r, err := job.DecodeResult(msg.Data)
		require.NoError(c.t, err)
		require.Equal(c.t, job.Succeeded, r.Status, id)
		by[r.Worker]++
		for _, a := range r.Attempts {
			if a.Outcome == job.OutcomeUnknown {
				unknown++
			}
		}
		require.NotEmpty(c.t, calls[id], id)
		require.LessOrEqual(c.t, len(calls[id]), len(r.Attempts), "every call of %s is in its trail", id)
		for _, call := range calls[id] {
			require.False(c.t, call.Time.After(msg.Time), "%s was called after its result", id)
		}
	}
	return by, unknown
}

func clusterID(i int) string { return fmt.Sprintf("c.%06d", i) }

// load publishes jobs, about a hundred a second, until it is stopped.
type load struct {
	c      *clustered
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the rest
	n        int
	failures int
}

func (c *clustered) load() *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{c: c, cancel: cancel}
	l.wg.Go(func() { // ends with ctx; stop waits
		for ctx.Err() == nil {
			failures := c.mustPublish(context.WithoutCancel(ctx), clusterID(l.count()))
			l.mu.Lock()
			l.n++
			l.failures += failures
			l.mu.Unlock()
			sleep(ctx, 10*time.Millisecond)
		}
	})
	c.t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// stop returns how many jobs were stored, and how many tries it took beyond.
func (l *load) stop() (n, failures int) {
	l.cancel()
	l.wg.Wait()
	return l.n, l.failures
}

// more waits until n more jobs have their result.
func (c *clustered) more(n int) {
	c.t.Helper()
	before := uint64(0)
	c.eventually("the results are counted", func() bool {
		before = c.state("LLM_RESULTS").Msgs
		return before > 0
	})
	c.eventually(fmt.Sprintf("%d more results", n), func() bool { return c.state("LLM_RESULTS").Msgs >= before+uint64(n) })
}

func TestAClusterLosesNothingThroughRestartsAndLostLeaders(t *testing.T) {
	t.Parallel()
	c := newClustered(t, llmtest.Always(llmtest.Reply{Delay: 30 * time.Millisecond}))
	first, second := c.worker("w-1", 3), c.worker("w-2", 3)
	l := c.load()
	c.more(20)
	begun := time.Now()
	for _, srv := range c.cluster.Servers { // a rolling restart
		srv.Restart(t)
		c.cluster.WaitHealthy(t)
		c.more(20)
	}
	t.Logf("rolling restart: %s, %d jobs so far", time.Since(begun), l.count())
	for _, stream := range []string{"LLM_JOBS", "LLM_RESULTS", "LLM_EVENTS", "LLM_DEAD"} {
		begun := time.Now()
		leader := c.cluster.StreamLeader(t, stream)
		leader.Stop(t)
		require.NotSame(t, leader, c.cluster.StreamLeader(t, stream))
		c.more(20) // without it
		leader.Start(t)
		c.cluster.WaitHealthy(t)
		t.Logf("leader of %s: %s, %d jobs so far", stream, time.Since(begun), l.count())
	}
	n, failures := l.stop()
	by, unknown := c.check(n)
	require.Positive(t, by["w-1"])
	require.Positive(t, by["w-2"])
	for _, w := range []running{first, second} {
		c.eventually("it is ready", func() bool { return c.ready(w) })
		require.NoError(t, w.stop())
	}
	t.Logf("%d jobs by %v, %d calls, %d of unknown outcome; %d tries to publish failed", n, by, c.provider.Stats().Calls, unknown, failures)
}

func TestAWorkerReportsOtherReplicasAndAltersNothing(t *testing.T) {
	t.Parallel()
	c := newClustered(t, llmtest.Echo())
	_, err := queue.Layout{Subjects: c.subjects, Replicas: 3}.Ensure(t.Context(), c.js, []string{"default"})
	require.NoError(t, err)
	streams := []string{"LLM_JOBS", "LLM_RESULTS", "LLM_EVENTS", "LLM_DEAD"}
	configs := func() map[string]jetstream.StreamConfig {
		all := make(map[string]jetstream.StreamConfig)
		for _, name := range streams {
			s, err := c.js.Stream(t.Context(), name)
			require.NoError(t, err)
			all[name] = s.CachedInfo().Config
		}
		return all
	}
	before := configs()
	c.worker("w-1", 1)
	for _, name := range streams {
		require.Contains(t, c.logs.String(), "object="+name+" setting=num_replicas have=3 want=1\n")
		require.Equal(t, 3, before[name].Replicas)
	}
	require.Equal(t, len(streams), strings.Count(c.logs.String(), "setting="), "nothing else differs")
	require.NoError(t, c.tryPublish(t.Context(), clusterID(0)))
	c.check(1)
	require.Equal(t, before, configs())
}

func TestAClusterWithoutAQuorumSaysSoAndLosesNothing(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	c := newClustered(t, func(call llmtest.Call) llmtest.Reply {
		return llmtest.Reply{Until: gate}
	})
	w := c.worker("w-1", 3)
	const n = 40
	for i := range n { // eight of them run
		require.NoError(t, c.tryPublish(t.Context(), clusterID(i)))
	}
	require.NoError(t, c.provider.Wait(t.Context(), func(s llmtest.Stats) bool { return s.Calls == 8 }))
	alone := c.cluster.StreamLeader(t, "LLM_JOBS")
	for _, srv := range c.cluster.Servers {
		if srv != alone {
			srv.Stop(t)
		}
	}
	c.eventually("the worker is connected to the one that is left", func() bool { return w.nc.ConnectedUrl() == alone.URL })
	c.eventually("so is the publisher", func() bool { return c.nc.ConnectedUrl() == alone.URL })
	close(gate) // the calls end, and cannot be committed

	begun := time.Now()
	err := c.tryPublish(t.Context(), clusterID(n))
	require.Error(t, err, "a job is not stored without a quorum")
	t.Logf("a publisher hears after %s: %v", time.Since(begun), err)
	c.eventually("the worker is not ready", func() bool { return !c.ready(w) })
	t.Logf("not ready after %s", time.Since(begun))
	require.Equal(t, 8, c.provider.Stats().Calls, "nothing is called whose end could not be stored")

	for _, srv := range c.cluster.Servers {
		if srv != alone {
			srv.Start(t)
		}
	}
	begun = time.Now()
	c.cluster.WaitHealthy(t)
	t.Logf("healthy after %s", time.Since(begun))
	c.mustPublish(t.Context(), clusterID(n))
	c.check(n + 1)
	t.Logf("all done after %s", time.Since(begun))
	require.Equal(t, n+1, c.provider.Stats().Calls, "no job was called twice")
	c.eventually("the worker is ready", func() bool { return c.ready(w) })
}

// With the numbers of the product, in real time: a worker that waits for jobs
// notices it by its pulls, one whose slots are taken by its pings.
func TestABlackHoleIsNoticed(t *testing.T) {
	t.Parallel()
	const most = 45 * time.Second
	for name, slots := range map[string]int{"by pulls": 4, "by pings": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			link := natstest.RunProxy(t, b.srv.URL)
			gate := make(chan struct{})
			p := llmtest.New(t, llmtest.Always(llmtest.Reply{Until: gate}))
			cfg := b.config(model("vllm", p))
			cfg.Concurrency = slots
			cfg.Backends[0].OpenAI.Timeout = 2 * most
			back := make(chan struct{}, 1)
			cfg.Connect = func(opts ...nats.Option) (*nats.Conn, error) {
				return nats.Connect(link.URL, append(opts, nats.ReconnectHandler(func(*nats.Conn) {
					select {
					case back <- struct{}{}:
					default: // once is enough
					}
				}))...)
			}
			b.start(cfg)
			b.publish("running", chat("hello"))
			require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.Calls == 1 }))
			link.Swallow()
			begun := time.Now()
			select {
			case <-back:
			case <-time.After(most):
				require.FailNow(t, "nobody noticed", b.logs.String())
			}
			t.Logf("noticed after %s", time.Since(begun))
			close(gate)
			require.Equal(t, job.Succeeded, b.result("running").Status)
			b.publish("after", chat("hello"))
			require.Equal(t, job.Succeeded, b.result("after").Status)
			t.Logf("the next job is done after %s", time.Since(begun))
			b.settled()
			require.Equal(t, 2, p.Stats().Calls)
		})
	}
}
