package backend

import (
	"context"
	"errors"
	"time"

	"understudy/internal/job"
)

// Backend is one place that can answer a completion request. Implementations
// are safe for concurrent use.
type Backend interface {
	// Name is the backend's name in chains, events and metrics.
	Name() string
	// Complete makes one call. It blocks until there is an answer, the
	// backend's own timeout has passed or ctx is done. Every error it returns
	// is an *[Error]. It calls req.Started exactly once, right before the call
	// leaves and after every wait for a limit, and not at all when it refuses
	// the call (class [CircuitOpen]).
	Complete(ctx context.Context, req *Request) (*Response, error)
}

// Gate is a [Backend] that can tell beforehand when it would take a call.
type Gate interface {
	Backend
	// Ready returns how long until a call would be admitted, 0 for now. It does
	// not reserve anything, never blocks, and is only a hint under concurrency.
	Ready() time.Duration
}

// Health is a [Backend] that knows how its latest calls went.
type Health interface {
	Backend
	// Failing reports whether the latest call that told anything about the
	// backend failed by the backend's own fault (effect [Count]). It never blocks.
	Failing() bool
}

// ErrNoTurn is the Cause of the error with which a [Limited] refuses a call whose
// turn is further away than [Request.MaxWait]. The error is of class
// [CircuitOpen], and its RetryAfter tells how far.
var ErrNoTurn = errors.New("its turn is further away than it waits")

// Limited is a [Backend] that keeps its calls within limits: of calls at once, of
// calls and tokens per minute. Its Complete waits for its turn before the call
// leaves, gives up waiting when ctx is done, and does not begin to where that would
// take longer than [Request.MaxWait].
type Limited interface {
	Backend
	// Room returns how long a call of req would wait for its turn now, 0 for not
	// at all. It reserves nothing, never blocks, and is only a hint under
	// concurrency.
	Room(req *Request) time.Duration
	// Defer tells that req comes back later instead of waiting for its turn, and
	// returns in how long it should: behind those that were deferred before it.
	// It never blocks, and keeps nothing that must be given back.
	Defer(req *Request) time.Duration
}

// Degrader is a [Backend] that answers without a model. Its calls cost no
// attempt, and it is asked after failures that stop the rest of a chain.
type Degrader interface {
	Backend
	// Degraded reports whether the backend's answers are degraded.
	Degraded() bool
}

// Request is one call to make. It must not be changed while a call runs.
type Request struct {
	// JobID identifies the job in logs of the provider where it has a field for that.
	JobID string
	// URL is one of the URL constants of package job.
	URL string
	// Body is the request as published, a JSON object that was found to be one when
	// the job was decoded; the backend splices only its model and what its own SET
	// and DROP say.
	Body []byte
	// Model is the model the job asked for, before the backend's own mapping.
	Model string
	// Stream tells that the job asked for a streamed answer.
	Stream bool
	// MaxWait is the longest that the call may wait for its turn at a [Limited]:
	// negative for not at all, 0 for as long as it takes. One that would wait for
	// longer is refused at once with [ErrNoTurn]; it uses nothing.
	MaxWait time.Duration
	// Started is called when the call leaves, with the model it asks for. May be nil.
	Started func(model string)
	// Chunk is called for every data chunk of a streamed answer, in order, with
	// the raw JSON of it, which must not be kept. May be nil.
	Chunk func(data []byte)

	measure *Measure // see Keep
}

// Response is a complete, acceptable answer.
type Response struct {
	// Status is the HTTP status, 200 for a backend without HTTP.
	Status int
	// RequestID is the provider's own id of the call; may be empty.
	RequestID string
	// Body is the answer, byte for byte as sent; for a streamed call it is the
	// assembled non-streaming form.
	Body []byte
	// Model is the model that answered, as the provider names it.
	Model string
	// Usage is nil when the provider counted nothing.
	Usage *job.Usage
	// CostUSD is nil when it is not known.
	CostUSD *float64
	// FirstToken is the time from sending to the first token, 0 when not streamed.
	FirstToken time.Duration
	// Degraded tells that no model answered.
	Degraded bool
	// Left is what the provider says is left of its limits.
	Left Allowances
}

// Allowance is what a provider says is left of one of its limits.
type Allowance struct {
	// Limit is the limit itself, 0 when it was not told.
	Limit int64
	// Remaining is what is left of it, this call taken off; 0 or more.
	Remaining int64
	// Reset is the time until the limit is whole again, from the answer on; 0
	// when it was not told.
	Reset time.Duration
}

// Allowances are those of one answer; nil for a limit of which it says nothing.
type Allowances struct{ Requests, Tokens *Allowance }
