package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/results"
)

// redriveOptions are the flags of dead redrive.
type redriveOptions struct {
	selection
	rate            float64 // jobs per second; 0 means as fast as it goes
	max             int     // 0 means all
	dry, wait, json bool
}

// redriven is what -json prints of a job that was put back.
type redriven struct {
	job.Receipt
	Redrives int `json:"redrives"`
}

// deadRedrive puts the jobs of dead letters back into their queues.
func (a *app) deadRedrive(ctx context.Context, o *redriveOptions, ids []string) error {
	const command = "submit dead redrive"
	o.ids = ids
	switch {
	case o.rate < 0:
		return usage(command, "-rate %g: must be more than nothing", o.rate)
	case o.max < 0:
		return usage(command, "-max %d: must be 0 or more", o.max)
	case o.dry && o.wait:
		return usage(command, "-dry-run and -wait exclude each other")
	}
	if err := o.explicit(command); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := &redriver{app: a, c: c, opts: o}
	if err := r.choose(ctx); err != nil {
		return err
	}
	return r.run(ctx)
}

// redriver is one run of the redrive command.
type redriver struct {
	app  *app
	c    *client
	opts *redriveOptions
	col  *collector

	chosen []picked
	put    int
	failed bool // a job is not queued again, or did not succeed then
}

// choose reads which dead letters there are first, so that those of jobs that
// fail again meanwhile are not among them.
func (r *redriver) choose(ctx context.Context) error {
	missing, err := r.app.choose(ctx, r.c, &r.opts.selection, func(p picked) { r.chosen = append(r.chosen, p) })
	r.failed = missing
	return err
}

// choose is pick for commands that change something: a job without a letter is
// told of, and waited for if it has only just died.
func (a *app) choose(ctx context.Context, c *client, s *selection, keep func(picked)) (missing bool, err error) {
	seen := make(map[uint64]bool)
	for _, pattern := range s.patterns() {
		n := 0
		take := func(l *results.Letter) {
			n++
			if !seen[l.Seq] {
				seen[l.Seq] = true
				keep(picked{summarize(l.DeadLetter), l.Seq})
			}
		}
		if len(s.ids) == 0 || strings.HasSuffix(pattern, ".*") {
			err = a.letters(ctx, c, s, pattern, take)
		} else {
			var found []*results.Letter
			found, err = a.lettersNow(ctx, c, s, pattern)
			for _, l := range found {
				take(l)
			}
		}
		if err != nil {
			return missing, err
		}
		if n == 0 && len(s.ids) > 0 {
			a.note("submit: there is no dead letter of job %s", pattern)
			missing = true
		}
	}
	return missing, nil
}

// run redrives what is chosen.
func (r *redriver) run(ctx context.Context) error {
	var err error
	if r.col, err = r.c.collect(ctx); err != nil {
		return err
	}
	defer r.col.close()
	left := 0
	if r.opts.max > 0 && len(r.chosen) > r.opts.max {
		left, r.chosen = len(r.chosen)-r.opts.max, r.chosen[:r.opts.max]
	}
	switch {
	case len(r.chosen) == 0 && !r.failed:
		r.app.note("There are no dead letters to redrive.")
		return nil
	case r.opts.dry:
		err = r.app.rehearse(r.chosen, r.opts.json)
		r.app.note("submit: %s would be queued again; nothing was changed", times(len(r.chosen), "job"))
	default:
		err = r.all(ctx)
	}
	if left > 0 && err == nil {
		r.app.note("submit: -max %d left out %s", r.opts.max, times(left, "more dead letter"))
	}
	if err == nil && !r.opts.dry {
		err = r.await(ctx)
	}
	if err == nil && r.failed {
		return errFailed
	}
	return err
}

// rehearse prints what a command would change.
func (a *app) rehearse(list []picked, asJSON bool) error {
	if asJSON {
		return a.printLines(list)
	}
	return a.printTable(list)
}

// all puts the jobs back, one after the other.
func (r *redriver) all(ctx context.Context) error {
	var err error
	p := r.app.advance("redrive", len(r.chosen))
	defer p.stop()
	due := time.Now()
	for _, chosen := range r.chosen {
		if !sleep(ctx, time.Until(due)) {
			err = context.Cause(ctx)
		} else {
			err = r.redrive(ctx, chosen)
		}
		if err != nil {
			r.interrupted()
			return err
		}
		p.step()
		if r.opts.rate > 0 {
			due = time.Now().Add(time.Duration(float64(time.Second) / r.opts.rate))
		}
	}
	p.stop()
	r.app.note("submit: %d of %s queued again", r.put, times(len(r.chosen), "job"))
	return nil
}

// redrive puts one job back. The error ends the whole run.
func (r *redriver) redrive(ctx context.Context, chosen picked) error {
	k := key{chosen.Queue, chosen.ID}
	l, err := r.c.store.Letter(ctx, chosen.seq)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case l == nil:
		r.missed(k)
		return nil
	}
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
	case errors.Is(err, results.ErrLetterChanged):
		r.missed(k)
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

// missed tells of a letter that somebody else was quicker with.
func (r *redriver) missed(k key) {
	r.app.note("submit: the dead letter of job %s (queue %s) has gone or changed meanwhile", k.id, k.queue)
	r.failed = true
}

// publish puts one job back; while the queue is full it waits and tries again.
// The event is stored first: the job's own events follow it, and the last event
// of a job is its status.
func (r *redriver) publish(ctx context.Context, l *results.Letter) (results.Redriven, error) {
	k := key{l.Queue, l.ID}
	queued, err := r.c.queued(ctx, k)
	if err == nil && queued != nil && l.JobSeq != 0 && queued.Sequence == l.JobSeq {
		// What is queued is the job that died: its worker is about to let it go.
		if err = r.c.settle(ctx, k); err == nil {
			queued, err = r.c.queued(ctx, k)
		}
	}
	switch {
	case err != nil:
		return results.Redriven{}, err
	case queued == nil:
		r.app.tell(ctx, r.c, job.EventLetterRedriven, k, handling(l))
	case queued.Header.Get(jetstream.MsgIDHeader) != results.RedriveID(l):
		return results.Redriven{}, results.ErrInFlight
	}
	var done results.Redriven
	err = persist(ctx, r.app.pressure(l.Queue), func(ctx context.Context) (err error) {
		done, err = r.c.store.Redrive(ctx, l)
		return err
	})
	if err != nil && done.JobSeq == 0 {
		r.stillDead(ctx, l)
	}
	return done, err
}

// stillDead takes back the event of a redrive that did not come about.
func (r *redriver) stillDead(ctx context.Context, l *results.Letter) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	k := key{l.Queue, l.ID}
	queued, err := r.c.queued(bounded, k)
	if err != nil || queued != nil && queued.Header.Get(jetstream.MsgIDHeader) == results.RedriveID(l) {
		return // it may be queued
	}
	r.app.tell(ctx, r.c, job.EventDeadLettered, k, job.DeadLettered{Queue: l.Queue, Reason: l.Reason, Redrives: l.Redrives})
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
		return r.app.printLine(redriven{r.c.subjects.Receipt(k.queue, k.id), done.Redrives})
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
