package job

import "fmt"

// FieldError says which field of a job is wrong and why. It never quotes the
// field's value when that could be a prompt.
type FieldError struct {
	// Field is a JSON path such as "policy.max_attempts", or "payload", "queue",
	// "id", "subject".
	Field string
	// Reason is a clause that follows the field's name, such as "is required".
	Reason string
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

func invalid(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
