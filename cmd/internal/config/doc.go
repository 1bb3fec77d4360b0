// Package config reads the environment of the commands, once, when they start.
//
// The structs of spec.go are at the same time the list of all variables, their
// manual (`worker -env` and docs/configuration.md are generated from them) and
// what envconfig fills in. Their fields keep what is wrong with a value instead
// of failing, so that a [Report] holds every problem at once, by the name of the
// variable. What may be a secret is never quoted, in no message.
package config

//go:generate go run understudy/cmd/internal/config/generate ../../../docs/configuration.md
