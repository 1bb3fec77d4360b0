package scenarios_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

// update is set by TestMain, which alone defines the flag.
var update *bool

func TestMain(m *testing.M) {
	update = flag.Bool("update", false, "write docs/scenarios.md anew")
	goleak.VerifyTestMain(leaktest.Patient(m))
}
