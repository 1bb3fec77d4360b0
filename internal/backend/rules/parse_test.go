package rules_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/rules"
	"understudy/internal/job"
)

// TestEveryMistakeIsNamedWithItsLine is the golden list of what Parse says.
func TestEveryMistakeIsNamedWithItsLine(t *testing.T) {
	t.Parallel()
	const noRule = "f:1: no rule; add a match: and an answer: line, or a default: line"
	const unknown = "a line starts with match:, answer:, default: or #, in lower case; indent the text of an answer"
	for name, row := range map[string]struct{ file, want string }{
		"empty file":           {"", noRule},
		"only comments":        {"# match: a\n#answer: b\n", noRule},
		"unknown key":          {"match: a\nreply: b\n", "f:2: " + unknown + "\nf:1: match without an answer; add an answer: line below it"},
		"upper case key":       {"Default: b\n", "f:1: " + unknown},
		"no colon":             {"default: a\nhello\n", "f:2: " + unknown},
		"not indented":         {"default:\nhello: you\n", "f:1: default is empty; write the text behind it, or indented below\nf:2: " + unknown},
		"empty match":          {"match:\nanswer: a\n", "f:1: match is empty; give an expression, or use default: to answer everything"},
		"empty answer":         {"match: a\nanswer:\n\n  \n# x\n", "f:2: answer is empty; write the text behind it, or indented below"},
		"answer alone":         {"# x\nanswer: a\n  more\n", "f:2: answer without a match; add a match: line above it, or call it default:"},
		"second answer":        {"match: a\nanswer: b\nanswer: c\n", "f:3: answer without a match; add a match: line above it, or call it default:"},
		"match alone":          {"match: a\nmatch: b\n", "f:1: match without an answer; add an answer: line below it"},
		"match before default": {"match: a\ndefault: b\n", "f:1: match without an answer; add an answer: line below it"},
		"two defaults":         {"default: a\n\ndefault: b\n", "f:3: a second default; the first is on line 1; keep one"},
		"stray text":           {"  hello\ndefault: a\n", "f:1: indented text outside of an answer; start the line with match:, answer:, default: or #"},
		"text below a match":   {"match: a\n  b\nanswer: c\n", "f:2: indented text outside of an answer; start the line with match:, answer:, default: or #"},
		"not UTF-8":            {"default: a\n# \xff\n", "f:2: the line is not UTF-8; save the file as UTF-8"},
		"open group":           {"match: (a\nanswer: b\n", `f:1: match: missing closing ): (a; write \( and \) for the characters themselves`},
		"closed group":         {"match: a)\nanswer: b\n", `f:1: match: unexpected ): a); write \( and \) for the characters themselves`},
		"open class":           {"match: [a\nanswer: b\n", `f:1: match: missing closing ]: [a; write \[ for the character itself`},
		"bad class":            {"match: [b-a]\nanswer: b\n", "f:1: match: invalid character class range: b-a; see https://golang.org/s/re2syntax"},
		"look-ahead":           {"match: a(?=b)\nanswer: b\n", "f:1: match: invalid or unsupported Perl syntax: (?=; RE2 has no look-ahead or look-behind; put another rule above this one"},
		"back-reference":       {`match: (a)\1` + "\nanswer: b\n", `f:1: match: invalid escape sequence: \1; write \\ for a backslash; RE2 has no \1`},
		"trailing backslash":   {`match: a\` + "\nanswer: b\n", `f:1: match: trailing backslash at end of expression; write \\ for a backslash`},
		"nothing to repeat":    {"match: *\nanswer: b\n", `f:1: match: missing argument to repetition operator: *; write \*, \+ or \? for the characters themselves`},
		"two repeats":          {"match: a**\nanswer: b\n", `f:1: match: invalid nested repetition operator: **; write \*, \+ or \? for the characters themselves`},
		"big repeat":           {"match: a{1001}\nanswer: b\n", "f:1: match: invalid repeat count: {1001}; make it smaller; repeats multiply up to 1000"},
		"big program":          {"match: (ab?c){1000}\nanswer: b\n", "f:1: match: compiles to 6002 instructions, at most 2000; use smaller repeats, or several match lines"},
		"long expression":      {"match: (" + strings.Repeat("é", 200) + "\nanswer: b\n", "f:1: match: missing closing ): (" + strings.Repeat("é", 49) + `; write \( and \) for the characters themselves`},
		"no such group":        {"match: (a)\nanswer: costs $5\n", "f:2: answer, with the match of line 1: $5: the expression has no such group; write $$5 for a dollar sign, ${1} if text follows a number at once"},
		"number runs on":       {"match: (a)\nanswer: the $1st\n", "f:2: answer, with the match of line 1: $1st: the expression has no such group; write $$1st for a dollar sign, ${1} if text follows a number at once"},
		"group of one match":   {"match: (?P<x>a)\nmatch: b\nanswer:\n  ${x}\n", "f:3: answer, with the match of line 2: $x: the expression has no such group; write $$x for a dollar sign, ${1} if text follows a number at once"},
		"group in a default":   {"default: $0\n", "f:1: default: $0: a default has no groups; write $$0 for a dollar sign"},
		"open brace":           {"default: ${x\n", `f:1: default: "${" without "}"; write ${name}, or $${ for the characters themselves`},
		"empty braces":         {"match: a\nanswer: ${}\n", "f:2: answer: ${} is no group; a name has letters, digits and _; write $${ for the characters themselves"},
		"bad name":             {"match: a\nanswer: ${x y}\n", "f:2: answer: ${x y} is no group; a name has letters, digits and _; write $${ for the characters themselves"},
		"several":              {"match: (\nanswer: $9\nfoo\ndefault:\n", "f:1: match: missing closing ): (; write \\( and \\) for the characters themselves\nf:3: " + unknown + "\nf:4: default is empty; write the text behind it, or indented below"},
		"too many problems":    {strings.Repeat("x\n", 30), complaints(20, unknown) + "\nf: and more"},
		"too many matches":     {strings.Repeat("match: a\n", rules.MaxRules+2) + "answer: b\n", "f:1001: more than 1000 match lines; join some with |"},
		"too long":             {strings.Repeat("#", rules.MaxFile+1), "f:1: the file is longer than 1048576 bytes; shorten it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := rules.Parse("f", []byte(row.file))
			require.EqualError(t, err, row.want)
			require.Nil(t, got)
		})
	}
}

func complaints(n int, text string) string {
	lines := make([]string, 0, n)
	for i := range n {
		lines = append(lines, fmt.Sprintf("f:%d: %s", i+1, text))
	}
	return strings.Join(lines, "\n")
}

func TestTheFirstRuleThatMatchesAnswers(t *testing.T) {
	t.Parallel()
	const greeting = "match: hello\nanswer: hi\n"
	long := strings.Repeat("x", rules.MaxMessage)
	for name, row := range map[string]struct{ file, message, want string }{
		"anywhere, any case":       {greeting, "Oh, HELLO you", "hi"},
		"case kept":                {"match: (?-i)Hello\nanswer: a\ndefault: b\n", "hello", "b"},
		"case ignored in each arm": {"match: a|b\nanswer: a\n", "B", "a"},
		"unicode case":             {"match: ÄRGER\nanswer: a\n", "ärger", "a"},
		"first of two":             {"match: a\nanswer: 1\nmatch: a\nanswer: 2\n", "a", "1"},
		"second match line":        {"match: ^a$\nmatch: ^(b)$\nanswer: got $0\n", "b", "got b"},
		"default":                  {"default: none\n" + greeting, "bye", "none"},
		"empty message":            {"match: ^$\nanswer: say something\n", "", "say something"},
		"no dot for a line end":    {"match: ^a.b$\nanswer: a\ndefault: b\n", "a\nb", "b"},
		"dot for a line end":       {"match: (?s)^a.b$\nanswer: a\n", "a\nb", "a"},
		"colons and quotes":        {`match: "a": 'b'` + "\nanswer: \"c\": 'd'\n", `"A": 'B'`, `"c": 'd'`},
		"crlf and bom":             {"\ufeffmatch: ^a$\r\nanswer:\r\n  b\r\n  c\r\n", "a", "b\nc"},
		"groups":                   {`match: (\w+) (?P<last>\w+)(x)?` + "\nanswer: $2, $1 ${last} ${1}st [$3] $$1 $ 5 $$$0$\n", "jo do", "do, jo do jost [] $1 $ 5 $jo do$"},
		"unknown flags are text":   {"match: a\nanswer: {{.1}} %s \\1 `id` $(id)\n", "a", "{{.1}} %s \\1 `id` $(id)"},
		"text on both lines":       {"match: a\nanswer: one\n  two\n", "a", "one\ntwo"},
		"indent that is shared":    {"match: a\nanswer:\n\n    one\n\n      two\n   three\n\n\n# end\n", "a", " one\n\n   two\nthree"},
		"tabs":                     {"match: a\nanswer:\n\tone\n\t\ttwo\n", "a", "one\n\ttwo"},
		"mixed indent":             {"match: a\nanswer:\n\tone\n  two\n", "a", "\tone\n  two"},
		"comment inside":           {"match: a\n# why\nanswer:\n  one\n# not said\n  # said\n", "a", "one\n# said"},
		"what is near is seen":     {"match: y\nanswer: a\n", long[1:] + "y", "a"},
		"what is far is not seen":  {"match: y\nanswer: a\ndefault: b\n", long + "y", "b"},
		"no rune is cut":           {`match: ^x*(\S*)$` + "\nanswer: [$1]\n", long[1:] + "é", "[]"},
		"long answers are cut":     {"match: .*\nanswer: " + strings.Repeat("$0", 10) + "\n", long, strings.Repeat("x", rules.MaxAnswer)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, row.want, ask(t, row.file, row.message))
		})
	}
}

func TestTheBuiltInRules(t *testing.T) {
	t.Parallel()
	r, err := rules.Load("")
	require.NoError(t, err)
	e := rules.New("rules", r)
	for message, want := range map[string]string{
		"ping":                    "I am here",
		"Are you there?":          "I am here",
		" Hello!":                 "Hello! No language model",
		"good Morning there":      "Hello! No language model",
		"Hello, why is it blue?":  "Sorry, I cannot answer this right now: no language model can be reached.\nThis is",
		"Hi, my name is Zoë":      "Nice to meet you, Zoë.",
		"I'm tired of all of you": "Sorry, ",
		"Thank you so much!":      "You are welcome.",
		"bye":                     "Goodbye!",
		"Who are you?":            "I am an automatic reply. I stand in",
		"what can you do":         "I am an automatic reply. I stand in",
		"":                        "Sorry, ",
	} {
		resp, err := e.Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: chat(t, message)})
		require.NoError(t, err)
		got := content(t, resp.Body)
		require.True(t, strings.HasPrefix(got, want), "%q: %q", message, got)
	}
}

func TestLoadReadsAFileOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	r, err := rules.Load(write("good", "default: yes\n"))
	require.NoError(t, err)
	resp, err := rules.New("r", r).Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: chat(t, "x")})
	require.NoError(t, err)
	require.Equal(t, "yes", content(t, resp.Body))

	bad := write("bad", "default: yes\nno\n")
	_, err = rules.Load(bad)
	require.EqualError(t, err, bad+":2: a line starts with match:, answer:, default: or #, in lower case; indent the text of an answer")

	largest := write("largest", "default: yes\n"+strings.Repeat("#", rules.MaxFile-13))
	_, err = rules.Load(largest)
	require.NoError(t, err)
	longer := write("longer", "default: yes\n"+strings.Repeat("#", rules.MaxFile-12))
	_, err = rules.Load(longer)
	require.EqualError(t, err, longer+":1: the file is longer than 1048576 bytes; shorten it")

	_, err = rules.Load(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = rules.Load(dir)
	require.ErrorContains(t, err, dir)
}

// TestTheDocumentShowsTheBuiltInFile keeps the example of docs/rules.md the file itself.
func TestTheDocumentShowsTheBuiltInFile(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("default.rules")
	require.NoError(t, err)
	document, err := os.ReadFile("../../../docs/rules.md")
	require.NoError(t, err)
	require.Contains(t, string(document), "\n```text\n"+string(file)+"```\n")
}
