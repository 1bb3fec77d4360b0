package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

// TestMain also is the child processes: they run this binary again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if _, child := roles()[os.Args[1]]; child {
			main()
			return
		}
	}
	goleak.VerifyTestMain(leaktest.Patient(m))
}
