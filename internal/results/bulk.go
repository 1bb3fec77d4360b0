package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The numbers of reading for many jobs at once.
const (
	// bulkMost is how many subjects one request asks for. The server answers for at
	// most 1,024; beyond some dozens a bigger request costs no less per subject.
	bulkMost = 64
	// bulkAsk is how many bytes of subjects one request asks for: each may take six
	// times as much in the request, which has to fit a message.
	bulkAsk = 64 << 10
	// bulkBytes is how much the server may send for one request, so that many big
	// results do not come at once. What is left out is read by itself.
	bulkBytes = 8 << 20
	// bulkTimeout bounds the wait for the answer to one request.
	bulkTimeout = 2 * time.Second
	// bulkProbe bounds the first one, which a server that is not asked for it in
	// its permissions never answers.
	bulkProbe = time.Second
	// bulkCheck is how often it is looked at whether the stream can be asked in bulk.
	bulkCheck = time.Minute
)

// errNotBulk says that a subject must be read by itself.
var errNotBulk = errors.New("not read in bulk")

// bulk finds the last messages of subjects for many askers with few requests: one
// is under way at a time, and who asks meanwhile shares the next.
//
// It uses a direct get, which a stream answers wherever it is. So it is used only
// for a stream with one copy: of several, one that lags behind would say that
// there is no result yet. Where it cannot be used, for that or because the server
// or a permission is older, every question ends with errNotBulk.
type bulk struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	name  string // of the stream
	inbox string
	// silent is the number of the connection, from 1, on which a probe had no answer.
	silent atomic.Int64

	mu      sync.Mutex // guards the rest
	usable  bool
	waiting []*question
	busy    bool // a round is under way, or about to be
	rounds  uint64
	asked   []*question // of the round under way
	left    int         // messages the round will still bring; -1 when not known
	timeout *time.Timer // of the round under way; used again
	began   time.Time   // that round
}

// question is one subject that somebody asks for.
type question struct {
	subject string
	answer  chan answer // takes one without blocking
}

// answer is the last message of a subject, nil when there is none.
type answer struct {
	msg *jetstream.RawStreamMsg
	err error
}

// newBulk returns a bulk over a stream, and why it cannot be used for now. It costs a
// subscription, which ends with nc.
func newBulk(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, name string) (*bulk, error) {
	b := &bulk{nc: nc, js: js, name: name, inbox: nc.NewInbox()}
	if _, err := nc.Subscribe(b.inbox+".*", b.receive); err != nil {
		return nil, fmt.Errorf("subscribe for reads of stream %s: %w", name, err)
	}
	return b, b.check(ctx)
}

// check looks at the stream, and asks it something where that may be. It returns why
// it cannot be asked in bulk.
func (b *bulk) check(ctx context.Context) error {
	if connection := int64(b.nc.Stats().Reconnects); b.silent.Load() == connection+1 { // it would only be refused again
		return errNotBulk
	}
	err := b.try(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.usable = err == nil
	return err
}

// try is the work of check.
func (b *bulk) try(ctx context.Context) error {
	stream, err := b.js.Stream(ctx, b.name)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", b.name, err)
	}
	switch info := stream.CachedInfo(); {
	case !info.Config.AllowDirect:
		return fmt.Errorf("stream %s does not allow direct gets", b.name)
	case info.Config.Replicas > 1, len(info.Alternates) > 0, // alternates are mirrors, which answer too
		info.Cluster != nil && len(info.Cluster.Replicas) > 0: // it is being moved
		return fmt.Errorf("stream %s has more than one copy", b.name)
	}
	ctx, cancel := context.WithTimeout(ctx, bulkProbe)
	defer cancel()
	body, err := bulkRequest([]string{b.name}) // is nobody's subject
	if err != nil {
		return err
	}
	msg, err := b.nc.RequestWithContext(ctx, b.subject(), body)
	switch {
	case err != nil:
		b.silent.Store(int64(b.nc.Stats().Reconnects) + 1)
		return fmt.Errorf("a direct get of stream %s has no answer, maybe for want of permission: %w", b.name, err)
	case msg.Header.Get("Status") != "404": // 408: a server before 2.11
		return fmt.Errorf("the server cannot answer for many subjects at once: %s %s", msg.Header.Get("Status"), msg.Header.Get("Description"))
	}
	return nil
}

func (b *bulk) subject() string { return "$JS.API.DIRECT.GET." + b.name }

// bulkRequest encodes the request for the last messages of subjects.
func bulkRequest(subjects []string) ([]byte, error) {
	return json.Marshal(struct {
		Subjects []string `json:"multi_last"`
		MaxBytes int      `json:"max_bytes"`
	}{subjects, bulkBytes})
}

// ask hands in a question, whose answer comes within bulkTimeout or so. It waits for
// nothing but to be written.
func (b *bulk) ask(subject string) *question {
	q := &question{subject, make(chan answer, 1)}
	b.mu.Lock()
	if !b.usable {
		b.mu.Unlock()
		q.answer <- answer{err: errNotBulk}
		return q
	}
	b.waiting = append(b.waiting, q)
	first := !b.busy
	b.busy = true
	b.mu.Unlock()
	if first {
		runtime.Gosched() // jobs come in bursts: the others of this one can ask too
		b.mu.Lock()
		b.next()
		b.mu.Unlock()
	}
	return q
}

// wait returns the answer to q.
func (q *question) wait(ctx context.Context) (*jetstream.RawStreamMsg, error) {
	select {
	case a := <-q.answer:
		return a.msg, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// next starts a round for those who wait. b.mu is held.
func (b *bulk) next() {
	b.busy = len(b.waiting) > 0
	if !b.busy {
		return
	}
	n, size := 0, 0
	for n < min(len(b.waiting), bulkMost) && (n == 0 || size+len(b.waiting[n].subject) <= bulkAsk) {
		size += len(b.waiting[n].subject)
		n++
	}
	b.asked, b.waiting, b.left = b.waiting[:n:n], b.waiting[n:], -1
	b.rounds++
	round := b.rounds
	subjects := make([]string, n)
	for i, q := range b.asked {
		subjects[i] = q.subject
	}
	slices.Sort(subjects)
	// Once each: servers before 2.15 can leave another's message out otherwise.
	subjects = slices.Compact(subjects)
	body, err := bulkRequest(subjects)
	if err == nil {
		err = b.nc.PublishRequest(b.subject(), b.inbox+"."+strconv.FormatUint(round, 10), body)
	}
	if err != nil {
		b.fail()
		return
	}
	b.began = time.Now()
	if b.timeout == nil {
		b.timeout = time.AfterFunc(bulkTimeout, b.expire)
		return
	}
	b.timeout.Reset(bulkTimeout)
}

// expire gives up a round that has no answer.
func (b *bulk) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked != nil && time.Since(b.began) >= bulkTimeout { // else it is of a round before
		b.fail()
	}
}

// fail ends the round under way without answers, and goes on without bulk reads
// until the next check. b.mu is held.
func (b *bulk) fail() {
	b.usable = false
	b.waiting, b.asked = nil, append(b.asked, b.waiting...)
	b.end(errNotBulk)
}

// end ends the round under way: what is not answered yet gets err, and nothing
// where that is nil. b.mu is held.
func (b *bulk) end(err error) {
	if b.timeout != nil {
		b.timeout.Stop()
	}
	for _, q := range b.asked {
		select {
		case q.answer <- answer{err: err}:
		default: // it has its answer
		}
	}
	b.asked = nil
	b.next()
}

// receive takes a message of the server. It runs on the subscription's goroutine.
func (b *bulk) receive(msg *nats.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == nil || msg.Subject[len(b.inbox)+1:] != strconv.FormatUint(b.rounds, 10) {
		return // of a round that was given up
	}
	if told(msg, jetstream.SubjectHeader) != "" { // first: anybody may store a message that looks like a status
		b.found(msg)
		return
	}
	switch status, description := msg.Header.Get("Status"), msg.Header.Get("Description"); {
	case status == "404" && description == "No Results", status == "204" && b.left == 0:
		b.end(nil)
	case status == "204": // a message was lost on the way, or the server broke off at bulkBytes
		b.end(errNotBulk)
	default:
		b.fail()
	}
}

// found hands a message to whoever asked for it. b.mu is held.
func (b *bulk) found(msg *nats.Msg) {
	left, err := strconv.Atoi(told(msg, "Nats-Num-Pending"))
	seq, seqErr := strconv.ParseUint(told(msg, jetstream.SequenceHeader), 10, 64)
	if err != nil || seqErr != nil || b.left >= 0 && left != b.left-1 {
		b.fail()
		return
	}
	b.left = left
	subject := told(msg, jetstream.SubjectHeader)
	found := &jetstream.RawStreamMsg{Subject: subject, Sequence: seq, Header: msg.Header, Data: msg.Data}
	for _, q := range b.asked {
		if q.subject != subject {
			continue
		}
		select {
		case q.answer <- answer{msg: found}:
		default:
		}
	}
}

// told is what the server says of a message in a header. It adds that behind the
// headers the message was stored with, which may have the same name.
func told(msg *nats.Msg, header string) string {
	values := msg.Header.Values(header)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
