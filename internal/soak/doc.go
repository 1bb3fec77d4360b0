// Package soak judges a run in which things were broken on purpose.
//
// [Check] is given what the run left behind, the messages of the four streams
// and the provider's own log of its calls, and nothing that a worker said of
// itself elsewhere. It finds every job that was lost, stuck, ended twice or
// called after its end, every dead letter that is missing or unfounded, every
// call and every unknown outcome that nothing explains, and names the job. It
// knows neither NATS nor a worker: package main of cmd/worker reads the streams.
package soak
