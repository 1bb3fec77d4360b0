package main

import (
	"strings"
	"sync"
	"time"
)

// moment is something of a job that can be seen from outside the worker: on the
// wire to the server, or at the provider.
type moment int

// The moments of a job, in order.
const (
	published moment = iota // by the driver
	delivered               // the job leaves for the worker
	asked                   // the worker asks what is known of the job
	told                    // the last answer to that leaves for the worker
	called                  // the provider has the request's head
	answered                // the provider writes its answer
	committed               // the result arrives
	stored                  // the stream's word on it leaves for the worker
	settled                 // the ack arrives
	released                // the answer to it leaves for the worker
	pulled                  // the next pull arrives
	moments
)

// span is the time between two moments of a job.
type span struct {
	Name string  `json:"name"`
	At   string  `json:"at"` // whose time it is: its own, the server's, the provider's
	P50  float64 `json:"p50_us"`

	from, to moment
}

// Whose time a span is.
const (
	atServer   = "server"
	atOwn      = "own" // the worker's, or the loop's
	atProvider = "provider"
)

// spans are the spans of a job, in order, without times. Neighbours meet, so that
// their sum is the whole job.
func spans() []span {
	return []span{
		{Name: "publish, deliver", At: atServer, from: published, to: delivered},
		{Name: "pull: take the delivery, lease, ask", At: atOwn, from: delivered, to: asked},
		{Name: "answer what is known of it", At: atServer, from: asked, to: told},
		{Name: "decode, plan, candidate, breaker, send", At: atOwn, from: told, to: called},
		{Name: "call", At: atProvider, from: called, to: answered},
		{Name: "read, classify, record, emit, encode", At: atOwn, from: answered, to: committed},
		{Name: "commit", At: atServer, from: committed, to: stored},
		{Name: "last event, count, log, reply", At: atOwn, from: stored, to: settled},
		{Name: "ack", At: atServer, from: settled, to: released},
		{Name: "free the slot, pull again", At: atOwn, from: released, to: pulled},
	}
}

// life is when the moments of one job were.
type life [moments]time.Time

// recorder sees the moments of one job at a time.
type recorder struct {
	ended chan struct{} // told when a job's ack is answered and its slot has asked for the next one

	mu      sync.Mutex // guards the rest
	now     life
	running bool
	answers map[string]moment // by the subject of the answer
	lives   []life
	sent    int // messages from the client, of all jobs
	got     int // messages to it
}

func newRecorder() *recorder {
	return &recorder{ended: make(chan struct{}, 1), answers: make(map[string]moment)}
}

// begin begins a job, just before it is published.
func (r *recorder) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.running = life{published: time.Now()}, true
}

// mark notes a moment of the job that runs.
func (r *recorder) mark(m moment) { r.note(m, time.Now()) }

func (r *recorder) note(m moment, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(m, at)
}

// set notes the first time of a moment, or the last of an answer that comes in
// parts. The lock is held.
func (r *recorder) set(m moment, at time.Time) {
	if r.running && (r.now[m].IsZero() || m == told && r.now[called].IsZero()) {
		r.now[m] = at
	}
}

// tell takes a message on the wire.
func (r *recorder) tell(f frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running {
		return
	}
	defer r.end()
	if !f.published {
		r.got++
		m, awaited := r.answers[f.subject]
		switch {
		case strings.HasPrefix(f.reply, "$JS.ACK."):
			r.set(delivered, f.at)
		case awaited:
			r.set(m, f.at)
		}
		return
	}
	r.sent++
	switch subject := f.subject; {
	case strings.HasPrefix(subject, "$JS.API.CONSUMER.MSG.NEXT."):
		if !r.now[delivered].IsZero() { // else it is the one that waits for this job
			r.set(pulled, f.at)
		}
	case strings.HasPrefix(subject, "$JS.API.") && strings.Contains(subject, ".GET."):
		r.set(asked, f.at)
		r.answers[f.reply] = told
	case strings.HasPrefix(subject, resultsPrefix):
		r.set(committed, f.at)
		r.answers[f.reply] = stored
	case strings.HasPrefix(subject, "$JS.ACK."):
		r.set(settled, f.at)
		r.answers[f.reply] = released
	}
}

// end ends the job when its ack was answered and its slot has asked for the next
// one, whichever comes first. The lock is held.
func (r *recorder) end() {
	if r.now[released].IsZero() || r.now[pulled].IsZero() {
		return
	}
	r.lives = append(r.lives, r.now)
	r.running = false
	clear(r.answers)
	r.ended <- struct{}{}
}

// medians are the spans with their medians over the jobs, in microseconds. A
// moment that a job does not have, of a loop that asks nothing say, is where the
// one before was: its span is 0. So is that of a slot that asked for the next job
// before the ack was answered.
func medians(lives []life) []span {
	all := spans()
	for i := range all {
		var took []float64
		for _, l := range lives {
			d := l.when(all[i].to).Sub(l.when(all[i].from))
			took = append(took, max(float64(d)/float64(time.Microsecond), 0))
		}
		all[i].P50 = median(took)
	}
	return all
}

// when is when a moment was, or the last one before it.
func (l life) when(m moment) time.Time {
	for ; m > 0 && l[m].IsZero(); m-- {
	}
	return l[m]
}
