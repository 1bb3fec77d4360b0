package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"understudy/internal/job"
)

// defaultLimit is how many dead letters are listed unless -limit says otherwise.
const defaultLimit = 50

// deadListOptions are the flags of dead ls.
type deadListOptions struct {
	selection
	limit int
	json  bool
}

// deadList lists dead letters.
func (a *app) deadList(ctx context.Context, o *deadListOptions, ids []string) error {
	const command = "submit dead ls"
	o.ids = ids
	if o.limit < 0 {
		return usage(command, "-limit %d: must be 0 or more", o.limit)
	}
	if err := o.check(command); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	var list []picked
	total := 0
	err = a.pick(ctx, c, &o.selection, func(p picked) {
		total++
		list = append(list, p)
		if o.limit > 0 && len(list) >= 2*o.limit { // forget what is too old, now and then
			list = slices.Clone(list[len(list)-o.limit:])
		}
	})
	if err != nil {
		return err
	}
	if o.limit > 0 && len(list) > o.limit {
		list = list[len(list)-o.limit:]
	}
	show := a.printTable
	if o.json {
		show = a.printLines
	}
	if err := show(list); err != nil {
		return err
	}
	switch {
	case total == 0:
		a.note("There are no dead letters.")
	case total > len(list):
		a.note("The newest %d of %d; -limit 0 lists all.", len(list), total)
	default:
		a.note("%s.", times(total, "dead letter"))
	}
	return nil
}

// printTable prints dead letters for people.
func (a *app) printTable(list []picked) error {
	if len(list) == 0 {
		return nil
	}
	return a.print([]byte(deadTable(list, a.now())))
}

// printLines prints one JSON object a line.
func (a *app) printLines(list []picked) error {
	for _, p := range list {
		if err := a.printLine(p.deadSummary); err != nil {
			return err
		}
	}
	return nil
}

// printLine prints v as JSON on one line.
func (a *app) printLine(v any) error {
	line, err := jsonLine(v)
	if err != nil {
		return err
	}
	return a.print(line)
}

// deadSummary is a dead letter in a list. It holds no prompt.
type deadSummary struct {
	ID        string    `json:"id"`
	Queue     string    `json:"queue"`
	Reason    string    `json:"reason"`
	Attempts  int       `json:"attempts"`
	Redrives  int       `json:"redrives"`
	Class     string    `json:"last_class"`
	Backend   string    `json:"last_backend"`
	Time      time.Time `json:"time"`
	Worker    string    `json:"worker"`
	Delivered int       `json:"deliveries"`
}

func summarize(d *job.DeadLetter) deadSummary {
	last := deref(d.LastError)
	return deadSummary{
		ID: d.ID, Queue: d.Queue, Reason: d.Reason, Attempts: calls(d.Attempts), Redrives: d.Redrives,
		Class: last.Class, Backend: last.Backend, Time: d.Time, Worker: d.Worker, Delivered: d.Deliveries,
	}
}

// deadTable is the list for people.
func deadTable(list []picked, now time.Time) string {
	rows := [][]string{{"ID", "QUEUE", "REASON", "ATTEMPTS", "REDRIVES", "AGE", "LAST ERROR"}}
	for _, d := range list {
		last := dash(d.Class)
		if d.Backend != "" {
			last += " (" + d.Backend + ")"
		}
		rows = append(rows, []string{
			oneLine(d.ID, 0), oneLine(d.Queue, 0), dash(oneLine(d.Reason, 64)), strconv.Itoa(d.Attempts), strconv.Itoa(d.Redrives),
			age(now, d.Time), oneLine(last, 100),
		})
	}
	return table(rows)
}
