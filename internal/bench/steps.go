package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// steps is what the steps of a job take: of CPU, and of time.
type steps struct {
	Jobs   int        `json:"jobs"`
	Micros float64    `json:"cpu_us_per_job"`
	CPU    []stepCost `json:"cpu"`
	Walls  []wall     `json:"walls"`
}

// wall is how long each span of a job takes on one slot.
type wall struct {
	Side  string  `json:"side"`
	Spans []span  `json:"spans"`
	Sent  float64 `json:"messages_sent_per_job"`     // to the server
	Got   float64 `json:"messages_received_per_job"` // from it
}

// measureSteps takes the steps of a job apart.
func (r *report) measureSteps(ctx context.Context, s *stage, progress io.Writer) error {
	r.Steps = &steps{}
	if err := r.Steps.measureCPU(ctx, s); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(progress, "%-10s CPU of %d jobs, %.0f us each\n", partSteps, r.Steps.Jobs, r.Steps.Micros); err != nil {
		return err
	}
	for _, side := range []string{sideBare, sideWorker} {
		w, err := s.wall(ctx, side)
		if err != nil {
			return err
		}
		r.Steps.Walls = append(r.Steps.Walls, w)
		if _, err := fmt.Fprintf(progress, "%-10s time on one slot: %s %.0f us\n", partSteps, side, w.sum()); err != nil {
			return err
		}
	}
	return nil
}

// profilePeriod is the time between two samples of CPU, in milliseconds.
const profilePeriod = 10

// measureCPU takes a CPU profile of the worker as a library under full load, and
// shares what a job costs among its steps.
func (st *steps) measureCPU(ctx context.Context, s *stage) error {
	library := *s
	library.o.worker, library.o.dir, library.o.only = "", filepath.Join(s.dir, "steps"), partSteps
	if err := os.MkdirAll(library.o.dir, 0o750); err != nil {
		return err
	}
	// Three times the jobs: a sample is 10 ms of work.
	got, err := library.run(ctx, sideWorker, load{jobs: 3 * s.o.jobs, slots: slots})
	if err != nil {
		return err
	}
	traces, err := readTraces(ctx, filepath.Join(library.o.dir, "worker-cpu.prof"))
	if err != nil {
		return err
	}
	st.Jobs, st.Micros = got.Jobs, got.CPUMicros
	st.CPU = attribute(traces, got.CPUMicros, profilePeriod)
	return nil
}

// wall runs a side on one slot, one job at a time, with a relay between it and the
// server and a provider in this process, so that one clock sees all moments.
func (s *stage) wall(ctx context.Context, side string) (w wall, err error) {
	w.Side = side
	if err := s.empty(ctx); err != nil {
		return w, err
	}
	before, err := s.consumer(ctx)
	if err != nil {
		return w, err
	}
	ctx, cancel := context.WithCancel(ctx)
	rec := newRecorder()
	relay, err := newRelay(ctx, s.url, rec.tell)
	if err != nil {
		cancel()
		return w, err
	}
	base, closeProvider, err := seenProvider(ctx, rec)
	if err != nil {
		cancel()
		return w, errors.Join(err, relay.listener.Close())
	}
	relayed := make(chan error, 1)
	go func() { relayed <- relay.run(ctx) }() // ends with ctx; waited for below
	defer func() {
		closeProvider()
		cancel()
		err = errors.Join(err, <-relayed)
	}()
	seen := *s
	seen.url, seen.base, seen.o.dir = relay.url(), base, ""
	all, err := seen.launch(ctx, side, load{slots: 1, delay: slotDelay, closed: true}, before.Delivered.Consumer)
	defer func() { all.kill() }()
	if err != nil {
		return w, err
	}
	jobs := max(s.o.jobs/20, 10)
	if err := s.oneByOne(ctx, rec, all, jobs); err != nil {
		return w, err
	}
	w.Spans = medians(rec.lives[jobs/10:]) // the first ones open connections
	w.Sent, w.Got = float64(rec.sent)/float64(jobs), float64(rec.got)/float64(jobs)
	return w, all.stop()
}

// oneByOne publishes jobs, each when the slot asks for it.
func (s *stage) oneByOne(ctx context.Context, rec *recorder, all fleet, jobs int) error {
	body := prompt(promptSize)
	for i := range jobs {
		rec.begin()
		if err := s.nc.Publish(jobsPrefix+strconv.Itoa(i), body); err != nil {
			return err
		}
		select {
		case <-rec.ended:
		case <-time.After(stall):
			return all[0].failure(fmt.Errorf("no end of a job for %s, after %d of %d", stall, i, jobs))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// seenProvider serves the provider in this process and marks when it has a call
// and when it answers. It returns its base URL and how to close it.
func seenProvider(ctx context.Context, rec *recorder) (base string, closeIt func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /after/{delay}/v1/chat/completions", func(rw http.ResponseWriter, r *http.Request) {
		rec.mark(called)
		if respond(rw, r) {
			rec.mark(answered)
		}
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { // ends when the server is closed, which closeIt waits for
		_ = srv.Serve(l) // it was closed
		close(done)
	}()
	return "http://" + l.Addr().String(), func() {
		_ = srv.Close() // nothing is left to answer
		<-done
	}, nil
}
