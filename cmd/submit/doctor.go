package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"understudy/internal/doctor"
	"understudy/internal/queue"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct{ json, verbose bool }

// layout is how the streams should be, as far as this environment says.
func (a *app) layout() queue.Layout {
	cfg := a.loadWorker().config
	return queue.Layout{
		Subjects: a.environment().subjects, Replicas: cfg.Replicas,
		ResultsMaxAge: cfg.ResultsMaxAge, EventsMaxAge: cfg.EventsMaxAge,
	}
}

// doctor says what is wrong with the installation. Unlike the other commands it
// needs no stream, and permissions that are missing do not end it.
func (a *app) doctor(ctx context.Context, o *doctorOptions, args []string) error {
	if len(args) > 0 {
		return usage("submit doctor", "there is an argument too many, %q", args[0])
	}
	env := a.environment()
	for _, w := range env.warnings {
		a.note("submit: warning: %s", w)
	}
	if len(env.problems) > 0 {
		return usage("", "%s", strings.Join(env.problems, "\n"))
	}
	nc, err := env.connect(nats.Name("understudy submit doctor"), nats.Timeout(connectTimeout), nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // until the examination listens
	if err != nil {
		return &unreachableError{err}
	}
	defer nc.Close()
	findings, err := doctor.Examine(ctx, doctor.Config{Conn: nc, Layout: a.layout()})
	if shown := a.printFindings(findings, o); shown != nil {
		return shown
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &unreachableError{err}
	case doctor.Worst(findings) == doctor.Problem:
		return errFailed
	}
	return nil
}

// printFindings prints the findings, the worst first, and how many there are.
func (a *app) printFindings(findings []doctor.Finding, o *doctorOptions) error {
	doctor.Sort(findings)
	counts := make(map[doctor.Level]int)
	var shown []doctor.Finding
	for _, f := range findings {
		counts[f.Level]++
		if o.verbose || f.Level != doctor.OK {
			shown = append(shown, f)
		}
	}
	text := []byte(findingsTable(shown))
	if o.json {
		text = nil
		for _, f := range shown {
			line, err := jsonLine(f)
			if err != nil {
				return err
			}
			text = append(text, line...)
		}
	}
	if err := a.print(text); err != nil {
		return err
	}
	hint := ""
	if !o.verbose && counts[doctor.OK] > 0 {
		hint = " (-v lists them)"
	}
	a.note("submit: %s, %s, %s; %s fine%s", times(counts[doctor.Problem], "problem"), times(counts[doctor.Warning], "warning"),
		times(counts[doctor.Note], "note"), times(counts[doctor.OK], "thing"), hint)
	return nil
}

// findingsTable is one finding a line; nothing for none.
func findingsTable(findings []doctor.Finding) string {
	if len(findings) == 0 {
		return ""
	}
	rows := [][]string{{"LEVEL", "CHECK", "WHERE", "FINDING"}}
	for _, f := range findings {
		text := oneLine(f.What, 500)
		if f.Mend != "" {
			text += "; mend: " + oneLine(f.Mend, 500)
		}
		rows = append(rows, []string{string(f.Level), f.Check, oneLine(f.Where, 120), text})
	}
	return table(rows)
}

// denied turns a permission that is missing into words that name it.
func denied(err error) error {
	if d, ok := errors.AsType[*doctor.DeniedError](err); ok {
		return usage("", "%v: allow this user to %s %q", d, d.Verb, d.Subject)
	}
	return fmt.Errorf("reconcile: %w", err)
}
