package results

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// BatchReads lets [Store.Recall] read for many jobs at once. The error says why that
// cannot be for now; each job is read by itself then, see [Store.CheckReads]. It is
// called once, before Recall.
func (s *Store) BatchReads(ctx context.Context) error {
	var errs [2]error
	s.manyResults, errs[0] = newBulk(ctx, s.nc, s.js, s.subjects.ResultsStream())
	s.manyEvents, errs[1] = newBulk(ctx, s.nc, s.js, s.subjects.EventsStream())
	return errors.Join(errs[:]...)
}

// CheckReads looks now and then whether the streams can be read for many jobs at
// once, until ctx is done: that ends where a stream gets more copies, and begins
// anew after a failure.
func (s *Store) CheckReads(ctx context.Context) {
	tick := time.NewTicker(bulkCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, b := range []*bulk{s.manyResults, s.manyEvents} {
			if b != nil {
				_ = b.check(ctx) // jobs are read by themselves then
			}
		}
	}
}

// Recall is a look at what is known of a job, see [Store.Recall].
type Recall struct {
	store     *Store
	queue, id string
	by        Holder
	// At is when the look began, by the clock that goes on while a machine is
	// suspended.
	At time.Time
	// result and event are asked already; nil where the leader is to be asked.
	result, event *question
}

// Recall begins to look what is known of a job that was just handed to by, and does
// not wait. Later deliveries are read at the leader. First ones come in bursts, and
// mostly nothing is known of them: see [Store.BatchReads].
func (s *Store) Recall(queue, id string, by Holder) *Recall {
	r := &Recall{store: s, queue: queue, id: id, by: by, At: time.Now().Round(0)}
	if by.Delivery == 1 && s.manyResults != nil && s.manyEvents != nil {
		r.event, r.result = s.manyEvents.ask(s.subjects.Event(queue, id)), s.manyResults.ask(s.subjects.Result(queue, id))
	}
	return r
}

// Wait returns the job's stored result, nil when there is none, and its history, see
// [Store.History]. The history matters at the first delivery too: a consumer that
// was made anew counts from 1. It is called once.
func (r *Recall) Wait(ctx context.Context) (*Stored, History, error) {
	s := r.store
	if r.event == nil {
		return s.recallAtLeader(ctx, r.queue, r.id, r.by)
	}
	newest, err := r.event.wait(ctx)
	if errors.Is(err, errNotBulk) {
		return s.recallAtLeader(ctx, r.queue, r.id, r.by)
	}
	if err != nil {
		return nil, History{}, fmt.Errorf("read what happened to job %s: %w", r.id, err)
	}
	msg, err := r.result.wait(ctx)
	if errors.Is(err, errNotBulk) {
		msg, err = last(ctx, s.results, r.result.subject)
	}
	if err != nil {
		return nil, History{}, fmt.Errorf("read the result of job %s: %w", r.id, err)
	}
	history, err := s.historyUpTo(ctx, r.queue, r.id, r.by, newest)
	return storedOf(msg), history, err
}

// recallAtLeader is [Recall.Wait] with a request for each read, side by side.
func (s *Store) recallAtLeader(ctx context.Context, queue, id string, by Holder) (*Stored, History, error) {
	type read struct {
		history History
		err     error
	}
	reads := make(chan read, 1)
	go func() { // ends with its requests, which ctx ends; it is waited for below
		history, err := s.History(ctx, queue, id, by)
		reads <- read{history, err}
	}()
	stored, err := s.Lookup(ctx, queue, id)
	r := <-reads
	return stored, r.history, errors.Join(err, r.err)
}
