package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"strings"

	"github.com/peterbourgon/ff/v3/ffcli"
)

// tree is the tree of commands while one line is parsed.
type tree struct {
	app  *app
	argv []string
	// helped is the command whose help was asked for last, or whose flags are
	// wrong.
	helped *ffcli.Command
	out    bytes.Buffer // what package flag prints
}

// dispatch parses one command line and runs what it asks for.
func (a *app) dispatch(ctx context.Context, args []string) error {
	t := &tree{app: a, argv: args}
	root := t.root()
	if len(args) > 0 && strings.EqualFold(args[0], "help") {
		return t.help(root, args[1:])
	}
	err := root.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return a.print([]byte(help(t.helped)))
	case isNoExec(err):
		if cmd := selected(root); len(cmd.FlagSet.Args()) > 0 {
			return t.unknown(cmd, cmd.FlagSet.Arg(0))
		}
		a.note("%s", strings.TrimSuffix(help(selected(root)), "\n"))
		return errShown
	case err != nil:
		if inner := errors.Unwrap(err); inner != nil { // the library's own words say nothing
			err = inner
		}
		return usage(path(t.helped), "%v", err)
	case root.FlagSet.NFlag() > 0 && selected(root) != root:
		return usage(path(selected(root)), "put the flags behind the command: %s -…", path(selected(root)))
	}
	err = root.Run(ctx)
	if errors.Is(err, flag.ErrHelp) { // -h behind the arguments
		return a.print([]byte(help(t.helped)))
	}
	return err
}

func isNoExec(err error) bool {
	var none ffcli.NoExecError
	return errors.As(err, &none)
}

// selected is the deepest command that the parsed line names.
func selected(root *ffcli.Command) *ffcli.Command {
	cmd := root
	for {
		args := cmd.FlagSet.Args()
		if len(args) == 0 {
			return cmd
		}
		sub := subcommand(cmd, args[0])
		if sub == nil {
			return cmd
		}
		cmd = sub
	}
}

// subcommand is the command that word names under cmd; nil for none.
func subcommand(cmd *ffcli.Command, word string) *ffcli.Command {
	for _, sub := range cmd.Subcommands {
		if strings.EqualFold(sub.Name, word) {
			return sub
		}
	}
	return nil
}

// help prints the help of the command that words name.
func (t *tree) help(root *ffcli.Command, words []string) error {
	cmd := root
	for _, word := range words {
		sub := subcommand(cmd, word)
		if sub == nil {
			return t.unknown(cmd, word)
		}
		cmd = sub
	}
	return t.app.print([]byte(help(cmd)))
}

// unknown is the error of a word that names no command under cmd.
func (t *tree) unknown(cmd *ffcli.Command, word string) error {
	if name := meant(word, cmd.Subcommands); name != "" {
		return usage(path(cmd), "there is no command %q; did you mean %q?", path(cmd)+" "+word, path(cmd)+" "+name)
	}
	return usage(path(cmd), "there is no command %q", path(cmd)+" "+word)
}

// flags returns the flag set of the command called path.
func (t *tree) flags(path string) *flag.FlagSet {
	fs := flag.NewFlagSet(path, flag.ContinueOnError)
	fs.SetOutput(&t.out)
	return fs
}

// path is the whole name of a command, such as "submit dead ls".
func path(c *ffcli.Command) string {
	if c == nil {
		return "submit"
	}
	return c.FlagSet.Name()
}

// command makes a command of the tree; run gets the arguments that are no flags,
// wherever the flags stand.
func (t *tree) command(c *ffcli.Command, run func(ctx context.Context, args []string) error) *ffcli.Command {
	c.UsageFunc = func(c *ffcli.Command) string { // called when the flags are wrong, too
		t.helped = c
		return ""
	}
	if run == nil {
		return c
	}
	c.Exec = func(ctx context.Context, rest []string) error {
		args, err := t.mixed(c.FlagSet, rest)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return err
		case err != nil:
			return usage(path(c), "%v", err)
		}
		return run(ctx, args)
	}
	return c
}

// mixed parses the flags that stand behind the first argument. What follows a --
// is no flag.
func (t *tree) mixed(fs *flag.FlagSet, rest []string) (args []string, err error) {
	if i := len(t.argv) - len(rest); i > 0 && i <= len(t.argv) && t.argv[i-1] == "--" {
		return rest, nil
	}
	for len(rest) > 0 {
		word := rest[0]
		if word == "--" {
			return append(args, rest[1:]...), nil
		}
		if len(word) < 2 || word[0] != '-' {
			args, rest = append(args, word), rest[1:]
			continue
		}
		if err := fs.Parse(rest); err != nil {
			return nil, err
		}
		after := fs.Args()
		if i := len(rest) - len(after); i > 0 && rest[i-1] == "--" {
			return append(args, after...), nil
		}
		rest = after
	}
	return args, nil
}

// meant returns the command that a word is probably a misspelling of.
func meant(word string, commands []*ffcli.Command) string {
	word = strings.ToLower(word)
	best, least := "", 3
	for _, c := range commands {
		allowed := 2
		if len(c.Name) < 5 {
			allowed = 1
		}
		if d := distance(word, c.Name); d <= allowed && d < least {
			best, least = c.Name, d
		}
	}
	return best
}

// distance is how many letters must be added, dropped, replaced or swapped with
// their neighbour to turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
