package openai

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	goopenai "github.com/sashabaranov/go-openai"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// Client is a [backend.Backend] behind HTTP. It is made by [New] and safe for
// concurrent use. It has no goroutine of its own.
type Client struct {
	cfg       Config
	api       *goopenai.Client
	http      *http.Client
	transport *http.Transport
	redact    *redactor
	latency   latencies

	// What every call has in common: its header lines, what the configuration
	// changes in its body, and what go-openai makes of it.
	lines     headerLines
	edits     edits
	templates templates
}

var _ backend.Backend = (*Client)(nil)

// New returns a client for the backend that cfg describes. It makes no call.
// The error names every field that is wrong.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("backend %q: %w", cfg.Name, err)
	}
	c := &Client{
		cfg: cfg, transport: newTransport(cfg), redact: newRedactor(cfg), lines: newHeaderLines(cfg.Headers),
		edits: newEdits(cfg.Set, cfg.Drop),
	}
	c.http = newHTTPClient(c.transport)
	api := goopenai.DefaultConfig(string(cfg.APIKey))
	if cfg.Kind == KindAzure {
		api = goopenai.DefaultAzureConfig(string(cfg.APIKey), cfg.BaseURL)
		api.AzureModelMapperFunc = func(model string) string {
			return url.PathEscape(strings.TrimPrefix(model, deployment))
		}
	}
	api.BaseURL = cfg.BaseURL
	api.APIVersion = cfg.APIVersion
	api.HTTPClient = taker{}
	c.api = goopenai.NewClientWithConfig(api)
	if cfg.Kind != KindAzure {
		c.templates = templates{job.URLChat: {}, job.URLCompletions: {}, job.URLEmbeddings: {}}
	}
	return c, nil
}

// Name returns the backend's name.
func (c *Client) Name() string { return c.cfg.Name }

// Close closes the idle connections. Calls that run are not disturbed, and
// further calls are possible.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Complete makes one call, as [backend.Backend] says. It calls req.Started
// exactly once, also when the body turns out not to be sendable.
//
// Where nothing has to change in req.Body it is sent as it is; net/http may still
// read it for a moment when Complete has returned.
func (c *Client) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	model := c.modelFor(req.Model)
	streams := c.streams(req)
	body, bodyErr := c.bodyFor(req, model, streams)
	if req.Started != nil {
		req.Started(model)
	}
	if bodyErr != nil {
		class := backend.InvalidRequest
		if errors.Is(bodyErr, errNoDeployment) {
			class = backend.ModelNotFound
		}
		return nil, &backend.Error{
			Class: class, Backend: c.cfg.Name, Model: model, Message: bodyErr.Error(), Cause: bodyErr,
		}
	}
	pace := c.pace(streams)
	x := &exchange{
		body: body, lines: &c.lines, jobID: [1]string{req.JobID}, streams: streams,
		limit: c.cfg.MaxResponseBytes, chunk: req.Chunk,
	}
	ctx = x.watch.start(ctx, pace)
	defer x.watch.stop()
	err := c.send(ctx, x, req.URL, model)
	resp, err := c.outcome(ctx, call{url: req.URL, model: model, x: x, sendErr: err})
	c.learn(pace, x, err)
	return resp, err
}

// modelFor returns the model to call for the one a job asks for.
func (c *Client) modelFor(asked string) string {
	if actual, ok := c.cfg.Models[asked]; ok {
		return actual
	}
	if c.cfg.Model != "" {
		return c.cfg.Model
	}
	return asked
}

// streams reports whether the call is made streaming.
func (c *Client) streams(req *backend.Request) bool {
	return req.URL != job.URLEmbeddings && (req.Stream || c.cfg.FirstTokenTimeout > 0)
}

// bodyFor returns the body to send: the job's, with the model in its place,
// streaming turned on if need be, and what the configuration sets and drops. It
// is the job's own where nothing of that changes it.
//
// A call that streams only for the sake of the first token's time also asks for
// the usage, which a stream leaves out by itself. What a streaming job wants to
// see in its stream is its own business.
func (c *Client) bodyFor(req *backend.Request, model string, streams bool) ([]byte, error) {
	if c.cfg.Kind == KindAzure && strings.Trim(model, ".") == "" {
		return nil, errNoDeployment
	}
	// Neither is kept: they need no memory of their own while they are few.
	var (
		someMembers [24]member
		someEdits   [8]edit
	)
	members, err := trustedTopLevel(someMembers[:0], req.Body)
	if err != nil {
		return nil, err
	}
	var named []byte
	if model != "" {
		named = quote(model)
	}
	hasOptions := false
	for _, m := range members {
		switch string(m.key) {
		case modelKey:
			if model == "" {
				// Nobody names a model: the last one counts, as in every JSON parser.
				named = req.Body[m.value:m.finish]
			}
		case "stream_options":
			hasOptions = true
		}
	}
	e := append(edits(someEdits[:0]), c.edits...)
	if named != nil {
		e = e.with(modelKey, named)
	}
	if streams {
		e = e.with("stream", []byte("true"))
		if !req.Stream && !hasOptions {
			e = e.with("stream_options", []byte(`{"include_usage":true}`))
		}
	}
	return splice(req.Body, members, e), nil
}

// deployment stands before every model that go-openai sees, so that its own
// table of which OpenAI model has which endpoint, and which parameters, does not
// apply to other people's models of the same name.
const deployment = "deployment:"

// errNoDeployment means that there is no model to name in the path.
var errNoDeployment = errors.New("the job names no model, which for azure is the deployment")

// send makes the call: go-openai makes the request, and [exchange.do] sends it.
func (c *Client) send(ctx context.Context, x *exchange, path, model string) error {
	request, err := c.request(ctx, path, model)
	if err != nil {
		return err
	}
	return x.do(ctx, c.http, request)
}

// request returns what go-openai makes of a call, which is only to be read: where
// the URL does not depend on the model, it is made once and belongs to all calls.
func (c *Client) request(ctx context.Context, path, model string) (*http.Request, error) {
	template, ok := c.templates[path]
	if !ok {
		return c.newRequest(ctx, path, model)
	}
	if request := template.Load(); request != nil {
		return request, nil
	}
	request, err := c.newRequest(ctx, path, model)
	if err == nil {
		template.Store(request)
	}
	return request, err
}

// newRequest lets go-openai make a request, which [taker] takes from it. It needs
// the model only for the path of an Azure deployment.
func (c *Client) newRequest(ctx context.Context, path, model string) (*http.Request, error) {
	name := deployment
	if c.cfg.Kind == KindAzure {
		name += model
	}
	var err error
	switch path {
	case job.URLChat:
		_, err = c.api.CreateChatCompletion(ctx, goopenai.ChatCompletionRequest{Model: name})
	case job.URLCompletions:
		_, err = c.api.CreateCompletion(ctx, goopenai.CompletionRequest{Model: name, Prompt: ""})
	case job.URLEmbeddings:
		_, err = c.api.CreateEmbeddings(ctx, goopenai.EmbeddingRequest{Model: goopenai.EmbeddingModel(name)})
	default:
		err = fmt.Errorf("%w: %q", errUnknownURL, path)
	}
	if taken, ok := errors.AsType[*takenError](err); ok {
		return taken.request, nil
	}
	return nil, err
}
