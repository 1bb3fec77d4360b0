package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The numbers of the bare loop; they are the worker's.
const (
	bareExpires = 5 * time.Second         // of a pull that found nothing
	bareLost    = 8 * time.Second         // when a pull without an answer is given up
	bareLease   = 7500 * time.Millisecond // between extensions of the leases
	bareEvents  = 4096                    // unanswered events
	bareTimeout = 10 * time.Second        // of a call, of a commit, of an ack
)

// bare is the least that keeps the worker's promises when nothing goes wrong:
// pulls for free slots only, leases that are extended, one HTTP request for a
// job, an event before and after it, the result stored once, then the ack that
// is waited for. It has no fallback, no breaker, no limits, no metrics, no log,
// and does not ask what happened to a job before.
type bare struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	client *http.Client
	url    string
	slots  int
	plus   bool // see bareplus.go

	freed chan string // the reply subject of a job that is done
	broke chan error
}

// runBare runs the loop until ctx is done.
func runBare(ctx context.Context, args []string, _ io.Writer) error {
	flags := flag.NewFlagSet("child-bare", flag.ContinueOnError)
	url := flags.String("nats", "", "NATS `URL`")
	provider := flags.String("provider", "", "base `URL` of the provider")
	slots := flags.Int("slots", 1, "jobs at once")
	plus := flags.Bool("plus", false, "with the worker's reads and events")
	profiles := flags.String("profiles", "", "`directory` for profiles")
	if err := flags.Parse(args); err != nil {
		return err
	}
	name := "bare"
	if *plus {
		name = "bare-plus"
	}
	stop, err := startProfiles(*profiles, name)
	if err != nil {
		return err
	}
	b := &bare{
		url: *provider + "/chat/completions", slots: *slots, plus: *plus,
		freed: make(chan string, *slots), broke: make(chan error, *slots),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *slots, DisableCompression: true}},
	}
	if b.nc, err = nats.Connect(*url); err != nil {
		return errors.Join(err, stop())
	}
	defer b.nc.Close()
	if b.js, err = jetstream.New(b.nc, jetstream.WithPublishAsyncMaxPending(bareEvents)); err != nil {
		return errors.Join(err, stop())
	}
	err = b.run(untilOrphan(ctx))
	b.client.CloseIdleConnections()
	return errors.Join(err, stop())
}

// run is the loop. One goroutine owns the slots.
func (b *bare) run(ctx context.Context) error {
	p := &pulls{inbox: b.nc.NewInbox(), running: make(map[string]struct{}, b.slots)}
	arrivals := make(chan *nats.Msg, 2*b.slots+16)
	if _, err := b.nc.ChanSubscribe(p.inbox+".*", arrivals); err != nil {
		return err
	}
	lease := time.NewTicker(bareLease)
	defer lease.Stop()
	for {
		for len(b.freed) > 0 { // then one pull for all that are free
			delete(p.running, <-b.freed)
		}
		if err := b.pull(p); err != nil {
			return err
		}
		select {
		case m := <-arrivals:
			if p.arrived(m) {
				go b.handle(ctx, m) // ends with the process
			}
		case reply := <-b.freed:
			delete(p.running, reply)
		case <-lease.C:
			for reply := range p.running {
				if err := b.nc.Publish(reply, []byte("+WPI")); err != nil {
					return err
				}
			}
		case err := <-b.broke:
			return err
		case <-ctx.Done():
			<-b.js.PublishAsyncComplete()
			return nil
		}
	}
}

// pulls are the slots of the loop and the pull under way.
type pulls struct {
	inbox   string
	running map[string]struct{} // the reply subjects of the jobs in slots
	count   int
	open    int       // jobs the pull may still bring
	current string    // the pull's own subject
	until   time.Time // when it is given up
}

// arrived notes a message and reports whether it is a job.
func (p *pulls) arrived(m *nats.Msg) bool {
	if m.Reply != "" {
		p.open--
		p.running[m.Reply] = struct{}{}
		return true
	}
	if m.Subject == p.current { // the end of the pull
		p.open = 0
	}
	return false
}

// pull asks for as many jobs as there are free slots, unless it has.
func (b *bare) pull(p *pulls) error {
	free := b.slots - len(p.running)
	if free == 0 || p.open > 0 && time.Now().Before(p.until) {
		return nil
	}
	p.count++
	p.open, p.current, p.until = free, p.inbox+"."+strconv.Itoa(p.count), time.Now().Add(bareLost)
	body, err := json.Marshal(map[string]any{"batch": free, "no_wait": true, "expires": bareExpires})
	if err != nil {
		return err
	}
	return b.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+jobsStream+"."+consumerName, p.current, body)
}

// handle runs one job and frees its slot.
func (b *bare) handle(ctx context.Context, m *nats.Msg) {
	if err := b.job(context.WithoutCancel(ctx), m); err != nil {
		b.broke <- err
		return
	}
	b.freed <- m.Reply
}

// bareEvent is an event of the bare loop, a CloudEvent.
type bareEvent struct {
	SpecVersion string      `json:"specversion"`
	ID          string      `json:"id"`
	Source      string      `json:"source"`
	Type        string      `json:"type"`
	Subject     string      `json:"subject"`
	Time        time.Time   `json:"time"`
	Data        bareAttempt `json:"data"`
}

type bareAttempt struct {
	N          int       `json:"n"`
	Backend    string    `json:"backend"`
	Outcome    string    `json:"outcome"`
	StartedAt  time.Time `json:"started_at"`
	DurationMS int64     `json:"duration_ms"`
}

// bareResult is a result of the bare loop.
type bareResult struct {
	ID       string `json:"id"`
	Response struct {
		StatusCode int             `json:"status_code"`
		Body       json.RawMessage `json:"body"`
	} `json:"response"`
	Status     string        `json:"status"`
	Queue      string        `json:"queue"`
	Backend    string        `json:"backend"`
	Attempts   []bareAttempt `json:"attempts"`
	FinishedAt time.Time     `json:"finished_at"`
}

// job runs one job.
func (b *bare) job(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, bareTimeout)
	defer cancel()
	id := m.Subject[len(jobsPrefix):]
	if b.plus {
		if err := b.recall(ctx, id); err != nil {
			return err
		}
	}
	attempt := bareAttempt{N: 1, Backend: "vllm", Outcome: "started", StartedAt: time.Now()}
	if err := b.emit(id, "understudy.attempt.started", attempt); err != nil {
		return err
	}
	status, body, err := b.post(ctx, id, m.Data)
	if err != nil {
		return err
	}
	attempt.Outcome, attempt.DurationMS = statusSucceeded, time.Since(attempt.StartedAt).Milliseconds()
	if err := b.emit(id, "understudy.attempt.succeeded", attempt); err != nil {
		return err
	}
	r := bareResult{ID: id, Status: statusSucceeded, Queue: "default", Backend: attempt.Backend, Attempts: []bareAttempt{attempt}, FinishedAt: time.Now()}
	r.Response.StatusCode, r.Response.Body = status, body
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := b.js.Publish(ctx, resultsPrefix+id, data, jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
		return err
	}
	if b.plus {
		if err := b.emit(id, "understudy.job.completed", attempt); err != nil {
			return err
		}
	}
	_, err = b.nc.RequestWithContext(ctx, m.Reply, []byte("+ACK"))
	return err
}

// emit publishes an event and does not wait for the stream's word.
func (b *bare) emit(id, kind string, a bareAttempt) error {
	data, err := json.Marshal(bareEvent{
		SpecVersion: "1.0", ID: id + "." + kind, Source: "understudy/bare", Type: kind, Subject: id, Time: time.Now(), Data: a,
	})
	if err != nil {
		return err
	}
	_, err = b.js.PublishAsync(eventsPrefix+id, data)
	return err
}

// post makes the call.
func (b *bare) post(ctx context.Context, id string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Client-Request-Id", id)
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the provider answered %d", resp.StatusCode)
	}
	return resp.StatusCode, answer, err
}
