package main

import (
	"context"
	"flag"
	"slices"
	"strings"

	"github.com/peterbourgon/ff/v3/ffcli"

	"understudy/internal/job"
)

// root is the tree of all commands. Without the name of one, it asks.
func (t *tree) root() *ffcli.Command {
	fs := t.flags("submit")
	opts := askFlags(fs)
	showVersion := fs.Bool("version", false, "print the version")
	root := &ffcli.Command{
		Name: "submit", FlagSet: fs,
		ShortHelp: "Asks language models through durable jobs on NATS, and looks after the jobs.",
		ShortUsage: `submit [flags] "prompt"
submit <command> [flags] [arguments]`,
		LongHelp: `EXAMPLES
  submit "Why is the sky blue?"
  submit batch rows.jsonl -o answers.jsonl`,
		Subcommands: []*ffcli.Command{t.ask(), t.job(), t.batch(), t.watch(), t.result(), t.dead(), t.explain(), t.doctor(), t.reconcile()},
	}
	return t.command(root, func(ctx context.Context, args []string) error {
		switch {
		case *showVersion:
			return t.app.print([]byte("submit " + version() + "\n"))
		case len(args) == 0 && fs.NFlag() == 0:
			t.app.note("%s", strings.TrimSuffix(help(root), "\n"))
			return errShown
		}
		if len(args) > 0 {
			if slices.Contains(reserved(), args[0]) {
				return usage("submit", "the command %q is not available in this version; to ask it: submit ask %q", args[0], args[0])
			}
			if name := meant(args[0], root.Subcommands); name != "" {
				return usage("submit", "%q is no command; did you mean %q? To ask it: submit ask %q", args[0], "submit "+name, args[0])
			}
		}
		return t.app.ask(ctx, opts, args)
	})
}

// reserved are the names of commands to come. As prompts they would cost money
// and seem to have worked.
func reserved() []string {
	return []string{"cancel", "stats", "sessions", "breakers"}
}

func (t *tree) ask() *ffcli.Command {
	fs := t.flags("submit ask")
	opts := askFlags(fs)
	return t.command(&ffcli.Command{
		Name: "ask", FlagSet: fs,
		ShortHelp: "Asks one question and prints the answer.",
		ShortUsage: `submit [ask] [flags] "prompt"
command | submit ask [flags]`,
		LongHelp: `The question becomes a durable job: it is answered even if this command or a
worker dies. Only the answer goes to standard output. The prompt is read from
standard input when it is "-" or missing, 1 MiB at most.

EXAMPLES
  submit ask -route simple_qa "Why is the sky blue?"
  git diff | submit ask -stream -`,
	}, func(ctx context.Context, args []string) error { return t.app.ask(ctx, opts, args) })
}

// queueFlag adds -queue for commands that publish.
func queueFlag(fs *flag.FlagSet) *string {
	return fs.String("queue", job.DefaultQueue, "the `queue` of the job")
}

func (t *tree) job() *ffcli.Command {
	fs := t.flags("submit job")
	opts := &jobOptions{}
	fs.StringVar(&opts.file, "f", "-", "the `file` with the job; - is standard input")
	fs.StringVar(&opts.id, "id", "", "the job's `id`; a new one if missing")
	fs.StringVar(&opts.queue, "queue", "", "the `queue` of the job; default, if the job names none")
	fs.BoolVar(&opts.noWait, "no-wait", false, "do not wait for the result: print where it will be")
	fs.BoolVar(&opts.json, "json", false, "print the result on one line")
	return t.command(&ffcli.Command{
		Name: "job", FlagSet: fs,
		ShortHelp:  "Publishes a job as it is written and prints its result.",
		ShortUsage: "submit job [flags]",
		LongHelp: `The job is an OpenAI request body, or a line of an OpenAI Batch file with the
fields of a job. It is checked first: exit code 2 names the field that is wrong.
The same id again does not run again: what is stored or queued counts.

EXAMPLES
  submit job -f job.json
  echo '{"messages":[{"role":"user","content":"Hi"}]}' | submit job -id hi-1 -no-wait`,
	}, func(ctx context.Context, args []string) error { return t.app.job(ctx, opts, args) })
}

func (t *tree) batch() *ffcli.Command {
	fs := t.flags("submit batch")
	opts := &batchOptions{}
	fs.StringVar(&opts.out, "o", "", "the `file` for the results, one line each in the order of the input; - is standard output")
	queue := queueFlag(fs)
	fs.StringVar(&opts.id, "id", "", "the `batch`, first part of the jobs' ids; made of the input's content if missing")
	fs.IntVar(&opts.window, "window", defaultWindow, "how many jobs may be sent before the stream has taken them: a `number`")
	fs.BoolVar(&opts.fresh, "fresh", false, "run every line again, under a new batch id")
	fs.BoolVar(&opts.json, "json", false, "print the summary as JSON")
	fs.BoolVar(&opts.verbose, "v", false, "print the table of backends even when nobody watches")
	return t.command(&ffcli.Command{
		Name: "batch", FlagSet: fs,
		ShortHelp:  "Runs every line of an OpenAI Batch file and writes the results.",
		ShortUsage: "submit batch IN.jsonl -o OUT.jsonl [flags]",
		LongHelp: `Every line is checked before the first is queued. Line 7 of batch b becomes job
b.000007. The same command again goes on where it was: lines that have a result
are not run again, lines that are queued are awaited. While it runs, results are
in OUT.jsonl.partial in the order in which they come; OUT.jsonl is written at the
end, in the order of the input, failed lines included.

EXAMPLES
  submit batch rows.jsonl -o answers.jsonl
  submit batch rows.jsonl -o - -queue low | jq -r .response.body.choices[0].message.content`,
	}, func(ctx context.Context, args []string) error {
		opts.queue = *queue
		return t.app.batch(ctx, opts, args)
	})
}

func (t *tree) watch() *ffcli.Command {
	fs := t.flags("submit watch")
	opts := &watchOptions{}
	fs.StringVar(&opts.queue, "queue", "", "only this `queue`; with an ID: default")
	fs.BoolVar(&opts.json, "json", false, "print the events as they are, one on a line")
	return t.command(&ffcli.Command{
		Name: "watch", FlagSet: fs,
		ShortHelp:  "Shows what happens: of one job until it ends, or of all jobs.",
		ShortUsage: "submit watch [ID] [flags]",
		LongHelp: `With an ID the events that are stored come first, then those that happen; the
exit code tells how the job ended. Without one, only what happens from now on.

EXAMPLES
  submit watch b.000007
  submit watch -json | jq -c 'select(.type == "understudy.attempt.failed")'`,
	}, func(ctx context.Context, args []string) error { return t.app.watch(ctx, opts, args) })
}

func (t *tree) result() *ffcli.Command {
	fs := t.flags("submit result")
	opts := &resultOptions{}
	queue := queueFlag(fs)
	fs.DurationVar(&opts.wait, "wait", 0, "how long to wait for the result: a `duration` such as 10m")
	fs.BoolVar(&opts.json, "json", false, "print the result on one line")
	return t.command(&ffcli.Command{
		Name: "result", FlagSet: fs,
		ShortHelp:  "Prints the stored result of a job.",
		ShortUsage: "submit result ID [flags]",
		LongHelp: `Exit code 1 says that the job failed, or that there is no result (yet): standard
error says which. Results are kept for a week, unless the stream says otherwise.

EXAMPLES
  submit result row-17
  submit result b.000007 -queue low -wait 10m`,
	}, func(ctx context.Context, args []string) error {
		opts.queue = *queue
		return t.app.result(ctx, opts, args)
	})
}

func (t *tree) explain() *ffcli.Command {
	fs := t.flags("submit explain")
	opts := &explainOptions{}
	fs.StringVar(&opts.file, "f", "-", "the `file` with the job; - is standard input")
	fs.Func("as", "how a call ends, given once for each call: an `end`", func(value string) error {
		opts.as = append(opts.as, value)
		return nil
	})
	fs.BoolVar(&opts.list, "list", false, "list the recorded answers of real providers")
	fs.BoolVar(&opts.json, "json", false, "print the path as JSON on one line")
	return t.command(&ffcli.Command{
		Name: "explain", FlagSet: fs,
		ShortHelp:  "Shows the path a job would take, without a call.",
		ShortUsage: "submit explain -f job.json [-as END]…",
		LongHelp: `It reads the same environment as a worker (BACKENDS, FALLBACK_*, ROUTE_*) and
needs neither NATS nor a provider. An END is ok, a status (503), a class of error
(timeout, rate_limit, quota, …) or the id of a recorded answer (-list), and may
say how long the call takes: 429@300ms. The first END is that of the first call,
and so on; calls beyond them succeed. NAME=END is of a call of the backend NAME,
whose further calls end like the last one given. Without -as all calls time out.

EXAMPLES
  submit explain -f job.json -as openrouter=timeout -as vllm=ok@7s
  submit explain -f job.json -as openai-429-insufficient-quota -as 503`,
	}, func(ctx context.Context, args []string) error { return t.app.explainPath(ctx, opts, args) })
}

func (t *tree) doctor() *ffcli.Command {
	fs := t.flags("submit doctor")
	opts := &doctorOptions{}
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per finding")
	fs.BoolVar(&opts.verbose, "v", false, "list what is as it should be, too")
	return t.command(&ffcli.Command{
		Name: "doctor", FlagSet: fs,
		ShortHelp:  "Says what is wrong with server, streams, queues and workers, and how to mend it.",
		ShortUsage: "submit doctor [flags]",
		LongHelp: `It only reads. One finding is one line: its level, what was looked at, where, what
was found and the mend. What this user may not see is a finding, too. Exit code 1
says that there is a problem; warnings and notes are no problem. WORKER_REPLICAS,
WORKER_RESULTS_MAX_AGE and WORKER_EVENTS_MAX_AGE should be those of the workers.

EXAMPLES
  submit doctor
  submit doctor -json -v | jq -r 'select(.level == "problem") | .mend'`,
	}, func(ctx context.Context, args []string) error { return t.app.doctor(ctx, opts, args) })
}

func (t *tree) reconcile() *ffcli.Command {
	fs := t.flags("submit reconcile")
	opts := &reconcileOptions{}
	fs.StringVar(&opts.queue, "queue", "", "only jobs of this `queue`")
	fs.StringVar(&opts.batch, "batch", "", "only jobs of this `batch`")
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per job")
	return t.command(&ffcli.Command{
		Name: "reconcile", FlagSet: fs,
		ShortHelp:  "Lists every job that has no end, where it is and what to do.",
		ShortUsage: "submit reconcile [flags]",
		LongHelp: `A job without an end is queued, redriven, running, waiting, settling, returning or
stuck. Lost and unburied jobs must not exist: they were taken or failed, and
neither the queue, a result nor a dead letter accounts for them. It only reads.
Exit code 0 says that every job is accounted for, 1 that some need somebody.

EXAMPLES
  submit reconcile -queue low
  submit reconcile -batch b -json | jq -r 'select(.state == "stuck") | .id'`,
	}, func(ctx context.Context, args []string) error { return t.app.reconcile(ctx, opts, args) })
}
