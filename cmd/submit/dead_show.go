package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"understudy/internal/job"
	"understudy/internal/results"
)

// deadShowOptions are the flags of dead show.
type deadShowOptions struct {
	queue                   string
	payload, original, json bool
}

// deadShow shows one dead letter.
func (a *app) deadShow(ctx context.Context, o *deadShowOptions, args []string) error {
	const command = "submit dead show"
	if err := oneID(o.queue, args, command); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	l, err := a.theLetter(ctx, c, key{o.queue, args[0]}, command)
	if err != nil {
		return err
	}
	history, err := c.handled(ctx, l.DeadLetter)
	if err != nil {
		return err
	}
	var payload []byte
	switch {
	case o.original:
		payload, err = c.store.Original(ctx, l.DeadLetter)
	case o.payload:
		payload, err = c.store.Payload(ctx, l.DeadLetter)
	}
	if err != nil {
		return err
	}
	if o.json {
		return a.printLetter(l.DeadLetter, history, payload)
	}
	text := letterText(l.DeadLetter, a.now())
	if c.store.Edited(l.DeadLetter) {
		text += "\nThe job was edited: -original shows it as it was published.\n"
	}
	if err := a.print([]byte(text), []byte(historyText(history))); err != nil {
		return err
	}
	return a.printPayload(payload)
}

// oneID checks the arguments of a command about one dead letter.
func oneID(queue string, args []string, command string) error {
	if len(args) != 1 {
		return usage(command, "give one ID, not %d", len(args))
	}
	return checkKey(key{queue, args[0]}, command)
}

// theLetter returns the dead letter of a job. An empty queue means any.
func (a *app) theLetter(ctx context.Context, c *client, k key, command string) (*results.Letter, error) {
	found, err := a.lettersNow(ctx, c, &selection{queue: k.queue}, k.id)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		a.note("submit: there is no dead letter of job %s", k.id)
		return nil, errFailed
	case found[0].Queue != found[len(found)-1].Queue:
		return nil, usage(command, "job %s has dead letters in several queues: choose with -queue %s", k.id, found[0].Queue)
	}
	return found[len(found)-1], nil // there is one, unless somebody changed the stream's limits
}

// handled are the events that tell of the deaths of a job and of what was done
// with its dead letters, oldest first.
func (c *client) handled(ctx context.Context, d *job.DeadLetter) ([]*job.Event, error) {
	var list []*job.Event
	for e, err := range c.store.Events(ctx, d.Queue, d.ID) {
		if err != nil {
			return nil, err
		}
		switch e.Type { //nolint:exhaustive // the others tell of the attempts
		case job.EventDeadLettered, job.EventLetterRedriven, job.EventLetterEdited, job.EventLetterPurged:
			list = append(list, e)
		}
	}
	return list, nil
}

// historyText is what was done with a job's dead letters, for people. Nothing
// but its first death is no history.
func historyText(list []*job.Event) string {
	if len(list) == 0 || len(list) == 1 && list[0].Type == job.EventDeadLettered {
		return ""
	}
	var text strings.Builder
	text.WriteString("\nHISTORY\n")
	for _, e := range list {
		text.WriteString(e.Time.UTC().Format("2006-01-02 15:04:05Z") + "  " + oneLine(happened(e), 0) + "\n")
	}
	return text.String()
}

// printLetter prints a dead letter as JSON, with its history; its job is null
// unless payload holds it.
func (a *app) printLetter(d *job.DeadLetter, history []*job.Event, payload []byte) error {
	shown := *d
	shown.Job = json.RawMessage("null")
	if payload != nil {
		shown.Job = job.RawJob(payload)
	}
	var text bytes.Buffer
	text.Write(bytes.TrimSuffix(shown.Encode(), []byte("}")))
	text.WriteString(`,"history":[`)
	for i, e := range history {
		if i > 0 {
			text.WriteByte(',')
		}
		text.Write(e.Encode())
	}
	text.WriteString("]}")
	line, err := compact(text.Bytes())
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
	rows := [][]string{{"#", "BACKEND", "MODEL", "OUTCOME", "CLASS", "STATUS", "CODE", "TYPE", "TOOK", "WAITED", "NEXT", "ERROR"}}
	for i := range trail {
		a := &trail[i]
		status := "-"
		if a.Status != 0 {
			status = strconv.Itoa(a.Status)
		}
		rows = append(rows, []string{
			strconv.Itoa(a.N), dash(oneLine(a.Backend, 64)), dash(oneLine(a.Model, 64)), dash(oneLine(string(a.Outcome), 16)),
			dash(oneLine(deref(a.Class), 64)), status, dash(oneLine(a.Code, 64)), dash(oneLine(a.Type, 64)),
			milliseconds(a.DurationMS), milliseconds(a.WaitMS),
			dash(oneLine(string(deref(a.Next)), 16)), dash(oneLine(deref(a.Error), 200)),
		})
	}
	return table(rows)
}
