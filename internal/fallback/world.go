package fallback

import (
	"context"
	"runtime/debug"
	"time"
)

// world is the time in which a job runs, and what makes its calls: the real one,
// or one that only pretends, see [Engine.Explain].
type world interface {
	now() time.Time
	// sleep pauses for d; it reports false when ctx ended first.
	sleep(ctx context.Context, d time.Duration) bool
	// interrupted returns why the job must end, nil when it need not.
	interrupted(ctx context.Context) error
	// over is the moment at which a call that has just ended did.
	over(c *call) time.Time
	// race returns what runs calls at once until ctx is done, and ticks after the
	// first pause.
	race(ctx context.Context, pause time.Duration) race
}

// race runs calls at once. It belongs to one goroutine.
type race interface {
	// start makes a call.
	start(c *call, make func())
	// wait waits for the end of a call, or returns nil at the tick. An end that is
	// there goes before the tick, which is then lost: a failure starts the next call
	// by itself, and after an answer none is wanted.
	wait() *call
	// reset sets the next tick.
	reset(pause time.Duration)
	stop()
}

// actual is the real world.
type actual struct{}

func (actual) now() time.Time { return time.Now() }

func (actual) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (actual) interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

func (actual) over(*call) time.Time { return time.Now() }

func (actual) race(_ context.Context, pause time.Duration) race {
	return &actualRace{ends: make(chan *call), done: make(chan struct{}), timer: time.NewTimer(pause)}
}

// actualRace makes each call in a goroutine of its own.
type actualRace struct {
	ends  chan *call
	done  chan struct{} // closed when nobody waits any more
	timer *time.Timer
}

func (a *actualRace) start(c *call, attempt func()) {
	go func() { // ends when its call does; whoever races waits for all
		defer func() {
			if p := recover(); p != nil {
				c.panic, c.ended = &Panic{p, debug.Stack()}, time.Now()
			}
			select {
			case a.ends <- c:
			case <-a.done: // whoever raced has panicked
			}
		}()
		attempt()
	}()
}

func (a *actualRace) wait() *call {
	select {
	case <-a.timer.C:
		select {
		case c := <-a.ends:
			return c
		default:
			return nil
		}
	case c := <-a.ends:
		return c
	}
}

func (a *actualRace) reset(pause time.Duration) { a.timer.Reset(pause) }

func (a *actualRace) stop() {
	a.timer.Stop()
	close(a.done)
}
