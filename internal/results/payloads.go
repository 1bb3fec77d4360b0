package results

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// ErrNoPayloads says that there is no object store for payloads: workers make it
// unless WORKER_MAX_PAYLOAD is 0.
var ErrNoPayloads = errors.New("there is no object store for big payloads")

// uniqueName is base and something that no other call adds.
func uniqueName(base string) string { return base + "." + job.NewID() }

// JobMessage returns the message that puts a job into its queue: with the payload
// in it, or empty with the name of an object where the payload does not fit the
// server's limit next to the headers. The object is stored before it returns,
// which makes one try. mark tells the object from others of the same job; empty
// means one of this call alone.
//
// The error is a *[TooBigError] that wraps [ErrNoPayloads] when the payload does
// not fit and there is no object store.
func (s *Store) JobMessage(ctx context.Context, queue, id string, payload []byte, header nats.Header, mark string) (*nats.Msg, error) {
	msg := &nats.Msg{Subject: s.subjects.Job(queue, id), Header: header, Data: payload}
	err := s.publishable(msg)
	if err == nil {
		return msg, nil
	}
	name := msg.Subject + asideMark + mark
	if mark == "" {
		name += job.NewID()
	}
	switch put := s.tryPut(ctx, s.subjects.PayloadsBucket(), name, payload); {
	case errors.Is(put, jetstream.ErrBucketNotFound):
		return nil, fmt.Errorf("%w: %w %s", err, ErrNoPayloads, s.subjects.PayloadsBucket())
	case put != nil:
		return nil, fmt.Errorf("store a payload of %d bytes in %s: %w", len(payload), s.subjects.PayloadsBucket(), put)
	}
	msg.Data, msg.Header = nil, maps.Clone(header)
	if msg.Header == nil {
		msg.Header = make(nats.Header)
	}
	msg.Header.Set(job.HeaderPayload, name)
	return msg, nil
}

// PayloadError says why the payload that a job refers to cannot be had. It is
// final: no later try will be different unless somebody does something.
type PayloadError struct {
	// Reason is for people.
	Reason string
	// TooBig tells that the payload is there and too big.
	TooBig bool
	// Err is why, nil when Reason is all.
	Err error
}

// Error implements error.
func (e *PayloadError) Error() string {
	if e.Err != nil {
		return job.HeaderPayload + ": " + e.Reason + ": " + e.Err.Error()
	}
	return job.HeaderPayload + ": " + e.Reason
}

// Unwrap returns why.
func (e *PayloadError) Unwrap() error { return e.Err }

// LoadPayload reads the payload of a job from the object name, which must be the
// job's subject, or that and "@" and anything. A payload of more than limit bytes
// is not read. An object that is missing is looked for again for a moment: a
// replica may lag behind. Where the object store cannot be used though the server
// answers, it is given up after a few refusals, or a minute without an answer. The
// error is a *[PayloadError] when the payload cannot be had, and any other when the
// server does not answer.
func (s *Store) LoadPayload(ctx context.Context, queue, id, name string, limit int64) ([]byte, error) {
	bucket := s.subjects.PayloadsBucket()
	switch own := s.subjects.Job(queue, id); {
	case limit <= 0:
		return nil, &PayloadError{Reason: "the payload is in an object, and this worker reads none (WORKER_MAX_PAYLOAD is 0)", TooBig: true}
	case asideSubject(name) != own || len(name) > job.MaxSubject:
		return nil, &PayloadError{Reason: fmt.Sprintf("the object must be called %s, or that with %s and more behind it", own, asideMark)}
	}
	var against doubt
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		payload, err := s.get(ctx, bucket, name, limit)
		var tooBig *TooBigError
		switch {
		case err == nil:
			return payload, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &tooBig):
			return nil, &PayloadError{
				Reason: fmt.Sprintf("the payload has %d bytes; this worker takes %d (WORKER_MAX_PAYLOAD)", tooBig.Size, limit), TooBig: true,
			}
		case lags(err) && pause <= lastPause/4:
		case lags(err) && !errors.Is(err, errDamaged):
			there, lookup := s.held(ctx, bucket, name)
			if there || lookup != nil { // only the replica has no such object
				return nil, fmt.Errorf("read the object %s of %s: %w", name, bucket, errors.Join(err, lookup))
			}
			return nil, &PayloadError{Reason: fmt.Sprintf("the object %s of %s cannot be read", name, bucket), Err: err}
		case errors.Is(err, errLink), errors.Is(err, errDamaged):
			return nil, &PayloadError{Reason: fmt.Sprintf("the object %s of %s cannot be read", name, bucket), Err: err}
		case !s.answers(ctx):
			return nil, fmt.Errorf("read the object %s of %s: %w", name, bucket, err)
		case s.hopeless(&against, bucket, err):
			return nil, &PayloadError{Reason: fmt.Sprintf("the object %s of %s cannot be read", name, bucket), Err: err}
		}
		if !sleep(ctx, pause) {
			return nil, context.Cause(ctx)
		}
	}
}

// SamePayload reports whether a job message has payload as its payload, in itself
// or in the object it refers to. It compares what the object store knows of the
// object and does not read it.
func (s *Store) SamePayload(ctx context.Context, msg *jetstream.RawStreamMsg, payload []byte) (bool, error) {
	name := job.Header(msg.Header).PayloadObject()
	if name == "" {
		return string(msg.Data) == string(payload), nil
	}
	bucket, err := s.js.ObjectStore(ctx, s.subjects.PayloadsBucket())
	if err != nil {
		return false, fmt.Errorf("open %s: %w", s.subjects.PayloadsBucket(), err)
	}
	info, err := bucket.GetInfo(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read what %s is: %w", name, err)
	}
	return info.Digest == digest(payload), nil
}

// DropPayload deletes an object that a job of the queue referred to. One that is
// gone already is no error.
func (s *Store) DropPayload(ctx context.Context, name string) error {
	return s.drop(ctx, s.subjects.PayloadsBucket(), name)
}

// HasPayloads reports whether there is an object store for big payloads.
func (s *Store) HasPayloads(ctx context.Context) (bool, error) {
	_, err := s.js.ObjectStore(ctx, s.subjects.PayloadsBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", s.subjects.PayloadsBucket(), err)
	}
	return true, nil
}

// ownPayload splits the name of a payload's object into the job's queue and id; it
// reports false when no job can refer to it.
func (s *Store) ownPayload(name string) (queue, id string, ok bool) {
	kind, queue, id, err := s.subjects.Parse(asideSubject(name))
	return queue, id, err == nil && kind == "jobs" && !strings.ContainsAny(name, "*>")
}
