package soak

import (
	"testing"

	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaktest.Patient(m)) }
