package worker

import (
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

// TuneGC sets the garbage collector of the whole process for a worker. It is for
// a program that is nothing but a worker; [New] and [Worker.Run] leave the
// collector alone. Call the returned function when the worker is done: it ends the
// claim on the floor; the percentage stays.
//
// The floor is memory that is claimed and never touched: the collector counts it,
// the machine does not.
func TuneGC() (end func()) {
	floor := make([]byte, heapFloor)
	debug.SetGCPercent(gcPercent)
	return func() { runtime.KeepAlive(floor) }
}
