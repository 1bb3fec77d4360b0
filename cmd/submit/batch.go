package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"understudy/internal/job"
)

// defaultWindow is how many publishes may be unacknowledged at once. More does
// not make one server faster.
const defaultWindow = 64

// maxWindow bounds -window.
const maxWindow = 4096

// maxNamed is how many jobs that did not succeed are named.
const maxNamed = 5

// batchOptions are the flags of batch.
type batchOptions struct {
	out, queue, id string
	window         int
	fresh          bool
	json, verbose  bool
}

func (o *batchOptions) check(args []string) error {
	const command = "submit batch"
	switch {
	case len(args) != 1:
		return usage(command, "give one file with jobs, not %d", len(args))
	case o.out == "":
		return usage(command, "say where the results go: -o OUT.jsonl")
	case args[0] == "-":
		return usage(command, "the jobs must be in a file: it is read twice")
	case o.out == "-" && o.json:
		return usage(command, "-o - and -json both write to standard output")
	case o.window < 1 || o.window > maxWindow:
		return usage(command, "-window %d: must be between 1 and %d", o.window, maxWindow)
	case o.id != "" && o.fresh:
		return usage(command, "-id and -fresh exclude each other: a new -id is fresh")
	case o.id == "":
		return checkKey(key{o.queue, "any"}, command)
	}
	if err := job.CheckID(o.id + lineSuffix(1)); err != nil {
		return usage(command, "-id %q: %v", o.id, err)
	}
	return checkKey(key{o.queue, o.id}, command)
}

// batch runs every line of a file.
//
//	check every line, nothing is queued yet    readInput
//	subscribe, then see what is done already   batchRun.resume
//	queue the rest, window by window           batchRun.publish
//	meanwhile write results as they come       batchRun.collect
//	put them into the order of the input       output.finish
func (a *app) batch(ctx context.Context, o *batchOptions, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	in, err := a.readInput(ctx, args[0], o)
	if err != nil {
		return err
	}
	defer in.close()
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := in.fits(ctx, c); err != nil {
		return err
	}
	out, err := newOutput(o.out, len(in.lines))
	if err != nil {
		return err
	}
	defer out.close()
	b := &batchRun{app: a, c: c, opts: o, in: in, out: out, tell: a.pressure(o.queue), stats: newTally(a.now())}
	b.bar = a.newBar(in.batch, len(in.lines))
	err = b.run(ctx)
	b.bar.stop()
	if err != nil {
		b.interrupted(err)
		return err
	}
	return b.conclude()
}

// interrupted says what is left and how to go on.
func (b *batchRun) interrupted(err error) {
	if wrong := (*usageError)(nil); errors.As(err, &wrong) && b.stats.ended() == 0 {
		return
	}
	queued := 0
	if b.col != nil {
		queued = b.col.published()
	}
	unsent := len(b.in.lines) - b.stats.ended() - queued
	b.app.note("submit: batch %s: %d of %s done, %d still queued or running, %d not queued. The same command goes on from there (-id %s)",
		b.in.batch, b.stats.ended(), times(len(b.in.lines), "line"), queued, max(unsent, 0), b.in.batch)
	if !b.out.temporary() {
		b.app.note("The results so far are in %s.", b.out.partial)
	}
}

// conclude writes the results in order and says how it went.
func (b *batchRun) conclude() error {
	if len(b.lost) > 0 {
		b.app.note("submit: batch %s: %s out of the queue without a result: %s. The same command queues them again",
			b.in.batch, times(len(b.lost), "line")+" went", named(b.lost))
		return errFailed
	}
	if err := b.out.finish(b.app.stdout); err != nil {
		return err
	}
	s := b.stats.summary(b.in.batch, b.opts, b.app.now())
	if b.app.terminals.err || b.opts.verbose {
		b.app.note("%s", strings.TrimSuffix(s.table(), "\n"))
	}
	b.app.note("%s", s.line())
	if b.opts.json {
		line, err := jsonLine(s)
		if err == nil {
			err = b.app.print(line)
		}
		if err != nil {
			return err
		}
	}
	if len(b.bad) == 0 && s.Succeeded == s.Lines {
		return nil
	}
	b.app.note("submit: not succeeded: %s. To see why: submit dead ls '%s.*'%s", named(b.bad), b.in.batch, queueHint(b.opts.queue))
	return errFailed
}

// named lists the first few of many.
func named(ids []string) string {
	if len(ids) <= maxNamed {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:maxNamed], ", "), len(ids)-maxNamed)
}

// lineSuffix is what a job's id has behind the batch: the number of its line,
// with six digits so that ids sort as lines do.
func lineSuffix(line int) string { return fmt.Sprintf(".%06d", line) }

// sameFile reports whether two names are one file.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	two, err2 := os.Stat(b)
	return cmp.Or(err, err2) == nil && os.SameFile(one, two)
}
