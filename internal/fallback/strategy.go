package fallback

import (
	"cmp"
	"slices"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// The names of the built-in strategies.
const (
	Sequential  = "sequential"
	Priority    = "priority"
	ErrorType   = "error_type"
	Random      = "random"
	Parallel    = "parallel"
	Conditional = "conditional"
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

// Judge is a [Strategy] that decides itself after which failures a job goes on.
type Judge interface {
	Strategy
	// GoesOn reports whether another backend is asked after s.Failure, whatever
	// ON_ERRORS and ON_STATUS_CODES say. It must answer from s alone. It is not
	// asked where nothing can go on: without fallback, or when the job was
	// cancelled or has expired.
	GoesOn(s *Situation) bool
}

// Move is what a strategy wants done.
type Move struct {
	// Order holds positions in the chain, the most wanted first. The engine
	// calls the first of them that can be called now; if none can, it waits for
	// the earliest. Degraded backends that it leaves out are asked last.
	Order []int
	// Fan is how many calls may run at once, of which the first success wins; 0
	// and 1 mean one after the other. Degraded backends never run beside models.
	Fan int
	// Stagger is the pause between the starts of calls that run at once; 0
	// starts all of them together. A call that fails lets the next start at once.
	Stagger time.Duration

	whole bool // Order is Situation.order: there is nothing to put right
}

// Situation is what a strategy knows when it is asked. It must not be changed.
type Situation struct {
	// Chain is the job's chain, and after it the backends that only ERROR_MAPPINGS
	// name.
	Chain []Candidate
	// Policy is the job's policy.
	Policy *Policy
	// Job is the job, Route the name of the route it takes.
	Job   *job.Job
	Route string
	// Failure is the last failed call of a model, nil when there was none yet. Of
	// a call that another delivery made, it holds what the trail tells.
	Failure *backend.Error
	// Position is where in the chain that was; -1 when there was none yet, or when
	// the backend is no longer there.
	Position int
	// Calls counts the calls that cost an attempt.
	Calls int
	// Seed is drawn from the job's id: it is the same wherever the job goes on.
	Seed uint64

	order []int // the positions of the chain itself, shared by all jobs of a route
}

// Class is the class of the last failed call of a model, empty when there was
// none yet.
func (s *Situation) Class() backend.Class {
	if s.Failure == nil {
		return ""
	}
	return s.Failure.Class
}

// mapped returns the positions of the backends that the policy maps the class of
// the last failure to, in the order of the mapping.
func (s *Situation) mapped() []int {
	var at []int
	for _, name := range s.Policy.ErrorMappings[s.Class()] {
		if i := s.position(name); i >= 0 {
			at = append(at, i)
		}
	}
	return at
}

// position is where in the chain a backend is, -1 for nowhere.
func (s *Situation) position(name string) int {
	for i := range s.Chain {
		if s.Chain[i].Name == name {
			return i
		}
	}
	return -1
}

// Candidate is one backend of a chain in the course of one job.
type Candidate struct {
	Name string
	// Tries counts the calls made for this job, Rounds counts them without the
	// retries.
	Tries, Rounds int
	// Degraded tells that it answers without a model.
	Degraded bool
	// Mapped tells that it is not of the chain itself: only ERROR_MAPPINGS name it.
	Mapped bool

	notBefore time.Time      // the retry hint, or the least backoff, of its last failure
	hinted    bool           // notBefore is a hint: no backoff on top
	closed    time.Time      // it has refused a call until then
	full      time.Time      // likewise, for its limits
	unfit     *backend.Error // why it can never take this job; nil when it can
	skipped   backend.Class  // why it was skipped, if its latest trail entry is a skip
	flown     bool           // it has its call in the volley under way
}

// NewStrategy makes a strategy for one job under a policy, or says what of the
// policy it cannot use.
type NewStrategy func(p *Policy) (Strategy, error)

// Strategies returns the built-in strategies by name. Add to the map and hand
// it to [Config] to register another.
func Strategies() map[string]NewStrategy {
	return map[string]NewStrategy{
		Sequential:  func(*Policy) (Strategy, error) { return sequential{}, nil },
		Priority:    func(*Policy) (Strategy, error) { return priority{}, nil },
		ErrorType:   newErrorType,
		Random:      func(*Policy) (Strategy, error) { return random{}, nil },
		Parallel:    func(*Policy) (Strategy, error) { return parallel{}, nil },
		Conditional: newConditional,
	}
}

// walk is the move that walks the chain in order and starts again at its head.
func (s *Situation) walk() Move {
	if s.Failure == nil && s.order != nil { // nobody was called yet
		return Move{Order: s.order, whole: true}
	}
	return Move{Order: byRounds(s.Chain)}
}

// byRounds returns the positions of the chain, the least called first and in
// chain order among equals: a chain that wraps round when it was walked.
func byRounds(chain []Candidate) []int {
	order := make([]int, 0, len(chain))
	for i := range chain {
		if !chain[i].Mapped {
			order = append(order, i)
		}
	}
	sortByRounds(order, chain)
	return order
}

// sortByRounds sorts positions so that the least called come first, and leaves
// the order among equals as it is.
func sortByRounds(order []int, chain []Candidate) {
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(chain[a].Rounds, chain[b].Rounds) })
}
