package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/queue"
)

// taken is a job in the hands of the stand-in for a worker.
type taken struct {
	jetstream.Msg
	queue, id string
	seq       uint64
}

// take takes the next job of a queue.
func (b *bench) take(queueName string) *taken {
	b.t.Helper()
	consumer, err := b.js.Consumer(b.t.Context(), b.subjects.JobsStream(), queue.ConsumerName(queueName))
	require.NoError(b.t, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(patience))
	require.NoError(b.t, err)
	return b.taken(msg)
}

func (b *bench) taken(msg jetstream.Msg) *taken {
	_, queueName, id, _ := b.subjects.Parse(msg.Subject())
	meta, err := msg.Metadata()
	if err != nil {
		panic(err)
	}
	return &taken{Msg: msg, queue: queueName, id: id, seq: meta.Sequence.Stream}
}

// result is what a worker says of a job: an echo of its prompt, or a failure.
func (tk *taken) result(status job.Status) *job.Result {
	var body struct {
		CustomID string `json:"custom_id"`
	}
	if tk.Msg != nil {
		_ = json.Unmarshal(tk.Data(), &body) // a bare body has none
	}
	r := &job.Result{
		ID: tk.id, CustomID: body.CustomID, Status: status, Queue: tk.queue, Route: "default", Backend: "standin", Model: "m",
		Attempts:   []job.Attempt{{N: 1, Backend: "standin", Outcome: job.OutcomeSucceeded, StartedAt: noon(), DurationMS: 12}},
		DurationMS: 34, Deliveries: 1, Worker: "w-1", FinishedAt: noon(),
	}
	if r.CustomID == "" {
		r.CustomID = tk.id
	}
	if status == job.Succeeded {
		r.Response = &job.Response{StatusCode: 200, Body: json.RawMessage(fmt.Sprintf("{\n \"choices\": [{\"message\": {\"content\": %q}}]}", "answer to "+tk.id))}
		r.Usage, r.CostUSD = &job.Usage{InputTokens: 3, OutputTokens: 5}, new(0.001)
		return r
	}
	failure := &job.Failure{Backend: "standin", Class: "timeout", Message: "no answer in 5s"}
	r.Error = &job.Error{Code: "timeout", Message: "no answer in 5s", First: failure, Last: failure}
	r.Attempts[0].Outcome, r.Attempts[0].Class, r.Attempts[0].Error = job.OutcomeFailed, new("timeout"), new("no answer in 5s")
	return r
}

// commit stores the result of a job, as a worker does first.
func (b *bench) commit(tk *taken, status job.Status) error {
	replaces := uint64(0)
	if tk.Headers().Get(job.HeaderRedrives) != "" {
		if stored, err := b.store.Lookup(b.ctx, tk.queue, tk.id); err == nil && stored != nil {
			replaces = stored.Seq
		}
	}
	_, err := b.store.Commit(b.ctx, tk.result(status), tk.seq, replaces)
	return err
}

// bury stores the dead letter of a job, as a worker does then.
func (b *bench) bury(tk *taken) error {
	r := tk.result(job.Failed)
	letter := &job.DeadLetter{
		ID: tk.id, Queue: tk.queue, Reason: r.Error.Code, Error: r.Error, Headers: tk.Headers(), Attempts: r.Attempts,
		FirstError: r.Error.First, LastError: r.Error.Last, Deliveries: 1, Worker: "w-1", Time: noon().Add(-time.Hour),
	}
	_, _ = fmt.Sscan(tk.Headers().Get(job.HeaderRedrives), &letter.Redrives) // absent: 0
	return b.store.Bury(b.ctx, letter, tk.Data(), tk.seq)
}

// finish ends a job as a worker does: result, dead letter, ack.
func (b *bench) finish(tk *taken, status job.Status) {
	b.t.Helper()
	require.NoError(b.t, b.end(tk, status))
}

func (b *bench) end(tk *taken, status job.Status) error {
	if err := b.commit(tk, status); err != nil {
		return err
	}
	if status == job.Failed || status == job.Expired {
		if err := b.bury(tk); err != nil {
			return err
		}
	}
	return tk.DoubleAck(b.ctx)
}

// serve ends every job of a queue until the test ends; status says how.
func (b *bench) serve(queueName string, status func(tk *taken) job.Status) {
	b.t.Helper()
	consumer, err := b.js.Consumer(b.t.Context(), b.subjects.JobsStream(), queue.ConsumerName(queueName))
	require.NoError(b.t, err)
	messages, err := consumer.Messages(jetstream.PullMaxMessages(64))
	require.NoError(b.t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				msg, err := messages.Next()
				if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
					return
				}
				if err == nil {
					if err := b.handle(b.taken(msg), status); err != nil {
						b.t.Error(err)
					}
				}
			}
		})
	}
	b.t.Cleanup(func() {
		messages.Stop()
		wg.Wait()
	})
}

// handle ends a job as status says; one that has a result already is not run
// again, which is what workers promise.
func (b *bench) handle(tk *taken, status func(tk *taken) job.Status) error {
	if tk.Headers().Get(job.HeaderRedrives) == "" {
		if stored, err := b.store.Lookup(b.ctx, tk.queue, tk.id); err != nil || stored != nil {
			return errors.Join(err, tk.DoubleAck(b.ctx))
		}
	}
	return b.end(tk, status(tk))
}

// always is a status for serve.
func always(s job.Status) func(*taken) job.Status { return func(*taken) job.Status { return s } }
