package results

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// Orphan is an object that no dead letter refers to, left behind by a command or
// a worker that was stopped in between.
type Orphan struct {
	// Name is the object's name; Bytes its size; Time when it was stored.
	Name  string    `json:"object"`
	Bytes uint64    `json:"bytes"`
	Time  time.Time `json:"time"`
}

// Orphans lists the objects stored before a moment that belong to no dead letter
// and to no queued job, oldest first. One whose deletion was cut off is among them,
// with 0 bytes. A moment in the past keeps out what is being put aside right now, for
// a letter that is still to come.
func (s *Store) Orphans(ctx context.Context, before time.Time) ([]Orphan, error) {
	bucket := s.asideBucket()
	stream, err := s.js.Stream(ctx, bucketStream(bucket))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", bucket, err)
	}
	objects, err := subjectsBelow(ctx, stream, metas(bucket))
	if err != nil {
		return nil, err
	}
	var found []Orphan
	for subject := range objects {
		o, err := readEntry(ctx, stream, bucket, subject)
		if err != nil && !errors.Is(err, errForeign) {
			return nil, err
		}
		if o == nil || !o.ModTime.Before(before) { // also gone meanwhile, or not ours
			continue
		}
		needed, err := s.needed(ctx, o.Name)
		if err != nil {
			return nil, err
		}
		if !needed {
			found = append(found, Orphan{Name: o.Name, Bytes: o.Size, Time: o.ModTime})
		}
	}
	slices.SortFunc(found, func(a, b Orphan) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Name, b.Name))
	})
	return found, nil
}

// Collect deletes an orphan, unless something refers to it by now. It reports
// whether it is gone.
func (s *Store) Collect(ctx context.Context, o Orphan) (gone bool, err error) {
	if needed, err := s.needed(ctx, o.Name); needed || err != nil {
		return false, err
	}
	return true, s.collect(ctx, o.Name)
}

// needed reports whether an object may be read again. A job that is queued or
// running may die and then name the object that holds its original; the letter is
// looked for before and after, because a job that dies moves from the one to the
// other.
func (s *Store) needed(ctx context.Context, object string) (bool, error) {
	subject := asideSubject(object)
	_, queue, id, err := s.subjects.Parse(subject)
	if err != nil {
		return true, nil //nolint:nilerr // not ours
	}
	if referred, err := s.referred(ctx, subject, object); referred || err != nil {
		return true, err
	}
	jobs, err := s.jobs(ctx)
	if err != nil {
		return true, err
	}
	if queued, err := last(ctx, jobs, s.subjects.Job(queue, id)); queued != nil || err != nil {
		return true, err
	}
	return s.referred(ctx, subject, object)
}

// referred reports whether the newest letter on subject refers to an object.
// Whether a message that is no letter does is not known: then it may.
func (s *Store) referred(ctx context.Context, subject, object string) (bool, error) {
	msg, err := last(ctx, s.dead, subject)
	if msg == nil || err != nil {
		return err != nil, err
	}
	l, err := s.letter(msg)
	if err != nil {
		return true, nil //nolint:nilerr // left alone
	}
	return slices.Contains(s.objectsOf(l.DeadLetter), object), nil
}

// objectsOf are the objects that a letter refers to.
func (s *Store) objectsOf(letter *job.DeadLetter) []string {
	var names []string
	if ref, ok := s.asideOf(letter); ok {
		names = append(names, ref.Object)
	}
	if name := s.originalOf(letter); name != "" && !slices.Contains(names, name) {
		names = append(names, name)
	}
	return names
}

// without is list but for what others has.
func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return slices.Contains(others, name) })
}

// collect deletes objects to which no letter refers. One that is gone already is
// no error.
func (s *Store) collect(ctx context.Context, names ...string) error {
	for _, name := range names {
		referred, err := s.referred(ctx, asideSubject(name), name)
		if err != nil {
			return err
		}
		if referred {
			continue
		}
		if err := s.drop(ctx, s.asideBucket(), name); err != nil {
			return err
		}
	}
	return nil
}
