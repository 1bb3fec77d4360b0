package doctor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// asDenied is the denial in err.
func asDenied(err error) (*DeniedError, bool) { return errors.AsType[*DeniedError](err) }

// The bounds of reading dead letters.
const (
	// newestLetters is how many dead letters are read: the newest.
	newestLetters = 1000
	// letterBatch is how many are read at once.
	letterBatch = 100
)

// tally is what is known of the dead letters of one reason.
type tally struct {
	count          int
	oldest, newest time.Time
}

// lookAtLetters counts the dead letters by reason.
func (e *examination) lookAtLetters(ctx context.Context) {
	s := e.Layout.Subjects
	info := e.streams[s.DeadStream()]
	if info == nil {
		return
	}
	if info.State.Msgs == 0 {
		e.fine("dead.letters", s.DeadStream(), "there are none")
		return
	}
	start := info.State.FirstSeq
	if last := info.State.LastSeq; last > newestLetters {
		start = max(start, last-newestLetters+1)
	}
	reasons, unreadable := make(map[string]*tally), 0
	for read := 0; read < newestLetters; {
		n, err := e.door.direct(ctx, s.DeadStream(), question{Seq: start, NextFor: s.All("dead"), Batch: letterBatch}, func(m *stored) {
			start = m.seq + 1
			letter, err := job.DecodeDeadLetter(m.data)
			if err != nil {
				unreadable++
				return
			}
			e.count(reasons, letter, m.time)
		})
		if err != nil {
			e.unseen("the dead letters' reasons", s.DeadStream(), err)
			break
		}
		if n == 0 {
			break
		}
		read += n
	}
	e.tell(reasons, unreadable, info.State.Msgs)
}

// count adds a dead letter.
func (e *examination) count(reasons map[string]*tally, letter *job.DeadLetter, at time.Time) {
	t := reasons[letter.Reason]
	if t == nil {
		if len(reasons) >= 100 { // a closed set; what is more is not ours
			return
		}
		t = &tally{oldest: at}
		reasons[letter.Reason] = t
	}
	t.count++
	t.newest = at
	if object, ok := aside(letter); ok {
		if e.asides == nil {
			e.asides = make(map[string]bool)
		}
		e.asides[object] = true
	}
}

// aside is the object that holds the payload of a letter that was too big.
func aside(letter *job.DeadLetter) (string, bool) {
	var ref struct {
		Object string `json:"object"`
		Bytes  int    `json:"bytes"`
	}
	if len(letter.Job) > 2*job.MaxSubject || json.Unmarshal(letter.Job, &ref) != nil {
		return "", false
	}
	return ref.Object, ref.Object != "" && strings.HasSuffix(owner(ref.Object), "."+letter.Queue+"."+letter.ID)
}

// owner is the subject of the dead letter to which an object belongs: what
// stands behind an @ tells the objects of one letter apart.
func owner(object string) string {
	subject, _, _ := strings.Cut(object, "@")
	return subject
}

// tell says what was counted.
func (e *examination) tell(reasons map[string]*tally, unreadable int, total uint64) {
	dead := e.Layout.Subjects.DeadStream()
	counted := unreadable
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		t := reasons[reason]
		counted += t.count
		f := Finding{
			Level: Warning, Check: "dead.letters", Where: dead,
			What: fmt.Sprintf("%s: %s", several(t.count, "dead letter"), reason),
			Mend: fmt.Sprintf("submit dead ls -class %s; when the cause is mended, submit dead redrive -all -class %s", reason, reason),
		}
		if t.count == 1 {
			f.What += ", since " + e.ago(t.oldest)
		} else {
			f.What += fmt.Sprintf(", the oldest since %s, the newest since %s", e.ago(t.oldest), e.ago(t.newest))
		}
		if reason == "invalid_job" {
			f.Mend = "submit dead ls -class invalid_job names the field; the publisher must change it"
		}
		e.add(f)
	}
	if unreadable > 0 {
		e.add(Finding{
			Level: Warning, Check: "dead.unreadable", Where: dead,
			What: several(unreadable, "message") + " in the stream that no worker wrote", Mend: "submit dead ls names them; nats stream rmm " + dead + " SEQ removes one",
		})
	}
	if more := int(total) - counted; more > 0 {
		e.add(Finding{Level: Note, Check: "dead.letters", Where: dead, What: fmt.Sprintf("%d more, older ones were not read", more)})
	}
}

// lookAtPayloads compares the payloads that were put aside with the letters.
func (e *examination) lookAtPayloads(ctx context.Context) {
	dead := e.Layout.Subjects.DeadStream()
	if e.streams[dead] == nil {
		return
	}
	bucket := dead + "_PAYLOADS"
	objects, err := e.objects(ctx, bucket)
	if err != nil {
		e.unseen("the payloads put aside", bucket, err)
		return
	}
	for _, object := range slices.Sorted(maps.Keys(e.asides)) {
		if !objects[object] {
			e.add(Finding{
				Level: Problem, Check: "dead.payload", Where: bucket,
				What: "the payload of dead letter " + object + " is gone: it cannot be redriven",
				Mend: "publish the job again from its source, then remove the letter",
			})
		}
	}
	if len(objects) == 0 {
		return
	}
	owners := make(map[string][]string, len(objects))
	for object := range objects {
		owners[owner(object)] = append(owners[owner(object)], object)
	}
	for subject, err := range sorted(ctx, e.door.list(dead, e.Layout.Subjects.All("dead"))) {
		if err != nil {
			e.unseen("the payloads without a letter", bucket, err)
			return
		}
		delete(owners, subject)
	}
	e.orphans(bucket, slices.Concat(slices.Collect(maps.Values(owners))...))
}

// orphans notes objects that belong to no letter.
func (e *examination) orphans(bucket string, orphans []string) {
	if len(orphans) == 0 {
		e.fine("dead.payload", bucket, "every payload belongs to a dead letter")
		return
	}
	slices.Sort(orphans)
	e.add(Finding{
		Level: Note, Check: "dead.orphan", Where: bucket,
		What: fmt.Sprintf("%s without a dead letter, such as %s: redriven or purged ones leave it behind", several(len(orphans), "payload"), orphans[0]),
		Mend: "submit dead purge -orphans",
	})
}

// objects are the names in an object store; none where there is no store.
func (e *examination) objects(ctx context.Context, bucket string) (map[string]bool, error) {
	stream, prefix := "OBJ_"+bucket, "$O."+bucket+".M."
	names := make(map[string]bool)
	var metas []string
	for subject, err := range sorted(ctx, e.door.list(stream, prefix+">")) {
		if isAPI(err, jetstream.JSErrCodeStreamNotFound) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		metas = append(metas, subject)
	}
	err := e.door.lastOf(ctx, stream, metas, func(m *stored) {
		var meta struct {
			Deleted bool `json:"deleted"`
		}
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(m.subject, prefix))
		if err == nil && json.Unmarshal(m.data, &meta) == nil && !meta.Deleted {
			names[string(name)] = true
		}
	})
	return names, err
}
