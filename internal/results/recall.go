package results

import (
	"context"
	"errors"
	"fmt"
)

// BatchReads lets [Store.Recall] read for many jobs at once. The error says why that
// cannot be for now; it is tried again now and then, and each job is read by itself
// until then. It is called once, before Recall.
func (s *Store) BatchReads(ctx context.Context) error {
	var errs [2]error
	s.manyResults, errs[0] = newBulk(ctx, s.nc, s.js, s.subjects.ResultsStream())
	s.manyEvents, errs[1] = newBulk(ctx, s.nc, s.js, s.subjects.EventsStream())
	return errors.Join(errs[:]...)
}

// Recall returns what is known of a job that was just handed to by: its stored
// result, nil when there is none, and its history, see [Store.History]. The history
// matters at the first delivery too: a consumer that was made anew counts from 1.
//
// Later deliveries are read at the leader, side by side. First ones come in
// bursts, and mostly nothing is known of them: see [Store.BatchReads].
func (s *Store) Recall(ctx context.Context, queue, id string, by Holder) (*Stored, History, error) {
	if by.Delivery > 1 || s.manyResults == nil || s.manyEvents == nil {
		return s.recallAtLeader(ctx, queue, id, by)
	}
	result, event := s.subjects.Result(queue, id), s.subjects.Event(queue, id)
	asked := s.manyResults.ask(ctx, result)
	newest, err := s.manyEvents.ask(ctx, event).wait(ctx)
	if errors.Is(err, errNotBulk) {
		newest, err = last(ctx, s.events, event)
	}
	if err != nil {
		return nil, History{}, fmt.Errorf("read what happened to job %s: %w", id, err)
	}
	msg, err := asked.wait(ctx)
	if errors.Is(err, errNotBulk) {
		msg, err = last(ctx, s.results, result)
	}
	if err != nil {
		return nil, History{}, fmt.Errorf("read the result of job %s: %w", id, err)
	}
	history, err := s.historyUpTo(ctx, queue, id, by, newest)
	return storedOf(msg), history, err
}

// recallAtLeader is [Store.Recall] with a request for each read.
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
