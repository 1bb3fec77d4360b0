// Package limit keeps the calls of a backend within limits: so many at once, so
// many and so many tokens per minute.
//
// A [Limiter] is a backend around a backend. Calls that would be too many wait
// in line before they leave. What a call may take is reserved beforehand from
// an estimate and corrected by its answer. What the provider's answers say of
// its own limits counts too: it may say less than is configured, or that more
// can go at once. Nothing runs in the background.
package limit
