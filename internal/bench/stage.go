package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/queue"
)

// The names on the server, by the wire contract.
const (
	jobsStream      = "LLM_JOBS"
	consumerName    = "q-default"
	jobsPrefix      = "llm.jobs.default."
	resultsPrefix   = "llm.results.default."
	eventsPrefix    = "llm.events.default."
	donePrefix      = "llm.done.default."
	statusSucceeded = "succeeded"
)

// The sides that are compared.
const (
	sideBare     = "bare"
	sideBarePlus = "bare+" // with the worker's reads and events, see bareplus.go
	sideWorker   = "worker"
)

// The limits of waiting for a process.
const (
	readyTimeout = time.Minute
	readyPoll    = 5 * time.Millisecond
)

// stage is the server, the provider and the connection of the driver.
type stage struct {
	o        options
	dir      string
	self     string // this program
	server   *process
	provider *process
	url      string // of the server
	base     string // of the provider
	nc       *nats.Conn
	js       jetstream.JetStream
}

// newStage starts the server and the provider and makes the streams. It must be
// closed, also after an error.
func newStage(ctx context.Context, o options) (*stage, error) {
	s := &stage{o: o}
	var err error
	if s.dir, err = os.MkdirTemp("", "understudy-bench-"); err != nil {
		return s, err
	}
	if s.self, err = os.Executable(); err != nil {
		return s, err
	}
	if s.o.worker != "" {
		if s.o.worker, err = filepath.Abs(s.o.worker); err != nil {
			return s, err
		}
		if _, err := os.Stat(s.o.worker); err != nil {
			return s, fmt.Errorf("%w (`make build` builds it)", err)
		}
	}
	if s.o.dir != "" {
		if s.o.dir, err = filepath.Abs(s.o.dir); err != nil {
			return s, err
		}
		if err := os.MkdirAll(s.o.dir, 0o750); err != nil {
			return s, err
		}
	}
	args := []string{"child-server", "-dir", filepath.Join(s.dir, "server"), "-sync=" + strconv.FormatBool(o.sync)}
	if s.server, err = start(ctx, s.dir, "server", s.self, args, nil); err != nil {
		return s, err
	}
	if s.provider, err = start(ctx, s.dir, "provider", s.self, []string{"child-provider"}, nil); err != nil {
		return s, err
	}
	if s.url, err = s.server.line(); err != nil {
		return s, err
	}
	if s.base, err = s.provider.line(); err != nil {
		return s, err
	}
	return s, s.connect(ctx)
}

// connect connects the driver and makes the streams as the worker would.
func (s *stage) connect(ctx context.Context) error {
	var err error
	if s.nc, err = nats.Connect(s.url); err != nil {
		return err
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		return err
	}
	subjects, err := job.NewSubjects(job.DefaultPrefix)
	if err != nil {
		return err
	}
	_, err = queue.Layout{Subjects: subjects}.Ensure(ctx, s.js, []string{job.DefaultQueue})
	return err
}

// close stops what newStage started.
func (s *stage) close() error {
	if s.nc != nil {
		s.nc.Close()
	}
	var errs []error
	for _, p := range []*process{s.provider, s.server} {
		if p != nil {
			errs = append(errs, p.stop())
			p.kill()
		}
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// empty empties the streams.
func (s *stage) empty(ctx context.Context) error {
	for stream := range s.js.ListStreams(ctx).Info() {
		handle, err := s.js.Stream(ctx, stream.Config.Name)
		if err == nil {
			err = handle.Purge(ctx)
		}
		if err != nil {
			return fmt.Errorf("empty stream %s: %w", stream.Config.Name, err)
		}
	}
	return nil
}

// command returns the program of a side, its arguments and its environment.
func (s *stage) command(side string, l load) (path string, args, env []string) {
	base, n := after(s.base, l.delay), strconv.Itoa(l.slots)
	if side == sideWorker && s.o.worker != "" {
		env = []string{"NATS_URL=" + s.url, "WORKER_CONCURRENCY=" + n, "WORKER_HTTP_ADDR=127.0.0.1:0"}
		return s.o.worker, nil, append(env, backendsEnv(base, l)...)
	}
	args = []string{"-nats", s.url, "-provider", base, "-slots", n, "-profiles", s.o.dir}
	switch side {
	case sideWorker:
		args = append([]string{"child-worker"}, append(args, "-backends", strconv.Itoa(l.backends), "-routes", strconv.Itoa(l.routes))...)
		args = append(args, "-allocs="+strconv.FormatBool(s.o.only != partSteps))
	case sideBarePlus:
		args = append([]string{"child-bare", "-plus"}, args...)
	default:
		args = append([]string{"child-bare"}, args...)
	}
	return s.self, args, nil
}

// backendsEnv is the environment that sets backends and routes.
func backendsEnv(base string, l load) []string {
	if l.backends == 0 && l.routes == 0 {
		return []string{"VLLM_BASE_URL=" + base}
	}
	backends := names("b", max(l.backends, 1))
	env := []string{"BACKENDS=" + strings.Join(backends, ",")}
	for _, name := range backends {
		env = append(env, strings.ToUpper(name)+"_BASE_URL="+base)
	}
	if l.routes > 0 {
		env = append(env, "ROUTES="+strings.Join(names("r", l.routes), ","))
	}
	return env
}

// names are n names that begin alike.
func names(begin string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = begin + strconv.Itoa(i)
	}
	return all
}

// launch starts the processes of a side and waits until they ask for jobs, or,
// where there are some, one has taken one: what they do before is no part of the
// measurement. They must be killed, also after an error.
func (s *stage) launch(ctx context.Context, side string, l load, delivered uint64) (fleet, error) {
	path, args, env := s.command(side, l)
	var all fleet
	for i := range max(l.workers, 1) {
		name := side
		if i > 0 {
			name += "-" + strconv.Itoa(i+1)
		}
		p, err := start(ctx, s.dir, name, path, args, env)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		if err := all.alive(); err != nil {
			return all, err
		}
		info, err := s.consumer(ctx)
		switch {
		case err != nil:
			return all, all[0].failure(fmt.Errorf("%s does not ask for jobs: %w", side, err))
		case info.Delivered.Consumer > delivered, l.closed && info.NumWaiting >= len(all):
			return all, nil
		}
		sleep(ctx, readyPoll)
	}
}

// consumer reads the state of the consumer of the queue.
func (s *stage) consumer(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	c, err := s.js.Consumer(ctx, jobsStream, consumerName)
	if err != nil {
		return nil, err
	}
	return c.CachedInfo(), nil
}
