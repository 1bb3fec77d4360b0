package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// run runs one side under a load.
func (s *stage) run(ctx context.Context, side string, l load) (got sample, err error) {
	if err := s.empty(ctx); err != nil {
		return got, err
	}
	before, err := s.consumer(ctx)
	if err != nil {
		return got, err
	}
	r := &hearing{want: l.jobs, done: make(chan error, 1)}
	if l.closed {
		body := l.body()
		r.next = func(i int) { _ = s.nc.Publish(jobsPrefix+strconv.Itoa(i), body(i)) } // what is lost is missed, see wait
		if l.burst {
			r.many = l.atOnce()
		}
	} else if err := s.fill(ctx, l); err != nil {
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
	all, err := s.launch(ctx, side, l, before.Delivered.Consumer)
	defer func() { all.kill() }()
	if err != nil {
		return got, err
	}
	if got, err = s.watch(ctx, all, r, l); err != nil {
		return got, err
	}
	after, err := s.consumer(ctx)
	if err != nil {
		return got, err
	}
	if l.queued <= l.jobs { // else some were taken that are not waited for
		got.Redelivered = float64(after.Delivered.Consumer-before.Delivered.Consumer) - float64(l.jobs)
	}
	return got, nil
}

// watch lets the side run, measures it and stops it.
func (s *stage) watch(ctx context.Context, all fleet, r *hearing, l load) (sample, error) {
	cpu, server, provider := all.cpu(), s.server.cpu(), s.provider.cpu()
	begin := time.Now()
	if l.closed {
		r.mu.Lock()
		for range l.atOnce() {
			r.publish()
		}
		r.mu.Unlock()
	}
	if err := r.wait(ctx, all); err != nil {
		return sample{}, err
	}
	_, last := r.progress()
	took, jobs := last.Sub(begin), float64(l.jobs)
	perJob := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / jobs }
	got := sample{
		Jobs: l.jobs, Seconds: took.Seconds(), JobsPerSec: jobs / took.Seconds(),
		CPUMicros: perJob(all.cpu() - cpu), ServerCPU: perJob(s.server.cpu() - server), ProviderCPU: perJob(s.provider.cpu() - provider),
	}
	peak, err := all.memory()
	if err != nil {
		return sample{}, err
	}
	got.RSSBytes = float64(peak)
	if l.closed {
		added := r.added[len(r.added)/10:] // the first ones open connections
		slices.Sort(added)
		got.AddedP50, got.AddedP99 = milliseconds(added[len(added)/2]), milliseconds(added[len(added)*99/100])
	}
	if err := all.stop(); err != nil {
		return sample{}, err
	}
	if got.CPUMicros == 0 { // known only now, with the start and the stop
		got.CPUMicros = perJob(all.cpu())
	}
	return got, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// The limits of publishing without waiting for the stream's word.
const (
	fillPending = 1024     // jobs
	fillBytes   = 32 << 20 // of them
)

// fill publishes the jobs of a load and waits until the stream has them. Those
// too big for a message go by object store, as `submit` publishes them.
func (s *stage) fill(ctx context.Context, l load) error {
	n := max(l.queued, l.jobs)
	size := len(l.body()(0))
	js, err := jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(min(fillPending, max(fillBytes/size, 1))))
	if err != nil {
		return err
	}
	defer js.CleanupPublisher()
	if int64(size) > s.nc.MaxPayload() {
		err = s.fillAside(ctx, js, l)
	} else {
		err = fillInline(ctx, js, l, n)
	}
	if err != nil {
		return fmt.Errorf("publish %d jobs: %w", n, err)
	}
	stream, err := s.js.Stream(ctx, jobsStream)
	if err == nil && stream.CachedInfo().State.Msgs != uint64(n) {
		err = fmt.Errorf("%d of %d jobs were stored", stream.CachedInfo().State.Msgs, n)
	}
	return err
}

// fillInline publishes n jobs, each a message.
func fillInline(ctx context.Context, js jetstream.JetStream, l load, n int) error {
	body := l.body()
	var last jetstream.PubAckFuture
	for i := range n {
		var err error
		if last, err = js.PublishAsync(jobsPrefix+strconv.Itoa(i), body(i), jetstream.WithStallWait(fillStall)); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-last.Err():
		return err
	default:
		return nil
	}
}

// fillStall is how long the server may take to answer for what is published.
const fillStall = 10 * time.Second

// fillAside publishes the jobs of a load whose payloads go by object store.
func (s *stage) fillAside(ctx context.Context, js jetstream.JetStream, l load) error {
	subjects, err := job.NewSubjects(job.DefaultPrefix)
	if err != nil {
		return err
	}
	store, err := results.Open(ctx, s.nc, js, subjects)
	if err != nil {
		return err
	}
	if err := store.EnsureBuckets(ctx, 1, queue.DefaultMaxAge); err != nil {
		return err
	}
	body := l.body()
	for i := range l.jobs {
		m, err := store.JobMessage(ctx, job.DefaultQueue, strconv.Itoa(i), body(i), nil, "")
		if err != nil {
			return err
		}
		if _, err := js.PublishMsg(ctx, m); err != nil {
			return err
		}
	}
	return nil
}
