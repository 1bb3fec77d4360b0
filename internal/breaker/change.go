package breaker

import (
	"time"

	"understudy/internal/backend"
)

// State is what a breaker does with a call. The set is closed.
type State string

// The states of a breaker.
const (
	Closed   State = "closed"    // every call goes through
	Open     State = "open"      // no call goes through
	HalfOpen State = "half-open" // a few probes go through
)

// Change is one change of one guard's state.
type Change struct {
	// Backend is the name of the guarded backend.
	Backend string
	// From and To always differ.
	From, To State
	// Class is the class of the failure that opened the breaker; empty when it
	// was opened by hand, and when To is not [Open].
	Class backend.Class
	// For is how long it stays open; 0 when To is not [Open]. It is a duration
	// because the clocks of two workers differ.
	For time.Duration
	// Peer tells that a peer's change was applied here, see [Guard.Apply]: who
	// passes changes on to peers must not pass this one on.
	Peer bool
}

// turn moves to another state and notes the change. Results of calls that
// began before are from now on stale. g.mu is held.
func (g *Guard) turn(to State) {
	change := Change{Backend: g.name, From: g.state, To: to, Peer: g.peer}
	if to == Open {
		change.Class, change.For = g.last.class, max(minHold, g.last.hold)
		g.until = time.Now().Add(change.For)
	}
	g.state = to
	g.generation++
	if g.onChange != nil {
		g.pending = append(g.pending, change)
	}
}

// unlock releases g.mu after telling the noted changes, without the lock, in
// order: whoever is telling already also tells what others note meanwhile, so
// nobody waits for a slow listener but the one who called it.
func (g *Guard) unlock() {
	if g.telling || len(g.pending) == 0 {
		g.mu.Unlock()
		return
	}
	g.telling = true
	for len(g.pending) > 0 {
		next := g.pending[0]
		g.pending = g.pending[1:]
		g.mu.Unlock()
		g.onChange(next)
		g.mu.Lock()
	}
	g.telling, g.pending = false, nil
	g.mu.Unlock()
}
