package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// subjectsPage is how many subjects of a stream the server names in one answer.
const subjectsPage = 100_000

// errForeign says that no object store's client wrote an entry.
var errForeign = errors.New("it is no entry of an object store")

// entry is what an object store's stream says of an object, or the mark that is left
// of a deleted one. Its ModTime is when it was stored.
type entry struct {
	jetstream.ObjectInfo

	seq uint64
}

// subjectsBelow are the subjects of a stream that begin with prefix, as its leader
// knows them. Of subjectsPage or more some may be missing: the client asks for page
// after page, and what is deleted between two shifts the second.
//
// The client's own list of objects comes from a consumer, and waits for ever for a last
// entry that was purged before the server could send it.
func subjectsBelow(ctx context.Context, stream jetstream.Stream, prefix string) (map[string]uint64, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix+">", err)
	}
	return info.State.Subjects, nil
}

// readEntry reads the entry of a bucket on a subject, nil when there is none. The error is
// errForeign for one whose chunks cannot be told.
func readEntry(ctx context.Context, stream jetstream.Stream, bucket, subject string) (*entry, error) {
	msg, err := last(ctx, stream, subject)
	if msg == nil || err != nil {
		return nil, err
	}
	e := &entry{seq: msg.Sequence}
	if json.Unmarshal(msg.Data, &e.ObjectInfo) != nil || metaSubject(bucket, e.Name) != subject ||
		e.NUID == "" || strings.ContainsAny(e.NUID, ".*> \t\r\n") { // it may come to name what is purged
		return nil, fmt.Errorf("read %s: %w", subject, errForeign)
	}
	e.ModTime = msg.Time
	return e, nil
}

// finishDeletion deletes what a deletion that was cut off has left: chunks, and the mark.
// It does no harm to an object that has got the name since.
func finishDeletion(ctx context.Context, stream jetstream.Stream, bucket string, mark *entry) error {
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject(chunks(bucket)+mark.NUID)); err != nil {
		return fmt.Errorf("delete the chunks of object %s: %w", mark.Name, err)
	}
	return purgeMark(ctx, stream, bucket, mark)
}

// purgeMark deletes the mark that a deletion leaves behind, which would stay for ever.
func purgeMark(ctx context.Context, stream jetstream.Stream, bucket string, mark *entry) error {
	// Not what came after the mark: that is a new one.
	err := stream.Purge(ctx, jetstream.WithPurgeSubject(metaSubject(bucket, mark.Name)), jetstream.WithPurgeSequence(mark.seq+1))
	if err != nil {
		return fmt.Errorf("delete object %s: %w", mark.Name, err)
	}
	return nil
}
