package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// stall is how long a run may go on without a result.
const stall = time.Minute

// sample is what one run of one side came to. What is not known on this system
// is 0.
type sample struct {
	Jobs        int     `json:"jobs"`
	Seconds     float64 `json:"seconds"`
	JobsPerSec  float64 `json:"jobs_per_second"`
	CPUMicros   float64 `json:"cpu_us_per_job"`
	ServerCPU   float64 `json:"server_cpu_us_per_job"`
	ProviderCPU float64 `json:"provider_cpu_us_per_job"`
	RSSBytes    float64 `json:"rss_max_bytes"`
	AddedP50    float64 `json:"added_p50_ms,omitempty"`
	AddedP99    float64 `json:"added_p99_ms,omitempty"`
	Redelivered float64 `json:"redelivered"`
}

// String tells of the run in short.
func (s sample) String() string {
	return fmt.Sprintf("%6d jobs in %5.2f s, %6.0f/s, %5.0f us of CPU each, %4.0f MB", s.Jobs, s.Seconds, s.JobsPerSec, s.CPUMicros, s.RSSBytes/1e6)
}

// load is what a run is asked to do. The zero value of a field is the default.
type load struct {
	jobs, slots int
	delay       time.Duration // the provider's
	closed      bool          // every result lets the next job be published, window at a time
	burst       bool          // only the last result of a window does, and then all of the next
	window      int           // slots of all workers unless set
	queued      int           // published before, where not closed; jobs unless set
	size        int           // of a prompt; promptSize unless set
	workers     int           // processes that share the queue; 1 unless set
	backends    int           // of the chain; the preset vllm unless set
	routes      int           // named ones, which the jobs name in turn
}

// atOnce is how many jobs are published before a result is awaited.
func (l load) atOnce() int {
	if l.window > 0 {
		return l.window
	}
	return l.slots * max(l.workers, 1)
}

// body is the payload of the job i.
func (l load) body() func(i int) []byte {
	size := l.size
	if size == 0 {
		size = promptSize
	}
	body := prompt(size)
	if l.routes == 0 {
		return func(int) []byte { return body }
	}
	return func(i int) []byte { return fmt.Appendf(nil, `{"route":"r%d","body":%s}`, i%l.routes, body) }
}

// hearing hears of every result of a run.
type hearing struct {
	want int
	next func(i int) // publishes a job; nil when all are there
	many int         // jobs are published together, when those before are done; 0 means one for each that is done
	done chan error  // told once, when all are there or one is wrong

	mu    sync.Mutex // guards the rest
	sent  []time.Time
	added []time.Duration
	count int
	last  time.Time
}

// receive takes a result.
func (r *hearing) receive(m *nats.Msg) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count >= r.want {
		return // told already
	}
	if err := r.note(m, now); err != nil {
		r.count = r.want
		r.done <- err
		return
	}
	r.last = now
	if r.count++; r.count == r.want {
		r.done <- nil
		return
	}
	switch {
	case r.next == nil:
	case r.many == 0:
		r.publish()
	case r.count == len(r.sent):
		for range r.many {
			r.publish()
		}
	}
}

// succeeded returns an error for any result but that of a job that succeeded.
func succeeded(m *nats.Msg) error {
	if !bytes.Contains(m.Data, []byte(`"status":"`+statusSucceeded+`"`)) {
		return fmt.Errorf("a job did not succeed: %s", m.Data[:min(len(m.Data), tailSize)])
	}
	return nil
}

func (r *hearing) note(m *nats.Msg, now time.Time) error {
	if err := succeeded(m); err != nil {
		return err
	}
	if r.next == nil {
		return nil
	}
	i, err := strconv.Atoi(m.Subject[len(donePrefix):])
	if err != nil || i >= len(r.sent) {
		return fmt.Errorf("a result on %s, which nobody asked for", m.Subject)
	}
	took, err := tookOf(m.Data)
	if err != nil {
		return err
	}
	r.added = append(r.added, now.Sub(r.sent[i])-took)
	return nil
}

// publish publishes the next job, unless there are enough. The lock is held.
func (r *hearing) publish() {
	if i := len(r.sent); i < r.want {
		r.sent = append(r.sent, time.Now())
		r.next(i)
	}
}

// progress is how many results there are, and when the last one came.
func (r *hearing) progress() (int, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, r.last
}

// wait waits until all results are there.
func (r *hearing) wait(ctx context.Context, all fleet) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen, at := 0, time.Now()
	for {
		select {
		case err := <-r.done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := all.alive(); err != nil {
			return err
		}
		switch n, _ := r.progress(); {
		case n > seen:
			seen, at = n, time.Now()
		case time.Since(at) > stall:
			return all[0].failure(fmt.Errorf("no result for %s, after %d of %d", stall, n, r.want))
		}
	}
}
