package results

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The numbers of objects.
const (
	// chunkSize is the longest message of an object, where the server takes it.
	chunkSize = 128 << 10
	// readWindow is how many bytes of objects are read at once, but for one object
	// that is bigger. The server sends them as fast as it can, and cuts off whoever has
	// more than 64 MiB to take (its max_pending).
	readWindow = 32 << 20
	// slowest is how many bytes a second an object moves at least, before it is
	// given up: 1 MiB.
	slowest = 1 << 20
	// objectTries is how often an object is tried that is refused while the server
	// answers otherwise: a bucket that may not be used does not become usable by waiting.
	objectTries = 3
	// silentTries is how many timeouts of one try an object store may be silent while
	// the server answers otherwise, before an object is given up: 60 s.
	silentTries = 12
	// answersSlack is how much longer an answer is kept than its result, which is
	// stored after it.
	answersSlack = time.Hour
)

// errLink says that an object is only a name of another one, which may be in a
// bucket that is not ours.
var errLink = errors.New("the object is a link")

// errDamaged says that an object is not what its description says, although
// nothing of it is missing.
var errDamaged = errors.New("the object is damaged")

// EnsureBuckets creates the object stores for payloads and answers that do not
// fit a message, where they are missing, with that many replicas. Payloads never
// expire by themselves, answers an hour after results that are kept for maxAge. It
// alters nothing that exists.
func (s *Store) EnsureBuckets(ctx context.Context, replicas int, maxAge time.Duration) error {
	for _, want := range []jetstream.ObjectStoreConfig{
		{
			Bucket: s.subjects.PayloadsBucket(), Replicas: replicas,
			Description: "understudy: payloads of jobs that are too big for a message",
		},
		{
			Bucket: s.subjects.AnswersBucket(), Replicas: replicas, TTL: maxAge + answersSlack,
			Description: "understudy: answers that are too big for a message",
		},
	} {
		_, err := s.js.ObjectStore(ctx, want.Bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = s.js.CreateObjectStore(ctx, want)
		}
		if err != nil && !errors.Is(err, jetstream.ErrBucketExists) { // another worker was first
			return fmt.Errorf("create the object store %s: %w", want.Bucket, err)
		}
	}
	return nil
}

// bounded is ctx with the time that one try to move size bytes may take.
func (s *Store) bounded(ctx context.Context, size int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.tryTimeout+time.Duration(size/slowest)*time.Second)
}

// put stores an object in chunks that the server takes.
func (s *Store) put(ctx context.Context, bucket jetstream.ObjectStore, name string, data []byte) error {
	chunk := min(chunkSize, max(s.nc.MaxPayload()-headroom, 1))
	_, err := bucket.Put(ctx, jetstream.ObjectMeta{
		Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(chunk)}, //nolint:gosec // at most chunkSize
	}, bytes.NewReader(data))
	return err
}

// get reads an object of at most limit bytes, whose size it checks first.
func (s *Store) get(ctx context.Context, bucketName, name string, limit int64) ([]byte, error) {
	look, cancel := s.bounded(ctx, 0)
	defer cancel()
	bucket, err := s.js.ObjectStore(look, bucketName)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", bucketName, err)
	}
	info, err := bucket.GetInfo(look, name)
	switch {
	case err != nil:
		return nil, err
	case info.Opts != nil && info.Opts.Link != nil:
		return nil, errLink
	case info.Size > uint64(max(limit, 0)):
		return nil, &TooBigError{What: "object", Size: int64(min(info.Size, 1<<62)), Limit: limit} //nolint:gosec // cut
	}
	size := int64(info.Size) //nolint:gosec // at most limit
	weight := min(size, readWindow)
	if err := s.reading.Acquire(ctx, weight); err != nil {
		return nil, context.Cause(ctx)
	}
	defer s.reading.Release(weight)
	ctx, cancel = s.bounded(ctx, size)
	defer cancel()
	object, err := bucket.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = object.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(object, limit+1))
	switch {
	case err == nil && uint64(len(data)) != info.Size: // its digest is that of other bytes than it says
		err = errDamaged
	case errors.Is(err, jetstream.ErrDigestMismatch) && uint64(len(data)) == info.Size: // no replica that lags
		err = fmt.Errorf("%w (%w)", errDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// drop deletes an object and the mark that its deletion leaves behind, which
// would stay for ever. One that is gone already is no error.
func (s *Store) drop(ctx context.Context, bucketName, name string) error {
	bucket, err := s.js.ObjectStore(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", bucketName, err)
	}
	if err := bucket.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	stream, err := s.js.Stream(ctx, bucketStream(bucketName))
	if err != nil {
		return fmt.Errorf("open %s: %w", bucketName, err)
	}
	mark, err := readEntry(ctx, stream, bucketName, metaSubject(bucketName, name))
	if mark == nil || err != nil {
		return err
	}
	if !mark.Deleted {
		return nil // there is a new one
	}
	return purgeMark(ctx, stream, bucketName, mark)
}

// bucketStream is the stream below an object store.
func bucketStream(bucket string) string { return "OBJ_" + bucket }

// lags reports whether err may be that of a replica that lags behind the leader.
func lags(err error) bool {
	return errors.Is(err, jetstream.ErrDigestMismatch) || errors.Is(err, jetstream.ErrObjectNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound)
}

// held reports whether the leader has an object, with all its chunks.
func (s *Store) held(ctx context.Context, bucketName, name string) (bool, error) {
	ctx, cancel := s.bounded(ctx, 0)
	defer cancel()
	stream, err := OpenAtLeader(ctx, s.js, bucketStream(bucketName))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	o, err := readEntry(ctx, stream, bucketName, metaSubject(bucketName, name))
	if errors.Is(err, errForeign) || err == nil && (o == nil || o.Deleted) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	there, err := stream.Info(ctx, jetstream.WithSubjectFilter(chunks(bucketName)+o.NUID))
	if err != nil {
		return false, fmt.Errorf("count the chunks of %s: %w", name, err)
	}
	return there.State.Subjects[chunks(bucketName)+o.NUID] == uint64(o.Chunks), nil
}

// answers reports whether the server answers other questions.
func (s *Store) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.tryTimeout)
	defer cancel()
	_, err := s.js.Stream(ctx, s.subjects.ResultsStream())
	return err == nil
}

// full reports whether the server has no room at the moment.
func full(err error) bool { return errors.Is(Refusal(err), ErrQueueFull) }

// PutAnswer stores the body of a result of the job message jobSeq that does not
// fit a message, and has the result refer to it. It tries until it is stored or
// ctx is done; where the object store cannot be used though the server answers, it gives
// up after a few refusals, or a minute without an answer. The name is of this call
// alone: workers that race do not overwrite each other's answers.
func (s *Store) PutAnswer(ctx context.Context, queue, id string, jobSeq uint64, body []byte) (name string, err error) {
	name = uniqueName(asideName(s.subjects.Result(queue, id), jobSeq))
	trial := s.blocked.trial(KindAnswers)
	defer trial.over()
	var against doubt
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.tryPut(ctx, s.subjects.AnswersBucket(), name, body)
		if err == nil {
			return name, nil
		}
		hopeless := errors.Is(err, jetstream.ErrBucketNotFound)
		switch {
		case hopeless:
		case full(err) || !s.answers(ctx):
			trial.failed(err)
			against.silent = time.Time{}
		default:
			hopeless = s.hopeless(&against, s.subjects.AnswersBucket(), err)
		}
		if hopeless {
			return "", fmt.Errorf("store an answer of %d bytes in %s: %w", len(body), s.subjects.AnswersBucket(), err)
		}
		if !sleep(ctx, pause) {
			return "", fmt.Errorf("store an answer of %d bytes: %w (last answer: %w)", len(body), context.Cause(ctx), err)
		}
	}
}

// doubt is what speaks for giving up an object store that cannot be used though the
// server answers otherwise.
type doubt struct {
	refused int       // tries
	silent  time.Time // since when it has not answered; zero when it has
}

// hopeless notes that a try ended with err, and reports whether it was one too many. A
// bucket between two leaders is silent, or says 503; that passes.
func (s *Store) hopeless(d *doubt, bucketName string, err error) bool {
	switch {
	case refuses(err) || s.forbidden(bucketName):
		d.refused++
		d.silent = time.Time{}
	case d.silent.IsZero():
		d.silent = time.Now()
	default:
		return time.Since(d.silent) >= silentTries*s.tryTimeout
	}
	return d.refused >= objectTries
}

// refuses reports whether err is an object store's word, which will be the same next time.
func refuses(err error) bool {
	var api *jetstream.APIError
	var older *nats.APIError // of the consumers that objects are read with
	switch {
	case errors.As(err, &api):
		return api.Code != http.StatusServiceUnavailable
	case errors.As(err, &older):
		return older.Code != http.StatusServiceUnavailable
	}
	return errors.Is(err, jetstream.ErrBadObjectMeta)
}

// forbidden reports whether the last thing the server said to be forbidden is about a
// bucket.
func (s *Store) forbidden(bucketName string) bool {
	err := s.nc.LastError()
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), bucketName)
}

// tryPut makes one try to store an object in a bucket that exists.
func (s *Store) tryPut(ctx context.Context, bucketName, name string, data []byte) error {
	ctx, cancel := s.bounded(ctx, int64(len(data)))
	defer cancel()
	bucket, err := s.js.ObjectStore(ctx, bucketName)
	if err != nil {
		return err
	}
	return s.put(ctx, bucket, name, data)
}

// Answer reads the body of a result that [Store.PutAnswer] has put aside, whose
// length is size. A replica that lags behind is given a moment.
func (s *Store) Answer(ctx context.Context, name string, size int64) ([]byte, error) {
	for pause := firstPause; ; pause *= 2 {
		body, err := s.get(ctx, s.subjects.AnswersBucket(), name, size)
		if err == nil && int64(len(body)) != size {
			err = fmt.Errorf("it has %d bytes, the result says %d", len(body), size)
		}
		switch {
		case err == nil:
			return body, nil
		case !lags(err) || pause > lastPause/4 || !sleep(ctx, pause):
			return nil, fmt.Errorf("read the answer %s from %s: %w", name, s.subjects.AnswersBucket(), err)
		}
	}
}

// DropAnswer deletes the body of a result that counts no longer. One that is gone
// already is no error.
func (s *Store) DropAnswer(ctx context.Context, name string) error {
	return s.drop(ctx, s.subjects.AnswersBucket(), name)
}

// publishable returns a *[TooBigError] when msg does not fit the server's limit.
func (s *Store) publishable(msg *nats.Msg) error {
	if size, limit := int64(msg.Size()-len(msg.Subject)-len(msg.Reply)), s.nc.MaxPayload(); size > limit {
		return &TooBigError{What: "job with its headers", Size: size, Limit: limit}
	}
	return nil
}
