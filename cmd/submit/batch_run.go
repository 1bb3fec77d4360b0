package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"understudy/internal/results"
)

// lookups is how many results are read at once when a batch is resumed.
const lookups = 64

// batchRun is one run of a batch. Everything but publish runs in one goroutine.
type batchRun struct {
	app   *app
	c     *client
	opts  *batchOptions
	in    *input
	out   *output
	tell  *pressure
	stats *tally
	bar   *bar
	col   *collector

	place map[string]int // where in the input a job is, by its id
	bad   []string       // what did not succeed
	lost  []string       // what is neither queued nor has a result
}

// run returns when every line has a result, or none can be had.
func (b *batchRun) run(ctx context.Context) error {
	var err error
	pattern := b.in.batch + ".*"
	if b.col, err = b.c.collect(ctx, b.c.subjects.Done(b.opts.queue, pattern)); err != nil {
		return err
	}
	defer b.col.close()
	b.col.quiet = func(ctx context.Context) { b.app.whyQuiet(ctx, b.c, b.opts.queue) }
	b.place = make(map[string]int, len(b.in.lines))
	for i := range b.in.lines {
		b.place[b.in.id(&b.in.lines[i])] = i
	}
	if err := b.resume(ctx, pattern); err != nil {
		return err
	}
	var todo []*line
	for i := range b.in.lines {
		if l := &b.in.lines[i]; !b.out.has(i) {
			todo = append(todo, l)
			b.col.announce(key{b.opts.queue, b.in.id(l)})
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { // ends when all is published, or with ctx
		if err := b.publish(ctx, todo); err != nil {
			cancel(err)
		}
	})
	for b.col.left() > 0 {
		out, err := b.col.next(ctx)
		if err != nil {
			return err
		}
		if err := b.ended(out); err != nil {
			return err
		}
		b.tell.freed()
	}
	return nil
}

// resume takes the results that are there already.
func (b *batchRun) resume(ctx context.Context, pattern string) error {
	finished, err := b.c.idsIn(ctx, b.c.results, b.c.subjects.Result(b.opts.queue, pattern))
	if err != nil {
		return err
	}
	var done []key
	for i := range b.in.lines {
		if id := b.in.id(&b.in.lines[i]); finished[id] {
			done = append(done, key{b.opts.queue, id})
		}
	}
	if len(done) > 0 {
		b.app.note("submit: batch %s: %s done before; they are not run again", b.in.batch, isOf(len(done), len(b.in.lines), "line"))
	}
	for len(done) > 0 {
		n := min(lookups, len(done))
		found, err := b.lookUp(ctx, done[:n])
		if err != nil {
			return err
		}
		for _, o := range found {
			if err := b.ended(o); err != nil {
				return err
			}
		}
		done = done[n:]
	}
	return nil
}

// lookUp returns how jobs ended, without those that were redriven and are queued
// again.
func (b *batchRun) lookUp(ctx context.Context, keys []key) ([]outcome, error) {
	found := make([]standing, len(keys))
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() { found[i], errs[i] = b.c.standing(ctx, k, 0) }) // bounded by the client's own timeout
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &unreachableError{fmt.Errorf("the results that are there cannot be read: %w", err)}
	}
	var ended []outcome
	for _, s := range found {
		if s.final {
			ended = append(ended, b.c.whole(ctx, s.outcome))
		}
	}
	if ctx.Err() != nil { // an answer may be missing because of that
		return nil, context.Cause(ctx)
	}
	return ended, nil
}

// isOf is "3 of 7 lines were".
func isOf(n, all int, what string) string {
	verb := "were"
	if n == 1 {
		verb = "was"
	}
	return fmt.Sprintf("%d of %s %s", n, times(all, what), verb)
}

// publish queues lines. It returns when the stream has them all.
func (b *batchRun) publish(ctx context.Context, todo []*line) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *line)
	var wg sync.WaitGroup
	for range min(b.opts.window, len(todo)) {
		wg.Go(func() { // ends when next is closed
			for l := range next {
				if err := b.queue(ctx, l); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, l := range todo {
		select {
		case next <- l:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// queue publishes one line, unless its result has come meanwhile. One that is
// queued already is awaited all the same.
func (b *batchRun) queue(ctx context.Context, l *line) error {
	k := key{b.opts.queue, b.in.id(l)}
	if _, awaited := b.col.lookFor(k); !awaited || ctx.Err() != nil {
		return nil //nolint:nilerr // whoever ended ctx has said why
	}
	payload, err := b.in.payload(l)
	if err != nil {
		return err
	}
	err = b.c.enqueue(ctx, k, payload, b.tell)
	if errors.Is(err, results.ErrInFlight) {
		err = nil
	}
	if err == nil {
		b.col.sent(k)
	}
	return err
}

// ended writes one result.
func (b *batchRun) ended(o outcome) error {
	i := b.place[o.id]
	if o.gone {
		b.lost = append(b.lost, o.id)
		b.stats.lost++
		return nil
	}
	if o.result != nil && !b.in.owns(&b.in.lines[i], o.result.CustomID) {
		return usage("", "job %s is not line %d of this file: its custom_id is another. Choose another -id, or -fresh", o.id, b.in.lines[i].number)
	}
	if err := b.out.write(i, o.data); err != nil {
		return err
	}
	if !o.succeeded() {
		b.bad = append(b.bad, o.id)
	}
	b.stats.add(o.result)
	b.bar.add(o.succeeded())
	return nil
}
