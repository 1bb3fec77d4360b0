//go:build !faults

package worker

// at marks a point at which tests break things. Here it is nothing; a build with
// the tag faults reports it, see hook_faults.go.
func (*Worker) at(_, _ string) {}
