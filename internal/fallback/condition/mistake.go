package condition

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"

	"github.com/expr-lang/expr/file"
)

// SyntaxError is a mistake in the text of a condition.
type SyntaxError struct {
	// Message says what is wrong.
	Message string
	// Text and Column are the condition and where in it, in characters from 0.
	Text   string
	Column int
}

// Error returns three lines: what is wrong, the line of the condition, cut when
// it is long, and a caret under the place. Of an empty condition there is only
// the first.
func (e *SyntaxError) Error() string {
	if strings.TrimSpace(e.Text) == "" {
		return e.Message
	}
	return fmt.Sprintf("%s\n%s", e.Message, excerpt(e.Text, e.Column))
}

// Width of an excerpt, in characters, before and after the caret.
const (
	widthBefore = 60
	widthAfter  = 40
)

// excerpt is the line of text that holds the character at column, and a caret
// line under it. What does not print is shown as a question mark.
func excerpt(text string, column int) string {
	runes := []rune(text)
	column = max(0, min(column, len(runes)))
	start, end := column, column
	for start > 0 && runes[start-1] != '\n' {
		start--
	}
	for end < len(runes) && runes[end] != '\n' {
		end++
	}
	var before, after string
	if column-start > widthBefore {
		start, before = column-widthBefore, "…"
	}
	if end-column > widthAfter {
		end, after = column+widthAfter, "…"
	}
	line := strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r), r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, string(runes[start:end]))
	dots := column - start + len([]rune(before))
	return fmt.Sprintf("  %s%s%s\n  %s^", before, line, after, strings.Repeat(".", dots))
}

// translate makes a library's error ours.
func translate(err error, text string) *SyntaxError {
	f, ok := errors.AsType[*file.Error](err)
	if !ok {
		return &SyntaxError{Message: inOurWords(err.Error()), Text: text}
	}
	return &SyntaxError{Message: inOurWords(f.Message), Text: text, Column: f.From}
}

// inOurWords replaces those messages of the library that speak of its insides.
func inOurWords(message string) string {
	switch {
	case message == `unexpected token Operator("=")`:
		return "a condition assigns nothing; to compare, use =="
	case message == "unexpected token EOF", message == "unexpected end of expression":
		return "the expression ends too early"
	case message == "literal not terminated":
		return "the quoted text does not end"
	case strings.Contains(message, "exceeds maximum allowed nodes"):
		return fmt.Sprintf("the expression has more than %d parts", maxNodes)
	}
	for _, kind := range []string{"Operator", "Bracket", "Identifier", "Number", "String"} {
		if token, ok := strings.CutPrefix(message, "unexpected token "+kind+"("); ok {
			return "did not expect " + strings.TrimSuffix(token, ")")
		}
	}
	if is, ok := strings.CutPrefix(message, "expected bool, but got "); ok {
		return fmt.Sprintf("the expression is %s, but must be true or false", kindName(is))
	}
	return aboutKinds(message)
}

// aboutKinds replaces the messages of the library's type check.
func aboutKinds(message string) string {
	var a, b, c string
	switch {
	case scan(message, "invalid operation: %s (mismatched types %s and %s)", &a, &b, &c):
		return fmt.Sprintf("%s cannot be applied to %s and %s", a, kindName(b), kindName(c))
	case scan(message, "invalid operation: %s (mismatched type %s)", &a, &b):
		return fmt.Sprintf("%s cannot be applied to %s", a, kindName(b))
	case scan(message, "cannot use %s as argument (type %s) to call %s", &a, &b, &c):
		return fmt.Sprintf("%s takes %s, not %s", strings.TrimSpace(c), kindName(b), kindName(a))
	case scan(message, "type %s has no field %s", &a, &b):
		return fmt.Sprintf("%s has no field %s", kindName(a), b)
	case scan(message, "non-bool expression (type %s) used as condition", &a):
		return fmt.Sprintf("true or false is needed here, not %s", kindName(a))
	case strings.HasSuffix(message, "value out of range"), strings.HasSuffix(message, "literal is too large"):
		return "the number is too big"
	}
	return message
}

// scan reads the parts of a message that stand in the places of its form; the
// last one may be at its end.
func scan(message, form string, parts ...*string) bool {
	for i, literal := range strings.Split(form, "%s") {
		before, after, ok := strings.Cut(message, literal)
		switch {
		case !ok || i == 0 && before != "":
			return false
		case literal == "":
			before, after = message, ""
		}
		if i > 0 {
			*parts[i-1] = before
		}
		message = after
	}
	return message == ""
}

// kindName is a Go type in the words of a user.
func kindName(goType string) string {
	switch goType {
	case "string":
		return "a text"
	case "int", "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "nil", "unknown":
		return "nil"
	case "[]interface {}":
		return "a list"
	}
	return goType
}

// patternMistake says what is wrong with a regular expression.
func patternMistake(err error) string {
	if s, ok := errors.AsType[*syntax.Error](err); ok {
		return fmt.Sprintf("the pattern is not right: %s", s.Code)
	}
	return "the pattern is not right"
}

// nearest returns the candidate that is most like word, or "" when none is.
func nearest(word string, candidates []string) string {
	best, least := "", max(1, min(3, len(word)/3))+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is how many characters must be put in, taken out or replaced, or be
// swapped with their neighbour, to get from a to b.
func distance(a, b string) int {
	const farAway = 1 << 10
	if len(a) > 64 {
		return farAway
	}
	var last, before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(replaced, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
