// Package condition decides whether a failure goes on to the next backend: the
// conditions of the strategy conditional.
//
// A condition is one of ten names, see [Names], or an expression over the
// failure and the job. Whatever an expression does wrong is told when it is
// compiled, with a caret under the place. As jobs may bring their own, both
// compiling and evaluating are bounded in time and memory whatever the text:
// there are no loops, no variables and no ranges, and every text is cut.
//
// The package is the only one that knows the expression library.
package condition
