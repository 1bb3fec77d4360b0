package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"understudy/internal/job"
)

// The numbers of awaiting.
const (
	// incoming is how many messages may wait for the collector.
	incoming = 8192
	// sweepEvery is the collector's every: messages can be lost without a trace,
	// though hardly ever.
	sweepEvery = 10 * time.Second
	// sweepChunk is how many jobs are looked up between two looks at what comes in.
	sweepChunk = 64
	// sweepAgain is the pause before a sweep that failed is tried again.
	sweepAgain = time.Second
	// quietAfter is how long nothing may come before the person is told why that
	// may be.
	quietAfter = 3 * time.Second
	// goneAfter is how many sweeps in a row must find nothing of a job.
	goneAfter = 3
)

// awaited is a job that a collector waits for.
type awaited struct {
	// minSeq is the sequence of the job: a failed result of an earlier one does
	// not count.
	minSeq uint64
	// queued tells that the job was published, so that it must be somewhere.
	queued bool
	// misses counts the sweeps in a row that found nothing of the job.
	misses int
}

// collector awaits the results of many jobs. They come from the done subjects,
// as they are stored; what may have been missed there, because the connection
// broke or messages came too fast, is looked up in the store. Nothing is lost
// and nothing comes twice. Jobs may be added from any goroutine; next and left
// belong to one.
type collector struct {
	c  *client
	in chan *nats.Msg
	// chunk gets the chunks of streamed answers; may be nil.
	chunk func(msg *nats.Msg)
	// patient makes it wait also for jobs that are neither queued nor have a result.
	patient bool
	// every is how long nothing may come before the store is asked.
	every time.Duration
	// quiet is called once, when nothing has come for a while; may be nil.
	quiet func(ctx context.Context)

	mu   sync.Mutex // guards open
	open map[key]*awaited

	ready   []outcome // found by a sweep, not handed out yet
	pending []key     // to be looked up by the sweep under way
	subs    []*nats.Subscription
}

// collect subscribes to core NATS subjects. It returns when the server knows.
func (c *client) collect(ctx context.Context, subjects ...string) (*collector, error) {
	col := &collector{c: c, in: make(chan *nats.Msg, incoming), open: make(map[key]*awaited), every: sweepEvery}
	for _, subject := range subjects {
		if err := col.subscribe(subject); err != nil {
			col.close()
			return nil, err
		}
	}
	if err := col.flush(ctx); err != nil {
		col.close()
		return nil, err
	}
	return col, nil
}

func (col *collector) subscribe(subject string) error {
	sub, err := col.c.nc.ChanSubscribe(subject, col.in)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	col.subs = append(col.subs, sub)
	return nil
}

// flush waits until the server knows of the subscriptions.
func (col *collector) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := col.c.nc.FlushWithContext(ctx); err != nil {
		return &unreachableError{fmt.Errorf("NATS does not answer: %w", err)}
	}
	return nil
}

// close ends the subscriptions.
func (col *collector) close() {
	for _, sub := range col.subs {
		_ = sub.Unsubscribe() // the connection may be closed
	}
}

// announce adds a job that is yet to be published to those awaited.
func (col *collector) announce(k key) {
	col.mu.Lock()
	defer col.mu.Unlock()
	col.open[k] = &awaited{}
}

// sent notes that an announced job is published, unless it has ended since.
func (col *collector) sent(k key) {
	col.mu.Lock()
	defer col.mu.Unlock()
	if w, ok := col.open[k]; ok {
		w.queued = true
	}
}

// expect adds a job that is published to those awaited.
func (col *collector) expect(k key, minSeq uint64) {
	col.mu.Lock()
	defer col.mu.Unlock()
	col.open[k] = &awaited{minSeq: minSeq, queued: true}
}

// published is how many of the awaited jobs are published.
func (col *collector) published() int { return len(col.all()) }

// left is how many jobs next has yet to return.
func (col *collector) left() int {
	col.mu.Lock()
	defer col.mu.Unlock()
	return len(col.open) + len(col.ready)
}

// take ends the wait for a job; it reports false when nobody waits for it.
func (col *collector) take(k key) bool {
	col.mu.Lock()
	defer col.mu.Unlock()
	_, ok := col.open[k]
	delete(col.open, k)
	return ok
}

func (col *collector) lookFor(k key) (awaited, bool) {
	col.mu.Lock()
	defer col.mu.Unlock()
	w, ok := col.open[k]
	if !ok {
		return awaited{}, false
	}
	return *w, true
}

// next blocks until one of the awaited jobs has ended and returns how. The error
// is the cause of ctx; results that had come by then are returned first.
func (col *collector) next(ctx context.Context) (outcome, error) {
	o, err := col.one(ctx)
	if err != nil {
		return outcome{}, err
	}
	loading, cancel := ctx, context.CancelFunc(func() {})
	if ctx.Err() != nil { // a result that had come by then: its answer is there, too
		loading, cancel = context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	}
	defer cancel()
	if o = col.c.whole(loading, o); o.missing != nil && ctx.Err() != nil {
		col.expect(o.key, 0) // the next command finds it
		return outcome{}, context.Cause(ctx)
	}
	return o, nil
}

// one is next, without an answer that is in the object store.
func (col *collector) one(ctx context.Context) (outcome, error) {
	idle := time.NewTicker(col.every)
	defer idle.Stop()
	hush := time.NewTimer(quietAfter)
	defer hush.Stop()
	for {
		if len(col.ready) > 0 {
			o := col.ready[0]
			col.ready = col.ready[1:]
			return o, nil
		}
		var more <-chan time.Time // fires at once while a sweep is under way
		if len(col.pending) > 0 {
			more = time.After(0)
		}
		select {
		case msg := <-col.in:
			if o, ok := col.message(msg); ok {
				return o, nil
			}
		case <-more:
			col.sweep(ctx)
		case <-col.c.missed:
			col.pending = col.all()
		case <-idle.C:
			if len(col.pending) == 0 {
				col.pending = col.all()
			}
		case <-hush.C:
			if col.quiet != nil {
				col.quiet(ctx)
				col.quiet = nil
			}
		case <-ctx.Done():
			return col.latest(ctx)
		}
	}
}

// latest is the last word of a wait that has ended: a result that has come
// already, or else why it has ended.
func (col *collector) latest(ctx context.Context) (outcome, error) {
	for range len(col.in) { // and not what comes meanwhile, which may never end
		if o, ok := col.message(<-col.in); ok {
			return o, nil
		}
	}
	return outcome{}, context.Cause(ctx)
}

// message reads what a subscription brought. Messages that are no results, or
// not of an awaited job, are passed over: anybody can publish to these subjects.
func (col *collector) message(msg *nats.Msg) (outcome, bool) {
	kind, queue, id, err := col.c.subjects.Parse(msg.Subject)
	if err != nil {
		return outcome{}, false
	}
	if kind == "chunks" {
		if col.chunk != nil {
			col.chunk(msg)
		}
		return outcome{}, false
	}
	k := key{queue, id}
	w, ok := col.lookFor(k)
	if !ok {
		return outcome{}, false
	}
	r, err := job.DecodeResult(msg.Data)
	if err != nil || r.ID != id || r.Queue != queue {
		return outcome{}, false
	}
	seq, _ := strconv.ParseUint(msg.Header.Get(job.HeaderJobSeq), 10, 64) // absent or foreign: 0
	if r.Status != job.Succeeded && seq < w.minSeq {
		return outcome{}, false
	}
	return outcome{key: k, data: msg.Data, result: r}, col.take(k)
}

// all are the published jobs still awaited.
func (col *collector) all() []key {
	col.mu.Lock()
	defer col.mu.Unlock()
	keys := make([]key, 0, len(col.open))
	for k, w := range col.open {
		if w.queued {
			keys = append(keys, k)
		}
	}
	return keys
}

// sweep looks up some of the pending jobs in the store.
func (col *collector) sweep(ctx context.Context) {
	n := min(sweepChunk, len(col.pending))
	chunk := col.pending[:n]
	col.pending = col.pending[n:]
	found := make([]standing, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, k := range chunk {
		wg.Go(func() { // ends with its look-up, which the client bounds
			w, ok := col.lookFor(k)
			if !ok {
				return
			}
			found[i], errs[i] = col.c.standing(ctx, k, w.minSeq)
		})
	}
	wg.Wait()
	for i, k := range chunk {
		if errs[i] == nil && found[i].key == k {
			col.settle(found[i])
		}
	}
	if errors.Join(errs...) != nil && ctx.Err() == nil { // the server is away or coming back
		time.AfterFunc(sweepAgain, col.c.suspect)
	}
}

// settle hands out a job that was found to have ended.
func (col *collector) settle(s standing) {
	col.mu.Lock()
	w, ok := col.open[s.key]
	if !ok {
		col.mu.Unlock()
		return
	}
	if s.gone && !col.patient {
		w.misses++
	} else {
		w.misses = 0
	}
	gone := w.misses >= goneAfter
	col.mu.Unlock()
	if (s.final || gone) && col.take(s.key) {
		o := s.outcome
		if gone {
			o.data, o.result = nil, nil
		}
		col.ready = append(col.ready, o)
	}
}
