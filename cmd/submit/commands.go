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
		Subcommands: []*ffcli.Command{t.ask(), t.job(), t.batch(), t.watch(), t.result(), t.dead()},
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
	return []string{"cancel", "stats", "sessions", "breakers", "doctor", "explain", "reconcile"}
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

func (t *tree) dead() *ffcli.Command {
	return t.command(&ffcli.Command{
		Name: "dead", FlagSet: t.flags("submit dead"),
		ShortHelp:  "Lists, shows and redrives dead letters: jobs that failed everywhere.",
		ShortUsage: "submit dead <command> [flags] [arguments]",
		LongHelp: `EXAMPLES
  submit dead ls
  submit dead redrive -all -class rate_limit -wait`,
		Subcommands: []*ffcli.Command{t.deadList(), t.deadShow(), t.deadRedrive()},
	}, nil)
}

func (t *tree) deadList() *ffcli.Command {
	fs := t.flags("submit dead ls")
	opts := &deadOptions{}
	deadFlags(fs, opts)
	fs.IntVar(&opts.limit, "limit", defaultLimit, "list the newest `number` only; 0: all")
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per dead letter, without prompts")
	return t.command(&ffcli.Command{
		Name: "ls", FlagSet: fs,
		ShortHelp:  "Lists dead letters, the newest last.",
		ShortUsage: "submit dead ls [ID…] [flags]",
		LongHelp: `An ID may be a pattern: "b.*" is the whole batch b.

EXAMPLES
  submit dead ls
  submit dead ls 'b.*' -class timeout -limit 0`,
	}, func(ctx context.Context, args []string) error { return t.app.deadList(ctx, opts, args) })
}

func (t *tree) deadShow() *ffcli.Command {
	fs := t.flags("submit dead show")
	opts := &deadOptions{}
	fs.StringVar(&opts.queue, "queue", "", "look in this `queue` only")
	fs.BoolVar(&opts.payload, "payload", false, "show the job too: it holds the prompt")
	fs.BoolVar(&opts.json, "json", false, "print the dead letter as JSON on one line")
	return t.command(&ffcli.Command{
		Name: "show", FlagSet: fs,
		ShortHelp:  "Shows one dead letter with every attempt.",
		ShortUsage: "submit dead show ID [flags]",
		LongHelp: `EXAMPLES
  submit dead show row-17
  submit dead show row-17 -json -payload | jq .job`,
	}, func(ctx context.Context, args []string) error { return t.app.deadShow(ctx, opts, args) })
}

func (t *tree) deadRedrive() *ffcli.Command {
	fs := t.flags("submit dead redrive")
	opts := &deadOptions{}
	deadFlags(fs, opts)
	fs.BoolVar(&opts.all, "all", false, "all dead letters, but for what -class and -queue leave out")
	fs.BoolVar(&opts.wait, "wait", false, "wait for the new results; the exit code tells how they are")
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per job, the result with -wait")
	return t.command(&ffcli.Command{
		Name: "redrive", FlagSet: fs,
		ShortHelp:  "Puts the jobs of dead letters back into their queues.",
		ShortUsage: "submit dead redrive ID… | -all [flags]",
		LongHelp: `A job keeps its id; its new result replaces the failed one. The dead letter goes
when the job is queued again. An ID may be a pattern: "b.*" is the whole batch b.

EXAMPLES
  submit dead redrive row-17 -wait
  submit dead redrive -all -class quota -queue low`,
	}, func(ctx context.Context, args []string) error { return t.app.deadRedrive(ctx, opts, args) })
}

// deadFlags adds the flags that choose dead letters.
func deadFlags(fs *flag.FlagSet, opts *deadOptions) {
	fs.StringVar(&opts.queue, "queue", "", "only those of this `queue`")
	fs.StringVar(&opts.class, "class", "", "only those that died of this `class` of error, such as timeout")
}
