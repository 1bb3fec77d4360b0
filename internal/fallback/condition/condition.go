package condition

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/expr-lang/expr/vm"

	"understudy/internal/backend"
)

// Bounds of an evaluation.
const (
	// maxText is how much of a text an expression sees, in bytes: of the
	// failure's message and of every text in the metadata.
	maxText = 4 << 10
	// maxMetadata is the longest metadata that an expression sees, in bytes; of
	// longer metadata it sees nothing, as if the job had none.
	maxMetadata = 64 << 10
	// memoryBudget is how many elements an evaluation may allocate. An array has
	// no more elements than its expression has nodes, so this is never reached.
	memoryBudget = 2 * maxNodes
)

// Env is what a condition is about.
type Env struct {
	Error Failure
	Job   Job
}

// Failure is "error" in an expression: class, status, code, type, message and
// backend.
type Failure struct {
	Class   backend.Class
	Status  int
	Code    string
	Type    string
	Message string
	Backend string
}

// Job is "job" in an expression: queue, route, metadata and attempt.
type Job struct {
	Queue string
	Route string
	// Metadata is the job's own JSON; nil means none. It is decoded only for a
	// condition that reads it.
	Metadata json.RawMessage
	// Attempt is the number of the attempt that failed, from 1.
	Attempt int
}

// Condition is a compiled condition. It is made by [Compile], not changed
// afterwards and safe for concurrent use.
type Condition struct {
	text string
	// classes are those of a named condition; program is that of an expression.
	classes  []backend.Class
	program  *vm.Program
	metadata bool
}

// String returns the text of the condition.
func (c *Condition) String() string { return c.text }

// Holds reports whether the condition holds for env. It never blocks.
//
// A field that the metadata does not have is nil; comparing nil is false, except
// with nil itself, and what is computed from nil is nil. A condition that does
// not fit the metadata (a text compared with a number) does not hold, and the
// error is an *[EvalError]; it quotes the expression but nothing of env.
func (c *Condition) Holds(env Env) (holds bool, err error) {
	if c.program == nil {
		return slices.Contains(c.classes, env.Error.Class), nil
	}
	// The machine recovers from what it does itself; this is for the rest of it.
	defer func() {
		if recover() != nil {
			holds, err = false, c.failed(nil)
		}
	}()
	scope := scopeOf(env)
	if c.metadata {
		scope.Job.Metadata = decode(env.Job.Metadata)
	}
	machine := vm.VM{MemoryBudget: memoryBudget}
	result, err := machine.Run(c.program, scope)
	if err != nil {
		return false, c.failed(err)
	}
	holds, ok := result.(bool)
	if !ok {
		return false, c.failed(nil)
	}
	return holds, nil
}

// scope is an [Env] as the expression library sees it.
type scope struct {
	Error scopeError `expr:"error"`
	Job   scopeJob   `expr:"job"`
}

type scopeError struct {
	Class   string `expr:"class"`
	Status  int    `expr:"status"`
	Code    string `expr:"code"`
	Type    string `expr:"type"`
	Message string `expr:"message"`
	Backend string `expr:"backend"`
}

type scopeJob struct {
	Queue    string `expr:"queue"`
	Route    string `expr:"route"`
	Metadata any    `expr:"metadata"`
	Attempt  int    `expr:"attempt"`
}

func scopeOf(env Env) *scope {
	return &scope{
		Error: scopeError{
			Class: string(env.Error.Class), Status: env.Error.Status, Code: cut(env.Error.Code), Type: cut(env.Error.Type),
			Message: cut(env.Error.Message), Backend: env.Error.Backend,
		},
		Job: scopeJob{Queue: env.Job.Queue, Route: env.Job.Route, Attempt: env.Job.Attempt},
	}
}

// EvalError tells that a condition could not be evaluated for a job.
type EvalError struct {
	// Reason is what was wrong, in our own words.
	Reason string
	// Text and Column are the condition and where in it, in characters from 0.
	Text   string
	Column int
}

// Error returns the reason, the expression and a caret line. Nothing of the
// failure, the job or its metadata is in it.
func (e *EvalError) Error() string {
	return fmt.Sprintf("%s\n%s", e.Reason, excerpt(e.Text, e.Column))
}
