package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
	"understudy/internal/results"
)

// defaultLimit is how many dead letters are listed unless -limit says otherwise.
const defaultLimit = 50

// deadOptions are the flags of the dead commands.
type deadOptions struct {
	queue, class             string
	limit                    int
	payload, all, wait, json bool
}

// check validates the flags and the patterns of ids.
func (o *deadOptions) check(command string, patterns []string) error {
	if o.class != "" {
		if _, err := backend.ParseClass(o.class); err != nil {
			return usage(command, "-class: %v", err)
		}
	}
	if o.limit < 0 {
		return usage(command, "-limit %d: must be 0 or more", o.limit)
	}
	for _, p := range patterns {
		if err := checkKey(key{o.queue, strings.TrimSuffix(p, ".*")}, command); err != nil {
			return err
		}
	}
	return checkKey(key{o.queue, "any"}, command)
}

// picks reports whether -class lets a letter pass.
func (o *deadOptions) picks(l *results.Letter) bool {
	if o.class == "" {
		return true
	}
	class, err := backend.ParseClass(o.class)
	return err == nil && l.Reason == string(class)
}

// letters reads the dead letters that the options and patterns choose, oldest
// first, and hands each to keep.
func (a *app) letters(ctx context.Context, c *client, o *deadOptions, patterns []string, keep func(*results.Letter)) error {
	if len(patterns) == 0 {
		patterns = []string{""}
	}
	for _, pattern := range patterns {
		for l, err := range c.store.Letters(ctx, o.queue, pattern) {
			var bad *results.UnreadableError
			switch {
			case errors.As(err, &bad):
				a.note("submit: passed over: %v", err)
			case err != nil && ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil:
				return err
			case o.picks(l):
				keep(l)
			}
		}
	}
	return nil
}

// deadList lists dead letters.
func (a *app) deadList(ctx context.Context, o *deadOptions, patterns []string) error {
	if err := o.check("submit dead ls", patterns); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	var list []deadSummary
	total := 0
	err = a.letters(ctx, c, o, patterns, func(l *results.Letter) {
		total++
		list = append(list, summarize(l.DeadLetter))
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
	if o.json {
		return a.printLines(list)
	}
	if total == 0 {
		a.note("There are no dead letters.")
		return nil
	}
	if err := a.print([]byte(deadTable(list, a.now()))); err != nil {
		return err
	}
	if total > len(list) {
		a.note("The newest %d of %d; -limit 0 lists all.", len(list), total)
	}
	return nil
}

// printLines prints one JSON object a line.
func (a *app) printLines(list []deadSummary) error {
	for _, entry := range list {
		line, err := jsonLine(entry)
		if err == nil {
			err = a.print(line)
		}
		if err != nil {
			return err
		}
	}
	return nil
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
func deadTable(list []deadSummary, now time.Time) string {
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

// deadShow shows one dead letter.
func (a *app) deadShow(ctx context.Context, o *deadOptions, args []string) error {
	const command = "submit dead show"
	if len(args) != 1 {
		return usage(command, "give one ID, not %d", len(args))
	}
	if err := checkKey(key{o.queue, args[0]}, command); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	var found []*results.Letter
	if err := a.letters(ctx, c, o, args, func(l *results.Letter) { found = append(found, l) }); err != nil {
		return err
	}
	switch {
	case len(found) == 0:
		a.note("submit: there is no dead letter of job %s", args[0])
		return errFailed
	case len(found) > 1:
		return usage(command, "job %s has dead letters in several queues: choose with -queue %s", args[0], found[0].Queue)
	}
	var payload []byte
	if o.payload {
		if payload, err = c.store.Payload(ctx, found[0].DeadLetter); err != nil {
			return err
		}
	}
	if o.json {
		return a.printLetter(found[0].DeadLetter, payload)
	}
	if err := a.print([]byte(letterText(found[0].DeadLetter, a.now()))); err != nil {
		return err
	}
	return a.printPayload(payload)
}

// printLetter prints a dead letter as JSON; its job is null unless payload holds it.
func (a *app) printLetter(d *job.DeadLetter, payload []byte) error {
	shown := *d
	shown.Job = json.RawMessage("null")
	if payload != nil {
		shown.Job = job.RawJob(payload)
	}
	line, err := compact(shown.Encode())
	if err != nil {
		return err
	}
	return a.print(line)
}

// printPayload prints the job of a dead letter, if it is to be shown.
func (a *app) printPayload(payload []byte) error {
	if payload == nil {
		return nil
	}
	text, err := pretty(payload)
	if err != nil { // no JSON: that may be why it is dead
		text = append(payload, '\n')
	}
	if a.terminals.out {
		text = []byte(plain(string(text)))
	}
	return a.print([]byte("\nJOB\n"), text)
}

// letterText is a dead letter for people.
func letterText(d *job.DeadLetter, now time.Time) string {
	rows := [][]string{
		{"job", oneLine(d.ID, 0)},
		{"queue", oneLine(d.Queue, 0)},
		{"reason", dash(oneLine(d.Reason, 64))},
		{"died", fmt.Sprintf("%s (%s ago) on %s", d.Time.UTC().Format("2006-01-02 15:04:05Z"), age(now, d.Time), dash(oneLine(d.Worker, 64)))},
		{"counts", fmt.Sprintf("%s, deliveries %d, redrives %d", times(calls(d.Attempts), "attempt"), d.Deliveries, d.Redrives)},
	}
	if d.Error != nil {
		rows = append(rows, []string{"error", oneLine(d.Error.Message, 1000)})
	}
	rows = append(rows, []string{"first", failureText(d.FirstError)}, []string{"last", failureText(d.LastError)})
	if len(d.Attempts) == 0 {
		return table(rows) + "\nNo attempt was made.\n"
	}
	return table(rows) + "\n" + trailTable(d.Attempts)
}

func failureText(f *job.Failure) string {
	if f == nil {
		return "-"
	}
	return oneLine(fmt.Sprintf("%s: %s%s: %s", f.Backend, f.Class, unless(f.Status == 0, " %d", f.Status), f.Message), 1000)
}

// trailTable is every attempt of a job.
func trailTable(trail []job.Attempt) string {
	rows := [][]string{{"#", "BACKEND", "MODEL", "OUTCOME", "CLASS", "STATUS", "TOOK", "WAITED", "NEXT", "ERROR"}}
	for i := range trail {
		a := &trail[i]
		status := "-"
		if a.Status != 0 {
			status = strconv.Itoa(a.Status)
		}
		rows = append(rows, []string{
			strconv.Itoa(a.N), dash(oneLine(a.Backend, 64)), dash(oneLine(a.Model, 64)), dash(oneLine(string(a.Outcome), 16)),
			dash(oneLine(deref(a.Class), 64)), status, milliseconds(a.DurationMS), milliseconds(a.WaitMS),
			dash(oneLine(string(deref(a.Next)), 16)), dash(oneLine(deref(a.Error), 200)),
		})
	}
	return table(rows)
}
