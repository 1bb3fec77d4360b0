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
	transport *http.Transport
	redact    *redactor
	latency   latencies
}

var _ backend.Backend = (*Client)(nil)

// New returns a client for the backend that cfg describes. It makes no call.
// The error names every field that is wrong.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("backend %q: %w", cfg.Name, err)
	}
	c := &Client{cfg: cfg, transport: newTransport(cfg), redact: newRedactor(cfg)}
	api := goopenai.DefaultConfig(string(cfg.APIKey))
	if cfg.Kind == KindAzure {
		api = goopenai.DefaultAzureConfig(string(cfg.APIKey), cfg.BaseURL)
		api.AzureModelMapperFunc = func(model string) string {
			return url.PathEscape(strings.TrimPrefix(model, deployment))
		}
	}
	api.BaseURL = cfg.BaseURL
	api.APIVersion = cfg.APIVersion
	api.HTTPClient = newDoer(c.transport)
	c.api = goopenai.NewClientWithConfig(api)
	return c, nil
}

// Name returns the backend's name.
func (c *Client) Name() string { return c.cfg.Name }

// Close closes the idle connections. Calls that run are not disturbed, and
// further calls are possible.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Complete makes one call, as [backend.Backend] says. It calls req.Started
// exactly once, also when the body turns out not to be sendable.
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
	ctx, watch := newWatch(ctx, pace)
	defer watch.stop()
	x := &exchange{
		body: body, headers: c.cfg.Headers, jobID: req.JobID, streams: streams,
		limit: c.cfg.MaxResponseBytes, watch: watch, chunk: req.Chunk,
	}
	err := c.send(context.WithValue(ctx, exchangeKey{}, x), req.URL, model)
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
// streaming turned on if need be, and what the configuration sets and drops.
//
// A call that streams only for the sake of the first token's time also asks for
// the usage, which a stream leaves out by itself. What a streaming job wants to
// see in its stream is its own business.
func (c *Client) bodyFor(req *backend.Request, model string, streams bool) ([]byte, error) {
	if c.cfg.Kind == KindAzure && strings.Trim(model, ".") == "" {
		return nil, errNoDeployment
	}
	members, err := topLevel(req.Body)
	if err != nil {
		return nil, err
	}
	set := make(map[string][]byte)
	if model != "" {
		set[modelKey] = quote(model)
	}
	hasOptions := false
	for _, m := range members {
		switch {
		case m.key == modelKey && model == "":
			// Nobody names a model: the last one counts, as in every JSON parser.
			set[modelKey] = req.Body[m.value:m.finish]
		case m.key == "stream_options":
			hasOptions = true
		}
	}
	if streams {
		set["stream"] = []byte("true")
		if !req.Stream && !hasOptions {
			set["stream_options"] = []byte(`{"include_usage":true}`)
		}
	}
	drop := make(map[string]bool, len(c.cfg.Drop))
	for name, value := range c.cfg.Set {
		set[name] = value
	}
	for _, name := range c.cfg.Drop {
		drop[name] = true
	}
	return splice(req.Body, members, edits{set: set, drop: drop}), nil
}

// deployment stands before every model that go-openai sees, so that its own
// table of which OpenAI model has which endpoint, and which parameters, does not
// apply to other people's models of the same name.
const deployment = "deployment:"

// errNoDeployment means that there is no model to name in the path.
var errNoDeployment = errors.New("the job names no model, which for azure is the deployment")

// send makes the call through go-openai, which needs the model only for the
// path of an Azure deployment.
func (c *Client) send(ctx context.Context, path, model string) error {
	var err error
	switch path {
	case job.URLChat:
		_, err = c.api.CreateChatCompletion(ctx, goopenai.ChatCompletionRequest{Model: deployment + model})
	case job.URLCompletions:
		_, err = c.api.CreateCompletion(ctx, goopenai.CompletionRequest{Model: deployment + model, Prompt: ""})
	case job.URLEmbeddings:
		_, err = c.api.CreateEmbeddings(ctx, goopenai.EmbeddingRequest{Model: goopenai.EmbeddingModel(deployment + model)})
	default:
		err = fmt.Errorf("%w: %q", errUnknownURL, path)
	}
	return err
}
