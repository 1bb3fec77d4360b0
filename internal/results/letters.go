package results

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// Why the jobs stream takes no job; see [Refusal].
var (
	// ErrInFlight says that a job of this id is queued or running.
	ErrInFlight = errors.New("a job of this id is queued or running")
	// ErrQueueFull says that the jobs stream has reached a limit.
	ErrQueueFull = errors.New("the queue is full")
)

// Refusal returns what a failed publish to the jobs stream means: an error that
// wraps [ErrInFlight] or [ErrQueueFull], or err itself. The server has one code
// for both; only the description tells them apart.
func Refusal(err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return err
	}
	// The server's codes for storage, memory and account limits.
	const storeFailed, noResources, noMemory, noStorage = 10077, 10023, 10028, 10047
	switch {
	case api.ErrorCode == storeFailed && strings.Contains(api.Description, "per subject"):
		return fmt.Errorf("%w (%w)", ErrInFlight, err)
	case api.ErrorCode == storeFailed, api.ErrorCode == noResources,
		api.ErrorCode == noMemory, api.ErrorCode == noStorage:
		return fmt.Errorf("%w (%w)", ErrQueueFull, err)
	}
	return err
}

// Letter is a dead letter as the stream holds it.
type Letter struct {
	*job.DeadLetter
	// Seq is its sequence in the stream of dead letters.
	Seq uint64
	// JobSeq is the sequence of the job message it belongs to, 0 when not known.
	JobSeq uint64
}

// UnreadableError says that a message in the stream of dead letters is none.
type UnreadableError struct {
	// Subject and Seq say which message it is.
	Subject string
	Seq     uint64
	// Err says why.
	Err error
}

// Error implements error.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("message %d on %s is no dead letter: %v", e.Seq, e.Subject, e.Err)
}

// Unwrap returns why.
func (e *UnreadableError) Unwrap() error { return e.Err }

// Letters yields the dead letters of a queue, oldest first; an empty queue means
// all queues. id is one id, or a pattern of ids such as "batch.*"; empty means
// all. A message that is no dead letter yields an *[UnreadableError] and the
// reading goes on; after any other error it ends. It reads letter by letter,
// and letters that come meanwhile may or may not be among them.
func (s *Store) Letters(ctx context.Context, queue, id string) iter.Seq2[*Letter, error] {
	subject := s.subjects.Dead(cmp.Or(queue, "*"), cmp.Or(id, ">"))
	return func(yield func(*Letter, error) bool) {
		for seq := uint64(0); ; {
			msg, err := s.dead.GetMsg(ctx, seq+1, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("read the dead letters: %w", err))
				return
			}
			seq = msg.Sequence
			if !yield(s.letter(msg)) {
				return
			}
		}
	}
}

// letter reads a message of the stream of dead letters.
func (s *Store) letter(msg *jetstream.RawStreamMsg) (*Letter, error) {
	d, err := job.DecodeDeadLetter(msg.Data)
	if err == nil && s.subjects.Dead(d.Queue, d.ID) != msg.Subject {
		err = errors.New("it names another job than its subject")
	}
	if err != nil {
		return nil, &UnreadableError{Subject: msg.Subject, Seq: msg.Sequence, Err: err}
	}
	jobSeq, _ := strconv.ParseUint(msg.Header.Get(job.HeaderJobSeq), 10, 64) // absent or foreign: 0
	return &Letter{DeadLetter: d, Seq: msg.Sequence, JobSeq: jobSeq}, nil
}

// Letter returns the dead letter with the sequence seq, nil when there is none
// any more. The error is an *[UnreadableError] when the message is none.
func (s *Store) Letter(ctx context.Context, seq uint64) (*Letter, error) {
	msg, err := s.dead.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letter %d: %w", seq, err)
	}
	return s.letter(msg)
}

// Purge deletes a dead letter for good, and the objects that belong to it. One
// that is gone already is no error, and a newer letter of the same job is not
// touched. When the objects could not be deleted the letter is gone all the same,
// and [Store.Orphans] finds them.
func (s *Store) Purge(ctx context.Context, l *Letter) error {
	if err := s.discard(ctx, l); err != nil {
		return fmt.Errorf("delete the dead letter of job %s: %w", l.ID, err)
	}
	if err := s.collect(ctx, s.objectsOf(l.DeadLetter)...); err != nil {
		return fmt.Errorf("the dead letter of job %s is deleted, but not its payload: %w", l.ID, err)
	}
	return nil
}

// Redriven is what a redrive did.
type Redriven struct {
	// JobSeq is the sequence of the job that was put back.
	JobSeq uint64
	// Redrives counts the redrives of the job, this one included.
	Redrives int
	// Repeated tells that an earlier redrive of the same letter had put the job
	// back already, and this one only removed the letter.
	Repeated bool
}

// Redrive puts the job of a dead letter back into its queue and, once the stream
// has it, deletes the letter. A newer letter of the same job is not touched. It
// makes one try; the letter stays unless that succeeds.
//
// The error wraps [ErrInFlight] while a job of that id is queued or running,
// [ErrQueueFull] when there is no room, [ErrLetterChanged] when the letter has
// gone and its payload with it, and is a *[TooBigError] when the job
// does not fit a message any more. Redriven is valid, with JobSeq not 0, also
// when only the deletion failed: then redriving the same letter again is safe.
func (s *Store) Redrive(ctx context.Context, l *Letter) (Redriven, error) {
	payload, err := s.Payload(ctx, l.DeadLetter)
	if err != nil {
		return Redriven{}, fmt.Errorf("redrive job %s: %w", l.ID, s.changed(ctx, l, err))
	}
	done := Redriven{Redrives: l.Redrives + 1}
	header := redriveHeader(l)
	if len(payload) > 0 { // else it is where no worker could read it; maybe the next one can
		maps.DeleteFunc(header, func(name string, _ []string) bool { return strings.EqualFold(name, job.HeaderPayload) })
	}
	// One letter, one object: a second redrive of it puts the same there again.
	msg, err := s.JobMessage(ctx, l.Queue, l.ID, payload, header, "redrive."+strconv.FormatUint(l.Seq, 10))
	if err != nil {
		return Redriven{}, fmt.Errorf("redrive job %s: %w", l.ID, err)
	}
	ack, err := s.js.PublishMsg(ctx, msg)
	switch err = Refusal(err); {
	case err == nil:
		done.JobSeq, done.Repeated = ack.Sequence, ack.Duplicate
	case errors.Is(err, nats.ErrMaxPayload):
		return Redriven{}, &TooBigError{What: "job with its headers", Size: int64(msg.Size()), Limit: s.nc.MaxPayload()}
	case errors.Is(err, ErrInFlight): // maybe of an earlier redrive, when that is longer ago than the server remembers
		seq, lookup := s.queuedBy(ctx, l)
		if seq == 0 {
			return Redriven{}, errors.Join(fmt.Errorf("redrive job %s: %w", l.ID, err), lookup)
		}
		done.JobSeq, done.Repeated = seq, true
	default:
		return Redriven{}, fmt.Errorf("redrive job %s: %w", l.ID, err)
	}
	if err := s.discard(ctx, l); err != nil {
		return done, fmt.Errorf("job %s is queued again, but its dead letter could not be deleted: %w", l.ID, err)
	}
	// The original of an edited job stays: the job carries its name, and may die again.
	if ref, ok := s.asideOf(l.DeadLetter); ok && ref.Object != s.originalOf(l.DeadLetter) {
		if err := s.collect(ctx, ref.Object); err != nil {
			return done, fmt.Errorf("job %s is queued again, but the payload of its dead letter could not be deleted: %w", l.ID, err)
		}
	}
	return done, nil
}

// redriveHeader is the header of a job that is put back. What the first
// publisher told the server does not apply any more: its message id would make
// the server swallow the job, its expectations would not hold. The message id is
// that of the letter, so that one letter puts its job back once.
func redriveHeader(l *Letter) nats.Header {
	h := make(nats.Header)
	for name, values := range l.Headers {
		forServer := len(name) >= 5 && strings.EqualFold(name[:5], "Nats-")
		switch {
		case strings.EqualFold(name, job.HeaderRedrives):
		case !forServer, strings.EqualFold(name, job.HeaderReplyTo):
			h[name] = values
		}
	}
	h.Set(job.HeaderRedrives, strconv.Itoa(l.Redrives+1))
	h.Set(jetstream.MsgIDHeader, RedriveID(l))
	return h
}

// RedriveID is the message id of the job that a redrive of l puts back: the same
// for the same letter, and of no other.
func RedriveID(l *Letter) string {
	return fmt.Sprintf("redrive.%s.%s.%d.%d", l.Queue, l.ID, l.Seq, l.Time.UnixMilli())
}

// queuedBy returns the sequence of the queued job that a redrive of l has put
// back; 0 when there is none.
func (s *Store) queuedBy(ctx context.Context, l *Letter) (uint64, error) {
	jobs, err := s.jobs(ctx)
	if err != nil {
		return 0, err
	}
	msg, err := last(ctx, jobs, s.subjects.Job(l.Queue, l.ID))
	if msg == nil || err != nil || msg.Header.Get(jetstream.MsgIDHeader) != RedriveID(l) {
		return 0, err
	}
	return msg.Sequence, nil
}

// discard deletes one letter. One that is gone already is no error.
func (s *Store) discard(ctx context.Context, l *Letter) error {
	err := s.dead.DeleteMsg(ctx, l.Seq)
	if err == nil {
		return nil
	}
	if _, lookup := s.dead.GetMsg(ctx, l.Seq); errors.Is(lookup, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}
