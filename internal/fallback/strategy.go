package fallback

import (
	"cmp"
	"slices"
	"time"

	"understudy/internal/backend"
)

// The names of the built-in strategies.
const (
	Sequential = "sequential"
)

// Strategy says who is asked next. One is made for each delivery of a job and
// used by one goroutine at a time.
type Strategy interface {
	// Next returns the next move. It is asked once at the start and once after
	// every failed call, and must answer from s alone: a job that is taken up by
	// another worker is not told again what came before. An empty order means
	// that no model is asked any more.
	Next(s *Situation) Move
}

// Move is what a strategy wants done.
type Move struct {
	// Order holds positions in the chain, the most wanted first. The engine
	// calls the first of them that can be called now; if none can, it waits for
	// the earliest. Degraded backends that it leaves out are asked last.
	Order []int
}

// Situation is what a strategy knows when it is asked. It must not be changed.
type Situation struct {
	// Chain is the job's chain.
	Chain []Candidate
	// Policy is the job's policy.
	Policy *Policy
	// Class, Status and Position are of the last failed call of a model; Class is
	// empty when there was none yet. Position is -1 then, and when the backend is
	// no longer in the chain.
	Class    backend.Class
	Status   int
	Position int
}

// Candidate is one backend of a chain in the course of one job.
type Candidate struct {
	Name string
	// Tries counts the calls made for this job.
	Tries int
	// Degraded tells that it answers without a model.
	Degraded bool

	notBefore time.Time // the retry hint, or the least backoff, of its last failure
	hinted    bool      // notBefore is a hint: no backoff on top
	closed    time.Time // it has refused a call until then
	skipped   bool      // its latest trail entry is a skip
}

// NewStrategy makes a strategy for one job under a policy, or says what of the
// policy it cannot use.
type NewStrategy func(p *Policy) (Strategy, error)

// Strategies returns the built-in strategies by name. Add to the map and hand
// it to [Config] to register another.
func Strategies() map[string]NewStrategy {
	return map[string]NewStrategy{
		Sequential: func(*Policy) (Strategy, error) { return sequential{}, nil },
	}
}

// byTries returns the positions of the chain, the least called first and in
// chain order among equals: a chain that wraps round when it was walked.
func byTries(chain []Candidate) []int {
	order := make([]int, len(chain))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(chain[a].Tries, chain[b].Tries) })
	return order
}
