package doctor

import (
	"testing"

	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

func TestMain(m *testing.M) {
	known := leaktest.ObjectStores()
	goleak.VerifyTestMain(leaktest.Patient(m, known...), known...)
}
