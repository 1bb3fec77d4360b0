// Package breaker guards a backend: after too many failures in a row, or one
// that says "not now", the backend is left alone for a while, then probed.
//
// A [Guard] is a backend around a backend. Counting failures and admitting
// probes is gobreaker's; how long the breaker stays open is ours, because a
// rate limit passes in a second and a used up quota does not. The state turns
// when somebody asks: nothing runs in the background.
package breaker
