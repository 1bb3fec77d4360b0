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
// queue and no dead letter refers, and what was left of those that were never
// stored whole. It returns how many. A moment in the past spares those whose job is
// yet to be published.
func (s *Store) SweepPayloads(ctx context.Context, before time.Time) (int, error) {
	name := s.subjects.PayloadsBucket()
	bucket, err := s.js.ObjectStore(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", name, err)
	}
	stream, err := OpenAtLeader(ctx, s.js, bucketStream(name))
	if err != nil {
		return 0, err
	}
	// The chunks first: an object that is stored meanwhile is then known below.
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(chunks(name)+">"))
	if err != nil {
		return 0, fmt.Errorf("list the chunks of %s: %w", name, err)
	}
	objects, err := bucket.List(ctx, jetstream.ListObjectsShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0, fmt.Errorf("list %s: %w", name, err)
	}
	complete, err := s.listed(ctx, stream, objects)
	if err != nil {
		return 0, err
	}
	swept := 0
	for _, o := range objects {
		delete(info.State.Subjects, chunks(name)+o.NUID)
		if o.Deleted || !o.ModTime.Before(before) {
			continue
		}
		if needed, err := s.payloadNeeded(ctx, o.Name); err != nil {
			return swept, err
		} else if needed {
			continue
		}
		if err := s.DropPayload(ctx, o.Name); err != nil {
			return swept, err
		}
		swept++
	}
	if !complete { // the chunks of an object that is missing in the list look like a part
		return swept, nil
	}
	parts, err := s.sweepParts(ctx, stream, slices.Collect(maps.Keys(info.State.Subjects)), before)
	return swept + parts, err
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

// listed reports whether objects, with the marks of deletions, are all that the
// stream's leader knows. The client lists from any replica.
func (s *Store) listed(ctx context.Context, stream jetstream.Stream, objects []*jetstream.ObjectInfo) (bool, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(metas(s.subjects.PayloadsBucket())+">"))
	if err != nil {
		return false, fmt.Errorf("count the objects of %s: %w", s.subjects.PayloadsBucket(), err)
	}
	names := make(map[string]bool, len(objects))
	for _, o := range objects {
		names[o.Name] = true
	}
	return len(names) == len(info.State.Subjects), nil
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
