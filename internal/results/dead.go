package results

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// Bury stores the dead letter of the job message jobSeq, with payload as its
// job. A payload that does not fit a message next to the rest goes to the
// object store, and the letter names it. It tries until it is stored or ctx is done.
// A letter of the same message, or of a later one, that is there already stays:
// somebody may have edited it.
func (s *Store) Bury(ctx context.Context, letter *job.DeadLetter, payload []byte, jobSeq uint64) error {
	subject := s.subjects.Dead(letter.Queue, letter.ID)
	letter.Job = job.RawJob(payload)
	if len(letter.Headers) > job.MaxTrail { // nobody could read it back
		letter.Headers = known(letter.Headers)
	}
	var msg *nats.Msg
	for {
		newest, err := s.newest(ctx, subject)
		if err != nil {
			return fmt.Errorf("store the dead letter of job %s: %w", letter.ID, err)
		}
		replaces := uint64(0)
		if newest != nil {
			life, _ := strconv.ParseUint(newest.Header.Get(job.HeaderJobSeq), 10, 64) // absent or foreign: 0
			if life >= jobSeq {
				return nil
			}
			replaces = newest.Sequence
		}
		if msg == nil {
			msg = nats.NewMsg(subject)
			if msg.Data, err = s.pack(ctx, letter, asideName(subject, jobSeq), payload); err != nil {
				return err
			}
			msg.Header.Set(job.HeaderJobSeq, strconv.FormatUint(jobSeq, 10))
		}
		msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(replaces, 10))
		err = s.store(ctx, KindDead, msg)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrCommitted): // else there is another letter by now
			return fmt.Errorf("store the dead letter of job %s: %w", letter.ID, err)
		}
	}
}

// newest reads the newest letter on subject from the leader, nil when there is
// none. It tries until it is read or ctx is done.
func (s *Store) newest(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	trial := s.blocked.trial(KindDead)
	defer trial.over()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		try, cancel := context.WithTimeout(ctx, s.tryTimeout)
		msg, err := last(try, s.dead, subject)
		cancel()
		if err == nil {
			return msg, nil
		}
		trial.failed(err)
		if !sleep(ctx, pause) {
			return nil, fmt.Errorf("%w (last answer: %w)", context.Cause(ctx), err)
		}
	}
}

// pack encodes a letter so that it fits a message. A payload that does not fit
// next to the rest is put aside under the name object.
func (s *Store) pack(ctx context.Context, letter *job.DeadLetter, object string, payload []byte) ([]byte, error) {
	data := letter.Encode()
	if s.fits("dead letter", data) != nil {
		ref, err := s.putAside(ctx, object, payload)
		if err != nil {
			return nil, err
		}
		letter.Job = ref
		data = letter.Encode()
	}
	// A job that cannot be buried could never leave its queue. What is too much
	// then goes: the trail, which the events tell too, and the publisher's own headers.
	if s.fits("dead letter", data) != nil {
		letter.Attempts = nil
		data = letter.Encode()
	}
	if s.fits("dead letter", data) != nil {
		letter.Headers = known(letter.Headers)
		data = letter.Encode()
	}
	return data, nil
}

// known keeps the headers that have a meaning here, where they are not too long.
func known(h map[string][]string) map[string][]string {
	kept := make(map[string][]string)
	for _, name := range []string{job.HeaderReplyTo, job.HeaderTraceParent, job.HeaderRedrives, job.HeaderPayload, job.HeaderOriginal} {
		for _, have := range append([]string{name}, slices.Sorted(maps.Keys(h))...) { // clients write them in any case
			if v := h[have]; kept[name] == nil && strings.EqualFold(have, name) && len(v) > 0 && len(v[0]) <= job.MaxSubject {
				kept[name] = v[:1]
			}
		}
	}
	return kept
}

// Buried reports whether the dead letter of the job message jobSeq is stored.
func (s *Store) Buried(ctx context.Context, queue, id string, jobSeq uint64) (bool, error) {
	msg, err := last(ctx, s.dead, s.subjects.Dead(queue, id))
	if msg == nil || err != nil {
		return false, err
	}
	return msg.Header.Get(job.HeaderJobSeq) == strconv.FormatUint(jobSeq, 10), nil
}

// aside is the job field of a dead letter whose payload is in the object store.
type aside struct {
	Object string `json:"object"`
	Bytes  int    `json:"bytes"`
}

// asideName names the object that holds the payload of one life of a job, so
// that what is left of one life can be deleted without a look at the next.
func asideName(subject string, jobSeq uint64) string {
	return subject + asideMark + strconv.FormatUint(jobSeq, 10)
}

// asideMark stands between a letter's subject, which cannot contain it, and what
// tells its objects apart.
const asideMark = "@"

// asideSubject is the subject of the letter to which an object belongs.
func asideSubject(object string) string {
	subject, _, _ := strings.Cut(object, asideMark)
	return subject
}

// readAside reads a reference exactly as putAside writes it: anything else is a
// payload that looks like one.
func readAside(text json.RawMessage) (aside, bool) {
	var ref aside
	if json.Unmarshal(text, &ref) != nil {
		return aside{}, false
	}
	written, err := json.Marshal(ref)
	return ref, err == nil && bytes.Equal(written, text)
}

// putAside stores payload in the object store and returns the reference to it.
func (s *Store) putAside(ctx context.Context, name string, payload []byte) (json.RawMessage, error) {
	trial := s.blocked.trial(KindDead)
	defer trial.over()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.tryPutAside(ctx, name, payload)
		if err == nil {
			return json.Marshal(aside{Object: name, Bytes: len(payload)})
		}
		trial.failed(err)
		if !sleep(ctx, pause) {
			return nil, fmt.Errorf("put a payload of %d bytes aside: %w (last answer: %w)", len(payload), context.Cause(ctx), err)
		}
	}
}

func (s *Store) tryPutAside(ctx context.Context, name string, payload []byte) error {
	ctx, cancel := s.bounded(ctx, int64(len(payload)))
	defer cancel()
	bucket, err := s.js.ObjectStore(ctx, s.asideBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = s.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: s.asideBucket(), Description: "understudy: payloads of dead letters that are too big for a message",
			Replicas: s.dead.CachedInfo().Config.Replicas,
		})
	}
	if err != nil {
		return err
	}
	return s.put(ctx, bucket, name, payload)
}

func (s *Store) asideBucket() string { return s.subjects.DeadStream() + "_PAYLOADS" }

// Payload returns the job of a dead letter as it was published.
func (s *Store) Payload(ctx context.Context, letter *job.DeadLetter) ([]byte, error) {
	ref, ok := s.asideOf(letter)
	if !ok {
		return letter.Payload()
	}
	payload, err := s.object(ctx, ref.Object)
	if err != nil {
		return nil, fmt.Errorf("read the payload of job %s: %w", letter.ID, err)
	}
	if len(payload) != ref.Bytes {
		return nil, fmt.Errorf("read the payload of job %s: the object has %d bytes, the letter says %d", letter.ID, len(payload), ref.Bytes)
	}
	return payload, nil
}

// asideOf is the reference to the letter's payload, where that is an object. One
// to an object of another letter is forged.
func (s *Store) asideOf(letter *job.DeadLetter) (aside, bool) {
	ref, ok := readAside(letter.Job)
	return ref, ok && asideSubject(ref.Object) == s.subjects.Dead(letter.Queue, letter.ID)
}

// object reads an object. The client reads from any replica of a cluster, and
// one that lags behind shows no object or a part of it: it tries a few times.
func (s *Store) object(ctx context.Context, name string) ([]byte, error) {
	for pause := firstPause; ; pause *= 2 {
		data, err := s.tryObject(ctx, name)
		lags := errors.Is(err, jetstream.ErrDigestMismatch) || errors.Is(err, jetstream.ErrObjectNotFound)
		if !lags || pause > lastPause/4 || !sleep(ctx, pause) {
			return data, err
		}
	}
}

func (s *Store) tryObject(ctx context.Context, name string) ([]byte, error) {
	return s.get(ctx, s.asideBucket(), name, maxAside)
}

// maxAside is the longest payload that is read from the object store, in bytes:
// far more than any job may have.
const maxAside = 1 << 30
