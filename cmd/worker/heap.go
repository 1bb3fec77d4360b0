package main

import (
	"os"

	"understudy/internal/worker"
)

// tuneGC sets the garbage collector for a worker, unless GOGC or GOMEMLIMIT say
// that somebody else has. The returned function ends the claim on memory.
func tuneGC() (end func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	return worker.TuneGC()
}
