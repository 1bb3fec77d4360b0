package main

import (
	"context"
	"flag"

	"github.com/peterbourgon/ff/v3/ffcli"
)

func (t *tree) dead() *ffcli.Command {
	return t.command(&ffcli.Command{
		Name: "dead", FlagSet: t.flags("submit dead"),
		ShortHelp:  "Looks after dead letters: jobs that failed everywhere.",
		ShortUsage: "submit dead <command> [flags] [arguments]",
		LongHelp: `A dead letter stays until its job is put back or it is purged. What is done with
it is told by the job's events: submit watch ID.

EXAMPLES
  submit dead ls
  submit dead redrive -class rate_limit -wait`,
		Subcommands: []*ffcli.Command{t.deadList(), t.deadShow(), t.deadEdit(), t.deadRedrive(), t.deadPurge()},
	}, nil)
}

func (t *tree) deadList() *ffcli.Command {
	fs := t.flags("submit dead ls")
	opts := &deadListOptions{}
	deadFlags(fs, &opts.selection)
	fs.IntVar(&opts.limit, "limit", defaultLimit, "list the newest `number` only; 0: all")
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per dead letter, without prompts")
	return t.command(&ffcli.Command{
		Name: "ls", FlagSet: fs,
		ShortHelp:  "Lists dead letters, the newest last.",
		ShortUsage: "submit dead ls [ID…] [flags]",
		LongHelp: `An ID may be a pattern: "b.*" is the whole batch b. Filters narrow what is listed;
a letter must pass all of them. Standard error says how many there are.

EXAMPLES
  submit dead ls -newer 10m
  submit dead ls -batch b -class timeout -limit 0`,
	}, func(ctx context.Context, args []string) error { return t.app.deadList(ctx, opts, args) })
}

func (t *tree) deadShow() *ffcli.Command {
	fs := t.flags("submit dead show")
	opts := &deadShowOptions{}
	fs.StringVar(&opts.queue, "queue", "", "look in this `queue` only")
	fs.BoolVar(&opts.payload, "payload", false, "show the job too: it holds the prompt")
	fs.BoolVar(&opts.original, "original", false, "show the job as it was published, before it was edited")
	fs.BoolVar(&opts.json, "json", false, "print the dead letter as JSON on one line, with its history")
	return t.command(&ffcli.Command{
		Name: "show", FlagSet: fs,
		ShortHelp:  "Shows one dead letter with every attempt.",
		ShortUsage: "submit dead show ID [flags]",
		LongHelp: `It also tells how often the job died, and who put it back or edited it when, as
far as the events are kept.

EXAMPLES
  submit dead show row-17
  submit dead show row-17 -json -payload | jq .job`,
	}, func(ctx context.Context, args []string) error { return t.app.deadShow(ctx, opts, args) })
}

func (t *tree) deadEdit() *ffcli.Command {
	fs := t.flags("submit dead edit")
	opts := &deadEditOptions{}
	fs.StringVar(&opts.queue, "queue", "", "look in this `queue` only")
	fs.StringVar(&opts.file, "f", "", "the `file` with the whole job as it is to be; - is standard input")
	fs.Func("set", "a field and its new value as `name=json`, given once for each field", func(value string) error {
		opts.set = append(opts.set, value)
		return nil
	})
	fs.BoolVar(&opts.restore, "restore", false, "bring back the job as it was published")
	fs.BoolVar(&opts.redrive, "redrive", false, "put the job back into its queue at once")
	fs.BoolVar(&opts.wait, "wait", false, "with -redrive: wait for the new result")
	fs.BoolVar(&opts.json, "json", false, "print a JSON object; with -redrive -wait the result")
	return t.command(&ffcli.Command{
		Name: "edit", FlagSet: fs,
		ShortHelp:  "Changes the job of a dead letter.",
		ShortUsage: "submit dead edit ID [flags]",
		LongHelp: `Without -f, -set or -restore it opens $VISUAL or $EDITOR. The job is checked as
submit job checks it: exit code 2 names the field that is wrong, and nothing is
changed. With -set all other bytes stay; the parts of a name are joined by dots,
and a text needs its quotes. The job as published is kept until the dead letter
is purged: see show -original.

EXAMPLES
  submit dead edit row-17
  submit dead edit row-17 -set route='"simple_qa"' -set body.max_tokens=500 -redrive -wait`,
	}, func(ctx context.Context, args []string) error { return t.app.deadEdit(ctx, opts, args) })
}

func (t *tree) deadRedrive() *ffcli.Command {
	fs := t.flags("submit dead redrive")
	opts := &redriveOptions{}
	deadFlags(fs, &opts.selection)
	fs.BoolVar(&opts.all, "all", false, "all dead letters, but for what the filters leave out")
	fs.Float64Var(&opts.rate, "rate", 0, "at most this `number` of jobs per second; 0: no limit")
	fs.IntVar(&opts.max, "max", 0, "only the oldest `number` of those chosen; 0: all")
	fs.BoolVar(&opts.dry, "dry-run", false, "only list what would be put back")
	fs.BoolVar(&opts.wait, "wait", false, "wait for the new results; the exit code tells how they are")
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per job, the result with -wait")
	return t.command(&ffcli.Command{
		Name: "redrive", FlagSet: fs,
		ShortHelp:  "Puts the jobs of dead letters back into their queues.",
		ShortUsage: "submit dead redrive ID… | -all | filters [flags]",
		LongHelp: `A job keeps its id; its new result replaces the failed one. The dead letter goes
when the job is queued again, oldest first. While the queue is full it waits. An
ID may be a pattern: "b.*" is the whole batch b.

EXAMPLES
  submit dead redrive row-17 -wait
  submit dead redrive -class quota -older 1h -rate 5 -dry-run`,
	}, func(ctx context.Context, args []string) error { return t.app.deadRedrive(ctx, opts, args) })
}

func (t *tree) deadPurge() *ffcli.Command {
	fs := t.flags("submit dead purge")
	opts := &deadPurgeOptions{}
	deadFlags(fs, &opts.selection)
	fs.BoolVar(&opts.all, "all", false, "all dead letters, but for what the filters leave out")
	fs.BoolVar(&opts.orphans, "orphans", false, "payloads without a dead letter that are older than -older (1h), and nothing else")
	fs.BoolVar(&opts.dry, "dry-run", false, "only list what would be deleted")
	fs.BoolVar(&opts.yes, "yes", false, "do not ask: for scripts")
	fs.BoolVar(&opts.json, "json", false, "print one JSON object per dead letter, without prompts")
	return t.command(&ffcli.Command{
		Name: "purge", FlagSet: fs,
		ShortHelp:  "Deletes dead letters for good, with the jobs in them.",
		ShortUsage: "submit dead purge ID… | -all | filters | -orphans [flags]",
		LongHelp: `The number of dead letters must be typed to go on; a script says -yes. The failed
results stay as long as results are kept. An ID may be a pattern: "b.*" is the
whole batch b.

EXAMPLES
  submit dead purge -batch b -older 168h
  submit dead purge -class invalid_job -yes`,
	}, func(ctx context.Context, args []string) error { return t.app.deadPurge(ctx, opts, args) })
}

// deadFlags adds the flags that choose dead letters.
func deadFlags(fs *flag.FlagSet, s *selection) {
	fs.StringVar(&s.queue, "queue", "", "only those of this `queue`")
	fs.StringVar(&s.class, "class", "", "only those that died of this `class` of error, such as timeout")
	fs.StringVar(&s.backend, "backend", "", "only those with a failed attempt at this `backend`, the last or an earlier one")
	fs.StringVar(&s.batch, "batch", "", "only those of this `batch`: the ids that begin with it and a dot")
	fs.DurationVar(&s.older, "older", 0, "only those that died at least this long ago: a `duration` such as 1h")
	fs.DurationVar(&s.newer, "newer", 0, "only those that died at most this long ago: a `duration` such as 10m")
}
