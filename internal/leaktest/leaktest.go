// Package leaktest gives goroutines time to end before goleak looks for those that
// are left over. goleak itself waits for less than half a second, and on a busy
// machine the last goroutines of a connection or a server take longer.
package leaktest

import (
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end. Nobody waits for it but a test
// run that leaks.
const patience = 10 * time.Second

// Patient wraps the tests of a package for [goleak.VerifyTestMain]: when they have
// passed it waits, 10 seconds at most, until no goroutine is left that goleak would
// complain of with these options. [goleak.Cleanup] must not be among them.
//
//	goleak.VerifyTestMain(leaktest.Patient(m))
func Patient(m goleak.TestingM, options ...goleak.Option) goleak.TestingM {
	return patient{m, options, patience}
}

type patient struct {
	tests   goleak.TestingM
	options []goleak.Option
	wait    time.Duration
}

// Run implements [goleak.TestingM].
func (p patient) Run() int {
	code := p.tests.Run()
	if code != 0 {
		return code // nobody looks
	}
	for end := time.Now().Add(p.wait); time.Now().Before(end); {
		if goleak.Find(p.options...) == nil { // looks again and again for some 400 ms
			break
		}
	}
	return code
}

// ObjectStores is for tests in whose process objects are stored or read. Two goroutines
// of the NATS client may stay: when storing an object ends at once, one comes too late to
// be told of the end; and when reading one is given up while its subscription is being
// made, what has arrived already waits for a reader.
func ObjectStores() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats.go/jetstream.(*obs).Get.func2"),
	}
}
