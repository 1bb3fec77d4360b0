package main

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/stretchr/testify/require"
)

// offline is a command without NATS.
func offline(t *testing.T, stdin string, args ...string) (code int, out, stderr string) {
	t.Helper()
	c := newCommand(t, stdin, environment{connect: func(...nats.Option) (*nats.Conn, error) {
		return nil, nats.ErrNoServers
	}}).start(args...)
	code = c.wait()
	return code, c.out.String(), c.err.String()
}

// every walks the tree of commands.
func every(c *ffcli.Command, visit func(*ffcli.Command)) {
	visit(c)
	for _, sub := range c.Subcommands {
		every(sub, visit)
	}
}

func TestEveryCommandTeachesItself(t *testing.T) {
	t.Parallel()
	tr := &tree{app: &app{}}
	n := 0
	every(tr.root(), func(c *ffcli.Command) {
		n++
		words := strings.Fields(path(c))
		golden := "help/" + strings.Join(words, "-") + ".txt"
		for _, args := range [][]string{append(words[1:], "-h"), append(words[1:], "--help"), append([]string{"help"}, words[1:]...)} {
			code, out, stderr := offline(t, "", args...)
			require.Equal(t, exitOK, code, "%v", args)
			require.Empty(t, stderr, "%v", args)
			requireGolden(t, golden, out)
		}
		_, examples, found := strings.Cut(help(c), "EXAMPLES\n")
		require.True(t, found, "%s has no examples", path(c))
		first, rest, _ := strings.Cut(examples, "\n")
		second, rest, _ := strings.Cut(rest, "\n")
		require.Contains(t, first, "submit")
		require.Contains(t, second, "submit")
		require.True(t, rest == "" || strings.HasPrefix(rest, "\n"), "%s has more than two examples", path(c))
		for line := range strings.Lines(help(c)) {
			require.LessOrEqual(t, len([]rune(line)), 121, "%s: %s", path(c), line)
		}
	})
	require.Equal(t, 15, n)
}

func TestHelpComesFromBehindTheArgumentsToo(t *testing.T) {
	t.Parallel()
	code, out, _ := offline(t, "", "batch", "in.jsonl", "-h")
	require.Equal(t, exitOK, code)
	requireGolden(t, "help/submit-batch.txt", out)
}

func TestWithoutArgumentsThereIsHelpAndExitCodeTwo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"dead"}} {
		code, out, stderr := offline(t, "a prompt that must not be asked", args...)
		require.Equal(t, exitUsage, code)
		require.Empty(t, out)
		require.Contains(t, stderr, "USAGE\n")
		require.Contains(t, stderr, "EXAMPLES\n")
	}
}

func TestWrongCommandLinesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		want string // the first line on standard error
	}{
		{[]string{"-nope", "x"}, "flag provided but not defined: -nope"},
		{[]string{"batch", "-nope"}, "flag provided but not defined: -nope"},
		{[]string{"batch", "in.jsonl", "-nope"}, "flag provided but not defined: -nope"},
		{[]string{"bacth"}, `"bacth" is no command; did you mean "submit batch"? To ask it: submit ask "bacth"`},
		{[]string{"jobs", "-id", "x"}, `"jobs" is no command; did you mean "submit job"? To ask it: submit ask "jobs"`},
		{[]string{"Resutl", "x"}, `"Resutl" is no command; did you mean "submit result"? To ask it: submit ask "Resutl"`},
		{[]string{"dead", "lss"}, `there is no command "submit dead lss"; did you mean "submit dead ls"?`},
		{[]string{"dead", "resurrect"}, `there is no command "submit dead resurrect"`},
		{[]string{"help", "nothing"}, `there is no command "submit nothing"`},
		{[]string{"-json", "dead", "ls"}, "put the flags behind the command: submit dead ls -…"},
		{[]string{"ask", "two", "words"}, "the prompt is one argument: put it in quotes (there are 2 arguments)"},
		{[]string{"ask", "  "}, "the prompt is empty"},
		{[]string{"ask", "\xff"}, "the prompt is not text in UTF-8"},
		{[]string{"ask", "-queue", "a.b", "x"}, `queue: '.' is not allowed; use A-Z a-z 0-9 _ -`},
		{[]string{"ask", "-id", "a b", "x"}, `id: ' ' is not allowed; use A-Z a-z 0-9 _ -`},
		{[]string{"ask", "-route", "no.route", "x"}, `route: '.' is not allowed; use A-Z a-z 0-9 _ -`},
		{[]string{"ask", "-timeout", "-1s", "x"}, "-timeout -1s: must be a millisecond or more"},
		{[]string{"ask", "-timeout", "9000h", "x"}, "timeout_ms: must be between 1 and 604800000"},
		{[]string{"ask", "-timeout", "5", "x"}, `invalid value "5" for flag -timeout: parse error`},
		{[]string{"job", "job.json"}, `there is an argument too many, "job.json"; a file is given with -f`},
		{[]string{"job", "-f", "no/such/file"}, "open no/such/file: no such file or directory"},
		{[]string{"batch"}, "give one file with jobs, not 0"},
		{[]string{"batch", "in.jsonl"}, "say where the results go: -o OUT.jsonl"},
		{[]string{"batch", "-", "-o", "x"}, "the jobs must be in a file: it is read twice"},
		{[]string{"batch", "x", "-o", "-", "-json"}, "-o - and -json both write to standard output"},
		{[]string{"batch", "x", "-o", "y", "-window", "0"}, "-window 0: must be between 1 and 4096"},
		{[]string{"batch", "x", "-o", "y", "-id", "a b"}, `-id "a b": id: ' ' is not allowed; use A-Z a-z 0-9 _ -`},
		{[]string{"batch", "x", "-o", "y", "-id", "a.b.c.d"}, `-id "a.b.c.d": id: has 5 tokens; at most 4`},
		{[]string{"batch", "x", "-o", "y", "-id", "a", "-fresh"}, "-id and -fresh exclude each other: a new -id is fresh"},
		{[]string{"batch", "x", "-o", "y", "-queue", "*"}, `-queue: queue: '*' is not allowed; use A-Z a-z 0-9 _ -`},
		{[]string{"batch", "no/such/file", "-o", "y"}, "open no/such/file: no such file or directory"},
		{[]string{"watch", "a", "b"}, "give one ID, not 2"},
		{[]string{"watch", "a.*"}, `"a.*" cannot be the id of a job`},
		{[]string{"result"}, "give one ID, not 0"},
		{[]string{"result", "a..b"}, `"a..b" cannot be the id of a job`},
		{[]string{"dead", "ls", "-class", "nope"}, ""},
		{[]string{"dead", "ls", "-limit", "-1"}, "-limit -1: must be 0 or more"},
		{[]string{"dead", "ls", ">"}, `">" cannot be the id of a job`},
		{[]string{"dead", "show"}, "give one ID, not 0"},
		{[]string{"dead", "show", "b.*"}, `"b.*" cannot be the id of a job`},
		{[]string{"dead", "redrive"}, "give IDs, a filter or -all"},
		{[]string{"dead", "redrive", "a", "-all"}, "give IDs or -all, not both"},
		{[]string{"dead", "redrive", "-rate", "-1", "-all"}, "-rate -1: must be more than nothing"},
		{[]string{"dead", "redrive", "-max", "-1", "-all"}, "-max -1: must be 0 or more"},
		{[]string{"dead", "redrive", "-all", "-wait", "-dry-run"}, "-dry-run and -wait exclude each other"},
		{[]string{"dead", "ls", "-older", "-1h"}, "-older -1h0m0s: must be more than nothing"},
		{[]string{"dead", "ls", "-newer", "-1h"}, "-newer -1h0m0s: must be more than nothing"},
		{[]string{"dead", "ls", "-older", "2h", "-newer", "1h"}, "-older 2h0m0s and -newer 1h0m0s: nothing is both"},
		{[]string{"dead", "ls", "-batch", "b", "x"}, "give IDs or -batch, not both"},
		{[]string{"dead", "ls", "-batch", "b.*"}, `"b.*" cannot be the id of a job`},
		{[]string{"dead", "edit"}, "give one ID, not 0"},
		{[]string{"dead", "edit", "x"}, "there is no terminal for an editor: give the job with -f, or its fields with -set"},
		{[]string{"dead", "edit", "x", "-f", "-", "-set", "a=1"}, "-f, -set and -restore exclude each other"},
		{[]string{"dead", "edit", "x", "-restore", "-wait"}, "-wait goes with -redrive"},
		{[]string{"dead", "purge", "-yes"}, "give IDs, a filter or -all"},
		{[]string{"dead", "purge", "x"}, "there is no terminal to confirm it on: say -yes to delete for good, or -dry-run to see what"},
		{[]string{"dead", "purge", "-orphans", "-queue", "low"}, "-orphans goes with -older and -dry-run only"},
		{[]string{"dead", "purge", "-orphans", "x"}, "-orphans goes with -older and -dry-run only"},
	} {
		code, out, stderr := offline(t, "", tc.args...)
		require.Equal(t, exitUsage, code, "%v: %s", tc.args, stderr)
		require.Empty(t, out, "%v", tc.args)
		first, _, _ := strings.Cut(stderr, "\n")
		if tc.want == "" { // the list of classes is not this package's
			require.Contains(t, first, `"nope"`)
			continue
		}
		require.Equal(t, "submit: "+tc.want, first, "%v", tc.args)
	}
}

func TestAWordThatIsNoTypoIsAPrompt(t *testing.T) {
	t.Parallel()
	for _, prompt := range []string{"hello", "why", "desk", "What is a batch?", "work"} {
		code, _, stderr := offline(t, "", prompt)
		require.Equal(t, exitUnreachable, code, "%s: %s", prompt, stderr)
	}
}

func TestFlagsMayStandBehindArguments(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		argv []string
		want []string
		json bool
	}{
		{[]string{"ls", "-json", "a", "b"}, []string{"a", "b"}, true},
		{[]string{"ls", "a", "-json", "b"}, []string{"a", "b"}, true},
		{[]string{"ls", "a", "b", "-json"}, []string{"a", "b"}, true},
		{[]string{"ls", "a", "--", "-json", "b"}, []string{"a", "-json", "b"}, false},
		{[]string{"ls", "--", "-json"}, []string{"-json"}, false},
		{[]string{"ls", "a", "-json", "--", "-x"}, []string{"a", "-x"}, true},
		{[]string{"ls", "-", "-json"}, []string{"-"}, true},
		{[]string{"ls"}, nil, false},
	} {
		tr := &tree{app: &app{}, argv: tc.argv}
		fs := tr.flags("test")
		asJSON := fs.Bool("json", false, "")
		require.NoError(t, fs.Parse(tc.argv[1:]))
		args, err := tr.mixed(fs, fs.Args())
		require.NoError(t, err)
		require.Equal(t, tc.want, append([]string(nil), args...), "%v", tc.argv)
		require.Equal(t, tc.json, *asJSON, "%v", tc.argv)
	}
}

func TestDistanceCountsLetters(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"batch", "batch", 0},
		{"bacth", "batch", 1},
		{"bath", "batch", 1},
		{"batches", "batch", 2},
		{"watch", "batch", 1},
		{"", "job", 3},
		{"dead", "ask", 4},
	} {
		require.Equal(t, tc.want, distance(tc.a, tc.b), "%q, %q", tc.a, tc.b)
		require.Equal(t, tc.want, distance(tc.b, tc.a), "%q, %q", tc.b, tc.a)
	}
}

func TestTheVersionIsPrinted(t *testing.T) {
	t.Parallel()
	code, out, stderr := offline(t, "", "-version")
	require.Equal(t, exitOK, code)
	require.Equal(t, "submit "+version()+"\n", out)
	require.Empty(t, stderr)
}

func TestProblemsOfTheEnvironmentAreToldTogether(t *testing.T) {
	t.Parallel()
	c := newCommand(t, "", environment{problems: []string{"NATS_URL: is wrong", "NATS_CREDS: is missing"}, warnings: []string{"X: is odd"}}).start("hello")
	require.Equal(t, exitUsage, c.wait())
	require.Equal(t, "submit: warning: X: is odd\nsubmit: NATS_URL: is wrong\nNATS_CREDS: is missing\n", c.err.String())
}
