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
func (s *Store) BatchReads(ctx context.Context) (err error) {
	s.many, err = newBulk(ctx, s.nc, s.js, [...]string{ofEvents: s.subjects.EventsStream(), ofResults: s.subjects.ResultsStream()})
	return err
}

// The places of the streams in a bulk.
const (
	ofEvents = iota
	ofResults
)

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
		if s.many != nil {
			_ = s.many.check(ctx) // jobs are read by themselves then
		}
	}
}

// Recall is a look at what is known of a job, see [Store.Recall].
type Recall struct {
	store     *Store
	queue, id string
	by        Holder
	// At is when the look was prepared, by the clock that goes on while a machine is
	// suspended.
	At time.Time
	// asked is nil where the leaders are to be asked.
	asked *question
}

// Recall prepares a look at what is known of a job that was just handed to by. Later
// deliveries are read at the leader. First ones come in bursts, and mostly nothing is
// known of them: those of a burst are looked for together, see [Store.BatchReads],
// from the next [Store.SendRecalls] on, the first [Recall.Wait], or the end of the
// request before.
func (s *Store) Recall(queue, id string, by Holder) *Recall {
	r := &Recall{store: s, queue: queue, id: id, by: by, At: time.Now().Round(0)}
	if by.Delivery == 1 && s.many != nil {
		r.asked = s.many.ask([...]string{ofEvents: s.subjects.Event(queue, id), ofResults: s.subjects.Result(queue, id)})
	}
	return r
}

// SendRecalls sends the looks that were prepared. It does not wait for their answers.
func (s *Store) SendRecalls() {
	if s.many != nil {
		s.many.send()
	}
}

// Wait returns the job's stored result, nil when there is none, and its history, see
// [Store.History]. The history matters at the first delivery too: a consumer that
// was made anew counts from 1. It is called once.
func (r *Recall) Wait(ctx context.Context) (*Stored, History, error) {
	s := r.store
	if r.asked == nil {
		return s.recallAtLeader(ctx, r.queue, r.id, r.by)
	}
	if err := s.many.wait(ctx, r.asked); err != nil {
		return nil, History{}, fmt.Errorf("read what is known of job %s: %w", r.id, err)
	}
	newest, result := r.asked.answers[ofEvents], r.asked.answers[ofResults]
	if newest.err != nil {
		return s.recallAtLeader(ctx, r.queue, r.id, r.by)
	}
	if result.err != nil {
		if result.msg, result.err = last(ctx, s.results, s.subjects.Result(r.queue, r.id)); result.err != nil {
			return nil, History{}, fmt.Errorf("read the result of job %s: %w", r.id, result.err)
		}
	}
	history, err := s.historyUpTo(ctx, r.queue, r.id, r.by, newest.msg)
	return storedOf(result.msg), history, err
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
