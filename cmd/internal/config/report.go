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
