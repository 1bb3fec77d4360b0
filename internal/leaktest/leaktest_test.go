package leaktest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Patient(m)) }

// leaving are tests that leave a goroutine behind, until end is closed.
type leaving struct {
	code int
	end  <-chan struct{}
}

func (l leaving) Run() int {
	go func() { <-l.end }()
	return l.code
}

// TestLateGoroutinesAreWaitedFor is the only test of this package: it sees the
// goroutines of all.
func TestLateGoroutinesAreWaitedFor(t *testing.T) {
	t.Parallel()
	before := goleak.IgnoreCurrent()
	late := make(chan struct{})
	time.AfterFunc(1200*time.Millisecond, func() { close(late) })
	require.Zero(t, Patient(leaving{0, late}, before).Run())
	require.NoError(t, goleak.Find(before))

	never := make(chan struct{})
	defer close(never)
	begun := time.Now()
	require.Equal(t, 1, Patient(leaving{1, never}, before).Run())
	require.Less(t, time.Since(begun), patience, "tests that failed are not waited for")
	require.Zero(t, patient{leaving{0, never}, []goleak.Option{before}, time.Millisecond}.Run())
	require.ErrorContains(t, goleak.Find(before), "leaktest.leaving.Run", "what stays is still found")
	begun = time.Now()
	require.Zero(t, Patient(leaving{0, never}, before, goleak.IgnoreAnyFunction("understudy/internal/leaktest.leaving.Run.func1")).Run())
	require.Less(t, time.Since(begun), patience, "nor is what may stay")
}
