package openai

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// start starts the clock of the call and returns its context, which is x. The
// watch must be stopped.
func (x *exchange) start(ctx context.Context, p pace) context.Context {
	x.Context, x.watch.cancel = context.WithCancelCause(ctx)
	x.watch.start(p)
	return x
}

// errTaken ends go-openai's part of a call.
var errTaken = errors.New("the request was taken")

// taker is the HTTP client that go-openai gets. go-openai makes the URL and the
// authentication; taker takes its request out for [exchange.do].
type taker struct{}

// Do implements go-openai's HTTPDoer.
func (taker) Do(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().(*exchange)
	if !ok {
		return nil, errors.New("a request without an exchange")
	}
	x.request = req
	return nil, errTaken
}

// do sends the request and keeps the answer. Whatever the provider answers is no
// error; that there was no answer is one.
func (x *exchange) do(client *http.Client) error {
	x.prepare(x.request)
	x.started = time.Now()
	resp, err := client.Do(x.request)
	if err != nil {
		x.err = err
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	x.status, x.header = resp.StatusCode, resp.Header
	x.read(resp)
	return nil
}

// headerLines are the header lines that all calls of a client have in common. They
// are shared: net/http only reads them.
type headerLines struct {
	host          string
	agent, accept []string
	configured    http.Header
}

func newHeaderLines(configured Headers) headerLines {
	lines := headerLines{
		agent: []string{"understudy"}, accept: []string{"text/event-stream, application/json"}, configured: make(http.Header),
	}
	for name, value := range configured {
		if strings.EqualFold(name, "Host") {
			lines.host = value
			continue
		}
		lines.configured.Set(name, value)
	}
	return lines
}

// prepare makes the request ours.
func (x *exchange) prepare(req *http.Request) {
	// With GetBody a request that was never sent, because the idle connection
	// was just being closed, goes out on another one. Without an Idempotency-Key
	// net/http replays nothing else.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
	x.reader.Reset(x.body)
	req.Body = io.NopCloser(&x.reader)
	req.ContentLength = int64(len(x.body))
	req.Header["User-Agent"] = x.lines.agent
	if x.streams {
		req.Header["Accept"] = x.lines.accept
	}
	if x.jobID[0] != "" {
		req.Header["X-Client-Request-Id"] = x.jobID[:]
	}
	maps.Copy(req.Header, x.lines.configured)
	if x.lines.host != "" {
		req.Host = x.lines.host
	}
}
