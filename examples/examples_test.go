// Package examples_test keeps what a stranger copies first in working order.
package examples_test

import (
	"testing"

	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaktest.Patient(m)) }
