// Package scenarios tests what happens to a job when backends misbehave: the
// fallback engine over limiters, breakers and clients, against scripted providers
// behind real HTTP.
//
// There is no code in it but tests. Most run over connections in memory inside a
// testing/synctest bubble, where minutes cost nothing and every time is exact.
// docs/scenarios.md is what they saw; `make scenarios` writes it.
package scenarios
