package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// parser turns the text of a variable into a value. Its zero value is ready. The
// error is a *flaw, or several joined by [errors.Join] in the order of the text.
// With it, a list may hold what can be checked further; it is not to be used.
type parser[T any] interface {
	parse(text string) (T, error)
}

// shower is a parser whose values are not shown as they were given.
type shower[T any] interface {
	show(value T) string
}

// setting is one variable: what it says, and what that means. The zero value is
// a variable that is not set and has no default.
type setting[T any, P parser[T]] struct {
	value T
	// name is the variable's.
	name string
	// given tells that the environment says so, not the default.
	given bool

	text string
	err  error
}

// Set implements [envconfig.Setter]. It keeps what is wrong and returns nil, so
// that envconfig goes on, and never repeats a value.
func (s *setting[T, P]) Set(text string) error {
	var p P
	var zero T
	s.value, s.err = zero, nil
	if s.text = strings.TrimSpace(text); s.text != "" {
		s.value, s.err = p.parse(s.text)
	}
	return nil
}

// use is Set for a setting that the environment leaves open.
func (s *setting[T, P]) use(text string) {
	if !s.given {
		_ = s.Set(text)
	}
}

// bind tells the setting its name and whether the environment gives it.
func (s *setting[T, P]) bind(name string, given bool) { s.name, s.given = name, given }

// label is the variable's name.
func (s *setting[T, P]) label() string { return s.name }

func (s *setting[T, P]) isGiven() bool { return s.given }

// active reports whether the value is other than 0, false or nothing.
func (s *setting[T, P]) active() bool { return !reflect.ValueOf(&s.value).Elem().IsZero() }

// flaws are what is wrong with the text; none when nothing is.
func (s *setting[T, P]) flaws() []*flaw {
	errs := []error{s.err}
	if joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](s.err); ok {
		errs = joined.Unwrap()
	}
	var list []*flaw
	for _, err := range errs {
		if f, ok := errors.AsType[*flaw](err); ok {
			list = append(list, f)
		} else if err != nil {
			list = append(list, &flaw{wrong: "cannot be read"})
		}
	}
	return list
}

// shown is the setting for people, empty when it is not set. Secrets are masked.
func (s *setting[T, P]) shown() string {
	var p P
	switch sh, special := any(p).(shower[T]); {
	case s.text == "":
		return ""
	case s.err != nil:
		return "(cannot be read)"
	case special:
		return sh.show(s.value)
	}
	return s.text
}

// variable is a setting of any type.
type variable interface {
	envconfig.Setter
	bind(name string, given bool)
	label() string
	isGiven() bool
	active() bool
	flaws() []*flaw
	shown() string
}

// field is one variable of a spec.
type field struct {
	variable
	name string
	tag  reflect.StructTag
}

// fields lists the variables of spec, a pointer to a struct of settings, with
// the names that envconfig gives them.
func fields(prefix string, spec any) ([]field, error) {
	var keys bytes.Buffer
	if err := envconfig.Usagef(prefix, spec, &keys, "{{range .}}{{usage_key .}}\n{{end}}"); err != nil {
		return nil, fmt.Errorf("list the variables of %T: %w", spec, err)
	}
	names := strings.Fields(keys.String())
	s := reflect.ValueOf(spec).Elem()
	list := make([]field, s.NumField())
	if len(names) != len(list) {
		return nil, fmt.Errorf("list the variables of %T: it has %d fields and %d variables", spec, len(list), len(names))
	}
	for i := range list {
		v, ok := reflect.TypeAssert[variable](s.Field(i).Addr())
		if !ok {
			return nil, fmt.Errorf("list the variables of %T: %s is no setting", spec, names[i])
		}
		list[i] = field{name: names[i], tag: s.Type().Field(i).Tag, variable: v}
	}
	return list, nil
}
