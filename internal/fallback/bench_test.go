package fallback_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/limit"
)

// instant is a backend that answers at once, or when it is let.
type instant struct {
	name   string
	answer *backend.Response
	enter  func() // returns when it may answer; nil: at once
}

func (b *instant) Name() string { return b.name }

func (b *instant) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("a-model")
	if b.enter != nil {
		b.enter()
	}
	return b.answer, nil
}

// course is an engine with a job to run again and again.
type course struct {
	engine   *fallback.Engine
	job      job.Job
	task     fallback.Task
	deadline time.Time
}

// newCourse makes an engine with so many backends, wrapped as asked for, and so
// many routes, the last of which the job names.
func newCourse(tb testing.TB, backends, routes int, wrap func(backend.Backend) backend.Backend, enter func()) *course {
	tb.Helper()
	cfg := fallback.Config{}
	answer := &backend.Response{
		Status: 200, Model: "a-model", Body: []byte(`{}`), Usage: &job.Usage{InputTokens: 10, OutputTokens: 20},
	}
	for i := range backends {
		cfg.Backends = append(cfg.Backends, wrap(&instant{fmt.Sprintf("b%d", i), answer, enter}))
	}
	c := &course{job: job.Job{Model: "auto"}}
	for i := range routes {
		c.job.Route = fmt.Sprintf("route-%d", i)
		cfg.Routes = append(cfg.Routes, fallback.Route{Name: c.job.Route, Policy: fallback.DefaultPolicy()})
	}
	var err error
	c.engine, err = fallback.New(cfg)
	require.NoError(tb, err)
	body := `{"messages":[{"role":"user","content":"` + strings.Repeat("why is the sky blue ", 50) + `"}]}`
	c.task = fallback.Task{
		Observer: deaf{},
		Request:  backend.Request{JobID: "batch.row-17", URL: job.URLChat, Body: []byte(body), Model: "auto"},
	}
	return c
}

// run plans and runs the job once.
func (c *course) run(ctx context.Context) error {
	plan, err := c.engine.Plan(&c.job)
	if err != nil {
		return err
	}
	t := c.task
	t.Plan, t.Deadline = plan, c.deadline
	if out := c.engine.Run(ctx, t); out.Err != nil {
		return out.Err
	}
	return nil
}

// bare leaves a backend as it is.
func bare(b backend.Backend) backend.Backend { return b }

// fronted is a backend behind its breaker and its limits, as in a worker.
func fronted(b backend.Backend) backend.Backend {
	guard, err := breaker.New(b, breaker.Config{}, func(breaker.Change) {})
	if err != nil {
		panic(err)
	}
	limiter, err := limit.New(guard, limit.Config{Concurrency: 1_000_000})
	if err != nil {
		panic(err)
	}
	return limiter
}

// BenchmarkRun is what a job costs beside its call.
func BenchmarkRun(b *testing.B) {
	for _, bb := range []struct {
		name             string
		backends, routes int
		wrap             func(backend.Backend) backend.Backend
		budget           time.Duration
	}{
		{name: "1 backend", backends: 1, wrap: bare},
		{name: "1 backend, deadline", backends: 1, wrap: bare, budget: time.Hour},
		{name: "3 backends", backends: 3, wrap: bare},
		{name: "3 backends, guarded", backends: 3, wrap: fronted},
		{name: "100 backends", backends: 100, wrap: bare},
		{name: "100 backends, guarded", backends: 100, wrap: fronted},
		{name: "3 backends, 1000 routes", backends: 3, routes: 1000, wrap: bare},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := newCourse(b, bb.backends, bb.routes, bb.wrap, nil)
			if bb.budget > 0 {
				c.deadline = time.Now().Add(bb.budget)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := c.run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStack is the memory that a job takes while it waits for its answer.
func BenchmarkStack(b *testing.B) {
	const jobs = 5000
	for b.Loop() {
		var waiting, done sync.WaitGroup
		waiting.Add(jobs)
		answer := make(chan struct{})
		c := newCourse(b, 3, 0, fronted, func() {
			waiting.Done()
			<-answer
		})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range jobs {
			done.Go(func() { _ = c.run(b.Context()) })
		}
		waiting.Wait()
		runtime.ReadMemStats(&after)
		close(answer)
		done.Wait()
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/jobs, "stack-B/job")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/jobs, "heap-B/job")
	}
}
