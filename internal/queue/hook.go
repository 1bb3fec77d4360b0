//go:build !faults

package queue

import "time"

// at marks a point at which tests break things. Here it is nothing; a build with
// the tag faults reports it, see hook_faults.go.
func at(string) {}

// shortLease is the lease of a build that breaks things; 0 means none.
func shortLease() time.Duration { return 0 }
