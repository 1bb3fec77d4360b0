package condition

import (
	"slices"

	"understudy/internal/backend"
)

// Names returns the named conditions, in the order of the documentation.
func Names() []string {
	return []string{
		"on_timeout", "on_rate_limit", "on_service_unavailable", "on_authentication_error", "on_model_not_found",
		"on_token_limit", "on_content_filter", "on_invalid_request", "on_any_error", "on_retryable_error",
	}
}

// classesOf returns the classes for which a named condition holds, and whether
// there is a condition of that name.
func classesOf(name string) ([]backend.Class, bool) {
	switch name {
	case "on_timeout":
		return []backend.Class{backend.Timeout}, true
	case "on_rate_limit":
		// Not Quota: the class table tells a limit that passes with time (cool)
		// from money or a day's limit that is used up (trip).
		return []backend.Class{backend.RateLimit}, true
	case "on_service_unavailable":
		// The backend is not there or not able to: an unreachable one and a plain
		// 5xx are no different from a 503 to whoever waits for an answer. One that
		// answers badly (BadResponse, Truncated, EmptyOutput) is there.
		return []backend.Class{backend.Overloaded, backend.ServerError, backend.Connection}, true
	case "on_authentication_error":
		return []backend.Class{backend.Auth, backend.Permission}, true
	case "on_model_not_found":
		return []backend.Class{backend.ModelNotFound}, true
	case "on_token_limit":
		return []backend.Class{backend.ContextLength, backend.TooLarge}, true
	case "on_content_filter":
		return []backend.Class{backend.ContentFilter}, true
	case "on_invalid_request":
		return []backend.Class{backend.InvalidRequest, backend.Unsupported}, true
	case "on_any_error":
		return backend.Classes(), true
	case "on_retryable_error":
		return slices.DeleteFunc(backend.Classes(), func(c backend.Class) bool { return !passes(c) }), true
	}
	return nil, false
}

// passes reports whether the same call to the same backend may succeed later.
// That is what the breaker knows of a class: it counts such failures or cools
// down. It is narrower than FallsBack: a bad key, a used-up quota and a prompt
// that is too long fall back as well, but stay as they are.
func passes(c backend.Class) bool { return c.Effect() == backend.Count || c.Effect() == backend.Cool }
