package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The sizes of one reading.
const (
	// readBytes is how much one direct get may bring: the server ends it there.
	readBytes = 8 << 20
	// readSubjects is how many subjects one direct get may name.
	readSubjects = 256
)

// stored is a message as a stream holds it.
type stored struct {
	subject string
	seq     uint64
	time    time.Time
	header  nats.Header
	data    []byte
}

// question is a direct get, or a get from the leader.
type question struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextFor   string   `json:"next_by_subj,omitempty"`
	LastFor   string   `json:"last_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
}

// tries is how often a reading is asked for that gets no answer in time: one that
// is lost must not end a long reconciliation.
const tries = 3

// get reads one message from the stream's leader; nil when there is none.
func (d *door) get(ctx context.Context, stream string, q question) (*stored, error) {
	for try := 1; ; try++ {
		m, err := d.tryGet(ctx, stream, q)
		if !unanswered(ctx, err) || try == tries {
			return m, err
		}
	}
}

// unanswered reports whether err is that of a question without an answer, which
// may be asked again.
func unanswered(ctx context.Context, err error) bool {
	return errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
}

func (d *door) tryGet(ctx context.Context, stream string, q question) (*stored, error) {
	var answer struct {
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err := d.api(ctx, "STREAM.MSG.GET."+stream, q, &answer)
	if isAPI(err, jetstream.JSErrCodeMessageNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &stored{subject: answer.Message.Subject, seq: answer.Message.Seq, time: answer.Message.Time, data: answer.Message.Data}
	if len(answer.Message.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return nil, fmt.Errorf("message %d of %s has no readable headers: %w", m.seq, stream, err)
		}
	}
	return m, nil
}

// isAPI reports whether the server refused with this code.
func isAPI(err error, code jetstream.ErrorCode) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == code
}

// direct reads messages by a direct get in a batch and hands each to visit; it
// reports how many there were. The stream must allow it.
func (d *door) direct(ctx context.Context, stream string, q question, visit func(*stored)) (int, error) {
	for try := 1; ; try++ {
		n, err := d.tryDirect(ctx, stream, q, visit)
		if n > 0 || !unanswered(ctx, err) || try == tries {
			return n, err
		}
	}
}

func (d *door) tryDirect(ctx context.Context, stream string, q question, visit func(*stored)) (int, error) {
	subject := "$JS.API.DIRECT.GET." + stream
	q.MaxBytes = readBytes
	data, err := json.Marshal(q)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", stream, err)
	}
	sub, err := d.nc.SubscribeSync(d.nc.NewInbox())
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", stream, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // closed with the connection at the latest
	if err := d.nc.PublishRequest(subject, sub.Subject, data); err != nil {
		return 0, fmt.Errorf("read %s: %w", stream, err)
	}
	for n := 0; ; n++ {
		msg, err := d.next(ctx, subject, sub)
		if errors.Is(err, nats.ErrNoResponders) {
			return n, fmt.Errorf("the stream %s allows no direct get: nats stream edit %s --allow-direct: %w", stream, stream, err)
		}
		if err != nil {
			return n, fmt.Errorf("read %s: %w", stream, err)
		}
		switch status := msg.Header.Get("Status"); status {
		case "": // a message
		case "204", "404":
			return n, nil
		default:
			return n, fmt.Errorf("read %s: the server answered %s %s", stream, status, msg.Header.Get("Description"))
		}
		visit(asStored(msg))
	}
}

// next is the next answer to a direct get.
func (d *door) next(ctx context.Context, subject string, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, done := d.await(ctx, subject, d.patience)
	defer done()
	msg, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		return nil, cause(ctx, err)
	}
	return msg, nil
}

func asStored(msg *nats.Msg) *stored {
	m := &stored{subject: msg.Header.Get(jetstream.SubjectHeader), header: msg.Header, data: msg.Data}
	m.seq, _ = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)     // the server's own
	m.time, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // the server's own
	return m
}

// lastOf reads the last message of each subject and hands those that exist to
// visit, in no order.
func (d *door) lastOf(ctx context.Context, stream string, subjects []string, visit func(*stored)) error {
	for len(subjects) > 0 {
		chunk := subjects[:min(len(subjects), readSubjects)]
		subjects = subjects[len(chunk):]
		left := make(map[string]bool, len(chunk))
		for _, s := range chunk {
			left[s] = true
		}
		for len(left) > 0 { // again, where the server ended it because of the size
			names := make([]string, 0, len(left))
			for s := range left {
				names = append(names, s)
			}
			n, err := d.direct(ctx, stream, question{MultiLast: names}, func(m *stored) {
				delete(left, m.subject)
				visit(m)
			})
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
	}
	return nil
}
