package openai

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Bounds of a check. What is beyond them is accepted unchecked: the provider took
// the schema, and a check is no reason to lose an answer.
const (
	maxSchema       = 256 << 10 // bytes of a schema
	maxSchemaValues = 1 << 13   // JSON values of a schema
	maxContent      = 4 << 20   // bytes of a content
	maxValues       = 1 << 16   // JSON values of a content
	maxDepth        = 200       // nesting of either
	// maxDigits bounds a number: one that is longer, or whose exponent stands for
	// more digits, takes long to compare exactly.
	maxDigits = 400
	// maxDescent bounds how deep a validation nests: at every level of the content
	// it can go through every part of the schema once.
	maxDescent = 1 << 16
	// maxWork is how many steps, of a microsecond or less, a validation may take.
	maxWork = 1 << 18
	// maxPattern is how long a compiled pattern may be, maxPatterns all of a
	// schema, in instructions.
	maxPattern, maxPatterns = 10_000, 1 << 15
	// maxPaths is how long the JSON pointers of all values of a schema may be
	// together, in bytes, and maxIDs how many values may have an address of their
	// own: the library keeps both in full for each value.
	maxPaths, maxIDs = 1 << 20, 16
	// maxLocation is how much of a place in an answer a message tells, in bytes.
	maxLocation = 256
)

// schema is a compiled schema that counts the work of a validation.
type schema struct {
	mu sync.Mutex
	// compiled is nil when the schema cannot be checked.
	compiled *jsonschema.Schema
	// nodes is how many schemas it is made of.
	nodes int
	// left is the work that the running validation has left; it belongs to the
	// holder of mu.
	left int
}

// errWork ends a validation that takes too much work, as a panic.
var errWork = errors.New("too much work")

// errOutside refuses a schema that refers to another document.
var errOutside = errors.New("the schema refers to another document")

// spend takes n steps off the work that is left.
func (s *schema) spend(n int) {
	if s.left -= n; s.left < 0 {
		panic(errWork)
	}
}

// offline loads nothing.
type offline struct{}

// Load implements jsonschema.URLLoader.
func (offline) Load(string) (any, error) { return nil, errOutside }

// newSchema compiles a schema. It never fails: see [schema.compiled].
func newSchema(text json.RawMessage) *schema {
	s := &schema{left: maxWork}
	size, ok := measure(string(text))
	if len(text) > maxSchema || !ok || size.values > maxSchemaValues || size.depth > maxDepth {
		return s
	}
	// The library panics on some schemas.
	defer func() {
		if recover() != nil {
			s.compiled = nil
		}
	}()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return s
	}
	if paths, ids := addresses(document, 0); paths > maxPaths || ids > maxIDs {
		return s
	}
	const here = "https://schema.invalid/"
	var steps int
	c := jsonschema.NewCompiler()
	c.UseLoader(offline{})
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseRegexpEngine(func(expression string) (jsonschema.Regexp, error) {
		p, err := s.pattern(expression)
		if err != nil {
			return nil, err
		}
		if steps += p.steps; steps > maxPatterns {
			return nil, errWork
		}
		return p, nil
	})
	if c.AddResource(here, document) != nil {
		return s
	}
	compiled, err := c.Compile(here)
	if err != nil {
		return s
	}
	seen := make(map[*jsonschema.Schema]bool)
	if s.guard(compiled, seen) {
		s.compiled, s.nodes = compiled, len(seen)
	}
	return s
}

// pattern is a regular expression whose work counts.
type pattern struct {
	*regexp.Regexp
	of    *schema
	steps int
}

func (s *schema) pattern(expression string) (*pattern, error) {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxPattern {
		return nil, errWork
	}
	compiled, err := regexp.Compile(expression)
	return &pattern{Regexp: compiled, of: s, steps: len(program.Inst)}, err
}

// MatchString implements jsonschema.Regexp.
func (p *pattern) MatchString(text string) bool {
	p.of.spend(1 + p.steps*len(text)/64)
	return p.Regexp.MatchString(text)
}

// guard makes a compiled schema, and all it is made of, count its work, and
// takes formats out of it. It returns false for a schema whose parts are not all
// known before the validation. seen are the parts that are done.
func (s *schema) guard(part *jsonschema.Schema, seen map[*jsonschema.Schema]bool) bool {
	todo := []*jsonschema.Schema{part}
	for len(todo) > 0 {
		part, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if part == nil || seen[part] {
			continue
		}
		seen[part] = true
		if part.DynamicRef != nil || part.RecursiveRef != nil {
			return false
		}
		if part.Bool != nil {
			continue
		}
		if part.Ref != nil && part.DraftVersion < 2019 {
			// Up to draft 7 a reference stands alone, and the library returns before it
			// comes to the extensions. This is the same in words of the next draft.
			part.DraftVersion = 2019
			part.Const, part.Contains, part.PropertyNames = nil, nil, nil
			part.If, part.Then, part.Else = nil, nil, nil
		}
		below := children(part)
		w := &work{
			of: s, weight: len(below) + len(part.Required), alternatives: len(part.AllOf) + len(part.AnyOf) + len(part.OneOf),
			refers: part.Ref != nil, unique: part.UniqueItems,
		}
		for _, names := range part.DependentRequired {
			w.weight += len(names)
		}
		if part.Enum != nil {
			w.enum = part.Enum.Values
		}
		if part.Const != nil {
			w.constant = []any{*part.Const}
		}
		part.Format, part.Enum, part.Const, part.UniqueItems = nil, nil, nil, false
		part.Extensions = append(part.Extensions, w)
		todo = append(todo, below...)
	}
	return true
}

// children returns the schemas that a schema refers to directly.
func children(part *jsonschema.Schema) []*jsonschema.Schema {
	below := slices.Concat(part.AllOf, part.AnyOf, part.OneOf, part.PrefixItems, []*jsonschema.Schema{
		part.Ref, part.Not, part.If, part.Then, part.Else, part.PropertyNames, part.UnevaluatedProperties,
		part.Contains, part.Items2020, part.UnevaluatedItems, part.ContentSchema,
	})
	for _, named := range []map[string]*jsonschema.Schema{part.Properties, part.DependentSchemas} {
		for _, child := range named {
			below = append(below, child)
		}
	}
	for _, child := range part.PatternProperties {
		below = append(below, child)
	}
	mixed := []any{part.AdditionalProperties, part.AdditionalItems, part.Items}
	for _, child := range part.Dependencies {
		mixed = append(mixed, child)
	}
	for _, child := range mixed {
		switch child := child.(type) {
		case *jsonschema.Schema:
			below = append(below, child)
		case []*jsonschema.Schema:
			below = append(below, child...)
		}
	}
	return slices.DeleteFunc(below, func(child *jsonschema.Schema) bool { return child == nil })
}

// work counts the visits of one part of a schema, and compares values in the
// place of the library, which would not count that.
type work struct {
	of *schema
	// weight is how many names and schemas the part has, alternatives how many of
	// these are tried on the same value.
	weight, alternatives int
	refers, unique       bool
	enum, constant       []any
}

// Validate implements jsonschema.SchemaExt.
func (w *work) Validate(ctx *jsonschema.ValidatorContext, v any) {
	steps := 1 + w.weight/16 + w.alternatives + len(ctx.ValueLocation())/8
	if w.refers {
		// The library looks for a circle among the references on the way here.
		steps += w.of.nodes / 64
	}
	switch v := v.(type) {
	case map[string]any:
		steps += len(v)
	case []any:
		steps += len(v)
	case string:
		steps += len(v) / 256
	}
	w.of.spend(steps)
	if w.constant != nil && !w.oneOf(ctx, v, w.constant) {
		ctx.AddError(&kind.Const{Got: v, Want: w.constant[0]})
	}
	if w.enum != nil && !w.oneOf(ctx, v, w.enum) {
		ctx.AddError(&kind.Enum{Got: v, Want: w.enum})
	}
	if list, ok := v.([]any); ok && w.unique {
		w.of.spend(countValues(list))
		if i, j, err := ctx.Duplicates(list); err == nil && i >= 0 {
			ctx.AddError(&kind.UniqueItems{Duplicates: [2]int{i, j}})
		}
	}
}

func (w *work) oneOf(ctx *jsonschema.ValidatorContext, v any, values []any) bool {
	for _, value := range values {
		w.of.spend(min(countValues(value), 1+countValues(v)))
		if equal, err := ctx.Equals(v, value); err == nil && equal {
			return true
		}
	}
	return false
}

// check returns what is wrong with a content, which is JSON, or "".
func (s *schema) check(content string) (wrong string) {
	if s.compiled == nil || len(content) > maxContent {
		return ""
	}
	size, ok := measure(content)
	if !ok || size.values > maxValues || size.depth > maxDepth || (size.depth+1)*s.nodes > maxDescent {
		return ""
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(content))
	if err != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if recover() != nil {
			wrong = ""
		}
	}()
	s.left = maxWork
	if e, ok := errors.AsType[*jsonschema.ValidationError](s.compiled.Validate(v)); ok {
		return describe(e)
	}
	return ""
}

// describe names the first place that is wrong, and how; "" when the schema
// refers to itself in a circle, which says nothing about the answer.
func describe(e *jsonschema.ValidationError) string {
	at, ok := place(e)
	if !ok {
		return ""
	}
	var text string
	switch k := at.ErrorKind.(type) {
	case *kind.AnyOf:
		text = "fits none of the alternatives"
	case *kind.OneOf:
		text = "fits none of the alternatives"
		if len(k.Subschemas) > 1 {
			text = "fits more than one of the alternatives"
		}
	case *kind.FalseSchema:
		text = "nothing is allowed here"
	default:
		bare := &jsonschema.ValidationError{SchemaURL: at.SchemaURL, ErrorKind: at.ErrorKind}
		_, text, _ = strings.Cut(bare.Error(), "at '': ")
	}
	if len(at.InstanceLocation) == 0 {
		return text
	}
	var pointer strings.Builder
	for _, token := range at.InstanceLocation {
		pointer.WriteByte('/')
		pointer.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(clip(token, maxLocation)))
	}
	return "at " + clip(printable(pointer.String()), maxLocation) + ": " + text
}

// printable replaces what does not print.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// place returns the error to tell of those below e: the first one in the order
// of the answer, and of alternatives the one that went furthest. It returns
// false when there is a circle.
func place(e *jsonschema.ValidationError) (*jsonschema.ValidationError, bool) {
	if _, circle := e.ErrorKind.(*kind.RefCycle); circle {
		return e, false
	}
	var alternatives bool
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		alternatives = true
	case *kind.Contains, *kind.MinContains, *kind.PropertyNames:
		return e, true
	}
	var best *jsonschema.ValidationError
	for _, cause := range e.Causes {
		at, ok := place(cause)
		if !ok {
			return at, false
		}
		if best == nil || before(at, best, alternatives) {
			best = at
		}
	}
	if best == nil || alternatives && len(best.InstanceLocation) <= len(e.InstanceLocation) {
		return e, true
	}
	return best, true
}

// before reports whether error a comes before error b.
func before(a, b *jsonschema.ValidationError, deepest bool) bool {
	if deepest && len(a.InstanceLocation) != len(b.InstanceLocation) {
		return len(a.InstanceLocation) > len(b.InstanceLocation)
	}
	order := slices.CompareFunc(a.InstanceLocation, b.InstanceLocation, func(x, y string) int {
		i, err := strconv.Atoi(x)
		j, err2 := strconv.Atoi(y)
		if err == nil && err2 == nil && i != j {
			return cmp.Compare(i, j)
		}
		return cmp.Compare(x, y)
	})
	return cmp.Or(order, cmp.Compare(a.SchemaURL, b.SchemaURL)) < 0
}
