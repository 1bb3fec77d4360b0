// Package backend says what a backend is: one place that can answer a
// completion request. It holds the closed set of failure classes and the one
// error type in which every backend reports, so that what stands above (the
// breaker, the chain) never reads a provider's words.
//
// The package backend/openai speaks to OpenAI-compatible endpoints, the package
// backend/rules answers from a file without a model.
package backend
