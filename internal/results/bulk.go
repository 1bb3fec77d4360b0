package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// bulkProbe bounds the first one, which a server never answers whose permissions
	// forbid it.
	bulkProbe = 3 * time.Second
	// bulkProbes is how many probes on one connection may have no answer before that is
	// taken for want of permission: a busy server leaves one or two without.
	bulkProbes = 3
	// bulkCheck is how often it is looked at whether the streams can be asked in bulk.
	bulkCheck = time.Minute
)

// errNotBulk says that a subject must be read by itself.
var errNotBulk = errors.New("not read in bulk")

// bulk finds the last messages of subjects in some streams for many askers with few
// requests: one to each stream is under way at a time, and who asks meanwhile shares
// the next.
//
// It uses a direct get, which a stream answers wherever it is. So it is used only
// for streams with one copy: of several, one that lags behind would say that
// there is no result yet. Where it cannot be used, for that or because the server
// or a permission is older, every question ends with errNotBulk.
type bulk struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	streams [bulkStreams]string // their names
	inbox   string              // of the answers: then the stream's place, then the round's number
	// probeWait and roundWait are bulkProbe and bulkTimeout.
	probeWait, roundWait time.Duration
	// heard is the number of the last connection, from 1, on which a probe had an answer.
	heard atomic.Uint64

	mu      sync.Mutex // guards the rest
	silent  silence
	usable  bool
	waiting []*question
	rounds  uint64
	asked   []*question       // of the round under way; none while there is none
	parts   [bulkStreams]part // of it
	began   time.Time         // that round
	on      uint64            // the number of the connection then
	timeout *time.Timer       // looks after rounds; see watch
	watched bool              // timeout is running
}

// bulkStreams is how many streams are asked together.
const bulkStreams = 2

// part is the answer of one stream in a round.
type part struct {
	last  uint64 // the sequence of the last message it brought; 0 before
	left  int    // messages it will still bring; -1 when not known
	ended bool
}

// question is a subject in each stream that somebody asks for.
type question struct {
	subjects [bulkStreams]string
	answers  [bulkStreams]answer // once done is told
	done     chan struct{}       // takes one without blocking
}

// answer is the last message of a subject, nil when there is none.
type answer struct {
	msg *jetstream.RawStreamMsg
	err error // errNotBulk
}

// newBulk returns a bulk over streams, and why it cannot be used for now. It costs a
// subscription, which ends with nc.
func newBulk(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, streams [bulkStreams]string) (*bulk, error) {
	b := &bulk{nc: nc, js: js, streams: streams, inbox: nc.NewInbox(), probeWait: bulkProbe, roundWait: bulkTimeout}
	if _, err := nc.Subscribe(b.inbox+".*.*", b.receive); err != nil {
		return nil, fmt.Errorf("subscribe for reads of streams %v: %w", streams, err)
	}
	return b, b.check(ctx)
}

// directGet is the API's subject for direct gets of a stream, up to its name.
const directGet = "$JS.API.DIRECT.GET."

// bulkRequest encodes the request for the last messages of subjects.
func bulkRequest(subjects []string) ([]byte, error) {
	return json.Marshal(struct {
		Subjects []string `json:"multi_last"`
		MaxBytes int      `json:"max_bytes"`
	}{subjects, bulkBytes})
}

// ask hands in a question, which is sent by the next send, or by the end of the
// round under way. Its answer comes within bulkTimeout or so after that. Like send
// and wait it may stand behind a write to the connection, at most until its write
// deadline.
func (b *bulk) ask(subjects [bulkStreams]string) *question {
	q := &question{subjects: subjects, done: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.usable {
		b.waiting = append(b.waiting, q)
	} else {
		q.giveUp()
	}
	return q
}

// send sends the questions that wait, unless a round is under way: its end does.
func (b *bulk) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		b.next()
	}
}

// giveUp answers that q was not read in bulk.
func (q *question) giveUp() {
	for i := range q.answers {
		q.lack(i, errNotBulk)
	}
	q.done <- struct{}{}
}

// lack says why the stream i gave no message, unless it gave one.
func (q *question) lack(i int, err error) {
	if q.answers[i].msg == nil {
		q.answers[i].err = err
	}
}

// wait waits for the answers to q, and sends it where nobody has. It is called once.
func (b *bulk) wait(ctx context.Context, q *question) error {
	b.send()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-q.done: // at the same moment
		return nil
	default:
		return context.Cause(ctx)
	}
}

// next starts a round for those who wait. b.mu is held.
func (b *bulk) next() {
	switch {
	case len(b.waiting) == 0:
		return
	case !b.usable: // since they asked
		b.fail()
		return
	}
	n, size := 0, 0
	for n < min(len(b.waiting), bulkMost) {
		more := 0 // of the stream with the longer subject
		for _, subject := range b.waiting[n].subjects {
			more = max(more, len(subject))
		}
		if size += more; n > 0 && size > bulkAsk {
			break
		}
		n++
	}
	b.asked = append(b.asked, b.waiting[:n]...)
	b.waiting = slices.Delete(b.waiting, 0, n)
	b.rounds++
	b.began, b.on = time.Now(), b.connection()
	for i := range b.parts { // all of them first: fail looks at each
		b.parts[i] = part{left: -1}
	}
	for i := range b.parts {
		if b.request(i) != nil {
			b.fail()
			return
		}
	}
	b.watch()
}

// request asks the stream i for what the round is about. b.mu is held.
func (b *bulk) request(i int) error {
	subjects := make([]string, len(b.asked))
	for j, q := range b.asked {
		subjects[j] = q.subjects[i]
	}
	slices.Sort(subjects)
	// Once each: servers before 2.15 can leave another's message out otherwise.
	body, err := bulkRequest(slices.Compact(subjects))
	if err != nil {
		return err
	}
	return b.nc.PublishRequest(directGet+b.streams[i], b.reply(i, b.rounds), body)
}

// reply is where the stream i answers in a round.
func (b *bulk) reply(i int, round uint64) string {
	return b.inbox + "." + strconv.Itoa(i) + "." + strconv.FormatUint(round, 10)
}

// watch sees to it that a round without an answer is given up. One timer goes on
// over many rounds: to set it for each would wake the scheduler. b.mu is held.
func (b *bulk) watch() {
	switch {
	case b.watched:
		return
	case b.timeout == nil:
		b.timeout = time.AfterFunc(b.roundWait, b.expire)
	default:
		b.timeout.Reset(b.roundWait)
	}
	b.watched = true
}

// expire gives up a round that has no answer.
func (b *bulk) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watched = false
	if len(b.asked) == 0 {
		return
	}
	if left := b.roundWait - time.Since(b.began); left > 0 { // it began while the timer was running
		b.timeout.Reset(left)
		b.watched = true
		return
	}
	if b.on == b.connection() {
		b.fail()
		return
	}
	b.close() // it went with its connection: nothing is wrong
	b.next()
}

// fail ends the round under way, and goes on without bulk reads until the next
// check. b.mu is held.
func (b *bulk) fail() {
	b.usable = false
	b.close()
	for _, q := range b.waiting {
		q.giveUp()
	}
	b.waiting = slices.Delete(b.waiting, 0, len(b.waiting))
}

// close ends the round under way. What is missing of a part that has not ended is not
// known to be absent. b.mu is held.
func (b *bulk) close() {
	for _, q := range b.asked {
		for i, p := range b.parts {
			if !p.ended {
				q.lack(i, errNotBulk)
			}
		}
		q.done <- struct{}{}
	}
	b.asked = slices.Delete(b.asked, 0, len(b.asked))
}

// end ends the part i of the round: what is not found gets err, and nothing where
// that is nil. With its last part the round ends. b.mu is held.
func (b *bulk) end(i int, err error) {
	b.parts[i].ended = true
	for _, q := range b.asked {
		q.lack(i, err)
	}
	for _, p := range b.parts {
		if !p.ended {
			return
		}
	}
	b.close()
	b.next()
}

// receive takes a message of the server. It runs on the subscription's goroutine.
func (b *bulk) receive(msg *nats.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.place(msg.Subject)
	if i < 0 {
		return // of a round that was given up
	}
	if told(msg, jetstream.SubjectHeader) != "" { // first: anybody may store a message that looks like a status
		b.found(i, msg)
		return
	}
	switch status, description := msg.Header.Get("Status"), msg.Header.Get("Description"); {
	case status == "404" && description == "No Results", status == "204" && b.parts[i].left == 0:
		b.end(i, nil)
	case status == "204": // a message was lost on the way, or the server broke off at bulkBytes
		b.end(i, errNotBulk)
	default:
		b.fail()
	}
}

// place is the stream whose part of the round under way arrives at subject, -1 when
// there is none. b.mu is held.
func (b *bulk) place(subject string) int {
	if len(b.asked) > 0 {
		for i, p := range b.parts {
			if !p.ended && subject == b.reply(i, b.rounds) {
				return i
			}
		}
	}
	return -1
}

// found notes a message of the stream i for whoever asked for it. Each message says
// what came before it and how many come after it: of an answer that is not whole,
// what is missing is not known to be absent. b.mu is held.
func (b *bulk) found(i int, msg *nats.Msg) {
	p := &b.parts[i]
	left, err := strconv.Atoi(told(msg, "Nats-Num-Pending"))
	seq, seqErr := strconv.ParseUint(told(msg, jetstream.SequenceHeader), 10, 64)
	before, beforeErr := strconv.ParseUint(told(msg, "Nats-Last-Sequence"), 10, 64)
	if errors.Join(err, seqErr, beforeErr) != nil || before != p.last || p.left >= 0 && left != p.left-1 {
		b.fail()
		return
	}
	p.left, p.last = left, seq
	subject := told(msg, jetstream.SubjectHeader)
	found := &jetstream.RawStreamMsg{Subject: subject, Sequence: seq, Header: msg.Header, Data: msg.Data}
	for _, q := range b.asked {
		if q.subjects[i] == subject {
			q.answers[i].msg = found
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
