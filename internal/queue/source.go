package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Weighted is a queue and its share of the slots while others want them too.
type Weighted struct {
	Name   string
	Weight int
}

// SourceConfig is what a [Source] is made of. Paused, Arrived and Quiet may be nil.
type SourceConfig struct {
	Conn   *nats.Conn
	JS     jetstream.JetStream
	Layout Layout
	Queues []Weighted
	// Slots is how many jobs may run at once.
	Slots  int
	Logger *slog.Logger
	// Paused tells whether no job is to be taken at the moment; nil means never.
	// It is asked before every pull and must not block. Jobs of a pull that is
	// under way still come.
	Paused func() bool
	// Arrived hears of a job before it has its slot, so that what takes a while can be
	// begun; nil for nobody. It must not wait for anything. Some jobs get no slot and
	// go back.
	Arrived func(*Delivery)
	// Quiet hears when Arrived has heard of all jobs that have come together, often
	// also when none has, and of several queues at once. It must not wait for anything
	// either; nil for nobody.
	Quiet func()
}

// Source takes jobs from the queues for a bounded number of slots. It never
// takes a job without a slot for it, and keeps at most as many again that are only
// to be settled, see [Delivery.Release].
//
// One goroutine, in [Source.Run], owns all its state and hears of everything
// through one channel:
//
//	server -> subscription -> arrived ─┐
//	slot   -> released      -> freed ──┼─> owner -> pull for the free slots
//	server -> status        -> ended ──┘
type Source struct {
	cfg      SourceConfig
	inbox    chan any      // arrived, ended, bound, freed
	gone     chan struct{} // closed when the owner has stopped
	pollers  []*poller
	inlets   []*inlet // open ones, and those that may still bring something
	free     int
	inflight leases
	handlers handlers
	binding  sync.WaitGroup // tries to bind a lost consumer again

	expires, lost time.Duration // pullExpires and pullLost
	hold, doubt   time.Duration // pullHold and pullDoubt
	pullBytes     int64         // likewise, as is subjectRoom
	subjectRoom   int64

	lastGood atomic.Int64 // unix nanoseconds of the last good answer to a pull
	held     atomic.Int64 // jobs in slots
	settling atomic.Int64 // jobs that are settled without a slot
}

// NewSource returns a Source; it starts nothing.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Slots < 1 {
		return nil, fmt.Errorf("slots: %d is below 1", cfg.Slots)
	}
	if len(cfg.Queues) == 0 {
		return nil, errors.New("queues: none given")
	}
	s := &Source{
		cfg: cfg, free: cfg.Slots, inbox: make(chan any, 2*cfg.Slots+len(cfg.Queues)),
		gone: make(chan struct{}), expires: pullExpires, lost: pullLost, hold: pullHold, doubt: pullDoubt,
		pullBytes: pullBytes, subjectRoom: subjectRoom,
	}
	s.inflight.bySeq = make(map[uint64]*Delivery, cfg.Slots)
	s.handlers.work = make(chan *Delivery, sparest)
	for _, q := range cfg.Queues {
		if q.Weight < 1 {
			return nil, fmt.Errorf("queue %s: weight %d is below 1", q.Name, q.Weight)
		}
		s.pollers = append(s.pollers, newPoller(s, q))
	}
	return s, nil
}

// Health is what is known of a [Source] from outside.
type Health struct {
	// Held is how many jobs are in slots, of Slots.
	Held, Slots int
	// LastGood is when the server last answered a pull as it should; zero if
	// never. While pulls of a queue fail, it is that queue's last one.
	LastGood time.Time
}

// Health is safe for concurrent use.
func (s *Source) Health() Health {
	h := Health{Held: int(s.held.Load()), Slots: s.cfg.Slots}
	if ns := s.lastGood.Load(); ns != 0 {
		h.LastGood = time.Unix(0, ns)
	}
	return h
}

// The messages to the owner.
type (
	arrived struct {
		inlet   *inlet
		d       *Delivery
		pending uint64
	}
	ended struct {
		poller *poller
		pull   string // the pull it answers; "" for the current one
		reason endReason
		err    error
	}
	bound struct {
		poller *poller
		err    error
	}
	freed struct{}
)

// Run takes jobs and calls handle for each, side by side, until ctx is done; then
// it takes no more, returns what was still under way to this worker, waits for
// the handlers and returns. handle settles its delivery.
func (s *Source) Run(ctx context.Context, handle func(*Delivery)) error {
	connected := s.cfg.Conn.StatusChanged(nats.CONNECTED)
	defer s.cfg.Conn.RemoveStatusListener(connected)
	for _, p := range s.pollers {
		if err := p.open(); err != nil {
			s.drain(ctx)
			close(s.gone)
			return err
		}
	}
	leaseCtx, stopLeases := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup // the lease keeper
	wg.Go(func() { s.inflight.keep(leaseCtx, s.cfg.Layout.lease()/extensions, s.cfg.Logger) })

	s.serve(ctx, connected, func(d *Delivery) {
		defer s.done(d)
		handle(d)
	})
	s.drain(ctx)
	for s.free < s.cfg.Slots { // handlers end, late arrivals go back
		s.take(ctx, <-s.inbox, nil)
	}
	s.settle(ctx)
	stopLeases()
	wg.Wait()
	close(s.gone)
	s.binding.Wait()
	s.takeAll(ctx, nil)
	return nil
}

// settle waits for the handlers that have no slot any more. What still arrives goes
// back at once.
func (s *Source) settle(ctx context.Context) {
	ended := make(chan struct{})
	go func() { // ends when the handlers have
		s.handlers.stop()
		close(ended)
	}()
	for {
		select {
		case m := <-s.inbox:
			s.take(ctx, m, nil)
		case <-ended:
			return
		}
	}
}

// tell sends a message to the owner. What comes after its end goes back.
func (s *Source) tell(m any) {
	select {
	case <-s.gone: // first, for the inbox may have room that nobody looks into
	default:
		select {
		case s.inbox <- m:
			return
		case <-s.gone:
		}
	}
	if a, ok := m.(arrived); ok {
		s.giveBack(a.d)
	}
}

// serve is the owner's loop.
func (s *Source) serve(ctx context.Context, connected <-chan nats.Status, handle func(*Delivery)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.inbox:
			s.take(ctx, m, handle)
		case _, ok := <-connected:
			if !ok { // closed for good; the owner of the connection knows
				connected = nil
				break
			}
			s.reopen(ctx)
		case <-timer.C:
		}
		s.takeAll(ctx, handle) // then one round of pulls
		timer.Reset(s.pull(ctx))
	}
}

// reopen starts the pulls anew after the connection was away: whether the server
// still has the old ones is not known.
func (s *Source) reopen(ctx context.Context) {
	s.forget()
	for _, p := range s.pollers {
		if err := p.open(); err != nil { // closed again: the next connection comes through here
			s.cfg.Logger.WarnContext(ctx, "pulls could not be started anew", "queue", p.queue.Name, "err", err)
		}
	}
}

// forget drops the inlets that can bring nothing any more.
func (s *Source) forget() {
	s.inlets = slices.DeleteFunc(s.inlets, func(in *inlet) bool {
		select {
		case <-in.closed:
			return true
		default:
			return false
		}
	})
}

// takeAll handles everything that is there.
func (s *Source) takeAll(ctx context.Context, handle func(*Delivery)) {
	for {
		select {
		case m := <-s.inbox:
			s.take(ctx, m, handle)
		default:
			return
		}
	}
}

// take handles one message to the owner. Without a handle, while stopping,
// arrivals are returned.
func (s *Source) take(ctx context.Context, m any, handle func(*Delivery)) {
	switch m := m.(type) {
	case arrived:
		m.inlet.poller.count(m.inlet, m.pending)
		if ctx.Err() != nil {
			handle = nil
		}
		s.begin(m.d, handle)
	case ended:
		m.poller.end(ctx, m)
	case bound:
		m.poller.bound(ctx, m.err)
	case freed:
		s.free++
		s.held.Add(-1)
	}
}

// begin gives a job its slot.
func (s *Source) begin(d *Delivery, handle func(*Delivery)) {
	if running := s.inflight.get(d.Seq); running != nil && running.adopt(d) {
		s.cfg.Logger.Warn("job was handed out again while it runs here", "job_id", d.ID, "delivery", d.Number())
		return
	}
	if handle == nil || s.free <= 0 {
		s.giveBack(d)
		return
	}
	s.free--
	s.held.Add(1)
	s.inflight.add(d)
	d.source = s
	s.handlers.run(d, handle)
}

// release frees the slot of a job that is only to be settled yet, unless there are
// as many of those already as there are slots.
func (s *Source) release(d *Delivery) {
	if d.settling || d.freed {
		return
	}
	if s.settling.Add(1) > int64(s.cfg.Slots) {
		s.settling.Add(-1)
		return
	}
	d.settling, d.freed = true, true
	s.inbox <- freed{}
}

// done ends a job's stay here.
func (s *Source) done(d *Delivery) {
	s.inflight.remove(d)
	if d.settling {
		s.settling.Add(-1)
	}
	if !d.freed {
		s.inbox <- freed{}
	}
}

// giveBack returns a job that was never begun, without waiting for the answer.
func (s *Source) giveBack(d *Delivery) {
	if err := d.nc.Publish(d.replySubject(), []byte("-NAK")); err != nil {
		s.cfg.Logger.Warn("job could not be returned; its lease will run out", "job_id", d.ID, "err", err)
	}
}

// drain unsubscribes and waits, a few seconds at most, until no more can arrive.
func (s *Source) drain(ctx context.Context) {
	for _, p := range s.pollers {
		p.close()
	}
	timeout := time.NewTimer(drainTimeout)
	defer timeout.Stop()
	for _, in := range s.inlets {
		for open := true; open; {
			select {
			case m := <-s.inbox:
				s.take(ctx, m, nil)
			case <-in.closed:
				open = false
			case <-timeout.C:
				return
			}
		}
	}
}
