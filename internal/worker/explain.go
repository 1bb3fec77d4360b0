package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/backend/openai/recorded"
	"understudy/internal/backend/rules"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// Assumption says how calls end that are not made. The zero value is a success.
type Assumption struct {
	// Class is the class of the failure; empty for none. A timeout takes as long
	// as the backend may.
	Class backend.Class
	// Answer is what the provider sends, which is then classified as any answer;
	// nil for nothing.
	Answer *recorded.Answer
	// Takes is how long the call takes; 0 is what the class implies.
	Takes time.Duration
}

// Assumptions say how the calls of a job end. The nth call of a backend in Of
// ends as the nth there, or as the last; of the other calls the nth ends as the
// nth in Calls, and further ones as Rest.
type Assumptions struct {
	Calls []Assumption
	Of    map[string][]Assumption
	Rest  Assumption
}

// Explained is the path a job would take.
type Explained struct {
	fallback.Explanation
	// Job is the job as decoded, Plan what its route came to.
	Job  *job.Job
	Plan *fallback.Plan
}

// Explain says which path a job would take on a worker of this configuration,
// without a call and without NATS. Only the rules engine is really asked, as it
// costs nothing. The error is a *[job.FieldError] where the job is at fault.
func Explain(ctx context.Context, cfg Config, queue, id string, payload []byte, as Assumptions) (*Explained, error) {
	cfg = cfg.withDefaults()
	subjects, err := job.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("WORKER_SUBJECT_PREFIX: %w", err)
	}
	p := &pretence{as: as, backends: make(map[string]*pretended)}
	engine, err := p.engine(cfg)
	if err != nil {
		return nil, err
	}
	x := new(Explained)
	if x.Job, err = job.NewDecoder(subjects, cfg.ReplyAllow).Decode(queue, id, payload, nil); err != nil {
		return nil, err
	}
	if x.Plan, err = engine.Plan(x.Job); err != nil {
		return nil, err
	}
	p.request = backend.Request{JobID: id, URL: x.Job.URL, Body: x.Job.Body, Model: x.Job.Model, Stream: x.Job.Stream}
	t := fallback.Task{Plan: x.Plan, Request: p.request, Deadline: x.Job.Deadline, Observer: silent{}}
	if end := time.Now().Add(x.Plan.Budget); x.Plan.Budget > 0 && (t.Deadline.IsZero() || end.Before(t.Deadline)) {
		t.Deadline = end
	}
	if at := x.Job.NotBefore; !at.IsZero() && !x.Job.Deadline.IsZero() && !at.Before(x.Job.Deadline) {
		x.Outcome.Err = &backend.Error{Class: backend.Expired, Message: "not_before is not before the deadline"}
		return x, nil
	}
	x.Explanation = engine.Explain(ctx, t, func(name string, n int) fallback.Answer { return p.answer(ctx, name, n) })
	return x, errors.Join(p.problems...)
}

// silent is a fallback.Observer.
type silent struct{}

// Started implements fallback.Observer.
func (silent) Started(job.Attempt) func() { return nil }

// Ended implements fallback.Observer.
func (silent) Ended(job.Attempt) {}

// pretence answers for backends that are not called.
type pretence struct {
	as       Assumptions
	request  backend.Request
	backends map[string]*pretended
	others   int // calls so far of backends without assumptions of their own
	problems []error
}

// pretended is one of them.
type pretended struct {
	cfg      Backend
	rules    *rules.Engine
	failures int // counted, in a row
}

// Name implements backend.Backend.
func (b *pretended) Name() string { return b.cfg.Name }

// Degraded implements backend.Degrader.
func (b *pretended) Degraded() bool { return b.rules != nil }

// Complete implements backend.Backend. It is never called.
func (b *pretended) Complete(context.Context, *backend.Request) (*backend.Response, error) {
	return nil, &backend.Error{Class: backend.CircuitOpen, Backend: b.cfg.Name}
}

// engine builds an engine over backends that are not called.
func (p *pretence) engine(cfg Config) (*fallback.Engine, error) {
	list, retries := make([]backend.Backend, 0, len(cfg.Backends)), make(map[string]int)
	for _, b := range cfg.Backends {
		one := &pretended{cfg: b}
		if b.Kind == KindRules {
			set, err := rules.Load(b.RulesFile)
			if err != nil {
				return nil, fmt.Errorf("backend %s: %w", b.Name, err)
			}
			one.rules = rules.New(b.Name, set)
		}
		p.backends[b.Name] = one
		list = append(list, one)
		retries[b.Name] = b.Retries
	}
	return fallback.New(fallback.Config{Backends: list, Routes: cfg.Routes, Retries: retries})
}

// answer is how the nth call of a backend ends.
func (p *pretence) answer(ctx context.Context, name string, n int) fallback.Answer {
	b := p.backends[name]
	own, given := p.as.Of[name]
	var a Assumption
	switch {
	case given && len(own) > 0:
		a = own[min(n, len(own))-1]
	case b.rules != nil:
		return p.ask(ctx, b)
	case p.others < len(p.as.Calls):
		a = p.as.Calls[p.others]
		p.others++
	default:
		a = p.as.Rest
	}
	answer := fallback.Answer{Model: b.model(p.request.Model), Takes: a.Takes}
	switch {
	case a.Answer != nil:
		answer.Err = p.play(ctx, b, a.Answer)
	case a.Class == backend.Timeout:
		limit := b.patience(p.request.URL)
		answer.Err = &backend.Error{Class: a.Class, Backend: name, Message: fmt.Sprintf("no answer in %s", limit)}
		if a.Takes == 0 {
			answer.Takes = limit
		}
	case a.Class != "":
		answer.Err = &backend.Error{Class: a.Class, Backend: name, Message: "assumed"}
	}
	answer.Refuses = b.opens(answer.Err)
	return answer
}

// opens is for how long the backend's breaker opens after a call.
func (b *pretended) opens(err *backend.Error) time.Duration {
	cfg := b.cfg.Breaker
	cooldown, longest := cmp.Or(cfg.Cooldown, breaker.DefaultCooldown), cmp.Or(cfg.MaxCooldown, breaker.DefaultMaxCooldown)
	if err == nil {
		b.failures = 0
		return 0
	}
	switch err.Class.Effect() {
	case backend.Count:
		if b.failures++; b.failures >= cmp.Or(cfg.Failures, breaker.DefaultFailures) {
			return cooldown
		}
		return 0
	case backend.Trip:
		return cmp.Or(min(err.RetryAfter, longest), cooldown)
	case backend.Cool:
		return cmp.Or(min(err.RetryAfter, longest), breaker.FirstCool)
	case backend.Ignore:
	}
	return 0
}

// ask asks the rules engine.
func (p *pretence) ask(ctx context.Context, b *pretended) fallback.Answer {
	resp, err := b.rules.Complete(ctx, &p.request)
	if err != nil {
		return fallback.Answer{Err: backend.AsError(err, b.cfg.Name)}
	}
	return fallback.Answer{Model: resp.Model}
}

// model is the model that a call would ask for.
func (b *pretended) model(asked string) string {
	if actual, ok := b.cfg.OpenAI.Models[asked]; ok {
		return actual
	}
	if b.cfg.OpenAI.Model != "" {
		return b.cfg.OpenAI.Model
	}
	return asked
}

// patience is how long a backend may take to say something.
func (b *pretended) patience(url string) time.Duration {
	c := b.cfg.OpenAI
	if c.FirstTokenTimeout > 0 && url != job.URLEmbeddings {
		return c.FirstTokenTimeout
	}
	if c.Timeout > 0 {
		return c.Timeout
	}
	return openai.DefaultTimeout
}

// play lets the backend's own client read an answer, over a connection in memory.
func (p *pretence) play(ctx context.Context, b *pretended, a *recorded.Answer) *backend.Error {
	stage := newStage(a)
	defer stage.close()
	cfg := b.cfg.OpenAI
	cfg.Name, cfg.Kind, cfg.BaseURL, cfg.APIKey, cfg.DialContext = b.cfg.Name, b.cfg.Kind, "http://"+memoryHost, "", stage.dial
	client, err := openai.New(cfg)
	if err != nil {
		p.problems = append(p.problems, err)
		return &backend.Error{Class: backend.Connection, Backend: b.cfg.Name}
	}
	defer client.Close()
	if _, err = client.Complete(ctx, &p.request); err != nil {
		return backend.AsError(err, b.cfg.Name)
	}
	return nil
}

// memoryHost is the host of a provider that is not there. Loopback addresses are
// never asked for through a proxy.
const memoryHost = "127.0.0.1:1"

// stage is an HTTP server in memory that gives one answer.
type stage struct {
	server *http.Server
	conns  chan net.Conn
	closed chan struct{}
	done   chan struct{}
}

// newStage starts a server; close stops it and awaits its end.
func newStage(a *recorded.Answer) *stage {
	s := &stage{conns: make(chan net.Conn), closed: make(chan struct{}), done: make(chan struct{})}
	s.server = &http.Server{ReadHeaderTimeout: closeTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range a.Headers {
			w.Header().Set(name, value)
		}
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", a.ContentType())
		}
		w.WriteHeader(a.Status)
		_, _ = w.Write([]byte(a.Body))
		if a.Cut != nil {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})}
	go func() { // ended by close, which waits for it
		defer close(s.done)
		_ = s.server.Serve(s) // always an error: close is the only way out
	}()
	return s
}

func (s *stage) close() {
	close(s.closed)
	_ = s.server.Close()
	<-s.done
}

// dial connects to the server, whatever the address.
func (s *stage) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case s.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (s *stage) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *stage) Close() error { return nil }

// Addr implements net.Listener.
func (s *stage) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
