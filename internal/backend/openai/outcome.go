package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// Limits of what an error tells.
const (
	maxMessage = 1 << 10
	maxWord    = 128
)

// call is one call that is over.
type call struct {
	url   string
	model string
	x     *exchange
	// sendErr is why there was no answer.
	sendErr error
}

// outcome turns what happened into a response or an error. ctx is that of the
// attempt: why it is done decides what a broken call is called. A complete
// answer counts even if the time ran out while it was being read.
func (c *Client) outcome(ctx context.Context, k call) (*backend.Response, error) {
	x := k.x
	switch {
	case x.status == 0:
		return nil, c.noAnswer(ctx, k)
	case x.status/100 != 2:
		if class, _, _ := ended(ctx); x.err != nil && ctx.Err() != nil && class == backend.Canceled {
			return nil, c.cut(ctx, k)
		}
		return nil, c.fail(k, Classify(x.status, x.header, x.raw), x.consumed())
	case x.assembled != nil:
		return c.streamed(ctx, k)
	case x.err != nil:
		return nil, c.cut(ctx, k)
	}
	return c.judged(k, x.raw)
}

// streamed is the outcome of an answer that came as a stream.
func (c *Client) streamed(ctx context.Context, k call) (*backend.Response, error) {
	x := k.x
	if x.failed != nil {
		return nil, c.fail(k, *x.failed, x.consumed())
	}
	done, all := x.assembled.finished()
	complete := all > 0 && (done == all || x.done && done > 0) && !x.assembled.overflow
	if !complete && (x.err == nil || ctx.Err() == nil) {
		if v, ok := x.explained(); ok {
			return nil, c.fail(k, v, x.consumed())
		}
	}
	if x.err != nil && !complete {
		return nil, c.cut(ctx, k)
	}
	body := x.assembled.body()
	if complete {
		return c.judged(k, body)
	}
	a := bad(backend.Truncated, "the stream ended before the answer did")
	if all == 0 && x.done {
		a = bad(backend.BadResponse, "the stream has no choices")
	}
	return nil, c.fail(k, a.verdict, x.consumed())
}

// consumed returns what a call that failed says it consumed all the same.
func (x *exchange) consumed() answer {
	var a answer
	if x.assembled != nil {
		a.usage, a.cost = usageOf(x.assembled.fields.values["usage"], x.header)
		return a
	}
	var top struct {
		Usage json.RawMessage `json:"usage"`
	}
	_ = json.Unmarshal(x.raw, &top) // an error need not be JSON
	a.usage, a.cost = usageOf(top.Usage, x.header)
	return a
}

// judged is the outcome of an answer that is complete.
func (c *Client) judged(k call, body []byte) (*backend.Response, error) {
	a := read(k.url, k.x.status, k.x.header, body)
	if a.verdict.Class != "" {
		k.x.raw = body
		if a.cost == nil { // a body that is no object: its header may know
			_, a.cost = usageOf(nil, k.x.header)
		}
		return nil, c.fail(k, a.verdict, a)
	}
	model := a.model
	if model == "" {
		model = k.model
	}
	return &backend.Response{
		Status:     k.x.status,
		RequestID:  c.requestID(k.x.header, a.id),
		Body:       body,
		Model:      model,
		Usage:      a.usage,
		CostUSD:    c.costOf(a.cost, a.usage, time.Since(k.x.started)),
		FirstToken: k.x.firstToken,
		Left:       allowances(k.x.header, nil),
	}, nil
}

// cut is the error of an answer that broke off.
func (c *Client) cut(ctx context.Context, k call) error {
	x := k.x
	v := Verdict{Class: backend.BadResponse, Message: "the connection broke before the answer was complete"}
	cause := x.err
	switch {
	case errors.Is(x.err, errTooLong):
		v.Message = fmt.Sprintf("the answer is longer than %d bytes", x.limit)
	case errors.Is(x.err, errNotChunk):
		v.Message = errNotChunk.Error()
	case ctx.Err() != nil:
		v.Class, v.Message, cause = ended(ctx)
	case x.assembled != nil:
		v.Class, v.Message = backend.Truncated, "the connection broke before the stream was complete"
	}
	e := c.fail(k, v, x.consumed())
	e.Cause = c.harmless(cause)
	return e
}

// noAnswer is the error of a call that got no header back.
func (c *Client) noAnswer(ctx context.Context, k call) error {
	err := k.sendErr
	if k.x.err != nil {
		err = k.x.err
	}
	// The URL is go-openai's and ours; what is wrong stands inside.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	v := Verdict{Class: backend.Connection, Message: "the connection failed"}
	switch {
	case errors.Is(err, errUnknownURL):
		v.Class, v.Message = backend.InvalidRequest, err.Error()
	case ctx.Err() != nil:
		v.Class, v.Message, err = ended(ctx)
	case err != nil:
		v.Message = "the connection failed: " + err.Error()
	}
	e := c.fail(k, v, answer{})
	e.Cause = c.harmless(err)
	return e
}

// fail makes the error of a call. Nothing in it holds a credential.
func (c *Client) fail(k call, v Verdict, a answer) *backend.Error {
	x := k.x
	message := v.Message
	if message == "" {
		message = fmt.Sprintf("status %d without an explanation", x.status)
	}
	e := &backend.Error{
		Class:      v.Class,
		Backend:    c.cfg.Name,
		Status:     x.status,
		Code:       c.redact.line(v.Code, maxWord),
		Type:       c.redact.line(v.Type, maxWord),
		Message:    c.redact.line(message, maxMessage),
		RetryAfter: v.RetryAfter,
		RequestID:  c.requestID(x.header, a.id),
		Model:      k.model,
		Usage:      a.usage,
		FirstToken: x.firstToken,
		Limit:      v.Limit,
		Requested:  v.Requested,
		Left:       allowances(x.header, v.inner),
	}
	if len(x.raw) > 0 {
		e.Body = []byte(clip(c.redact.text(string(capped(x.raw))), maxErrorBody))
	}
	if !x.started.IsZero() {
		e.CostUSD = c.costOf(a.cost, a.usage, time.Since(x.started))
	}
	return e
}

// harmlessError is an error whose text is free of credentials.
type harmlessError struct {
	text string
	err  error
}

// Error implements error.
func (e *harmlessError) Error() string { return e.text }

// Unwrap returns the error as it was.
func (e *harmlessError) Unwrap() error { return e.err }

func (c *Client) harmless(err error) error {
	if err == nil {
		return nil
	}
	return &harmlessError{text: c.redact.line(err.Error(), maxMessage), err: err}
}

// requestID returns the provider's id of the call: its header, or else the id
// of its answer.
func (c *Client) requestID(header http.Header, id string) string {
	for _, name := range []string{
		"X-Request-Id", "Request-Id", "Apim-Request-Id", "X-Amzn-Requestid", "X-Ms-Request-Id", "X-Generation-Id",
	} {
		if value := header.Get(name); value != "" {
			id = value
			break
		}
	}
	return c.redact.line(id, maxWord)
}

// errUnknownURL means that a job names an endpoint that does not exist.
var errUnknownURL = fmt.Errorf("the url is none of %s, %s and %s", job.URLChat, job.URLCompletions, job.URLEmbeddings)
