package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"understudy/internal/job"
	"understudy/internal/results"
)

// deadEditOptions are the flags of dead edit.
type deadEditOptions struct {
	queue, file         string
	set                 []string
	restore             bool
	redrive, wait, json bool
}

// edited is what -json prints of a job that was edited.
type edited struct {
	ID        string `json:"id"`
	Queue     string `json:"queue"`
	Changed   bool   `json:"changed"`
	OldSHA256 string `json:"old_sha256"`
	NewSHA256 string `json:"new_sha256"`
}

// check validates the flags.
func (o *deadEditOptions) check(a *app, command string) error {
	ways := 0
	for _, given := range []bool{o.file != "", len(o.set) > 0, o.restore} {
		if given {
			ways++
		}
	}
	seen := a.terminals.in && (a.terminals.out || a.terminals.err) // by a person
	switch {
	case ways > 1:
		return usage(command, "-f, -set and -restore exclude each other")
	case o.wait && !o.redrive:
		return usage(command, "-wait goes with -redrive")
	case ways == 0 && !seen:
		return usage(command, "there is no terminal for an editor: give the job with -f, or its fields with -set")
	case o.file == "-" && a.terminals.in:
		return usage(command, "there is no job: give a file with -f, or write it to standard input")
	}
	return nil
}

// deadEdit changes the job of a dead letter.
func (a *app) deadEdit(ctx context.Context, o *deadEditOptions, args []string) error {
	const command = "submit dead edit"
	if err := cmp.Or(oneID(o.queue, args, command), o.check(a, command)); err != nil {
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
	before, err := c.store.Payload(ctx, l.DeadLetter)
	if err != nil {
		return err
	}
	e := &editor{app: a, c: c, opts: o, command: command}
	after, err := e.payload(ctx, l, before)
	if err == nil {
		l, err = e.store(ctx, l, before, after)
	}
	if err != nil {
		e.rescue()
		return err
	}
	e.forget()
	if !o.redrive {
		return nil
	}
	r := &redriver{app: a, c: c, opts: &redriveOptions{wait: o.wait, json: o.json}, chosen: []picked{{summarize(l.DeadLetter), l.Seq}}}
	return r.run(ctx)
}

// editor is one run of the edit command.
type editor struct {
	app     *app
	c       *client
	opts    *deadEditOptions
	command string
	draft   string // the file that a person has edited; empty for none
}

// payload is the job as it is to be.
func (e *editor) payload(ctx context.Context, l *results.Letter, before []byte) ([]byte, error) {
	switch {
	case e.opts.restore:
		return e.c.store.Original(ctx, l.DeadLetter)
	case len(e.opts.set) > 0:
		after, err := setFields(before, e.opts.set)
		if err != nil {
			return nil, usage(e.command, "%v", err)
		}
		return after, nil
	case e.opts.file != "":
		in, done, err := e.app.open(e.opts.file)
		if err != nil {
			return nil, err
		}
		defer done()
		return readCapped(ctx, in, maxJob, "the job")
	}
	return e.byHand(ctx, before)
}

// byHand lets a person edit the job.
func (e *editor) byHand(ctx context.Context, before []byte) ([]byte, error) {
	shown, err := pretty(before)
	if err != nil { // no JSON: that may be what is to be mended
		shown = before
	}
	f, err := os.CreateTemp("", "submit-*.json") // for this user's eyes only
	if err != nil {
		return nil, fmt.Errorf("make a file to edit: %w", err)
	}
	e.draft = f.Name()
	_, err = f.Write(shown)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("write a file to edit: %w", err)
	}
	if err := e.open(ctx); err != nil {
		return nil, err
	}
	after, err := os.ReadFile(e.draft)
	if err != nil {
		return nil, fmt.Errorf("read what was edited: %w", err)
	}
	if bytes.Equal(after, shown) {
		return before, nil
	}
	return after, nil
}

// open runs the person's editor.
func (e *editor) open(ctx context.Context) error {
	program := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	// The variable may hold arguments, as it may for other programs.
	cmd := exec.CommandContext(ctx, "sh", "-c", program+` "$1"`, "sh", e.draft)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if !e.app.terminals.out {
		cmd.Stdout = os.Stderr
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the editor %q failed, nothing was changed: %w", program, err)
	}
	return nil
}

// store checks the job and stores its letter anew.
func (e *editor) store(ctx context.Context, l *results.Letter, before, after []byte) (*results.Letter, error) {
	k := key{l.Queue, l.ID}
	if err := e.app.checkJob(k, after, e.command); err != nil {
		return nil, err
	}
	say := edited{ID: k.id, Queue: k.queue, Changed: !bytes.Equal(before, after), OldSHA256: digest(before), NewSHA256: digest(after)}
	if !say.Changed {
		e.app.note("submit: job %s is as it was; nothing was changed", k.id)
		return l, e.say(say)
	}
	now, err := e.c.store.Edit(ctx, l, after)
	var tooBig *results.TooBigError
	switch {
	case errors.As(err, &tooBig):
		return nil, usage(e.command, "%v", tooBig)
	case errors.Is(err, results.ErrLetterChanged):
		e.app.note("submit: the dead letter of job %s has gone or changed meanwhile; nothing was changed", k.id)
		return nil, errFailed
	case now == nil:
		return nil, err
	case err != nil: // only what was there before could not be deleted
		e.app.note("submit: %v", err)
	}
	data := handling(l)
	data.OldSHA256, data.NewSHA256 = say.OldSHA256, say.NewSHA256
	e.app.tell(ctx, e.c, job.EventLetterEdited, k, data)
	if !e.opts.redrive {
		e.app.note("submit: job %s is edited; to run it: submit dead redrive %s%s", k.id, k.id, queueHint(k.queue))
	}
	return now, e.say(say)
}

// say tells of an edit on standard output, unless the redrive does.
func (e *editor) say(what edited) error {
	switch {
	case e.opts.redrive:
		return nil
	case e.opts.json:
		return e.app.printLine(what)
	}
	return e.app.print([]byte(oneLine(what.ID, 0) + "\n"))
}

// rescue says where the work of a person is that could not be stored.
func (e *editor) rescue() {
	if e.draft != "" {
		e.app.note("submit: what you wrote is in %s; give it with -f, or delete it", e.draft)
	}
}

// forget deletes the file that a person has edited: it holds a prompt.
func (e *editor) forget() {
	if e.draft == "" {
		return
	}
	if err := os.Remove(e.draft); err != nil {
		e.app.note("submit: what you wrote could not be deleted: %v", err)
	}
}
