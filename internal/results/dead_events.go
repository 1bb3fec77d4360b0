package results

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// maxEvents is how many events of one job are read for people.
const maxEvents = 10000

// Record stores an event of a job and returns when the stream has it. It makes
// one try; the same event again is stored once. A worker uses an [Outbox], which
// never waits.
func (s *Store) Record(ctx context.Context, queue string, e *job.Event) error {
	msg := nats.NewMsg(s.subjects.Event(queue, e.Subject))
	msg.Data = e.Encode()
	if _, err := s.js.PublishMsg(ctx, msg, jetstream.WithMsgID(e.ID)); err != nil {
		return fmt.Errorf("store the event %s of job %s: %w", e.Type, e.Subject, err)
	}
	return nil
}

// Events yields the stored events of a job, oldest first, 10000 at most. What
// others have published to their subject is passed over. An error ends it.
func (s *Store) Events(ctx context.Context, queue, id string) iter.Seq2[*job.Event, error] {
	subject := s.subjects.Event(queue, id)
	return func(yield func(*job.Event, error) bool) {
		seq := uint64(0)
		for range maxEvents {
			msg, err := s.events.GetMsg(ctx, seq+1, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("read the events of job %s: %w", id, err))
				return
			}
			seq = msg.Sequence
			if e, err := job.DecodeEvent(msg.Data); err == nil && !yield(e, nil) {
				return
			}
		}
	}
}
