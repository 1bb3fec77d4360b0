package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"understudy/internal/doctor"
)

// reconcileOptions are the flags of reconcile.
type reconcileOptions struct {
	queue, batch string
	json         bool
}

// progressEvery is how often long work says how far it is.
const progressEvery = 5 * time.Second

// reconcile lists every job without an end.
func (a *app) reconcile(ctx context.Context, o *reconcileOptions, args []string) error {
	const command = "submit reconcile"
	if len(args) > 0 {
		return usage(command, "there is an argument too many, %q", args[0])
	}
	if o.batch != "" {
		if err := checkKey(key{o.queue, o.batch + ".x"}, command); err != nil {
			return usage(command, "-batch %q cannot be a batch", o.batch)
		}
	}
	if err := checkKey(key{o.queue, "any"}, command); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	out := bufio.NewWriter(a.stdout)
	told := time.Now()
	count := standings{counts: make(map[doctor.State]int)}
	jobs := doctor.Reconcile(ctx, doctor.ReconcileConfig{
		Conn: c.nc, Layout: a.layout(), Queue: o.queue, Batch: o.batch,
		Progress: func(jobs int) {
			if time.Since(told) >= progressEvery {
				told = time.Now()
				a.note("submit: %d jobs gone through, %d have no end", jobs, count.total)
			}
		},
	})
	for s, err := range jobs {
		if err == nil {
			count.add(s)
			err = writeStanding(out, s, o)
		}
		if err != nil {
			_ = out.Flush() // what there is; the first error counts
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return denied(err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	a.note("submit: %s", count.text())
	if count.unexplained > 0 {
		return errFailed
	}
	return nil
}

// writeStanding writes one job on one line.
func writeStanding(out *bufio.Writer, s doctor.Standing, o *reconcileOptions) error {
	line := []byte(standingText(s))
	if o.json {
		var err error
		if line, err = jsonLine(s); err != nil {
			return err
		}
	}
	if _, err := out.Write(line); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// standingText is a standing for people: the state, the job, and what to do. The
// columns have fixed widths because the lines are written as they come.
func standingText(s doctor.Standing) string {
	text := oneLine(s.What, 500)
	if s.Since != nil {
		text += ", since " + s.Since.UTC().Format("2006-01-02 15:04:05Z")
	}
	if s.Until != nil {
		text += ", until " + s.Until.UTC().Format("2006-01-02 15:04:05Z")
	}
	if s.Mend != "" {
		text += "; mend: " + oneLine(s.Mend, 500)
	}
	return fmt.Sprintf("%-9s  %-10s  %-20s  %s\n", s.State, oneLine(s.Queue, 0), oneLine(s.ID, 0), text)
}

// standings counts jobs by state.
type standings struct {
	counts             map[doctor.State]int
	total, unexplained int
}

func (c *standings) add(s doctor.Standing) {
	c.counts[s.State]++
	c.total++
	if s.Level == doctor.Warning || s.Level == doctor.Problem {
		c.unexplained++
	}
}

// text is the counts in one line, in the order of a job's life.
func (c *standings) text() string {
	if c.total == 0 {
		return "every job has its end"
	}
	var parts []string
	for _, state := range []doctor.State{
		doctor.Queued, doctor.Redriven, doctor.Running, doctor.Waiting, doctor.Settling, doctor.Returning,
		doctor.Stuck, doctor.Lost, doctor.Unburied, doctor.Removed, doctor.Unknown, doctor.Invalid,
	} {
		if n := c.counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return fmt.Sprintf("%s: %s; %d of them need somebody", times(c.total, "job"), strings.Join(parts, ", "), c.unexplained)
}
