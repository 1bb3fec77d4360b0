package results_test

import (
	"testing"

	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

// TestMain looks for goroutines that are left over. Two of the NATS client stay: when
// storing an object fails at once, one comes too late to be told of the end; and
// when reading one is given up while its subscription is being made, what has
// arrived already waits for a reader.
func TestMain(m *testing.M) {
	known := []goleak.Option{
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats.go/jetstream.(*obs).Get.func2"),
	}
	goleak.VerifyTestMain(leaktest.Patient(m, known...), known...)
}
