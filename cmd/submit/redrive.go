package main

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"understudy/internal/job"
	"understudy/internal/results"
)

// The numbers of a redrive right after a failure.
const (
	// A worker stores the failed result, then the dead letter, then lets the job
	// leave the queue: somebody who was quick waits this long for all three.
	settleTimeout = 5 * time.Second
	settlePause   = 50 * time.Millisecond
)

// redriven is what -json prints of a job that was put back.
type redriven struct {
	job.Receipt
	Redrives int `json:"redrives"`
}

// deadRedrive puts the jobs of dead letters back into their queues.
func (a *app) deadRedrive(ctx context.Context, o *deadOptions, patterns []string) error {
	const command = "submit dead redrive"
	switch {
	case o.all && len(patterns) > 0:
		return usage(command, "give IDs or -all, not both")
	case !o.all && len(patterns) == 0:
		return usage(command, "give IDs, or -all")
	}
	if err := o.check(command, patterns); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := &redriver{app: a, c: c, opts: o}
	if err := r.choose(ctx, patterns); err != nil {
		return err
	}
	if len(r.chosen) == 0 && !r.failed {
		a.note("There are no dead letters to redrive.")
		return nil
	}
	if r.col, err = c.collect(ctx); err != nil {
		return err
	}
	defer r.col.close()
	for _, l := range r.chosen {
		if err := r.redrive(ctx, l); err != nil {
			r.interrupted()
			return err
		}
	}
	a.note("submit: %d of %s queued again", r.put, times(len(r.chosen), "job"))
	if err := r.await(ctx); err != nil {
		return err
	}
	if r.failed {
		return errFailed
	}
	return nil
}

// redriver is one run of the redrive command.
type redriver struct {
	app  *app
	c    *client
	opts *deadOptions
	col  *collector

	chosen []*results.Letter
	put    int
	failed bool // a job is not queued again, or did not succeed then
}

// choose reads the dead letters first, so that those of jobs that fail again
// meanwhile are not among them. The memory they take is that of their payloads.
func (r *redriver) choose(ctx context.Context, patterns []string) error {
	if r.opts.all {
		return r.app.letters(ctx, r.c, r.opts, nil, func(l *results.Letter) { r.chosen = append(r.chosen, l) })
	}
	for _, pattern := range patterns {
		found, err := r.find(ctx, pattern)
		if err != nil {
			return err
		}
		if !found {
			r.app.note("submit: there is no dead letter of job %s", pattern)
			r.failed = true
		}
	}
	return nil
}

// find chooses the letters of one pattern. It reports whether there were any.
func (r *redriver) find(ctx context.Context, pattern string) (bool, error) {
	before := len(r.chosen)
	keep := func(l *results.Letter) { r.chosen = append(r.chosen, l) }
	for {
		err := r.app.letters(ctx, r.c, r.opts, []string{pattern}, keep)
		if len(r.chosen) > before || err != nil || strings.HasSuffix(pattern, ".*") {
			return len(r.chosen) > before, err
		}
		settling, err := r.settling(ctx, key{cmp.Or(r.opts.queue, job.DefaultQueue), pattern})
		if !settling || err != nil {
			return false, err
		}
	}
}

// settling waits while a job that has failed has not left its queue. It reports
// whether there was anything to wait for.
func (r *redriver) settling(ctx context.Context, k key) (bool, error) {
	deadline := time.Now().Add(settleTimeout)
	for waited := false; ; waited = true {
		s, err := r.c.standing(ctx, k, 0)
		if err != nil || !s.final || s.succeeded() || s.seq == 0 || time.Now().After(deadline) {
			return waited, err
		}
		if !sleep(ctx, settlePause) {
			return waited, context.Cause(ctx)
		}
	}
}

// redrive puts one job back. The error ends the whole run.
func (r *redriver) redrive(ctx context.Context, l *results.Letter) error {
	k := key{l.Queue, l.ID}
	if r.opts.wait {
		if err := r.col.subscribe(r.c.subjects.Done(k.queue, k.id)); err != nil {
			return err
		}
		if err := r.col.flush(ctx); err != nil {
			return err
		}
	}
	done, err := r.publish(ctx, l)
	switch {
	case errors.Is(err, results.ErrInFlight):
		r.app.note("submit: job %s (queue %s) is queued or running; its dead letter stays", k.id, k.queue)
		r.failed = true
		return nil
	case err != nil && done.JobSeq == 0:
		return err
	case err != nil:
		r.app.note("submit: %v", err)
	}
	r.put++
	if r.opts.wait {
		r.col.expect(k, done.JobSeq)
	}
	return r.say(k, done)
}

// publish puts one job back; while the queue is full it waits and tries again.
func (r *redriver) publish(ctx context.Context, l *results.Letter) (results.Redriven, error) {
	var done results.Redriven
	try := func(ctx context.Context) (err error) {
		done, err = r.c.store.Redrive(ctx, l)
		return err
	}
	err := persist(ctx, r.app.pressure(l.Queue), try)
	if !errors.Is(err, results.ErrInFlight) || l.JobSeq == 0 {
		return done, err
	}
	queued, lookup := r.c.queued(ctx, key{l.Queue, l.ID})
	if lookup != nil || queued != nil && queued.Sequence != l.JobSeq {
		return done, err
	}
	// What is queued is the job that died: its worker is about to let it go.
	if _, err := r.settling(ctx, key{l.Queue, l.ID}); err != nil {
		return done, err
	}
	return done, persist(ctx, r.app.pressure(l.Queue), try)
}

// say tells of a job that is queued again.
func (r *redriver) say(k key, done results.Redriven) error {
	if done.Repeated {
		r.app.note("submit: job %s had been queued again before", k.id)
	}
	switch {
	case r.opts.wait:
		return nil // its result is what counts
	case r.opts.json:
		line, err := jsonLine(redriven{r.c.subjects.Receipt(k.queue, k.id), done.Redrives})
		if err != nil {
			return err
		}
		return r.app.print(line)
	}
	return r.app.print([]byte(oneLine(k.id, 0) + "\n"))
}

// await prints how the redriven jobs end.
func (r *redriver) await(ctx context.Context) error {
	r.col.quiet = func(ctx context.Context) {
		if len(r.chosen) > 0 {
			r.app.whyQuiet(ctx, r.c, r.chosen[0].Queue)
		}
	}
	for r.col.left() > 0 {
		out, err := r.col.next(ctx)
		if err != nil {
			r.interrupted()
			return err
		}
		if err := r.ended(out); err != nil {
			return err
		}
	}
	return nil
}

// ended prints one new result.
func (r *redriver) ended(out outcome) error {
	if !out.succeeded() {
		r.failed = true
		r.app.explain(out)
	}
	switch {
	case r.opts.json:
		return r.app.printResult(out, asLine)
	case out.succeeded():
		return r.app.print([]byte(oneLine(out.id, 0) + "\t" + string(out.result.Status) + "\t" + out.result.Backend + "\n"))
	}
	return nil
}

// interrupted says what goes on without this command.
func (r *redriver) interrupted() {
	if left := r.col.left(); left > 0 {
		r.app.note("submit: %s of those queued again are still queued or running; to await one: submit result ID -wait 10m", times(left, "job"))
	}
}
