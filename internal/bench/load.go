package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
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

// load is what a run is asked to do.
type load struct {
	jobs, slots int
	delay       time.Duration // the provider's
	closed      bool          // every result lets the next job be published, slots at a time
}

// results hears of every result of a run.
type results struct {
	want int
	next func(i int) // publishes a job; nil when all are there
	done chan error  // told once, when all are there or one is wrong

	mu    sync.Mutex // guards the rest
	sent  []time.Time
	added []time.Duration
	count int
	last  time.Time
}

// receive takes a result.
func (r *results) receive(m *nats.Msg) {
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
	}
}

func (r *results) note(m *nats.Msg, now time.Time) error {
	if !bytes.Contains(m.Data, []byte(`"status":"`+statusSucceeded+`"`)) {
		return fmt.Errorf("a job did not succeed: %s", m.Data[:min(len(m.Data), tailSize)])
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
	r.publish()
	return nil
}

// publish publishes the next job, unless there are enough. The lock is held.
func (r *results) publish() {
	if i := len(r.sent); i < r.want {
		r.sent = append(r.sent, time.Now())
		r.next(i)
	}
}

// progress is how many results there are, and when the last one came.
func (r *results) progress() (int, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, r.last
}

// wait waits until all results are there.
func (r *results) wait(ctx context.Context, p *process) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen, at := 0, time.Now()
	for {
		select {
		case err := <-r.done:
			return err
		case <-p.ended:
			return p.failure(fmt.Errorf("%s ended by itself: %w", p.name, p.err))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		switch n, _ := r.progress(); {
		case n > seen:
			seen, at = n, time.Now()
		case time.Since(at) > stall:
			return p.failure(fmt.Errorf("no result for %s, after %d of %d", stall, n, r.want))
		}
	}
}

// run runs one side under a load.
func (s *stage) run(ctx context.Context, side string, l load) (got sample, err error) {
	if err := s.empty(ctx); err != nil {
		return got, err
	}
	before, err := s.consumer(ctx)
	if err != nil {
		return got, err
	}
	r := &results{want: l.jobs, done: make(chan error, 1)}
	if l.closed {
		body := prompt()
		r.next = func(i int) { _ = s.nc.Publish(jobsPrefix+strconv.Itoa(i), body) } // what is lost is missed, see wait
	} else if err := s.fill(ctx, l.jobs); err != nil {
		return got, err
	}
	sub, err := s.nc.Subscribe(donePrefix+">", r.receive)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, sub.Unsubscribe()) }()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return got, err
	}
	p, err := s.launch(ctx, side, l, before.Delivered.Consumer)
	if err != nil {
		return got, err
	}
	defer p.kill()
	if got, err = s.watch(ctx, p, r, l); err != nil {
		return got, err
	}
	after, err := s.consumer(ctx)
	if err != nil {
		return got, err
	}
	got.Redelivered = float64(after.Delivered.Consumer-before.Delivered.Consumer) - float64(l.jobs)
	return got, nil
}

// watch lets the side run, measures it and stops it.
func (s *stage) watch(ctx context.Context, p *process, r *results, l load) (sample, error) {
	cpu, server, provider := p.cpu(), s.server.cpu(), s.provider.cpu()
	begin := time.Now()
	if l.closed {
		r.mu.Lock()
		for range l.slots {
			r.publish()
		}
		r.mu.Unlock()
	}
	if err := r.wait(ctx, p); err != nil {
		return sample{}, err
	}
	_, last := r.progress()
	took, jobs := last.Sub(begin), float64(l.jobs)
	perJob := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / jobs }
	got := sample{
		Jobs: l.jobs, Seconds: took.Seconds(), JobsPerSec: jobs / took.Seconds(),
		CPUMicros: perJob(p.cpu() - cpu), ServerCPU: perJob(s.server.cpu() - server), ProviderCPU: perJob(s.provider.cpu() - provider),
	}
	_, peak, err := memory(p.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	got.RSSBytes = float64(peak)
	if l.closed {
		added := r.added[len(r.added)/10:] // the first ones open connections
		slices.Sort(added)
		got.AddedP50, got.AddedP99 = milliseconds(added[len(added)/2]), milliseconds(added[len(added)*99/100])
	}
	if err := p.stop(); err != nil {
		return sample{}, err
	}
	if got.CPUMicros == 0 { // known only now, with the start and the stop
		got.CPUMicros = perJob(p.cpu())
	}
	return got, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
