package worker

import (
	"runtime"
	"runtime/debug"
	gometrics "runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATunedCollectorHasItsFloor(t *testing.T) {
	t.Parallel()
	before := debug.SetGCPercent(100)
	end := TuneGC()
	runtime.GC()
	live := []gometrics.Sample{{Name: "/gc/heap/live:bytes"}}
	gometrics.Read(live)
	end()
	require.Equal(t, gcPercent, debug.SetGCPercent(before))
	require.GreaterOrEqual(t, live[0].Value.Uint64(), uint64(heapFloor), "the floor is claimed")
}
