package fallback

import (
	"errors"
	"fmt"

	"understudy/internal/fallback/condition"
)

// conditional walks the chain like sequential, but goes on only while one of the
// policy's conditions holds of the failure. A condition that cannot be judged,
// because the job's metadata are of another type than it expects, does not hold.
type conditional struct{ conditions []*condition.Condition }

func newConditional(p *Policy) (Strategy, error) {
	if p.Enabled && len(p.Conditions) == 0 {
		return nil, errors.New("conditional needs conditions: without one no failure leads to another backend")
	}
	conditions := p.compiled
	if len(conditions) != len(p.Conditions) { // a policy that did not come from an engine
		var err error
		if conditions, err = compile(p.Conditions); err != nil {
			return nil, err
		}
	}
	return conditional{conditions}, nil
}

// compile compiles conditions, or says which is wrong and why.
func compile(texts []string) ([]*condition.Condition, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	conditions := make([]*condition.Condition, len(texts))
	for i, text := range texts {
		var err error
		if conditions[i], err = condition.Compile(text); err != nil {
			return nil, &conditionError{i, err}
		}
	}
	return conditions, nil
}

// conditionError is a condition that cannot be used.
type conditionError struct {
	index int
	err   error
}

// Error implements error.
func (e *conditionError) Error() string { return fmt.Sprintf("condition %d: %s", e.index+1, e.err) }

// Unwrap returns what is wrong with it.
func (e *conditionError) Unwrap() error { return e.err }

// Next implements [Strategy].
func (conditional) Next(s *Situation) Move { return s.walk() }

// GoesOn implements [Judge].
func (c conditional) GoesOn(s *Situation) bool {
	env := condition.Env{
		Error: condition.Failure{
			Class: s.Failure.Class, Status: s.Failure.Status, Code: s.Failure.Code, Type: s.Failure.Type,
			Message: s.Failure.Message, Backend: s.Failure.Backend,
		},
		Job: condition.Job{Queue: s.Job.Queue, Route: s.Route, Metadata: s.Job.Metadata, Attempt: s.Calls},
	}
	for _, one := range c.conditions {
		if holds, err := one.Holds(env); err == nil && holds {
			return true
		}
	}
	return false
}
