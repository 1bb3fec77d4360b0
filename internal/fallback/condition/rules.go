package condition

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"understudy/internal/backend"
)

// rules checks what an expression is made of. Only what it knows is allowed, so
// that a new version of the library brings nothing new by itself.
type rules struct {
	text string
	// metadata tells that the expression reads job.metadata.
	metadata bool
	// instructions is the length of all patterns so far.
	instructions int
	// seen are the nodes checked so far. The parser uses a node twice for a chain
	// such as 1 < x < 3; nested, they would double the work at every level.
	seen map[ast.Node]bool
}

func (r *rules) mistake(at ast.Node, format string, args ...any) error {
	return &SyntaxError{Message: fmt.Sprintf(format, args...), Text: r.text, Column: at.Location().From}
}

// check returns the first mistake in a node and what is below it.
func (r *rules) check(node ast.Node) error {
	if r.seen[node] {
		return r.mistake(node, "comparisons cannot be chained; join them with and")
	}
	r.seen[node] = true
	switch n := node.(type) {
	case nil:
		return &SyntaxError{Message: "the expression ends too early", Text: r.text, Column: len([]rune(r.text))}
	case *ast.NilNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode:
		return nil
	case *ast.IdentifierNode:
		return r.name(n)
	case *ast.MemberNode:
		return r.member(n)
	case *ast.ChainNode:
		return r.check(n.Node)
	case *ast.UnaryNode:
		return r.check(n.Node)
	case *ast.BinaryNode:
		return r.binary(n)
	case *ast.ConditionalNode:
		if n.Cond == n.Exp1 {
			return r.mistake(n, "a condition has no operator ?:")
		}
		return r.all(n.Cond, n.Exp1, n.Exp2)
	case *ast.ArrayNode:
		return r.all(n.Nodes...)
	case *ast.CallNode:
		return r.call(n)
	case *ast.BuiltinNode:
		return r.unknownFunction(n, n.Name)
	case *ast.SliceNode:
		return r.mistake(n, "a condition takes no slices")
	case *ast.VariableDeclaratorNode:
		return r.mistake(n, "a condition has no variables")
	case *ast.SequenceNode:
		return r.mistake(n, "a condition is one expression, without ;")
	}
	return r.mistake(node, "a condition cannot hold this")
}

func (r *rules) all(nodes ...ast.Node) error {
	for _, n := range nodes {
		if err := r.check(n); err != nil {
			return err
		}
	}
	return nil
}

// roots are the names that an expression begins with.
func roots() []string { return []string{"error", "job"} }

// fields returns the fields of a root.
func fields(root string) []string {
	if root == "error" {
		return []string{"class", "status", "code", "type", "message", "backend"}
	}
	return []string{"queue", "route", "metadata", "attempt"}
}

// name is an identifier that stands alone, which none may.
func (r *rules) name(n *ast.IdentifierNode) error {
	switch {
	case slices.Contains(roots(), n.Value):
		return r.mistake(n, "%s is no value by itself; it has the fields %s", n.Value, strings.Join(fields(n.Value), ", "))
	case slices.Contains(Names(), n.Value):
		return r.mistake(n, "%s stands alone; in an expression, use error.class", n.Value)
	}
	return r.unknownWord(n, "name "+n.Value, n.Value, slices.Concat(roots(), Names()), roots())
}

// unknownWord is the mistake of a word that is not among the candidates.
func (r *rules) unknownWord(at ast.Node, what, word string, candidates, listed []string) error {
	if near := nearest(word, candidates); near != "" {
		return r.mistake(at, "unknown %s; did you mean %s?", what, near)
	}
	return r.mistake(at, "unknown %s; there are %s", what, strings.Join(listed, ", "))
}

func (r *rules) member(n *ast.MemberNode) error {
	root, ok := n.Node.(*ast.IdentifierNode)
	if !ok || !slices.Contains(roots(), root.Value) {
		return r.all(n.Node, n.Property)
	}
	field, ok := n.Property.(*ast.StringNode)
	if !ok {
		return r.mistake(n.Property, "the fields of %s are %s", root.Value, strings.Join(fields(root.Value), ", "))
	}
	if !slices.Contains(fields(root.Value), field.Value) {
		return r.unknownWord(field, fmt.Sprintf("field %s of %s", field.Value, root.Value), field.Value, fields(root.Value), fields(root.Value))
	}
	if isMetadata(n) {
		r.metadata = true
	}
	return nil
}

// isField reports whether a node is a field of a root.
func isField(node ast.Node, root, field string) bool {
	n, ok := node.(*ast.MemberNode)
	if !ok {
		return false
	}
	of, ok := n.Node.(*ast.IdentifierNode)
	name, named := n.Property.(*ast.StringNode)
	return ok && named && of.Value == root && name.Value == field
}

func isMetadata(node ast.Node) bool { return isField(node, "job", "metadata") }

func (r *rules) binary(n *ast.BinaryNode) error {
	switch n.Operator {
	case "and", "&&", "or", "||", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "**", "^", "??",
		"contains", "startsWith", "endsWith":
	case "==", "!=":
		if err := r.class(n.Left, n.Right); err != nil {
			return err
		}
		if err := r.class(n.Right, n.Left); err != nil {
			return err
		}
	case "in":
		if list, ok := n.Right.(*ast.ArrayNode); ok {
			for _, entry := range list.Nodes {
				if err := r.class(n.Left, entry); err != nil {
					return err
				}
			}
		}
	case "matches":
		if err := r.pattern(n.Right); err != nil {
			return err
		}
	default:
		return r.mistake(n, "a condition has no operator %s", n.Operator)
	}
	return r.all(n.Left, n.Right)
}

// class checks a text that is compared with error.class.
func (r *rules) class(field, value ast.Node) error {
	text, ok := value.(*ast.StringNode)
	if !ok || !isField(field, "error", "class") {
		return nil
	}
	names := make([]string, 0, len(backend.Classes()))
	for _, c := range backend.Classes() {
		names = append(names, string(c))
	}
	if slices.Contains(names, text.Value) {
		return nil
	}
	what := fmt.Sprintf("class %q", text.Value)
	if c, err := backend.ParseClass(text.Value); err == nil {
		return r.mistake(text, "unknown %s; did you mean %s?", what, c)
	}
	return r.unknownWord(text, what, text.Value, names, names)
}

// pattern checks a regular expression.
func (r *rules) pattern(node ast.Node) error {
	text, ok := node.(*ast.StringNode)
	if !ok {
		return r.mistake(node, "a pattern must be written out in quotes")
	}
	parsed, err := syntax.Parse(text.Value, syntax.Perl)
	if err != nil {
		return r.mistake(text, "%s", patternMistake(err))
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return r.mistake(text, "%s", patternMistake(err))
	}
	if r.instructions += len(program.Inst); r.instructions > maxInstructions {
		return r.mistake(text, "the patterns are too long: %d steps with their repetitions; at most %d", r.instructions, maxInstructions)
	}
	return nil
}

func (r *rules) call(n *ast.CallNode) error {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	switch {
	case !ok:
		return r.mistake(n.Callee, "a field cannot be called")
	case !slices.Contains(functions(), callee.Value):
		return r.unknownFunction(callee, callee.Value)
	case len(n.Arguments) != 1:
		return r.mistake(n, "%s takes one value", callee.Value)
	}
	// Of what comes from the metadata nothing is known here; see [table].
	outer := r.metadata
	r.metadata = false
	err := r.check(n.Arguments[0])
	if r.metadata {
		callee.Value = hidden(callee.Value)
	}
	r.metadata = r.metadata || outer
	return err
}

func (r *rules) unknownFunction(at ast.Node, name string) error {
	return r.unknownWord(at, "function "+name, name, functions(), functions())
}
