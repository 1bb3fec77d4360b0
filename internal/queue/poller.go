package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// The numbers of pulling.
const (
	// pullExpires is how long the server keeps a pull that found nothing. Short,
	// because a pull answer is the proof of life that readiness rests on.
	pullExpires = 5 * time.Second
	// pullLost is how long after its expiry an unanswered pull counts as lost.
	pullLost = 3 * time.Second
	// pullDoubt is how long after it was sent a pull of a queue with a backlog, which
	// is answered at once, is made anew: a consumer that is being deleted swallows
	// the pulls of that moment.
	pullDoubt = time.Second
	// pullBytes is how much the pulls under way may bring at once, in bytes, but for one
	// job: a server cuts off whoever has more than 64 MiB to take (its max_pending).
	pullBytes = 32 << 20
	// pollEvery is the pause between looks at an empty queue where there are too
	// few slots to leave a pull standing at every queue.
	pollEvery = 50 * time.Millisecond
	// pullHold is how long free slots wait for the answer to a pull of a queue with
	// a backlog, so that its weight counts.
	pullHold = 250 * time.Millisecond
	// firstRetry and lastRetry bound the growing pause after a failed pull.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
	// drainTimeout bounds the wait for the server at a stop.
	drainTimeout = 2 * time.Second
	// rebindAfter is how long pulls of a queue must have failed before its streams
	// and consumer are made where they are missing. Not at once: a server builds
	// a stream that it is still deleting on what is left of the old one, and the
	// new one then takes no message.
	rebindAfter = 500 * time.Millisecond
	// rebindTimeout bounds one try to find or create a lost consumer.
	rebindTimeout = 2 * time.Second
)

// endReason is why a pull ended before it was filled.
type endReason int

const (
	endEmpty   endReason = iota // the server has no more for now
	endBusy                     // other workers' pulls are first in line
	endLost                     // no answer at all
	endRefused                  // the server refused it: see err
	endFull                     // the next job is more than the pull may still bring
)

// poller pulls for one queue. It belongs to the owner of its source.
type poller struct {
	source *Source
	queue  Weighted
	prefix string // of the job subjects, up to the id
	next   string // the API subject of a pull
	inlet  *inlet

	share    int       // smooth weighted round robin
	heard    bool      // there was an answer through this inlet
	backlog  bool      // the server had more when last heard of
	pull     pull      // the one under way; zero when none is
	pulls    uint64    // numbers the pulls
	answered time.Time // the last good answer
	failing  time.Time // the first of the failures since
	retryAt  time.Time // not before
	retries  int
	huge     bool // the next job is more than a pull may bring
	// rebinding tells that the consumer is being looked for.
	rebinding bool
}

// pull is a request for jobs that is under way.
type pull struct {
	id    string    // the last token of its reply subject; "" means none
	open  int       // jobs it may still bring
	came  bool      // it has brought some
	until time.Time // when it counts as lost
	hold  time.Time // until when other queues wait for it
	doubt time.Time // when it is made anew unless there was an answer; zero for never
}

// inlet is where the answers to a poller's pulls arrive. It only sends to the
// owner. A server drops the pulls of an inlet that is closed.
type inlet struct {
	poller  *poller
	subject string
	sub     *nats.Subscription
	closed  chan struct{} // closed after the last message
}

func newPoller(s *Source, q Weighted) *poller {
	subjects := s.cfg.Layout.Subjects
	return &poller{
		source: s, queue: q,
		prefix: subjects.Job(q.Name, ""),
		next:   "$JS.API.CONSUMER.MSG.NEXT." + subjects.JobsStream() + "." + ConsumerName(q.Name),
	}
}

// open gives the poller a new inlet and gives up the old one with its pull.
func (p *poller) open() error {
	in := &inlet{poller: p, subject: p.source.cfg.Conn.NewInbox(), closed: make(chan struct{})}
	sub, err := p.source.cfg.Conn.Subscribe(in.subject+".*", in.receive)
	if err != nil {
		return fmt.Errorf("subscribe for queue %s: %w", p.queue.Name, err)
	}
	in.sub = sub
	sub.SetClosedHandler(func(string) { close(in.closed) })
	if err := sub.SetPendingLimits(-1, -1); err != nil { // the slots are the limit
		return fmt.Errorf("subscribe for queue %s: %w", p.queue.Name, err)
	}
	p.close()
	p.inlet = in
	p.source.inlets = append(p.source.inlets, in)
	p.finish()
	p.heard, p.retryAt = false, time.Time{}
	return nil
}

// close unsubscribes; the inlet is closed when what was under way has arrived.
func (p *poller) close() {
	if p.inlet == nil {
		return
	}
	// Drain fails only where nothing can arrive: the connection or the
	// subscription is closed, and so will be the inlet.
	_ = p.inlet.sub.Drain()
}

// receive runs on the subscription's goroutine.
func (in *inlet) receive(msg *nats.Msg) {
	source := in.poller.source
	in.pass(msg)
	if source.cfg.Quiet == nil {
		return
	}
	// The message that is being handled counts. Where the subscription is closed
	// none comes after it.
	if more, _, err := msg.Sub.Pending(); more <= 1 || err != nil {
		source.cfg.Quiet() // last: what it sends is mostly written before anybody else runs
	}
}

// pass tells the owner of a message.
func (in *inlet) pass(msg *nats.Msg) {
	p := in.poller
	if status := msg.Header.Get("Status"); status != "" && len(msg.Data) == 0 && msg.Reply == "" {
		p.source.tell(p.status(msg, msg.Subject[len(in.subject)+1:]))
		return
	}
	d, pending, err := newDelivery(p.source.cfg.Conn, p.queue.Name, p.prefix, msg)
	if err != nil {
		p.source.tell(ended{poller: p, reason: endRefused, err: err})
		return
	}
	if p.source.cfg.Arrived != nil {
		p.source.cfg.Arrived(d)
	}
	p.source.tell(arrived{inlet: in, d: d, pending: pending})
}

// status reads the server's word on a pull.
func (p *poller) status(msg *nats.Msg, pull string) ended {
	e := ended{poller: p, pull: pull}
	status, description := msg.Header.Get("Status"), msg.Header.Get("Description")
	switch {
	case status == "404", status == "408" && description == "Request Timeout":
		e.reason = endEmpty
	case status == "408": // "Requests Pending"
		e.reason = endBusy
	case status == "409" && description == "Message Size Exceeds MaxBytes":
		e.reason = endFull
	default: // 409 consumer deleted, leadership change; 503 no responders; 400 bad request
		e.reason, e.err = endRefused, fmt.Errorf("the server answered %s %s", status, description)
	}
	return e
}

// count notes an arrival.
func (p *poller) count(in *inlet, pending uint64) {
	p.good()
	if in != p.inlet {
		return // of a pull that was given up
	}
	p.backlog, p.pull.doubt, p.pull.came = pending > 0, time.Time{}, true
	if p.pull.open--; p.pull.open <= 0 {
		p.finish()
	}
}

// end notes that a pull ended.
func (p *poller) end(ctx context.Context, e ended) {
	if e.pull != "" && e.pull != p.pull.id {
		return // of a pull that was given up
	}
	came := p.pull.came
	p.finish()
	switch e.reason {
	case endFull:
		p.good()
		p.backlog, p.huge = true, !came
	case endEmpty:
		p.good()
		p.backlog = false
		if p.source.rotating() {
			p.retryAt = time.Now().Add(pollEvery)
		}
	case endBusy:
		p.good()
		p.retryAt = time.Now().Add(pollEvery / 5)
	case endLost, endRefused:
		p.fail(ctx, e)
	}
}

// fail makes good what can be made good, and waits before the next pull.
func (p *poller) fail(ctx context.Context, e ended) {
	conn, now := p.source.cfg.Conn, time.Now()
	if p.retries == 0 {
		p.failing = now
	}
	p.retryAt = now.Add(min(firstRetry<<min(p.retries, 10), lastRetry))
	p.retries++
	p.heard, p.backlog = true, false
	p.source.note()
	if ctx.Err() != nil || !conn.IsConnected() {
		return // stopping, or the connection comes back by itself
	}
	p.source.cfg.Logger.WarnContext(ctx, "pull failed", "queue", p.queue.Name, "err", e.err)
	if e.reason == endLost { // a half-open connection: the server does not hear us
		if err := conn.ForceReconnect(); err != nil {
			p.source.cfg.Logger.WarnContext(ctx, "reconnect failed", "err", err)
		}
		return
	}
	if now.Sub(p.failing) < rebindAfter {
		return
	}
	p.rebinding = true
	p.source.binding.Go(func() { // ends within rebindTimeout; Run waits for it
		ctx, cancel := context.WithTimeout(ctx, rebindTimeout)
		defer cancel()
		_, err := p.source.cfg.Layout.Ensure(ctx, p.source.cfg.JS, []string{p.queue.Name})
		p.source.tell(bound{poller: p, err: err})
	})
}

// bound notes the end of a try to bind the consumer again.
func (p *poller) bound(ctx context.Context, err error) {
	p.rebinding = false
	if err != nil && ctx.Err() == nil {
		p.source.cfg.Logger.WarnContext(ctx, "consumer could not be bound again", "queue", p.queue.Name, "err", err)
	}
}

// finish frees the slots that the pull did not fill.
func (p *poller) finish() { p.pull = pull{} }

// request sends a pull for n jobs.
func (p *poller) request(ctx context.Context, n int, wait time.Duration) {
	at("before pull")
	p.pulls++
	limit := p.source.room()
	if p.huge {
		n, limit, p.huge = 1, 0, false
	}
	now := time.Now()
	p.pull = pull{id: strconv.FormatUint(p.pulls, 10), open: n, until: now.Add(wait + p.source.lost)}
	if wait == 0 {
		p.pull.hold = now.Add(p.source.hold)
	}
	if p.backlog {
		p.pull.doubt = now.Add(p.source.doubt)
	}
	// no_wait with an expiry: the server waits for the first job, sends what
	// there is and ends the pull, so that no slot stands idle behind it.
	body, err := json.Marshal(pullRequest{Batch: n, NoWait: true, Expires: wait, MaxBytes: limit})
	if err == nil {
		err = p.source.cfg.Conn.PublishRequest(p.next, p.inlet.subject+"."+p.pull.id, body)
	}
	if err != nil {
		p.end(ctx, ended{poller: p, reason: endRefused, err: err})
	}
}

// pullRequest is a pull as the server wants it.
type pullRequest struct {
	Batch    int           `json:"batch"`
	NoWait   bool          `json:"no_wait"`
	Expires  time.Duration `json:"expires,omitempty"` // nanoseconds
	MaxBytes int64         `json:"max_bytes,omitempty"`
}

// subjectRoom is kept for the subjects of a message, which count for its size.
const subjectRoom = 64 << 10

// room is how many bytes one pull may bring: any message that the server takes.
func (s *Source) room() int64 {
	return max(s.pullBytes/int64(len(s.pollers)), s.cfg.Conn.MaxPayload()+s.subjectRoom)
}

// doubtful reports whether the pull should have been answered by now.
func (p pull) doubtful(now time.Time) bool { return !p.doubt.IsZero() && now.After(p.doubt) }

// renew gives up the pull under way. The next one is to be answered at once,
// jobs or not.
func (p *poller) renew(ctx context.Context) {
	p.backlog = false
	p.source.forget()
	if err := p.open(); err != nil { // closed: the next connection opens it
		p.source.cfg.Logger.WarnContext(ctx, "pull could not be made anew", "queue", p.queue.Name, "err", err)
	}
}

// good notes that the server answered as it should.
func (p *poller) good() {
	p.answered, p.retries, p.heard = time.Now(), 0, true
	p.source.note()
}

// note works out the last good answer: the newest one, or that of the queue
// which has been without one for longest.
func (s *Source) note() {
	var t time.Time
	for _, p := range s.pollers {
		if p.answered.After(t) {
			t = p.answered
		}
	}
	for _, p := range s.pollers {
		if p.retries > 0 && p.answered.Before(t) {
			t = p.answered
		}
	}
	ns := int64(0)
	if !t.IsZero() {
		ns = t.UnixNano()
	}
	s.lastGood.Store(ns)
}

// rotating tells that there are too few slots to leave one standing at each queue.
func (s *Source) rotating() bool { return len(s.pollers) > 1 && s.cfg.Slots < 4*len(s.pollers) }

// pull asks for as many jobs as there are free slots, and returns when to look
// again if nothing happens meanwhile.
func (s *Source) pull(ctx context.Context) time.Duration {
	if ctx.Err() != nil || !s.cfg.Conn.IsConnected() {
		// A pull now would be sent when the connection is back, on top of the
		// one that is made then.
		return pollEvery
	}
	if s.cfg.Paused != nil && s.cfg.Paused() {
		for _, p := range s.pollers {
			p.heard = false // the first pull afterwards is answered at once
		}
		return pollEvery
	}
	now := time.Now()
	free := s.free
	held := false
	var ready []*poller
	for _, p := range s.pollers {
		switch {
		case p.pull.id == "":
		case now.After(p.pull.until):
			p.end(ctx, ended{poller: p, reason: endLost, err: errNoAnswer})
		case p.pull.doubtful(now):
			p.renew(ctx)
		}
		switch {
		case p.pull.id != "":
			free -= p.pull.open
			held = held || (p.backlog || !p.heard) && now.Before(p.pull.hold)
		case !p.rebinding && !now.Before(p.retryAt):
			ready = append(ready, p)
		}
	}
	if !held && free > 0 && len(ready) > 0 {
		for p, n := range s.allot(ready, free) {
			p.request(ctx, n, s.patience(p))
		}
	}
	return s.look(held)
}

// patience is how long a pull for p may stand at the server: not at all where
// other queues could use its slots, or wait for its answer.
func (s *Source) patience(p *poller) time.Duration {
	if s.rotating() || !p.heard || len(s.pollers) > 1 && p.backlog {
		return 0
	}
	return s.expires
}

// look returns when to look again if nothing happens meanwhile.
func (s *Source) look(held bool) time.Duration {
	now := time.Now()
	look := s.expires
	for _, p := range s.pollers {
		switch {
		case p.pull.id != "":
			look = min(look, p.pull.until.Sub(now))
			if !p.pull.doubt.IsZero() {
				look = min(look, p.pull.doubt.Sub(now))
			}
			if held && p.pull.hold.After(now) {
				look = min(look, p.pull.hold.Sub(now))
			}
		case p.retryAt.After(now):
			look = min(look, p.retryAt.Sub(now))
		}
	}
	return max(look, 0) + time.Millisecond
}

// errNoAnswer is the failure of a pull that the server never answered.
var errNoAnswer = errors.New("the server did not answer a pull")

// allot shares the free slots among the pollers by smooth weighted round robin.
// A queue without a known backlog gets one slot, while there are others.
func (s *Source) allot(ready []*poller, free int) map[*poller]int {
	got := make(map[*poller]int, len(ready))
	for ; free > 0; free-- {
		var best *poller
		total := 0
		for _, p := range ready {
			if len(s.pollers) > 1 && !p.backlog && got[p] > 0 {
				continue
			}
			p.share += p.queue.Weight
			total += p.queue.Weight
			if best == nil || p.share > best.share {
				best = p
			}
		}
		if best == nil {
			break
		}
		best.share -= total
		got[best]++
	}
	return got
}
