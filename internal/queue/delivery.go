package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"understudy/internal/job"
)

// Delivery is one job handed to this worker, with its lease. It is settled once,
// by [Delivery.Ack] or [Delivery.Return]; its methods are safe for concurrent use.
type Delivery struct {
	// Queue and ID are the job's address; ID may be malformed.
	Queue, ID string
	// Seq is the job's sequence in the jobs stream.
	Seq uint64
	// Published is when the stream stored the job, by the server's clock.
	Published time.Time
	// Payload and Header are the job message.
	Payload []byte
	Header  job.Header
	// Begun is what [SourceConfig.Arrived] leaves for the handler.
	Begun any

	nc     *nats.Conn
	stream string  // that the job is in
	source *Source // that gave it a slot; nil before

	// settling and freed belong to the handler: the slot is free already, and the
	// job is counted among those without one.
	settling, freed bool

	mu       sync.Mutex // guards the rest
	reply    string     // where the newest delivery of this job is acknowledged
	number   int
	returned bool   // given back: what comes now is for the next to take it
	moved    func() // ends the wait for an answer at reply, once that changes; nil while there is none
}

// Number counts how often the server has handed this job out, from 1.
func (d *Delivery) Number() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.number
}

// Release says that the job is only to be settled yet, which mostly means to wait
// for the server: its slot may take the next job meanwhile. The lease is kept. Only
// the job's handler may call it.
func (d *Delivery) Release() {
	if d.source != nil {
		d.source.release(d)
	}
}

// Ack tells the server that the job is done and waits until the server has it,
// which does not prove that this worker still held the lease.
//
// A server that came back may know less of what it handed out than of what was
// acknowledged, and then answers nothing. So where no answer comes, the stream is
// asked whether the job has left it.
func (d *Delivery) Ack(ctx context.Context) error {
	err := d.settle(ctx, ackTimeout, []byte("+ACK"))
	if err != nil && d.gone(ctx) {
		return nil
	}
	return err
}

// ackTimeout and returnTimeout bound the wait for the server's answer to an ack and
// to a job that is given back.
const (
	ackTimeout    = 2 * time.Second
	returnTimeout = 5 * time.Second
)

// noMessage is the server's code for a sequence that holds no message.
const noMessage = 10037

// gone reports whether the stream says that the job has left it.
func (d *Delivery) gone(ctx context.Context) bool {
	body, err := json.Marshal(struct {
		Seq uint64 `json:"seq"`
	}{d.Seq})
	if err != nil || d.stream == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	msg, err := d.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+d.stream, body)
	if err != nil {
		return false
	}
	var answer struct {
		Error struct {
			Code int `json:"err_code"`
		} `json:"error"`
	}
	return json.Unmarshal(msg.Data, &answer) == nil && answer.Error.Code == noMessage
}

// Return gives the job back; it is handed out again after delay. It waits until
// the server has it.
func (d *Delivery) Return(ctx context.Context, delay time.Duration) error {
	d.mu.Lock()
	d.returned = true
	d.mu.Unlock()
	if delay <= 0 {
		return d.settle(ctx, returnTimeout, []byte("-NAK"))
	}
	body, err := json.Marshal(struct {
		Delay time.Duration `json:"delay"` // nanoseconds, as the server wants it
	}{delay})
	if err != nil {
		return fmt.Errorf("encode the delay: %w", err)
	}
	return d.settle(ctx, returnTimeout, append([]byte("-NAK "), body...))
}

func (d *Delivery) settle(ctx context.Context, timeout time.Duration, verb []byte) error {
	for {
		try, cancel := context.WithTimeout(ctx, timeout)
		_, err := d.nc.RequestWithContext(try, d.settleAt(cancel), verb)
		moved := errors.Is(try.Err(), context.Canceled) && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			return nil
		case !moved: // else nobody answers there any more: a consumer that was made anew does not
			return fmt.Errorf("settle job %s (%s): %w", d.ID, verb[:4], err)
		}
	}
}

// settleAt is where the job is settled; moved is called when that changes.
func (d *Delivery) settleAt(moved func()) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved = moved
	return d.reply
}

// extend prolongs the lease, unless the job was returned: that would undo the
// delay. It does not wait.
func (d *Delivery) extend() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.returned {
		return nil
	}
	return d.nc.Publish(d.reply, []byte("+WPI"))
}

func (d *Delivery) replySubject() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reply
}

// adopt takes over the lease of a newer delivery of the same job, which the
// server handed out because it had not heard from this one in time. It reports
// false when newer is not of this job, whose sequence a stream that was made
// anew can give to another one, or is what this one was returned for.
func (d *Delivery) adopt(newer *Delivery) bool {
	if newer.Queue != d.Queue || newer.ID != d.ID || !newer.Published.Equal(d.Published) {
		return false
	}
	reply, number := newer.replySubject(), newer.Number()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.returned {
		return false
	}
	d.reply, d.number = reply, number
	if d.moved != nil {
		d.moved()
	}
	return true
}

// newDelivery reads a message of the jobs stream. pending is how many more the
// server had for this consumer.
func newDelivery(nc *nats.Conn, queue, subjectPrefix string, msg *nats.Msg) (d *Delivery, pending uint64, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, 0, fmt.Errorf("read the delivery's metadata: %w", err)
	}
	if len(msg.Subject) < len(subjectPrefix) {
		return nil, 0, errors.New("the message is not of this queue")
	}
	return &Delivery{
		Queue: queue, ID: msg.Subject[len(subjectPrefix):],
		Seq: meta.Sequence.Stream, Published: meta.Timestamp,
		Payload: msg.Data, Header: job.Header(msg.Header),
		nc: nc, stream: meta.Stream, reply: msg.Reply, number: int(meta.NumDelivered),
	}, meta.NumPending, nil
}
