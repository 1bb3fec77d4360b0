package worker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAHeldJobDoesNotBeginDuringAStop asks often: where both have come, chance has
// it which one is seen.
func TestAHeldJobDoesNotBeginDuringAStop(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	close(over)
	running, stopping := &Worker{stopping: make(chan struct{})}, &Worker{stopping: over}
	for range 64 {
		require.True(t, running.unblocks(t.Context(), over))
		require.False(t, stopping.unblocks(t.Context(), over))
		require.False(t, stopping.unblocks(t.Context(), make(chan struct{})))
	}
}
