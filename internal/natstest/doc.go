// Package natstest runs a private NATS server with JetStream inside a test.
//
// [Run] starts it on a random port with a store of its own, so that tests run in
// parallel and share nothing; the test's cleanup stops it and waits until it is
// gone. [Server.Restart] brings it back on the same port with the same store, as
// a server that crashed and came back; [Server.Stop] takes it away.
// [RunProxy] puts a network in between that is slow or goes silent.
//
// It belongs to tests only. Start no server inside a synctest bubble: the server
// waits on real time and hangs there.
package natstest
