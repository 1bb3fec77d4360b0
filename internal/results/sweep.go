package results

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// digest is what the object store says of an object with this content.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
}

// ClaimSweep reports whether the caller is to call [Store.SweepPayloads] now: one
// of all callers is, once in a while of length every. It is false too when there is
// no object store for payloads.
func (s *Store) ClaimSweep(ctx context.Context, every time.Duration) (bool, error) {
	bucket := s.subjects.PayloadsBucket()
	stream, err := s.js.Stream(ctx, bucketStream(bucket))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", bucket, err)
	}
	msg := nats.NewMsg(sweepSubject(bucket))
	previous, err := last(ctx, stream, msg.Subject)
	if err != nil {
		return false, err
	}
	seq := uint64(0)
	if previous != nil {
		if time.Since(previous.Time) < every {
			return false, nil
		}
		seq = previous.Sequence
	}
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	_, err = s.js.PublishMsg(ctx, msg)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return false, nil // another one was first
	}
	if err != nil {
		return false, fmt.Errorf("claim the sweep of %s: %w", bucket, err)
	}
	return true, nil
}

// sweepSubject is where the last sweep is noted: among the chunks, where no object
// has one of that name.
func sweepSubject(bucket string) string { return chunks(bucket) + "swept" }

// chunks is what the subjects of a bucket's chunks begin with.
func chunks(bucket string) string { return "$O." + bucket + ".C." }

// metas is what the subjects begin with that tell of a bucket's objects.
func metas(bucket string) string { return "$O." + bucket + ".M." }

// metaSubject is the subject that tells of the object name.
func metaSubject(bucket, name string) string {
	return metas(bucket) + base64.URLEncoding.EncodeToString([]byte(name))
}

// SweepPayloads deletes the payloads stored before a moment to which no job in its
// queue and no dead letter refers, and what is left of those that were never stored
// or deleted whole. It returns how many. A moment in the past spares those whose job
// is yet to be published.
func (s *Store) SweepPayloads(ctx context.Context, before time.Time) (int, error) {
	name := s.subjects.PayloadsBucket()
	stream, err := OpenAtLeader(ctx, s.js, bucketStream(name))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	// The chunks first: an object that is stored meanwhile is then known below.
	parts, err := subjectsBelow(ctx, stream, chunks(name))
	if err != nil {
		return 0, err
	}
	objects, err := subjectsBelow(ctx, stream, metas(name))
	if err != nil {
		return 0, err
	}
	// The chunks of an object that is missing in the list would look like a part.
	complete := len(objects) < s.page
	swept := 0
	for subject := range objects {
		o, err := readEntry(ctx, stream, name, subject)
		switch {
		case errors.Is(err, errForeign):
			complete = false
			continue
		case err != nil:
			return swept, err
		case o == nil: // gone meanwhile
			continue
		}
		delete(parts, chunks(name)+o.NUID)
		gone, err := s.sweepObject(ctx, stream, o, before)
		if err != nil {
			return swept, err
		}
		swept += gone
	}
	if !complete {
		return swept, nil
	}
	more, err := s.sweepParts(ctx, stream, slices.Collect(maps.Keys(parts)), before)
	return swept + more, err
}

// sweepObject deletes a payload to which nothing refers, or what is left of one whose
// deletion was cut off. It returns how many.
func (s *Store) sweepObject(ctx context.Context, stream jetstream.Stream, o *entry, before time.Time) (int, error) {
	if !o.ModTime.Before(before) {
		return 0, nil
	}
	if o.Deleted {
		if _, _, ok := s.ownPayload(o.Name); !ok {
			return 0, nil
		}
		if err := finishDeletion(ctx, stream, s.subjects.PayloadsBucket(), o); err != nil {
			return 0, err
		}
		return 1, nil
	}
	if needed, err := s.payloadNeeded(ctx, o.Name); needed || err != nil {
		return 0, err
	}
	if err := s.DropPayload(ctx, o.Name); err != nil {
		return 0, err
	}
	return 1, nil
}

// sweepParts deletes the chunks of objects that were never stored whole.
func (s *Store) sweepParts(ctx context.Context, stream jetstream.Stream, subjects []string, before time.Time) (int, error) {
	swept := 0
	for _, subject := range subjects {
		if subject == sweepSubject(s.subjects.PayloadsBucket()) {
			continue
		}
		gone, err := s.sweepPart(ctx, stream, subject, before)
		if err != nil {
			return swept, err
		}
		swept += gone
	}
	return swept, nil
}

// sweepPart deletes the chunks of an object that was never stored whole.
func (s *Store) sweepPart(ctx context.Context, stream jetstream.Stream, subject string, before time.Time) (int, error) {
	newest, err := last(ctx, stream, subject)
	if newest == nil || err != nil || !newest.Time.Before(before) {
		return 0, err
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return 0, fmt.Errorf("delete the chunks of an object that is not whole: %w", err)
	}
	return 1, nil
}

// payloadNeeded reports whether a job in its queue or a dead letter refers to an
// object. The letter is looked for before and after the job: one that dies moves
// from the one to the other, and one that is redriven back. What no job of ours can
// refer to is not ours to delete.
func (s *Store) payloadNeeded(ctx context.Context, name string) (bool, error) {
	queue, id, ok := s.ownPayload(name)
	if !ok {
		return true, nil
	}
	jobs, err := s.jobs(ctx)
	if err != nil {
		return true, err
	}
	for _, look := range []func() (bool, error){
		func() (bool, error) { return s.letterNames(ctx, queue, id, name) },
		func() (bool, error) {
			msg, err := last(ctx, jobs, s.subjects.Job(queue, id))
			return msg != nil && job.Header(msg.Header).PayloadObject() == name, err
		},
		func() (bool, error) { return s.letterNames(ctx, queue, id, name) },
	} {
		if named, err := look(); named || err != nil {
			return true, err
		}
	}
	return false, nil
}

// letterNames reports whether the dead letter of a job names an object as its
// payload: the worker could not read that.
func (s *Store) letterNames(ctx context.Context, queue, id, name string) (bool, error) {
	msg, err := last(ctx, s.dead, s.subjects.Dead(queue, id))
	if msg == nil || err != nil {
		return err != nil, err
	}
	return strings.Contains(string(msg.Data), name), nil
}
