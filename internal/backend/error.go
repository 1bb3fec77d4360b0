package backend

import (
	"errors"
	"fmt"
	"time"

	"understudy/internal/job"
)

// Error is the one error a backend returns. It is made once, at the adapter;
// what stands above asks errors.Is(err, SomeClass) or errors.As.
type Error struct {
	Class   Class
	Backend string
	// Status is the HTTP status of the answer, 0 when there was none.
	Status int
	// Code and Type are the provider's own, empty when it gave none.
	Code, Type string
	// Message is for the result and the dead letter. It may quote the provider,
	// who may quote the prompt: it never goes into a log or a metric. It holds
	// no API key.
	Message string
	// RetryAfter is the provider's hint, 0 when it gave none. For [CircuitOpen]
	// it is the time until the breaker would admit a call.
	RetryAfter time.Duration
	// RequestID is the provider's own id of the call; may be empty.
	RequestID string
	// Body is the provider's last answer where there was one, capped; may be nil.
	Body []byte
	// Model is the model the call asked for.
	Model string
	// Usage and CostUSD are what the failed call consumed all the same, nil when
	// it is not known; FirstToken as in [Response].
	Usage      *job.Usage
	CostUSD    *float64
	FirstToken time.Duration
	// Limit and Requested are what the backend can take and what this request
	// would need, in tokens, where it said so of a request that can never fit; 0
	// when it did not.
	Limit, Requested int64
	// Left is what the provider says is left of its limits.
	Left Allowances
	// Cause is the underlying error; may be nil.
	Cause error
}

// Error implements error. The text holds class, backend and status but not the
// provider's words, so that it is safe to log.
func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("%s: %s (status %d)", e.Backend, e.Class, e.Status)
	}
	return fmt.Sprintf("%s: %s", e.Backend, e.Class)
}

// Unwrap returns the class and the cause, so that errors.Is finds both.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Cause}
}

// AsError returns the *Error in err's tree; an error that holds none, which is a
// defect of a custom backend, becomes one of class [ServerError].
func AsError(err error, backend string) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Class: ServerError, Backend: backend, Message: "the backend failed without a class", Cause: err}
}
