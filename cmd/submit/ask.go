package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"understudy/internal/job"
)

// maxPrompt is the longest prompt read from standard input, in bytes.
const maxPrompt = 1 << 20

// waitSlack is how much longer than the job itself its asker waits, so that the
// worker's own word about the time that is up arrives.
const waitSlack = 2 * time.Second

// askOptions are the flags of ask.
type askOptions struct {
	route, model, queue, id string
	stream, json, verbose   bool
	timeout                 time.Duration
}

func askFlags(fs *flag.FlagSet) *askOptions {
	o := &askOptions{}
	fs.StringVar(&o.route, "route", "", "the `route` to take")
	fs.StringVar(&o.model, "model", "", "the `model` to ask for")
	fs.BoolVar(&o.stream, "stream", false, "print the answer while it comes")
	fs.StringVar(&o.queue, "queue", job.DefaultQueue, "the `queue` of the job")
	fs.StringVar(&o.id, "id", "", "the job's `id`; a new one if missing")
	fs.DurationVar(&o.timeout, "timeout", 0, "how long the answer may take: a `duration` such as 30s; the job ends then, too")
	fs.BoolVar(&o.json, "json", false, "print the whole result on one line; with -stream every chunk before it")
	fs.BoolVar(&o.verbose, "v", false, "say who answered even when nobody watches")
	return o
}

// question is the job that ask publishes.
type question struct {
	Body      questionBody `json:"body"`
	Route     string       `json:"route,omitempty"`
	TimeoutMS int64        `json:"timeout_ms,omitempty"`
}

type questionBody struct {
	Model    string    `json:"model,omitempty"`
	Messages []message `json:"messages"`
	Stream   bool      `json:"stream,omitempty"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// ask asks one question and prints the answer.
func (a *app) ask(ctx context.Context, o *askOptions, args []string) error {
	prompt, err := a.prompt(ctx, args)
	if err != nil {
		return err
	}
	if o.timeout < 0 || o.timeout > 0 && o.timeout < time.Millisecond {
		return usage("submit ask", "-timeout %s: must be a millisecond or more", o.timeout)
	}
	payload, err := jsonLine(question{
		Body:  questionBody{Model: o.model, Messages: []message{{"user", prompt}}, Stream: o.stream},
		Route: o.route, TimeoutMS: o.timeout.Milliseconds(),
	})
	if err != nil {
		return err
	}
	ord := order{key: key{o.queue, o.id}, payload: payload, patience: o.timeout, newID: o.id == ""}
	if ord.newID {
		ord.id = job.NewID()
	}
	if err := a.checkJob(ord.key, ord.payload, "submit ask"); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	var live *live
	if o.stream {
		live = newLive(a, o.json)
		ord.chunk = live.chunk
	}
	out, err := a.place(ctx, c, ord)
	if err != nil {
		return err
	}
	return a.answered(o, live, out)
}

// prompt is the question, from the arguments or from standard input.
func (a *app) prompt(ctx context.Context, args []string) (string, error) {
	switch {
	case len(args) > 1:
		return "", usage("submit ask", "the prompt is one argument: put it in quotes (there are %d arguments)", len(args))
	case len(args) == 1 && args[0] != "-":
		return checkPrompt(args[0])
	case len(args) == 0 && a.terminals.in:
		return "", usage("submit ask", "there is no prompt")
	}
	data, err := readCapped(ctx, a.stdin, maxPrompt, "the prompt on standard input")
	if err != nil {
		return "", err
	}
	return checkPrompt(string(data))
}

func checkPrompt(prompt string) (string, error) {
	switch {
	case strings.TrimSpace(prompt) == "":
		return "", usage("submit ask", "the prompt is empty")
	case !utf8.ValidString(prompt):
		return "", usage("submit ask", "the prompt is not text in UTF-8")
	}
	return prompt, nil
}

// answered prints what became of a question.
func (a *app) answered(o *askOptions, live *live, out outcome) error {
	if o.json {
		if err := a.printResult(out, asLine); err != nil {
			return err
		}
	} else if err := a.printAnswer(live, out); err != nil {
		return err
	}
	if !out.succeeded() {
		a.explain(out)
		return errFailed
	}
	if a.terminals.err || o.verbose {
		a.note("%s", summary(out.result))
	}
	return nil
}

// printAnswer prints the text of an answer, or what is missing of it.
func (a *app) printAnswer(live *live, out outcome) error {
	switch {
	case live != nil && out.succeeded():
		return live.finish(answerText(out.result.Response))
	case live != nil:
		return live.end()
	case out.succeeded():
		return a.printText(answerText(out.result.Response), true)
	}
	return nil
}

// summary is one line about an answer.
func summary(r *job.Result) string {
	s := fmt.Sprintf("job %s: answered by %s", r.ID, dash(r.Backend))
	if r.Degraded {
		s += ", degraded: without a model"
	}
	s += fmt.Sprintf(", %s, %s", times(calls(r.Attempts), "attempt"), milliseconds(r.DurationMS))
	if r.CostUSD != nil {
		s += ", " + dollars(*r.CostUSD)
	}
	return s
}

// explain says why a job did not succeed and what to do next.
func (a *app) explain(out outcome) {
	flag := ""
	if out.queue != job.DefaultQueue {
		flag = " -queue " + out.queue
	}
	switch {
	case out.gone:
		a.note("submit: job %s is neither queued nor has a result: somebody took it out of the queue", out.id)
		return
	case out.unreadable != nil:
		a.note("submit: the result of job %s cannot be read: %v", out.id, out.unreadable)
		return
	}
	if out.missing != nil && out.result.Status == job.Succeeded {
		a.note("submit: job %s succeeded, but its answer is too big for a message and cannot be had: %s", out.id, oneLine(out.missing.Error(), 500))
		return
	}
	r := out.result
	class, message := "no reason given", ""
	if r.Error != nil {
		class, message = r.Error.Code, ": "+oneLine(r.Error.Message, 500)
	}
	a.note("submit: job %s %s: %s%s", out.id, r.Status, oneLine(class, 64), message)
	if r.Status == job.Cancelled {
		a.note("  the whole result:  submit result %s%s", out.id, flag)
		return
	}
	a.note("  the whole result:  submit result %s%s\n  every attempt:     submit dead show %s%s\n  run it again:      submit dead redrive %s%s -wait",
		out.id, flag, out.id, flag, out.id, flag)
}

// tooLongError is the cause with which a wait ends.
type tooLongError struct{ after time.Duration }

// Error implements error.
func (t *tooLongError) Error() string {
	return fmt.Sprintf("there is no result after %s", lasting(t.after))
}

// Unwrap makes it a deadline.
func (t *tooLongError) Unwrap() error { return context.DeadlineExceeded }
