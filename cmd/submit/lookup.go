package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// key is the address of a job.
type key struct{ queue, id string }

// outcome is what became of a job.
type outcome struct {
	key
	// data is the result as stored; nil when the job is gone.
	data []byte
	// result is data decoded; nil when the job is gone or data is unreadable.
	result *job.Result
	// unreadable is why data cannot be decoded; nil when it can.
	unreadable error
	// gone tells that the job is neither queued nor has a result: somebody took
	// it out of the queue, or its result is too old to be kept.
	gone bool
	// missing is why the answer, which is in the object store, cannot be read; nil
	// when it is in result.
	missing error
}

// succeeded reports whether the job has its answer.
func (o outcome) succeeded() bool {
	return o.result != nil && o.result.Status == job.Succeeded && o.missing == nil
}

// whole is o with its answer in its place, where that was too big for a message.
func (c *client) whole(ctx context.Context, o outcome) outcome {
	if o.result == nil || o.result.Response == nil || o.result.Response.Object == "" {
		return o
	}
	response := *o.result.Response
	body, err := c.store.Answer(ctx, response.Object, response.Bytes)
	if err != nil {
		o.missing = err
		return o
	}
	result := *o.result
	response.Body, response.Object, response.Bytes = job.RawBody(body), "", 0
	result.Response = &response
	o.data, o.result = job.Inline(o.data, response.Body), &result
	return o
}

// standing is what the server knows of a job at a moment.
type standing struct {
	outcome
	// seq is the job's sequence in the jobs stream while it is queued or running.
	seq uint64
	// final tells that outcome is the last word; false also when there is none.
	final bool
}

// standing looks up a job. A result that does not say "succeeded" of a job that
// was published before minSeq, or before the one that is queued, is not final: a
// redriven job replaces it.
func (c *client) standing(ctx context.Context, k key, minSeq uint64) (standing, error) {
	s := standing{outcome: outcome{key: k}}
	// The queue first: a job leaves it only after its result is stored.
	queued, err := c.queued(ctx, k)
	if err != nil {
		return s, err
	}
	if queued != nil {
		s.seq = queued.Sequence
	}
	stored, err := c.store.Lookup(ctx, k.queue, k.id)
	switch {
	case err != nil:
		return s, err
	case stored == nil:
		s.gone = queued == nil
		return s, nil
	}
	s.data = stored.Data
	s.result, s.unreadable = job.DecodeResult(stored.Data)
	s.final = s.unreadable != nil || s.succeeded() || stored.JobSeq >= max(minSeq, s.seq)
	s.gone = !s.final && queued == nil
	return s, nil
}

// queued returns the message of a job that is queued or running; nil for none.
func (c *client) queued(ctx context.Context, k key) (*jetstream.RawStreamMsg, error) {
	msg, err := c.jobs.GetLastMsgForSubject(ctx, c.subjects.Job(k.queue, k.id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for job %s in the queue: %w", k.id, err)
	}
	return msg, nil
}

// idsIn lists the jobs that have a message on the subjects of a pattern.
func (c *client) idsIn(ctx context.Context, stream jetstream.Stream, pattern string) (map[string]bool, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(pattern))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", pattern, err)
	}
	ids := make(map[string]bool, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		if _, _, id, err := c.subjects.Parse(subject); err == nil {
			ids[id] = true
		}
	}
	return ids, nil
}

// queuesOf returns the queues that know the job id, for people who look in the
// wrong one.
func (c *client) queuesOf(ctx context.Context, id string) ([]string, error) {
	var queues []string
	for _, place := range []struct {
		stream  jetstream.Stream
		pattern string
	}{{c.jobs, c.subjects.Job("*", id)}, {c.results, c.subjects.Result("*", id)}} {
		for seq := uint64(0); ; {
			msg, err := place.stream.GetMsg(ctx, seq+1, jetstream.WithGetMsgSubject(place.pattern))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("look for job %s in all queues: %w", id, err)
			}
			seq = msg.Sequence
			if _, queue, _, err := c.subjects.Parse(msg.Subject); err == nil {
				queues = append(queues, queue)
			}
		}
	}
	slices.Sort(queues)
	return slices.Compact(queues), nil
}
