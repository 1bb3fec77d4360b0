package scenarios_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/limit"
	"understudy/internal/llmtest"
)

const (
	openrouter = "openrouter"
	vllm       = "vllm"
	third      = "third"

	hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`
)

// part is one backend to put on the stage.
type part struct {
	name    string
	script  llmtest.Script
	client  openai.Config
	breaker breaker.Config
	limit   limit.Config
	retries int
}

// presets are the parts of the two presets, with the timeouts they come with.
func presets(primary, secondary llmtest.Script) []part {
	return []part{
		{name: openrouter, script: primary, client: openai.Config{Timeout: 5 * time.Second}},
		{name: vllm, script: secondary, client: openai.Config{Timeout: 10 * time.Second}},
	}
}

// steady is the default policy without jitter.
func steady() fallback.Policy {
	p := fallback.DefaultPolicy()
	p.Jitter = false
	return p
}

// place is a backend on the stage: the provider at one end of the network, and
// everything that stands before it at the other.
type place struct {
	name     string
	provider *llmtest.Provider
	pipe     *llmtest.Pipe // nil over TCP
	client   *openai.Client
	guard    *breaker.Guard

	mu      sync.Mutex // guards all below
	changes []change
	conns   map[http.ConnState]int // how many connections have come to a state
}

// change is a change of a breaker, and when it was.
type change struct {
	breaker.Change
	at time.Time
}

// open is how many connections the server has not seen closed.
func (p *place) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[http.StateNew] - p.conns[http.StateClosed] - p.conns[http.StateHijacked]
}

// changed returns the changes of the breaker so far.
func (p *place) changed() []change {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.changes)
}

// stage is an engine over backends over providers.
type stage struct {
	t      *testing.T
	began  time.Time
	places []*place
	engine *fallback.Engine
}

// network says over what the stage's clients and servers talk.
type network func(t *testing.T, p *place) (net.Listener, openai.Config)

// inMemory is a network without time. It must be used inside a bubble.
func inMemory(_ *testing.T, p *place) (net.Listener, openai.Config) {
	p.pipe = llmtest.NewPipe()
	return p.pipe, openai.Config{BaseURL: "http://localhost/v1", DialContext: p.pipe.DialContext}
}

// overTCP is the loopback interface.
func overTCP(t *testing.T, _ *place) (net.Listener, openai.Config) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln, openai.Config{BaseURL: "http://" + ln.Addr().String() + "/v1"}
}

// newStage builds the stack for one route, limiters outermost:
//
//	engine -> limiter (waits) -> breaker (admits) -> client -> network -> provider
//
// The end of the test takes it down, and checks that nothing is left of it.
func newStage(t *testing.T, over network, policy fallback.Policy, parts ...part) *stage {
	t.Helper()
	return newStageHolding(t, 0, over, policy, parts...)
}

// newStageHolding is newStage with the time for which jobs pause in their slots.
func newStageHolding(t *testing.T, hold time.Duration, over network, policy fallback.Policy, parts ...part) *stage {
	t.Helper()
	s := &stage{t: t, began: time.Now()}
	cfg := fallback.Config{
		Hold: hold, Routes: []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}}, Retries: map[string]int{},
	}
	for _, p := range parts {
		at, limited := s.place(over, p)
		s.places = append(s.places, at)
		cfg.Backends = append(cfg.Backends, limited)
		cfg.Retries[p.name] = p.retries
	}
	var err error
	s.engine, err = fallback.New(cfg)
	require.NoError(t, err)
	return s
}

// place builds one backend.
func (s *stage) place(over network, p part) (*place, backend.Backend) {
	at := &place{
		name: p.name, provider: llmtest.NewProvider(llmtest.Config{Name: p.name, Script: p.script}),
		conns: map[http.ConnState]int{},
	}
	ln, way := over(s.t, at)
	server := &http.Server{
		Handler: at.provider, ReadHeaderTimeout: time.Minute,
		ConnState: func(_ net.Conn, state http.ConnState) {
			at.mu.Lock()
			defer at.mu.Unlock()
			at.conns[state]++
		},
	}
	served := make(chan struct{})
	go func() { // ended by the cleanup, which waits for it
		defer close(served)
		_ = server.Serve(ln) // always ErrServerClosed
	}()

	p.client.Name, p.client.BaseURL, p.client.DialContext = p.name, way.BaseURL, way.DialContext
	var err error
	at.client, err = openai.New(p.client)
	require.NoError(s.t, err)
	at.guard, err = breaker.New(at.client, p.breaker, func(c breaker.Change) {
		at.mu.Lock()
		defer at.mu.Unlock()
		at.changes = append(at.changes, change{c, time.Now()})
	})
	require.NoError(s.t, err)
	limited, err := limit.New(at.guard, p.limit)
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		at.client.Close()
		at.provider.Close()
		require.NoError(s.t, server.Close())
		<-served
		stats := at.provider.Stats()
		require.Zero(s.t, stats.InFlight, "a call of %s has not ended", at.name)
		require.Equal(s.t, stats.Calls, stats.Ended)
	})
	return at, limited
}

// told is what became of one job.
type told struct {
	fallback.Outcome
	began, ended time.Time
	waits        []fallback.Wait
	started      int // as the observer heard
}

func (r told) took() time.Duration { return r.ended.Sub(r.began) }

// listener counts what it hears.
type listener struct {
	mu      sync.Mutex
	started int
}

// Started implements [fallback.Observer].
func (l *listener) Started(job.Attempt) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started++
	return nil
}

// Ended implements [fallback.Observer].
func (*listener) Ended(job.Attempt) {}

// question is a job to run.
type question struct {
	id    string
	body  string // hello when empty
	chunk func(int, []byte)
	// budget is the job's timeout_ms; 0 for none.
	budget time.Duration
	// release, if not nil, is called before the job waits outside its slot, and
	// take afterwards.
	release, take func()
}

// ask runs one job to its end. What a queue does with a job that is handed back,
// it does too: the job comes again at the moment it was told.
func (s *stage) ask(ctx context.Context, q question) told {
	if q.body == "" {
		q.body = hello
	}
	j := &job.Job{Queue: "default", ID: q.id, URL: job.URLChat, Body: []byte(q.body), Model: "m", Timeout: q.budget}
	plan, err := s.engine.Plan(j)
	if err != nil {
		panic(err) // the jobs of these tests are valid
	}
	heard := &listener{}
	t := fallback.Task{
		Plan: plan, Observer: heard, Chunk: q.chunk,
		Request: backend.Request{JobID: j.ID, URL: j.URL, Body: j.Body, Model: j.Model, Stream: q.chunk != nil},
	}
	r := told{began: time.Now()}
	if plan.Budget > 0 {
		t.Deadline = r.began.Add(plan.Budget)
	}
	for {
		r.Outcome = s.engine.Run(ctx, t)
		if r.Wait == nil {
			r.ended, r.started = time.Now(), heard.started
			return r
		}
		r.waits = append(r.waits, *r.Wait)
		t.Trail = r.Trail
		if q.release != nil {
			q.release()
		}
		<-time.After(time.Until(r.Wait.Until))
		if q.take != nil {
			q.take()
		}
	}
}

// every runs n jobs, one each interval from half an interval on, until all have
// ended, and returns them in the order of their beginning. Each begins up to 6 ms
// later than that, so that none does at the moment when another one ends.
func (s *stage) every(ctx context.Context, interval time.Duration, n int) []told {
	all := make([]told, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			<-time.After(time.Until(s.began.Add(interval/2 + time.Duration(i)*interval + time.Duration(i%7)*time.Millisecond)))
			all[i] = s.ask(ctx, question{id: fmt.Sprintf("job-%d", i+1)})
		})
	}
	running.Wait()
	return all
}

// at calls do when so much time has passed since the beginning.
func (s *stage) at(when time.Duration, do func()) {
	timer := time.AfterFunc(time.Until(s.began.Add(when)), do)
	s.t.Cleanup(func() { timer.Stop() })
}

// well answers after a second.
func well() llmtest.Script { return llmtest.Always(llmtest.Reply{Delay: time.Second}) }

// bad is a reply that comes after a fifth of a second.
func bad(r llmtest.Reply) llmtest.Reply {
	r.Delay = 200 * time.Millisecond
	return r
}
