package results

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// ErrLetterChanged says that a dead letter is not the one that was read: it was
// redriven, edited or purged meanwhile, or the job died again.
var ErrLetterChanged = errors.New("the dead letter has changed meanwhile")

// Edit gives a dead letter another payload and returns the letter as it is then.
// The new letter takes the place of the old one in one step of the server, so
// that at no moment there is none, or two. The payload that was published first
// is kept beside it until the letter is purged, see [Store.Original]; editing
// back to it ends that.
//
// The error wraps [ErrLetterChanged] when the letter is not the newest of its
// job, and a *[TooBigError] when the job would not fit a message and there is no
// object store for such.
func (s *Store) Edit(ctx context.Context, l *Letter, payload []byte) (*Letter, error) {
	if tooBig := s.fits("job", payload); tooBig != nil {
		if somewhere, err := s.HasPayloads(ctx); err != nil || !somewhere {
			return nil, errors.Join(tooBig, err)
		}
	}
	subject := s.subjects.Dead(l.Queue, l.ID)
	edited := *l.DeadLetter
	edited.Headers = maps.Clone(l.Headers)
	if edited.Headers == nil {
		edited.Headers = make(map[string][]string)
	}
	if err := s.keepOriginal(ctx, l, &edited, payload); err != nil {
		return nil, err
	}
	edited.Job = job.RawJob(payload)
	data, err := s.pack(ctx, &edited, asideName(subject, l.JobSeq)+"."+job.NewID(), payload)
	if err != nil {
		return nil, err
	}
	msg := nats.NewMsg(subject)
	msg.Data = data
	msg.Header.Set(job.HeaderJobSeq, strconv.FormatUint(l.JobSeq, 10))
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(l.Seq))
	if err != nil {
		return nil, s.notEdited(ctx, l, &edited, err)
	}
	now := &Letter{DeadLetter: &edited, Seq: ack.Sequence, JobSeq: l.JobSeq}
	if err := s.discard(ctx, l); err != nil { // gone, unless somebody changed the stream's limits
		return now, fmt.Errorf("delete the dead letter of job %s as it was: %w", l.ID, err)
	}
	if err := s.collect(ctx, without(s.objectsOf(l.DeadLetter), s.objectsOf(&edited))...); err != nil {
		return now, fmt.Errorf("delete the payload of job %s as it was: %w", l.ID, err)
	}
	return now, nil
}

// keepOriginal names in edited the object that holds the payload as published,
// and makes that object if there is none yet.
func (s *Store) keepOriginal(ctx context.Context, l *Letter, edited *job.DeadLetter, payload []byte) error {
	known := s.originalOf(l.DeadLetter)
	published, err := s.Original(ctx, l.DeadLetter)
	switch {
	case err != nil:
		return s.changed(ctx, l, err)
	case bytes.Equal(published, payload):
		delete(edited.Headers, job.HeaderOriginal)
		return nil
	case known != "":
		return nil
	}
	if ref, ok := s.asideOf(l.DeadLetter); ok {
		known = ref.Object
	} else {
		known = asideName(s.subjects.Dead(l.Queue, l.ID), l.JobSeq) + "." + job.NewID()
		if _, err := s.putAside(ctx, known, published); err != nil {
			return err
		}
	}
	edited.Headers[job.HeaderOriginal] = []string{known}
	return nil
}

// notEdited is the error of an edit that could not be stored. What was put aside
// for it goes, but only when the server has said no: else it may be stored.
func (s *Store) notEdited(ctx context.Context, l *Letter, edited *job.DeadLetter, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("store the dead letter of job %s: %w", l.ID, err)
	}
	lost := s.collect(ctx, without(s.objectsOf(edited), s.objectsOf(l.DeadLetter))...)
	if api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		err = ErrLetterChanged
	}
	return errors.Join(fmt.Errorf("store the dead letter of job %s: %w", l.ID, err), lost)
}

// changed is err, which came of reading an object of l: when the letter is gone,
// that is why.
func (s *Store) changed(ctx context.Context, l *Letter, err error) error {
	if there, lookup := s.Letter(ctx, l.Seq); there == nil && lookup == nil {
		return fmt.Errorf("%w (%w)", ErrLetterChanged, err)
	}
	return err
}

// Original returns the payload of a dead letter as it was published first: what
// [Store.Payload] returns, unless the letter was edited.
func (s *Store) Original(ctx context.Context, letter *job.DeadLetter) ([]byte, error) {
	name := s.originalOf(letter)
	if name == "" {
		return s.Payload(ctx, letter)
	}
	payload, err := s.object(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read the payload of job %s before it was edited: %w", letter.ID, err)
	}
	return payload, nil
}

// Edited reports whether the payload of a dead letter is not the one that was
// published first.
func (s *Store) Edited(letter *job.DeadLetter) bool { return s.originalOf(letter) != "" }

// originalOf names the object with the payload before the first edit; empty when
// there was none. A name that belongs to another letter is forged.
func (s *Store) originalOf(letter *job.DeadLetter) string {
	for _, name := range letter.Headers[job.HeaderOriginal] {
		if asideSubject(name) == s.subjects.Dead(letter.Queue, letter.ID) {
			return name
		}
	}
	return ""
}
