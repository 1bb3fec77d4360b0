package soak

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// Kind is what is wrong. The set is closed.
type Kind string

// The kinds of findings.
const (
	// Lost is a job that was accepted and has neither a result nor its place in
	// the queue.
	Lost Kind = "lost"
	// Stuck is a job that is still in the queue.
	Stuck Kind = "stuck"
	// SecondResult is a result that is not its job's only one.
	SecondResult Kind = "second result"
	// Unfounded is a result or a dead letter without the job or failure it needs.
	Unfounded Kind = "unfounded"
	// CallAfterResult is a call that was made when the result was stored already.
	CallAfterResult Kind = "call after the result"
	// NoDeadLetter is a failed job without a dead letter.
	NoDeadLetter Kind = "no dead letter"
	// UnexplainedCall is a call of which neither the trail nor an event tells,
	// although the job stayed with one worker.
	UnexplainedCall Kind = "unexplained call"
	// UnexplainedUnknown is an unknown outcome although the job was never handed
	// out again.
	UnexplainedUnknown Kind = "unexplained unknown outcome"
	// PaidTwice is a second good answer for a job that was never handed out again.
	PaidTwice Kind = "paid twice"
	// Unreadable is a message that cannot be read.
	Unreadable Kind = "unreadable"
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind Kind
	// Job is the job's id, or what is known of it.
	Job    string
	Detail string
}

// String says it on one line.
func (f Finding) String() string { return fmt.Sprintf("%s: job %s: %s", f.Kind, f.Job, f.Detail) }

// Fate is what the provider knows of a call whose outcome no worker knows.
type Fate string

// The fates.
const (
	// Answered means that the provider answered, and nobody kept the answer.
	Answered Fate = "the provider answered, the worker was gone"
	// Failed means that the provider did not give a good answer.
	Failed Fate = "the provider failed, the worker was gone"
	// Cut means that the worker went before the answer.
	Cut Fate = "the worker went before the answer"
	// NotMade means that the provider never saw the call.
	NotMade Fate = "the call never reached the provider"
)

// Report is what [Check] found.
type Report struct {
	// Accepted, Succeeded, Failed and Other count jobs, Dead dead letters.
	Accepted, Succeeded, Failed, Other, Dead int
	// Calls are those the provider saw; Attempts those the workers told of.
	Calls, Attempts int
	// Redelivered counts the jobs that were handed out more than once.
	Redelivered int
	// Again counts the good answers beyond the first of a job: what crashes cost.
	Again int
	// Crossed counts calls that were on their way when another worker stored the
	// result.
	Crossed int
	// Forgotten counts the jobs that a server which had forgotten them handed out
	// anew, while nothing but the calls tells so; see [Evidence.Amnesia].
	Forgotten int
	// Untold counts calls beyond those told of, in jobs that were handed out again:
	// their worker was cut off or killed before the events that tell of them were
	// stored. Events are never waited for, so that is possible; in a job that
	// stayed with one worker it is a finding.
	Untold int
	// Unknown counts the unknown outcomes in the trails, by what became of the call.
	Unknown map[Fate]int
	// Findings is empty when all is well.
	Findings []Finding
}

// UnknownOutcomes is how many there are in all.
func (r *Report) UnknownOutcomes() int {
	n := 0
	for _, v := range r.Unknown {
		n += v
	}
	return n
}

// Count is how many findings there are of a kind.
func (r *Report) Count(kind Kind) int {
	n := 0
	for _, f := range r.Findings {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	out := &lines{w: w}
	out.add("jobs accepted           %d", r.Accepted)
	out.add("  succeeded             %d", r.Succeeded)
	out.add("  failed or expired     %d", r.Failed)
	out.add("  cancelled             %d", r.Other)
	out.add("dead letters            %d", r.Dead)
	out.add("handed out again        %d", r.Redelivered)
	out.add("  as if it was the first time, by a server that had forgotten them: %d", r.Forgotten)
	out.add("calls at the provider   %d", r.Calls)
	out.add("calls the workers tell  %d", r.Attempts)
	out.add("good answers beyond the first of a job (the price of crashes): %d", r.Again)
	out.add("calls whose worker was cut off or killed before it could tell: %d", r.Untold)
	out.add("calls on their way while another worker stored the result: %d", r.Crossed)
	out.add("unknown outcomes        %d", r.UnknownOutcomes())
	for _, fate := range slices.Sorted(maps.Keys(r.Unknown)) {
		out.add("  %6d  %s", r.Unknown[fate], fate)
	}
	out.add("")
	for _, kind := range []Kind{
		Lost, Stuck, SecondResult, CallAfterResult, NoDeadLetter, Unfounded, UnexplainedCall, UnexplainedUnknown, PaidTwice, Unreadable,
	} {
		out.add("%-28s %d", kind, r.Count(kind))
	}
	out.add("")
	for _, f := range r.Findings {
		out.add("%s", f)
	}
	return out.err
}

// lines writes lines until one cannot be written.
type lines struct {
	w   io.Writer
	err error
}

func (l *lines) add(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format+"\n", args...)
	}
}
