package results

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"understudy/internal/job"
)

// ErrCommitted says that the job has a result already, of this worker's earlier
// try or of another worker.
var ErrCommitted = errors.New("the job has a result already")

// TooBigError says that a message does not fit the server's limit.
type TooBigError struct {
	// What is the kind of message; Size and Limit are in bytes.
	What        string
	Size, Limit int64
}

// Error implements error.
func (e *TooBigError) Error() string {
	return fmt.Sprintf("the %s has %d bytes; a message here takes %d", e.What, e.Size, e.Limit)
}

// headroom is kept for subject and headers when a size is checked against the
// server's limit, which counts headers.
const headroom = 512

// The numbers of storing.
const (
	// firstPause and lastPause bound the growing pause between tries.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	// absences is how often in a row nobody may answer for a stream before that is a
	// failure: for some 750 ms, as long as a stream takes to come back.
	absences = 4
	// tryTimeout bounds one try.
	tryTimeout = 5 * time.Second
)

// Store keeps results and dead letters. It is safe for concurrent use.
type Store struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects job.Subjects

	results, events, dead jetstream.Stream

	many *bulk // reads for many jobs; nil without, see BatchReads

	tryTimeout time.Duration // of one try to store
	page       int           // how many subjects the server names in one answer
	blocked    *blockages
	reading    *semaphore.Weighted // bytes of objects on their way
}

// Open returns a Store over one connection, whose streams must exist.
func Open(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, subjects job.Subjects) (*Store, error) {
	s := &Store{
		nc: nc, js: js, subjects: subjects, tryTimeout: tryTimeout, page: subjectsPage,
		blocked: newBlockages(), reading: semaphore.NewWeighted(readWindow),
	}
	for name, handle := range map[string]*jetstream.Stream{
		subjects.ResultsStream(): &s.results,
		subjects.EventsStream():  &s.events,
		subjects.DeadStream():    &s.dead,
	} {
		var err error
		if *handle, err = OpenAtLeader(ctx, js, name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// OpenAtLeader opens a stream for reads that the stream's leader answers: the
// replica that would answer a direct get may not have yet what was stored a moment
// ago. That is a flag of this handle alone; the stream keeps its setting. The
// handle is safe for concurrent use. What its CachedInfo returns never changes.
func OpenAtLeader(ctx context.Context, js jetstream.JetStream, name string) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	stream.CachedInfo().Config.AllowDirect = false
	return atLeader{stream, js}, nil
}

// atLeader is a stream that the leader answers for.
type atLeader struct {
	jetstream.Stream
	js jetstream.JetStream
}

// Info asks with another handle: the answer would take the flag away from this one.
func (a atLeader) Info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	fresh, err := a.js.Stream(ctx, a.CachedInfo().Config.Name)
	if err != nil {
		return nil, err
	}
	return fresh.Info(ctx, opts...)
}

// jobs opens the jobs stream for reads from its leader.
func (s *Store) jobs(ctx context.Context) (jetstream.Stream, error) {
	return OpenAtLeader(ctx, s.js, s.subjects.JobsStream())
}

// Queued reports whether the job message with the sequence seq is in its queue
// still. It asks the leader.
func (s *Store) Queued(ctx context.Context, seq uint64) (bool, error) {
	jobs, err := s.jobs(ctx)
	if err != nil {
		return false, err
	}
	_, err = jobs.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read job message %d: %w", seq, err)
	}
	return true, nil
}

// Stored is a result as the stream holds it.
type Stored struct {
	// Data is the encoded result.
	Data []byte
	// Seq is its sequence in the results stream.
	Seq uint64
	// JobSeq is the sequence of the job message it belongs to, 0 when not known.
	JobSeq uint64
}

// Lookup returns the stored result of a job, nil when there is none.
func (s *Store) Lookup(ctx context.Context, queue, id string) (*Stored, error) {
	msg, err := last(ctx, s.results, s.subjects.Result(queue, id))
	return storedOf(msg), err
}

// storedOf reads a message of the results stream.
func storedOf(msg *jetstream.RawStreamMsg) *Stored {
	if msg == nil {
		return nil
	}
	seq, _ := strconv.ParseUint(msg.Header.Get(job.HeaderJobSeq), 10, 64) // absent or foreign: 0
	return &Stored{Data: msg.Data, Seq: msg.Sequence, JobSeq: seq}
}

// Accepted reports whether a job of that id is stored: queued, running, or with a
// result. It asks the leaders. A stream that refuses a job as one too many is no
// proof of that: the one before it may never be stored, for want of a quorum.
func (s *Store) Accepted(ctx context.Context, queue, id string) (bool, error) {
	jobs, err := s.jobs(ctx)
	if err != nil {
		return false, err
	}
	msg, err := last(ctx, jobs, s.subjects.Job(queue, id))
	if msg != nil || err != nil {
		return msg != nil, err
	}
	stored, err := s.Lookup(ctx, queue, id)
	return stored != nil, err
}

// Commit stores the result of the job message jobSeq. replaces is the sequence
// of the failed result it replaces, 0 for none. It tries until it is stored or
// ctx is done. It returns [ErrCommitted] when another result is there, and a
// *[TooBigError] when the result does not fit a message.
func (s *Store) Commit(ctx context.Context, r *job.Result, jobSeq, replaces uint64) ([]byte, error) {
	data := r.Encode()
	if err := s.fits("result", data); err != nil {
		return nil, err
	}
	msg := nats.NewMsg(s.subjects.Result(r.Queue, r.ID))
	msg.Data = data
	msg.Header.Set(job.HeaderJobSeq, strconv.FormatUint(jobSeq, 10))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(replaces, 10))
	if err := s.store(ctx, KindResults, msg); err != nil {
		return nil, fmt.Errorf("commit the result of job %s: %w", r.ID, err)
	}
	return data, nil
}

// fits returns a *[TooBigError] when data does not fit a message.
func (s *Store) fits(what string, data []byte) error {
	if size, limit := int64(len(data)), s.nc.MaxPayload()-headroom; size > limit {
		return &TooBigError{What: what, Size: size, Limit: limit}
	}
	return nil
}

// The server's codes for a message over the stream's own limit, and for another
// write to the subject that is under way in a cluster.
const (
	exceedsStream jetstream.ErrorCode = 10054
	underWay      jetstream.ErrorCode = 10164
)

// store publishes msg until the stream has it. A sequence mismatch, which also
// follows a lost answer to an earlier try, is [ErrCommitted]. A cluster has a
// second code for it, while another write to the subject is under way: that one
// may still fail, so it is no reason to stop trying. While it tries in vain,
// [Store.Blocked] says so.
func (s *Store) store(ctx context.Context, kind Kind, msg *nats.Msg) error {
	stream := s.results
	if kind == KindDead {
		stream = s.dead
	}
	trial := s.blocked.trial(kind)
	defer trial.over()
	missed := 0
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		try, cancel := context.WithTimeout(ctx, s.tryTimeout)
		err := s.publish(try, msg)
		cancel()
		var api *jetstream.APIError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
			return ErrCommitted
		case errors.Is(err, nats.ErrMaxPayload): // headers and all
			return &TooBigError{What: "message with its headers", Size: int64(msg.Size() - len(msg.Subject)), Limit: s.nc.MaxPayload()}
		case errors.As(err, &api) && api.ErrorCode == exceedsStream:
			return &TooBigError{What: "message", Size: int64(len(msg.Data)), Limit: int64(stream.CachedInfo().Config.MaxMsgSize)}
		case errors.Is(err, jetstream.ErrNoStreamResponse) && missed < absences:
			missed++
		case api == nil || api.ErrorCode != underWay:
			trial.failed(err)
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("%w (last answer: %w)", context.Cause(ctx), err)
		}
	}
}

// publish sends msg to the stream of its subject and waits for its word. A refusal is
// a *jetstream.APIError.
func (s *Store) publish(ctx context.Context, msg *nats.Msg) error {
	word, err := s.nc.RequestMsgWithContext(ctx, msg)
	if errors.Is(err, nats.ErrNoResponders) {
		return jetstream.ErrNoStreamResponse
	}
	if err != nil {
		return err
	}
	if bytes.HasPrefix(word.Data, []byte(`{"stream":`)) && !bytes.Contains(word.Data, []byte(`"error"`)) {
		return nil // as almost always: worth the look before it is decoded
	}
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	switch err := json.Unmarshal(word.Data, &ack); {
	case err != nil:
		return fmt.Errorf("%w: %w", jetstream.ErrInvalidJSAck, err)
	case ack.Error != nil:
		return ack.Error
	case ack.Stream == "": // somebody else answered
		return jetstream.ErrInvalidJSAck
	}
	return nil
}

// last returns the last message of a subject, nil when there is none.
func last(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", subject, err)
	}
	return msg, nil
}

// Reply sends data to a subject that somebody named. It does not wait; nobody
// may be listening any more.
func (s *Store) Reply(to string, data []byte) error {
	if to == "" {
		return nil
	}
	if err := s.nc.Publish(to, data); err != nil {
		return fmt.Errorf("reply to %s: %w", to, err)
	}
	return nil
}

// sleep pauses for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
