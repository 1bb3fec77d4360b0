package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Finding is one thing to say about the configuration.
type Finding struct {
	// Variable is the name of the variable it is about; it may be a file and a
	// line, such as ".env:3".
	Variable string
	// Wrong says what is wrong, as a clause. It never quotes a secret.
	Wrong string
	// Mend says what to do; may be empty.
	Mend string
	// Detail are lines that follow, such as the place in a text; may be empty.
	// What cannot be printed is a space in them, so that their columns agree.
	Detail []string

	// more is how many findings it stands for, when it is not one itself.
	more int
}

// String is the finding on one line, and its details on lines of their own below,
// indented.
func (f Finding) String() string { return f.line() + f.below() }

// line is the finding without its details.
func (f Finding) line() string {
	s := f.Variable + ": " + f.Wrong
	if f.Mend != "" {
		s += "; " + f.Mend
	}
	return s
}

// below is a line for each detail.
func (f Finding) below() string {
	var b strings.Builder
	for _, line := range f.Detail {
		b.WriteString("\n  " + blanked(line))
	}
	return b.String()
}

// blanked is text with a space for every character that cannot be printed.
func blanked(text string) string {
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text), " ")
}

// Report is everything there is to say about a configuration. The zero value is
// an empty report.
type Report struct {
	// Problems are what stops a command from starting.
	Problems []Finding
	// Warnings are what has no effect, or not the likely one.
	Warnings []Finding
}

// OK reports whether there is no problem.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

func (r *Report) problem(variable, mend, wrong string, args ...any) {
	r.Problems = append(r.Problems, Finding{Variable: variable, Wrong: fmt.Sprintf(wrong, args...), Mend: mend})
}

func (r *Report) warn(variable, mend, wrong string, args ...any) {
	r.Warnings = append(r.Warnings, Finding{Variable: variable, Wrong: fmt.Sprintf(wrong, args...), Mend: mend})
}

// maxShown is how many findings of one kind are shown about one variable. A text
// that got into the wrong variable may be wrong in every word.
const maxShown = 10

// tidy puts what is said about a variable together and bounds it.
func (r *Report) tidy() { r.Problems, r.Warnings = grouped(r.Problems), grouped(r.Warnings) }

// grouped is list with the findings about a variable together, where the first of
// them is. Of those behind the first maxShown a last one tells the number.
func grouped(list []Finding) []Finding {
	about := make(map[string][]Finding)
	var variables []string
	for _, f := range list {
		if about[f.Variable] == nil {
			variables = append(variables, f.Variable)
		}
		about[f.Variable] = append(about[f.Variable], f)
	}
	var all []Finding
	for _, name := range variables {
		shown := about[name]
		if more := len(shown) - maxShown; more > 0 {
			shown = append(shown[:maxShown], Finding{Variable: name, Wrong: fmt.Sprintf("and %d more", more), more: more})
		}
		all = append(all, shown...)
	}
	return all
}

// total is how many findings list stands for.
func total(list []Finding) int {
	n := 0
	for _, f := range list {
		n += max(f.more, 1)
	}
	return n
}

// flaw is what is wrong with the text of a setting, and how to mend it.
type flaw struct{ wrong, mend string }

// Error implements error.
func (f *flaw) Error() string { return f.wrong }

func flawed(mend, wrong string, args ...any) error {
	return &flaw{wrong: fmt.Sprintf(wrong, args...), mend: mend}
}

// maxQuoted is the longest value a message repeats, in bytes. A longer one may
// well be a key that was put into the wrong variable.
const maxQuoted = 32

// quoted is a value as a message may show it.
func quoted(text string) string {
	if len(text) > maxQuoted || hasUser(text) {
		return fmt.Sprintf("a value of %d bytes", len(text))
	}
	return strconv.Quote(text)
}

// likeSecret reports whether text, which should be an expression and is none, may
// well be a key or a URL with a password: it is one long word.
func likeSecret(text string) bool {
	return len(text) > maxQuoted && !strings.ContainsAny(text, " \t\"'`()<>!&|[]") || hasUser(text)
}

// hasUser reports whether text may be a URL that holds a user or a password.
func hasUser(text string) bool { return strings.Contains(text, "://") && strings.Contains(text, "@") }

// oneLine is the text of an error, or of several joined ones, on one line.
func oneLine(err error) string {
	return strings.Join(split(err.Error(), "\n"), "; ")
}
