package condition

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"understudy/internal/job"
)

// Bounds of a text.
const (
	// maxNodes is how many parts an expression may have: names, values, operators.
	maxNodes = 200
	// maxInstructions is how long the patterns of an expression may be together,
	// once compiled: a repetition such as x{1000} counts as what it repeats. A
	// pattern takes this many steps for every byte that it reads.
	maxInstructions = 500
)

// Compile reads a condition: a name, see [Names], or an expression of at most
// [job.MaxCondition] bytes. Every error is a *[SyntaxError].
//
// An expression compares and computes with the fields of error and job, e.g.
//
//	error.message contains "overloaded" and job.metadata.tenant == "acme" and job.attempt < 3
//
// It has and, or, not, the comparisons, in, contains, startsWith, endsWith and
// matches, arithmetic, ??, a ? b : c and lists such as [429, 503], and the functions int,
// len, lower, string, trim and upper. A pattern of matches must be written out. A
// text that is compared with error.class must be the name of a class.
func Compile(text string) (c *Condition, err error) {
	text = strings.TrimSpace(text)
	if classes, ok := classesOf(text); ok {
		return &Condition{text: text, classes: classes}, nil
	}
	switch {
	case text == "":
		return nil, &SyntaxError{Message: "the condition is empty"}
	case len(text) > job.MaxCondition:
		message := fmt.Sprintf("the condition has %d bytes; at most %d", len(text), job.MaxCondition)
		return nil, &SyntaxError{Message: message, Text: text, Column: utf8.RuneCountInString(text[:job.MaxCondition])}
	case !utf8.ValidString(text):
		return nil, &SyntaxError{Message: "the condition is not valid UTF-8", Text: text, Column: firstInvalid(text)}
	}
	// The library panics on some trees that it made itself.
	defer func() {
		if recover() != nil {
			c, err = nil, &SyntaxError{Message: "the expression cannot be read", Text: text}
		}
	}()
	return compile(text)
}

func firstInvalid(text string) int {
	column := 0
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			break
		}
		column++
	}
	return column
}

func compile(text string) (*Condition, error) {
	config := conf.New(scope{})
	config.MaxNodes = maxNodes
	config.DisableIfOperator = true
	config.Expect, config.ExpectAny = reflect.Bool, true
	for name := range config.Builtins {
		config.Disabled[name] = true
	}
	clear(config.Builtins)
	config.Functions = table()

	tree, err := parser.ParseWithConfig(text, config)
	if err != nil {
		return nil, translate(err, text)
	}
	r := &rules{text: text, seen: make(map[ast.Node]bool)}
	if err := r.check(tree.Node); err != nil {
		return nil, err
	}
	if _, err := checker.Check(tree, config); err != nil {
		return nil, translate(err, text)
	}
	p := &patcher{}
	ast.Walk(&tree.Node, p)
	if p.textSum != nil {
		return nil, r.mistake(p.textSum, "+ adds numbers, not texts")
	}
	p.needBool(&tree.Node)
	if _, err := checker.Check(tree, config); err != nil {
		return nil, translate(err, text)
	}
	program, err := compiler.Compile(tree, config)
	if err != nil {
		return nil, &SyntaxError{Message: "the expression cannot be compiled", Text: text}
	}
	return &Condition{text: text, program: program, metadata: r.metadata}, nil
}

// failed is the error of an evaluation that ended with err.
func (c *Condition) failed(err error) *EvalError {
	e := &EvalError{Reason: "the kinds of values do not fit", Text: c.text}
	if m, ok := errors.AsType[mismatchError](err); ok {
		e.Reason = string(m)
	}
	if f, ok := errors.AsType[*file.Error](err); ok {
		e.Column = f.From
	}
	return e
}

// patcher puts functions of our own in the place of operations of which an
// operand's kind is not known before the evaluation.
type patcher struct {
	// textSum is the first + of two texts.
	textSum ast.Node
}

// Visit implements ast.Visitor; operands are visited before their operation.
func (p *patcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.MemberNode:
		if unknown(n.Node) {
			replace(node, "get", n.Node, n.Property)
		}
	case *ast.UnaryNode:
		switch {
		case n.Operator == "not" || n.Operator == "!":
			p.needBool(&n.Node)
		case unknown(n.Node):
			replace(node, "minus", n.Node)
		}
	case *ast.ConditionalNode:
		p.needBool(&n.Cond)
	case *ast.BinaryNode:
		p.binary(node, n)
	}
}

func (p *patcher) binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "and", "or", "&&", "||":
		p.needBool(&n.Left)
		p.needBool(&n.Right)
	case "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "**", "^", "in":
		if unknown(n.Left) || unknown(n.Right) {
			replace(node, n.Operator, n.Left, n.Right)
		} else if n.Operator == "+" && n.Left.Type().Kind() == reflect.String && p.textSum == nil {
			p.textSum = n
		}
	}
}

// needBool makes sure that a node is true or false.
func (p *patcher) needBool(node *ast.Node) {
	if unknown(*node) {
		replace(node, "truth", *node)
	}
}

// unknown reports whether the kind of a node's value is known only when it is
// evaluated.
func unknown(n ast.Node) bool {
	if _, ok := n.(*ast.NilNode); ok {
		return true
	}
	return n.Type() == nil || n.Type().Kind() == reflect.Interface
}

// replace puts a call of a hidden function in the place of a node.
func replace(node *ast.Node, function string, args ...ast.Node) {
	old := *node
	callee := &ast.IdentifierNode{Value: hidden(function)}
	callee.SetLocation(old.Location())
	call := &ast.CallNode{Callee: callee, Arguments: args}
	call.SetLocation(old.Location())
	call.SetNature(*old.Nature())
	*node = call
}

func typeOf(signature any) reflect.Type { return reflect.TypeOf(signature) }
