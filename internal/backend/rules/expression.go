package rules

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// maxProgram is how many instructions an expression may compile to. Matching
// takes at most that many steps for each byte of a message.
const maxProgram = 2000

// compile compiles an expression that ignores case. Its error says what to change.
func compile(expression string) (*regexp.Regexp, error) {
	if _, err := syntax.Parse(expression, syntax.Perl); err != nil {
		return nil, advice(err) // of the expression as written
	}
	expression = "(?i)" + expression
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, advice(err)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, advice(err)
	}
	if len(program.Inst) > maxProgram {
		return nil, fmt.Errorf("compiles to %d instructions, at most %d; use smaller repeats, or several match lines", len(program.Inst), maxProgram)
	}
	return regexp.Compile(expression)
}

// advice says what is wrong with an expression, and what to do about it.
func advice(err error) error {
	var wrong *syntax.Error
	if !errors.As(err, &wrong) {
		return err
	}
	todo := "see https://golang.org/s/re2syntax"
	switch wrong.Code {
	case syntax.ErrMissingParen, syntax.ErrUnexpectedParen:
		todo = `write \( and \) for the characters themselves`
	case syntax.ErrMissingBracket:
		todo = `write \[ for the character itself`
	case syntax.ErrInvalidPerlOp:
		todo = "RE2 has no look-ahead or look-behind; put another rule above this one"
	case syntax.ErrInvalidEscape:
		todo = `write \\ for a backslash; RE2 has no \1`
	case syntax.ErrMissingRepeatArgument, syntax.ErrInvalidRepeatOp:
		todo = `write \*, \+ or \? for the characters themselves`
	case syntax.ErrInvalidRepeatSize, syntax.ErrLarge, syntax.ErrNestingDepth:
		todo = "make it smaller; repeats multiply up to 1000"
	case syntax.ErrTrailingBackslash:
		todo = `write \\ for a backslash`
	case syntax.ErrInvalidCharClass, syntax.ErrInvalidCharRange, syntax.ErrInvalidNamedCapture,
		syntax.ErrInvalidUTF8, syntax.ErrInternalError:
	}
	if wrong.Expr == "" {
		return fmt.Errorf("%s; %s", wrong.Code, todo)
	}
	return fmt.Errorf("%s: %s; %s", wrong.Code, head(wrong.Expr, 100), todo)
}
