package condition

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/vm/runtime"
)

// mismatchError is a value of the wrong kind. Its text quotes no value.
type mismatchError string

// Error implements error.
func (e mismatchError) Error() string { return string(e) }

// kindOf is what v is, in the words of JSON.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a text"
	case int, float64:
		return "a number"
	case []any:
		return "a list"
	}
	return "an object"
}

func mismatch(name, wants string, got any) error {
	return mismatchError(fmt.Sprintf("%s takes %s, not %s", name, wants, kindOf(got)))
}

// functions names what an expression may call, each with one argument.
func functions() []string { return []string{"int", "len", "lower", "string", "trim", "upper"} }

// hidden is the name of a function that no expression can spell. Those of the
// operators take the place of the library's own where an operand comes from the
// metadata, so that its kind is not known before: they let nil be.
func hidden(name string) string { return " " + name }

// operators are the operators with such a function; see [hidden].
func operators() []string {
	return []string{"<", "<=", ">", ">=", "+", "-", "*", "/", "%", "**", "^", "in"}
}

// table returns every function of the expressions.
func table() map[string]*builtin.Function {
	t := make(map[string]*builtin.Function)
	add := func(key, name string, f func(args ...any) (any, error), signatures ...any) {
		fn := &builtin.Function{Name: name, Func: f}
		for _, s := range signatures {
			fn.Types = append(fn.Types, typeOf(s))
		}
		t[key] = fn
	}
	for _, name := range functions() {
		f := func(args ...any) (any, error) { return call(name, args[0]) }
		var signatures []any
		switch name {
		case "int":
			signatures = []any{(func(int) int)(nil), (func(float64) int)(nil), (func(string) int)(nil)}
		case "len":
			signatures = []any{(func(string) int)(nil)}
		case "string":
			signatures = []any{
				(func(string) string)(nil), (func(int) string)(nil), (func(float64) string)(nil), (func(bool) string)(nil),
			}
		default:
			signatures = []any{(func(string) string)(nil)}
		}
		add(name, name, f, signatures...)
		add(hidden(name), name, f, (func(any) any)(nil))
	}
	for _, name := range operators() {
		f := func(args ...any) (any, error) { return operate(name, args[0], args[1]) }
		var signature any = (func(any, any) any)(nil)
		if strings.ContainsAny(name, "<>i") {
			signature = (func(any, any) bool)(nil)
		}
		add(hidden(name), name, f, signature)
	}
	add(hidden("get"), "field", func(args ...any) (any, error) { return get(args[0], args[1]) }, (func(any, any) any)(nil))
	add(hidden("truth"), "truth", func(args ...any) (any, error) { return truth(args[0]) }, (func(any) bool)(nil))
	add(hidden("minus"), "-", func(args ...any) (any, error) { return minus(args[0]) }, (func(any) any)(nil))
	return t
}

// call calls one of the functions; of nil it is nil.
func call(name string, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	switch name {
	case "int":
		return toInt(v)
	case "len":
		return length(v)
	case "string":
		return toText(v)
	}
	text, ok := v.(string)
	if !ok {
		return nil, mismatch(name, "a text", v)
	}
	switch name {
	case "lower":
		return strings.ToLower(text), nil
	case "upper":
		return strings.ToUpper(text), nil
	}
	return strings.TrimSpace(text), nil
}

func toInt(v any) (any, error) {
	switch v := v.(type) {
	case int:
		return v, nil
	case float64:
		return int(v), nil
	case string:
		i, err := strconv.Atoi(v)
		if err != nil {
			return nil, mismatchError("int takes a text of digits")
		}
		return i, nil
	}
	return nil, mismatch("int", "a number or a text", v)
}

func toText(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	}
	return nil, mismatch("string", "a text, a number, true or false", v)
}

func length(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), nil
	case []any:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	}
	return nil, mismatch("len", "a text, a list or an object", v)
}

// get is the member of an object or the element of a list; nil when there is
// none.
func get(from, key any) (any, error) {
	switch from := from.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		name, ok := key.(string)
		if key != nil && !ok {
			return nil, mismatchError("a field of an object is named by a text, not by " + kindOf(key))
		}
		return from[name], nil
	case []any:
		i, ok := key.(int)
		if key != nil && !ok {
			return nil, mismatchError("an element of a list is numbered, not named by " + kindOf(key))
		}
		if i < 0 {
			i += len(from)
		}
		if key == nil || i < 0 || i >= len(from) {
			return nil, nil
		}
		return from[i], nil
	}
	return nil, mismatchError(kindOf(from) + " has no fields")
}

// truth is a value where true or false is needed: nil is false.
func truth(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	}
	return nil, mismatchError("true or false is needed here, not " + kindOf(v))
}

func minus(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case int:
		return -v, nil
	case float64:
		return -v, nil
	}
	return nil, mismatch("-", "a number", v)
}

// operate applies an operator: a comparison with nil is false, a computation
// with nil is nil.
func operate(name string, a, b any) (any, error) {
	if name == "in" {
		return within(a, b)
	}
	compares := strings.ContainsAny(name, "<>")
	switch {
	case (a == nil || b == nil) && compares:
		return false, nil
	case a == nil || b == nil:
		return nil, nil
	}
	numbers, texts := isNumber(a) && isNumber(b), isText(a) && isText(b)
	if !numbers && (!texts || !compares) {
		return nil, mismatchError(fmt.Sprintf("%s cannot be applied to %s and %s", name, kindOf(a), kindOf(b)))
	}
	switch name {
	case "<":
		return runtime.Less(a, b), nil
	case "<=":
		return runtime.LessOrEqual(a, b), nil
	case ">":
		return runtime.More(a, b), nil
	case ">=":
		return runtime.MoreOrEqual(a, b), nil
	case "+":
		return runtime.Add(a, b), nil
	case "-":
		return runtime.Subtract(a, b), nil
	case "*":
		return runtime.Multiply(a, b), nil
	case "/":
		return runtime.Divide(a, b), nil
	case "%":
		return remainder(a, b)
	}
	return runtime.Exponent(a, b), nil
}

func remainder(a, b any) (any, error) {
	i, ok := a.(int)
	j, also := b.(int)
	if !ok || !also || j == 0 {
		return nil, mismatchError("% takes two whole numbers, the second one not 0")
	}
	return i % j, nil
}

func isText(v any) bool { _, ok := v.(string); return ok }

func isNumber(v any) bool {
	switch v.(type) {
	case int, float64:
		return true
	}
	return false
}

// within reports whether a list has an element, or an object a field.
func within(v, in any) (any, error) {
	switch in := in.(type) {
	case nil:
		return false, nil
	case []any:
		return v != nil && runtime.In(v, in), nil
	case map[string]any:
		name, ok := v.(string)
		_, has := in[name]
		return ok && has, nil
	}
	return nil, mismatch("in", "a list or an object", in)
}
