package rules

import (
	"context"
	"crypto/rand"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// model is what the engine gives as the model that answered.
const model = "rules"

// Engine is a [backend.Backend] and a [backend.Degrader] that answers from
// [Rules]. It is safe for concurrent use.
type Engine struct {
	name  string
	rules *Rules
}

// New returns the backend of that name. With nil rules no call succeeds.
func New(name string, rules *Rules) *Engine { return &Engine{name: name, rules: rules} }

// Name is the backend's name.
func (e *Engine) Name() string { return e.name }

// Degraded is true: no model answers.
func (e *Engine) Degraded() bool { return true }

// Complete answers a chat by the last message of the user, and each prompt of a
// completion by itself. The answer is a plain OpenAI object that used no tokens
// and costs nothing; of a stream it is the only chunk too. Complete does no I/O:
// it takes as long as the rules take to match.
//
// Errors are of class [backend.Unsupported] when no rule matches and for what
// rules cannot do (embeddings, prompts of tokens), [backend.InvalidRequest] when
// the body holds nothing to answer, and [backend.Canceled] when ctx is done, with
// its cause. When ctx is done before the call starts, req.Started is not called.
func (e *Engine) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	if ctx.Err() != nil {
		return nil, e.canceled(ctx)
	}
	if req.Started != nil {
		req.Started(model)
	}
	messages, failure := read(req.URL, req.Body)
	if failure != nil {
		failure.Backend = e.name
		return nil, failure
	}
	answers := make([]string, 0, len(messages))
	for _, message := range messages {
		answer, ok := e.rules.answer(ctx, message)
		switch {
		case ctx.Err() != nil:
			return nil, e.canceled(ctx)
		case !ok:
			return nil, &backend.Error{Class: backend.Unsupported, Backend: e.name, Model: model, Message: "no rule matches"}
		}
		answers = append(answers, answer)
	}
	a := answer{url: req.URL, id: rand.Text(), texts: answers}
	if req.Stream && req.Chunk != nil {
		req.Chunk(a.chunk())
	}
	free := 0.0
	return &backend.Response{
		Status: 200, Body: a.body(), Model: model,
		Usage: &job.Usage{}, CostUSD: &free, Degraded: true,
	}, nil
}

// canceled is the error of a call whose ctx is done.
func (e *Engine) canceled(ctx context.Context) *backend.Error {
	return &backend.Error{
		Class: backend.Canceled, Backend: e.name, Model: model,
		Message: "the call was cancelled", Cause: context.Cause(ctx),
	}
}
