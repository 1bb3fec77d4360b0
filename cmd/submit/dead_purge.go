package main

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"understudy/internal/job"
	"understudy/internal/results"
)

const (
	// orphanAge is how old an orphan must be, unless -older says otherwise: the
	// letter of a younger one may still be on its way.
	orphanAge = time.Hour
	// maxAnswer is how much of an answer to a question is read, in bytes.
	maxAnswer = 64
)

// deadPurgeOptions are the flags of dead purge.
type deadPurgeOptions struct {
	selection
	orphans        bool
	dry, yes, json bool
}

// check validates the flags.
func (o *deadPurgeOptions) check(a *app, command string) error {
	if o.orphans {
		rest := o.selection
		rest.older = 0
		if rest.explicit(command) == nil || len(o.ids) > 0 {
			return usage(command, "-orphans goes with -older and -dry-run only")
		}
		return o.selection.check(command)
	}
	if err := o.explicit(command); err != nil {
		return err
	}
	if !o.dry && !o.yes && !a.terminals.in {
		return usage(command, "there is no terminal to confirm it on: say -yes to delete for good, or -dry-run to see what")
	}
	return nil
}

// deadPurge deletes dead letters for good.
func (a *app) deadPurge(ctx context.Context, o *deadPurgeOptions, ids []string) error {
	const command = "submit dead purge"
	o.ids = ids
	if err := o.check(a, command); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	if o.orphans {
		return a.purgeOrphans(ctx, c, o)
	}
	var chosen []picked
	missing, err := a.choose(ctx, c, &o.selection, func(p picked) { chosen = append(chosen, p) })
	if err != nil {
		return err
	}
	switch {
	case len(chosen) == 0 && !missing:
		a.note("There are no dead letters to purge.")
		return nil
	case o.dry:
		err = a.rehearse(chosen, o.json)
		a.note("submit: %s would be deleted; nothing was changed", times(len(chosen), "dead letter"))
	case len(chosen) > 0:
		if err = a.confirm(ctx, o, len(chosen)); err == nil {
			err = a.purge(ctx, c, o, chosen)
		}
	}
	if err == nil && missing {
		return errFailed
	}
	return err
}

// confirm lets the person type how many letters are to be deleted.
func (a *app) confirm(ctx context.Context, o *deadPurgeOptions, n int) error {
	if o.yes {
		return nil
	}
	a.note("submit: %s will be deleted for good, with the jobs in them.\nType %d to go on:", times(n, "dead letter"), n)
	answer, err := a.answer(ctx)
	if err != nil {
		return err
	}
	if answer != strconv.Itoa(n) {
		a.note("submit: nothing was deleted")
		return errFailed
	}
	return nil
}

// answer reads a line from standard input, or until ctx is done.
func (a *app) answer(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() { // ends with the line, or with the process: a read of a terminal cannot be stopped
		text, _ := bufio.NewReader(io.LimitReader(a.stdin, maxAnswer)).ReadString('\n') // no line is no answer
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// purge deletes what is chosen.
func (a *app) purge(ctx context.Context, c *client, o *deadPurgeOptions, chosen []picked) error {
	p := a.advance("purge", len(chosen))
	defer p.stop()
	n := 0
	for _, one := range chosen {
		gone, err := a.purgeOne(ctx, c, one)
		if err != nil {
			p.stop()
			a.note("submit: %d of %s deleted", n, times(len(chosen), "dead letter"))
			return err
		}
		p.step()
		if !gone {
			continue
		}
		n++
		if o.json {
			err = a.printLine(one.deadSummary)
		} else {
			err = a.print([]byte(oneLine(one.ID, 0) + "\n"))
		}
		if err != nil {
			return err
		}
	}
	p.stop()
	a.note("submit: %d of %s deleted", n, times(len(chosen), "dead letter"))
	return nil
}

// purgeOne deletes one letter. It reports false when it was gone before.
func (a *app) purgeOne(ctx context.Context, c *client, one picked) (bool, error) {
	l, err := c.store.Letter(ctx, one.seq)
	if err == nil && l != nil {
		err = c.store.Purge(ctx, l)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil:
		return false, err
	case l == nil:
		a.note("submit: the dead letter of job %s (queue %s) has gone or changed meanwhile", one.ID, one.Queue)
		return false, nil
	}
	a.tell(ctx, c, job.EventLetterPurged, key{l.Queue, l.ID}, handling(l))
	return true, nil
}

// purgeOrphans deletes the objects that no letter refers to.
func (a *app) purgeOrphans(ctx context.Context, c *client, o *deadPurgeOptions) error {
	older := o.older
	if older == 0 {
		older = orphanAge
	}
	list, err := c.store.Orphans(ctx, time.Now().Add(-older))
	if err != nil {
		return err
	}
	n, size := 0, uint64(0)
	for _, orphan := range list {
		gone := true
		if !o.dry {
			if gone, err = c.store.Collect(ctx, orphan); err != nil {
				return err
			}
		}
		if !gone {
			continue
		}
		n, size = n+1, size+orphan.Bytes
		if err := a.sayOrphan(o, orphan); err != nil {
			return err
		}
	}
	a.note("submit: %s of %d bytes %s", times(n, "object"), size, map[bool]string{false: "deleted", true: "would be deleted"}[o.dry])
	return nil
}

func (a *app) sayOrphan(o *deadPurgeOptions, orphan results.Orphan) error {
	if o.json {
		return a.printLine(orphan)
	}
	return a.print([]byte(oneLine(orphan.Name, 0) + "\n"))
}
