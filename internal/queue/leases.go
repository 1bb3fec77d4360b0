package queue

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// leases are the jobs in slots, and those that are settled.
type leases struct {
	mu    sync.Mutex // guards bySeq
	bySeq map[uint64]*Delivery
}

func (l *leases) get(seq uint64) *Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bySeq[seq]
}

func (l *leases) add(d *Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bySeq[d.Seq] = d
}

func (l *leases) remove(d *Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bySeq[d.Seq] == d { // not what came after it was returned
		delete(l.bySeq, d.Seq)
	}
}

func (l *leases) all() []*Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Delivery, 0, len(l.bySeq))
	for _, d := range l.bySeq {
		all = append(all, d)
	}
	return all
}

// keep extends every lease until ctx is done.
func (l *leases) keep(ctx context.Context, every time.Duration, logger *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, d := range l.all() {
			if err := d.extend(); err != nil {
				logger.WarnContext(ctx, "lease could not be extended", "job_id", d.ID, "err", err)
			}
		}
	}
}
