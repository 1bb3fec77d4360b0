// Package openai is the backend that speaks to OpenAI-compatible HTTP
// endpoints, and the only place that knows providers.
//
// go-openai builds the URL and the authentication; the job's body travels byte
// for byte through an HTTP client of our own, which knows the answer as sent.
// Streams are read here as well and assembled into the non-streaming form.
//
// Everything a provider says when it fails becomes one [backend.Error]:
// codes.go holds what is known about their codes and words, errorbody.go the
// shapes they come in, retryhint.go how they say when to come back, fit.go how much
// they can take, and allowance.go what they say is left.
package openai
