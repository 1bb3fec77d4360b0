package backend

import (
	"fmt"
	"strings"
)

// Class is what kind of failure it was. The set is closed. A Class is an error
// value so that callers can ask errors.Is(err, backend.RateLimit).
type Class string

// The classes, SPEC-wide. The comment of each says when it is used.
const (
	Timeout        Class = "timeout"         // no answer, or no first token, in time
	Connection     Class = "connection"      // refused, reset, DNS, TLS
	ServerError    Class = "server_error"    // 5xx that is not overload
	Overloaded     Class = "overloaded"      // 503, 529, 498, model loading
	RateLimit      Class = "rate_limit"      // a 429 that passes with time
	Quota          Class = "quota"           // money or a per-day limit is used up
	Auth           Class = "auth"            // the key is missing or wrong
	Permission     Class = "permission"      // the key may not do this, or not from here
	ContextLength  Class = "context_length"  // the prompt does not fit the model
	TooLarge       Class = "too_large"       // the request can never fit this backend's limits
	Unsupported    Class = "unsupported"     // this backend lacks a feature the request uses
	BadResponse    Class = "bad_response"    // HTML, cut or non-JSON, no choices
	Truncated      Class = "truncated"       // a stream that ended before it was finished
	EmptyOutput    Class = "empty_output"    // an answer without content
	ModelNotFound  Class = "model_not_found" // no such model, or retired
	InvalidRequest Class = "invalid_request" // the provider refuses the request as such
	ContentFilter  Class = "content_filter"  // refused by policy
	Canceled       Class = "cancelled"       // job cancelled, race lost, shutdown
	Expired        Class = "expired"         // the job's own time ran out
	InvalidJob     Class = "invalid_job"     // the job message is malformed
	Poison         Class = "poison"          // the job killed its workers
	CircuitOpen    Class = "circuit_open"    // the breaker refused the call
)

// Effect is what a failure of a class does to the breaker. The set is closed.
type Effect string

// The effects of a class on a breaker.
const (
	Count  Effect = "count"  // one more failure in a row
	Cool   Effect = "cool"   // open at once, for the hinted time
	Trip   Effect = "trip"   // open at once
	Ignore Effect = "ignore" // neither a success nor a failure
)

// trait is a row of the class table.
type trait struct {
	fallsBack bool
	effect    Effect
}

// traits is the class table: what each class does by default.
func (c Class) traits() (trait, bool) {
	switch c {
	case Timeout, Connection, ServerError, Overloaded, BadResponse, Truncated, EmptyOutput:
		return trait{true, Count}, true
	case RateLimit:
		return trait{true, Cool}, true
	case Quota, Auth, Permission:
		return trait{true, Trip}, true
	case ContextLength, TooLarge, Unsupported:
		return trait{true, Ignore}, true
	case ModelNotFound, InvalidRequest, ContentFilter,
		Canceled, Expired, InvalidJob, Poison, CircuitOpen:
		return trait{false, Ignore}, true
	}
	return trait{false, Ignore}, false
}

// Error implements error.
func (c Class) Error() string { return string(c) }

// FallsBack reports whether a failure of this class goes on to the next
// backend where the route does not say otherwise.
func (c Class) FallsBack() bool { t, _ := c.traits(); return t.fallsBack }

// Effect is what a failure of this class does to the backend's breaker.
func (c Class) Effect() Effect { t, _ := c.traits(); return t.effect }

// Classes returns every class, in the order of the class table.
func Classes() []Class {
	return []Class{
		Timeout, Connection, ServerError, Overloaded, RateLimit, Quota, Auth, Permission,
		ContextLength, TooLarge, Unsupported, BadResponse, Truncated, EmptyOutput,
		ModelNotFound, InvalidRequest, ContentFilter,
		Canceled, Expired, InvalidJob, Poison, CircuitOpen,
	}
}

// ParseClass returns the class of that name. It accepts the names other systems
// use for them, such as RateLimitError or service_unavailable, in any case.
func ParseClass(name string) (Class, error) {
	key := strings.ToLower(strings.TrimSpace(name))
	if _, ok := Class(key).traits(); ok {
		return Class(key), nil
	}
	switch key {
	case "timeouterror", "timeout_error", "apitimeouterror":
		return Timeout, nil
	case "connectionerror", "connection_error", "apiconnectionerror", "network_error":
		return Connection, nil
	case "servererror", "internalservererror", "internal_server_error", "api_error":
		return ServerError, nil
	case "serviceunavailableerror", "service_unavailable", "service_unavailable_error", "overloaded_error", "overloadederror":
		return Overloaded, nil
	case "ratelimiterror", "rate_limit_error", "rate_limit_exceeded":
		return RateLimit, nil
	case "quotaerror", "insufficient_quota", "quota_exceeded":
		return Quota, nil
	case "authenticationerror", "authentication_error", "authentication":
		return Auth, nil
	case "permissiondeniederror", "permission_error", "permission_denied":
		return Permission, nil
	case "contextwindowexceedederror", "context_length_exceeded", "token_limit":
		return ContextLength, nil
	case "modelnotfounderror", "notfounderror", "not_found_error", "model_not_found_error":
		return ModelNotFound, nil
	case "badrequesterror", "invalidrequesterror", "invalid_request_error", "bad_request":
		return InvalidRequest, nil
	case "contentfiltererror", "contentpolicyviolationerror", "content_policy_violation":
		return ContentFilter, nil
	}
	return "", fmt.Errorf("unknown error class %q", name)
}
