package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"understudy/internal/job"
)

// checkKey returns a usage error unless k can be the address of a job. It lets
// ids pass that no job should have: one that has is refused by the workers, and
// its result and dead letter can be looked at all the same.
func checkKey(k key, command string) error {
	if k.queue != "" {
		if err := job.CheckQueue(k.queue); err != nil {
			return usage(command, "-queue: %v", err)
		}
	}
	wrong := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '*' || r == '>' }
	if k.id == "" || strings.ContainsFunc(k.id, wrong) || slices.Contains(strings.Split(k.id, "."), "") {
		return usage(command, "%q cannot be the id of a job", k.id)
	}
	return nil
}

// resultOptions are the flags of result.
type resultOptions struct {
	queue string
	wait  time.Duration
	json  bool
}

// result prints the stored result of a job.
func (a *app) result(ctx context.Context, o *resultOptions, args []string) error {
	if len(args) != 1 {
		return usage("submit result", "give one ID, not %d", len(args))
	}
	k := key{o.queue, args[0]}
	if err := checkKey(k, "submit result"); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	f := asStored
	if o.json {
		f = asLine
	}
	out, err := a.lookUp(ctx, c, k, o.wait)
	if err != nil {
		return err
	}
	return a.report(out, f)
}

// lookUp returns the result of a job, and waits for it if need be.
func (a *app) lookUp(ctx context.Context, c *client, k key, wait time.Duration) (outcome, error) {
	col, err := c.collect(ctx, c.subjects.Done(k.queue, k.id))
	if err != nil {
		return outcome{}, err
	}
	defer col.close()
	s, err := c.standing(ctx, k, 0)
	switch {
	case err != nil:
		return outcome{}, err
	case s.final:
		return c.whole(ctx, s.outcome), nil
	case s.seq != 0 && wait == 0 && s.result != nil:
		a.note("submit: job %s was redriven and is queued or running again; this is its result before", k.id)
		return c.whole(ctx, s.outcome), nil
	case s.seq != 0 && wait == 0:
		a.note("submit: job %s is queued or running; to await it: submit result %s%s -wait 10m", k.id, k.id, queueHint(k.queue))
		return outcome{}, errFailed
	case s.seq == 0 && wait == 0:
		a.nothing(ctx, c, k)
		return outcome{}, errFailed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, &tooLongError{wait})
	defer cancel()
	col.expect(k, s.seq)
	col.patient = s.seq == 0 // it may be published at any moment
	out, err := col.next(ctx)
	var late *tooLongError
	switch {
	case errors.As(err, &late) && s.seq == 0:
		a.nothing(context.WithoutCancel(ctx), c, k)
		return outcome{}, errFailed
	case err != nil:
		a.note("submit: job %s is still queued or running", k.id)
	}
	return out, err
}

// nothing says that nothing is known of a job, and where else to look.
func (a *app) nothing(ctx context.Context, c *client, k key) {
	a.note("submit: there is no job %s in queue %s: it has no result and is not queued", k.id, k.queue)
	queues, err := c.queuesOf(ctx, k.id)
	if err != nil || len(queues) == 0 {
		return // it is only a hint
	}
	a.note("There is one in another queue: -queue %s", strings.Join(queues, ", or -queue "))
}
