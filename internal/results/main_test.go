package results_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines that are left over. One of the NATS client stays
// when storing an object fails at once: it comes too late to be told of the end.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}
