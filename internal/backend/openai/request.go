package openai

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// templates hold the request that go-openai makes of every call with the same url,
// nil until the first one. Azure has none: there the model stands in the path.
type templates map[string]*atomic.Pointer[http.Request]

// takenError ends go-openai's part of a call. It holds what that part is for.
type takenError struct{ request *http.Request }

// Error implements error.
func (*takenError) Error() string { return "the request was taken" }

// taker is the HTTP client that go-openai gets. go-openai makes the URL and the
// authentication; taker takes them out for [exchange.do]. Nothing else of the
// request is kept: body and context are those of one call.
type taker struct{}

// Do implements go-openai's HTTPDoer.
func (taker) Do(req *http.Request) (*http.Response, error) {
	return nil, &takenError{&http.Request{Method: req.Method, URL: req.URL, Host: req.Host, Header: req.Header}}
}

// do sends the request and keeps the answer. Whatever the provider answers is no
// error; that there was no answer is one.
func (x *exchange) do(ctx context.Context, client *http.Client, request *http.Request) error {
	req := x.prepare(ctx, request)
	x.started = time.Now()
	resp, err := client.Do(req)
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

// prepare returns a copy of the request that is this call's. Only the URL and the
// values of the header are shared with other calls: net/http only reads them.
func (x *exchange) prepare(ctx context.Context, request *http.Request) *http.Request {
	req := request.WithContext(ctx)
	// With GetBody a request that was never sent, because the idle connection
	// was just being closed, goes out on another one. Without an Idempotency-Key
	// net/http replays nothing else.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
	x.reader.Reset(x.body)
	req.Body = io.NopCloser(&x.reader)
	req.ContentLength = int64(len(x.body))
	req.Header = maps.Clone(request.Header)
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
	return req
}
