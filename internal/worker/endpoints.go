package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"understudy/internal/job"
	"understudy/internal/results"
)

// storeTimeout bounds the storing of a job that came as a request.
const storeTimeout = 5 * time.Second

// ServiceName is the name of the workers' NATS micro service.
const ServiceName = "llm-worker"

// What the metadata of a worker's micro service holds. Queues and backends are
// names with commas between.
const (
	MetaWorker      = "worker"
	MetaPrefix      = "prefix"
	MetaQueues      = "queues"
	MetaConcurrency = "concurrency"
	MetaBackends    = "backends"
)

// Status is what a worker says of itself in the stats of its micro service.
type Status struct {
	// Time is the worker's clock when it answers.
	Time time.Time `json:"time"`
	// Held is how many jobs it holds.
	Held int `json:"held"`
	// DroppedEvents is how many events it could not store since its start.
	DroppedEvents uint64 `json:"dropped_events"`
}

// metadata describes the worker to whoever asks its micro service.
func (w *Worker) metadata() map[string]string {
	queues := make([]string, len(w.cfg.Queues))
	for i, q := range w.cfg.Queues {
		queues[i] = q.Name
	}
	return map[string]string{
		MetaWorker: w.cfg.Name, MetaPrefix: w.subjects.Prefix(), MetaQueues: strings.Join(queues, ","),
		MetaConcurrency: strconv.Itoa(w.cfg.Concurrency), MetaBackends: strings.Join(w.backends.names, ","),
	}
}

// status is the worker's answer to a request for stats.
func (w *Worker) status() Status {
	return Status{Time: time.Now(), Held: w.source.Health().Held, DroppedEvents: w.outbox.Dropped()}
}

// serveEndpoints answers requests until the returned service is stopped.
func (w *Worker) serveEndpoints() (micro.Service, error) {
	svc, err := micro.AddService(w.nc, micro.Config{
		Name: ServiceName, Version: w.cfg.Version,
		Description:  "durable LLM completion jobs",
		Metadata:     w.metadata(),
		StatsHandler: func(*micro.Endpoint) any { return w.status() },
		ErrorHandler: func(_ micro.Service, e *micro.NATSError) {
			w.logger.Warn("endpoint failed", "subject", e.Subject, "err", e.Description)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("start the micro service: %w", err)
	}
	for name, handler := range map[string]micro.HandlerFunc{
		"complete": w.complete,
		"submit":   w.submit,
	} {
		if err := svc.AddEndpoint(name, handler, micro.WithEndpointSubject(w.subjects.Endpoint(name))); err != nil {
			return nil, errors.Join(fmt.Errorf("serve %s: %w", w.subjects.Endpoint(name), err), svc.Stop())
		}
	}
	if err := w.nc.FlushTimeout(storeTimeout); err != nil { // until the server knows of the endpoints
		return nil, errors.Join(fmt.Errorf("announce the endpoints: %w", err), svc.Stop())
	}
	return svc, nil
}

// complete stores a job whose result goes to the requester. The answer comes
// from whichever worker ends the job, so this one answers only a refusal.
func (w *Worker) complete(req micro.Request) {
	if !w.mayAnswer(req) {
		return
	}
	if _, err := w.accept(req, req.Reply()); err != nil {
		w.refuse(req, err)
	}
}

// mayAnswer reports whether the requester's reply subject is one that a job may
// name. Otherwise the request is dropped without a word: whatever is sent there
// is sent with the worker's permissions, and an error stored as somebody's result
// would be one.
func (w *Worker) mayAnswer(req micro.Request) bool {
	to := req.Reply()
	if to == "" {
		return true
	}
	if err := w.decoder.CheckReply(to); err != nil {
		w.logger.Warn("a request is dropped: it may not be answered where it asks for that; WORKER_REPLY_ALLOW says where",
			"subject", req.Subject(), "err", err)
		return false
	}
	return true
}

// submit stores a job and says where its result will be.
func (w *Worker) submit(req micro.Request) {
	if !w.mayAnswer(req) {
		return
	}
	receipt, err := w.accept(req, "")
	if err != nil {
		w.refuse(req, err)
		return
	}
	if err := req.Respond(receipt.Encode()); err != nil {
		w.logger.Warn("request could not be answered", "subject", req.Subject(), "err", err)
	}
}

// refusal is an error with the code of a micro service.
type refusal struct {
	code string
	err  error
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the reason.
func (r *refusal) Unwrap() error { return r.err }

// accept stores the job of a request, with replyTo as who gets the result.
func (w *Worker) accept(req micro.Request, replyTo string) (job.Receipt, error) {
	queue, id, payload, err := job.TakeAddress(req.Data())
	if err != nil {
		return job.Receipt{}, &refusal{"400", err}
	}
	if id == "" {
		id = job.NewID()
	}
	msg := nats.NewMsg(w.subjects.Job(queue, id))
	msg.Data = payload
	for _, name := range []string{job.HeaderTraceParent, "tracestate"} {
		if v := req.Headers().Get(name); v != "" {
			msg.Header.Set(name, v)
		}
	}
	if replyTo != "" {
		msg.Header.Set(job.HeaderReplyTo, replyTo)
		if j, err := w.decoder.Decode(queue, id, payload, job.Header(msg.Header)); err == nil && j.ReplyTo != replyTo {
			return job.Receipt{}, &refusal{"400", &job.FieldError{
				Field: "reply_to", Reason: "is not for this endpoint, which answers its requester; leave it out, or use " + w.subjects.Endpoint("submit"),
			}}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if msg, err = w.store.JobMessage(ctx, queue, id, payload, msg.Header, ""); err != nil { // with its headers it may be too big
		return job.Receipt{}, notStored(err, id)
	}
	if err := w.keep(msg, queue, id); err != nil {
		return job.Receipt{}, notStored(err, id)
	}
	return w.subjects.Receipt(queue, id), nil
}

// keep publishes a job. A try that gets no answer is repeated once with the same
// id: when that one is refused because the job is there, the first one may have
// stored it.
func (w *Worker) keep(msg *nats.Msg, queue, id string) error {
	publish := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		defer cancel()
		_, err := w.js.PublishMsg(ctx, msg)
		return results.Refusal(err)
	}
	err := publish()
	var api *jetstream.APIError
	if err == nil || errors.As(err, &api) {
		return err
	}
	again := publish()
	if !errors.Is(again, results.ErrInFlight) {
		return again
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if stored, lookupErr := w.store.Accepted(ctx, queue, id); lookupErr != nil || !stored {
		return errors.Join(err, lookupErr) // not known
	}
	return nil
}

// notStored says why the stream refused a job.
func notStored(err error, id string) error {
	var api *jetstream.APIError
	var tooBig *results.TooBigError
	switch {
	case errors.As(err, &tooBig):
		return &refusal{"413", err}
	case errors.Is(err, results.ErrInFlight):
		return &refusal{"409", fmt.Errorf("job %s is queued or running already", id)}
	case errors.As(err, &api):
		return &refusal{"503", fmt.Errorf("the job could not be stored: %w", err)}
	default: // ask again with the same id: it is paid for once
		return &refusal{"504", fmt.Errorf("whether job %s is stored is not known: %w", id, err)}
	}
}

// refuse answers a request with an error, in the header as NATS micro services
// do and in the body for people.
func (w *Worker) refuse(req micro.Request, err error) {
	code := "500"
	if r, ok := errors.AsType[*refusal](err); ok {
		code = r.code
	}
	body, encodeErr := json.Marshal(map[string]any{"error": map[string]string{"code": code, "message": err.Error()}})
	if encodeErr != nil {
		body = nil
	}
	if err := req.Error(code, err.Error(), body); err != nil {
		w.logger.Warn("request could not be answered", "subject", req.Subject(), "err", err)
	}
}
