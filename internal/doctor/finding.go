package doctor

import (
	"cmp"
	"slices"
)

// Level is how bad a finding is. The set is closed.
type Level string

// The levels, from good to bad.
const (
	// OK is a thing that was looked at and is as it should be.
	OK Level = "ok"
	// Note is worth knowing and needs nobody.
	Note Level = "note"
	// Warning needs somebody, but not now: jobs still run.
	Warning Level = "warning"
	// Problem keeps jobs from running, or a promise from being kept.
	Problem Level = "problem"
)

// rank orders the levels, the worst first.
func (l Level) rank() int {
	return slices.Index([]Level{Problem, Warning, Note, OK}, l)
}

// Finding is one thing that was looked at.
type Finding struct {
	// Level says how bad it is.
	Level Level `json:"level"`
	// Check names what was looked at, such as "stream.settings"; the set is closed
	// and described in the manual.
	Check string `json:"check"`
	// Where is the object: a stream, stream/consumer, a queue, a worker.
	Where string `json:"where"`
	// What says what was found, in words.
	What string `json:"what"`
	// Mend is the command, the variable or the step that mends it; empty for none.
	Mend string `json:"mend,omitempty"`
}

// Sort puts the worst findings first and keeps the order of examination within a
// level.
func Sort(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
}

// Worst is the worst level among findings; [OK] where there are none.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if f.Level.rank() < worst.rank() {
			worst = f.Level
		}
	}
	return worst
}
