package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// The bare loop "plus" does what the contract asks of a worker before and around
// the call: it reads a job's result and the newest event of its history, side by
// side, so that a paid answer is not paid for twice, and publishes four events
// instead of two. What the worker costs above it is the worker's own.

// recall asks for the job's result and history, and says that the job is taken.
func (b *bare) recall(ctx context.Context, id string) error {
	history := make(chan error, 1)
	go func() { history <- b.none(ctx, "LLM_EVENTS", eventsPrefix+id) }() // ends with its one request
	err := b.none(ctx, "LLM_RESULTS", resultsPrefix+id)
	if err := errors.Join(err, <-history); err != nil {
		return err
	}
	return b.emit(id, "understudy.job.received", bareAttempt{})
}

// notFound is the server's code for a subject without a message.
const notFound = 10037

// none reads the last message of a subject, which must not be there.
func (b *bare) none(ctx context.Context, stream, subject string) error {
	request, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return err
	}
	m, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
	if err != nil {
		return err
	}
	var answer struct {
		Error struct {
			Code int `json:"err_code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	if answer.Error.Code != notFound {
		return fmt.Errorf("%s holds something of %s already: %s", stream, subject, said(m))
	}
	return nil
}

// said is the beginning of a message.
func said(m *nats.Msg) []byte { return m.Data[:min(len(m.Data), tailSize)] }
