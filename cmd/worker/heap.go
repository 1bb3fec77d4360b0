package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// The numbers of the garbage collector. Together they let a small worker collect
// after 26 MiB of garbage, where Go's default of 100 % collects after 4 MiB and
// costs a tenth of the CPU at full speed, and let one that holds 43 MiB or more
// for its jobs use no more memory than with that default.
const (
	heapFloor = 64 << 20
	gcPercent = 40
)

// tuneGC sets the garbage collector for a worker, unless GOGC or GOMEMLIMIT say
// that somebody else has. The returned function ends the claim on the floor.
//
// The floor is memory that is claimed and never touched: the collector counts it,
// the machine does not.
func tuneGC() (end func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	floor := make([]byte, heapFloor)
	debug.SetGCPercent(gcPercent)
	return func() { runtime.KeepAlive(floor) }
}
