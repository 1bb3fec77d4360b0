package breaker

import (
	"time"

	"understudy/internal/backend"
)

// Open opens the breaker by hand for d from now, also if that is sooner than it
// would be otherwise; d of 0 or less means the configured cool-down, and no cap
// applies. Calls that are under way go on, and their results are stale.
func (g *Guard) Open(d time.Duration) {
	g.mu.Lock()
	defer g.unlock()
	g.open("", g.holdOr(d))
}

// Reset closes the breaker and forgets every failure so far, and the results of
// the calls under way.
func (g *Guard) Reset() {
	g.mu.Lock()
	defer g.unlock()
	g.close()
	g.generation++ // also when it was closed already
}

// Apply does here what a peer's guard of the same backend has done. An opening
// opens or lengthens, never shortens, for the time told, which is capped at
// MaxCooldown unless it was done by hand (no class). A closing closes. A peer
// that turned half-open has learned nothing yet: that is ignored, and so is
// another backend's change. The changes this makes are told with Peer set.
func (g *Guard) Apply(change Change) {
	if change.Backend != g.name {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	g.wait() // a time that is over is over before the peer's word
	g.peer = true
	defer func() { g.peer = false }()
	switch change.To {
	case Open:
		hold := g.holdOr(change.For)
		if change.Class != "" && change.For > 0 {
			hold = min(hold, g.cfg.MaxCooldown)
		}
		if g.state == Open {
			g.lengthen(hold)
			return
		}
		g.open(change.Class, hold)
	case Closed:
		if g.state != Closed {
			g.close()
		}
	case HalfOpen:
	}
}

// holdOr is d as an open time, or the configured one.
func (g *Guard) holdOr(d time.Duration) time.Duration {
	if d <= 0 {
		return g.cfg.Cooldown
	}
	return d
}

// open opens the breaker, or gives an open one a new time. g.mu is held.
func (g *Guard) open(class backend.Class, hold time.Duration) {
	if g.state == Open {
		g.until = time.Now().Add(hold)
		return
	}
	g.last = verdict{class: class, hold: hold, trip: true}
	g.circuit = g.newCircuit() // always admits; a half-open one may be full
	if done, err := g.circuit.Allow(); err == nil {
		done(errFailed)
	}
}

// close closes the breaker and starts every count again. g.mu is held.
func (g *Guard) close() {
	g.circuit = g.newCircuit()
	g.unhinted = 0
	if g.state != Closed {
		g.turn(Closed)
	}
}
