package openai

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// script is what a provider does once it has a request: it writes to the
// connection and sleeps, in the fake time of a synctest bubble.
type script func(conn net.Conn)

// after writes text once d has passed.
func after(d time.Duration, text string) script {
	return func(conn net.Conn) {
		time.Sleep(d)
		_, _ = io.WriteString(conn, text)
	}
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
	jsonHead   = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
	silence    = 1000 * time.Hour
)

// complete makes one call against a script, in a bubble with its own time. It
// returns how long the call took.
func complete(t *testing.T, cfg Config, req *backend.Request, ctx func(context.Context) context.Context, steps ...script) (*backend.Response, time.Duration, error) {
	t.Helper()
	var server sync.WaitGroup
	dial := func(context.Context, string, string) (net.Conn, error) {
		client, conn := net.Pipe()
		server.Go(func() {
			defer func() { _ = conn.Close() }()
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			for _, step := range steps {
				step(conn)
			}
		})
		return client, nil
	}
	cfg.Name, cfg.BaseURL, cfg.DialContext = "b", "http://backend/v1", dial
	c, err := New(cfg)
	require.NoError(t, err)
	started := time.Now()
	resp, err := c.Complete(ctx(t.Context()), req)
	took := time.Since(started)
	c.Close()
	server.Wait()
	return resp, took, err
}

func asIs(ctx context.Context) context.Context { return ctx }

func TestSlowBackendsTimeOut(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	role := chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]`)
	finish := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
	firstToken := Config{Timeout: 10 * time.Second, FirstTokenTimeout: 2 * time.Second}
	comments := func(conn net.Conn) {
		for range 200 {
			_, _ = io.WriteString(conn, ": OPENROUTER PROCESSING\n\n")
			time.Sleep(100 * time.Millisecond)
		}
	}
	for _, row := range []struct {
		name    string
		cfg     Config
		req     *backend.Request
		steps   []script
		message string // empty: success
		took    time.Duration
		status  int
	}{
		{"no header", Config{Timeout: 5 * time.Second}, chat(false), []script{after(silence, "")}, "no answer in 5s", 5 * time.Second, 0},
		{"a header and then nothing", Config{Timeout: 5 * time.Second}, chat(false), []script{after(time.Second, jsonHead), after(silence, "")}, "no answer in 5s", 5 * time.Second, 200},
		{"half an answer", Config{Timeout: 750 * time.Millisecond}, chat(false), []script{after(0, jsonHead+goodAnswer[:30]), after(silence, "")}, "no answer in 750ms", 750 * time.Millisecond, 200},
		{"white space for ever", Config{Timeout: 5 * time.Second}, chat(false), []script{after(0, jsonHead+"\n   \n"), after(silence, "")}, "no answer in 5s", 5 * time.Second, 200},
		{"the default", Config{}, chat(false), []script{after(silence, "")}, "no answer in 30s", 30 * time.Second, 0},
		{"in time", Config{Timeout: 5 * time.Second}, chat(false), []script{after(4*time.Second, jsonHead+goodAnswer)}, "", 4 * time.Second, 200},
		{"a stream over its time", Config{Timeout: 5 * time.Second}, chat(true), []script{after(0, streamHead), after(3*time.Second, token), after(3*time.Second, token)}, "no answer in 5s", 5 * time.Second, 200},
		{"no first token", firstToken, chat(false), []script{after(0, streamHead+role), after(silence, "")}, "no first token in 2s", 2 * time.Second, 200},
		{"no header, first token", firstToken, chat(false), []script{after(silence, "")}, "no first token in 2s", 2 * time.Second, 0},
		{"comments are no token", firstToken, chat(false), []script{after(0, streamHead), comments}, "no first token in 2s", 2 * time.Second, 200},
		{"silence between tokens", firstToken, chat(false), []script{after(time.Second, streamHead+token), after(silence, "")}, "no token for 10s", 11 * time.Second, 200},
		{"comments between tokens", firstToken, chat(false), []script{after(time.Second, streamHead+token), comments}, "no token for 10s", 11 * time.Second, 200},
		{"a long answer is not cut", firstToken, chat(false), []script{
			after(time.Second, streamHead+token), after(9*time.Second, token), after(9*time.Second, token), after(9*time.Second, finish), after(time.Second, "data: [DONE]\n\n"),
		}, "", 29 * time.Second, 200},
		{"160 comments and then an answer", Config{Timeout: time.Minute, FirstTokenTimeout: 30 * time.Second}, chat(false), []script{
			after(0, streamHead), comments, after(0, token+finish+"data: [DONE]\n\n"),
		}, "", 20 * time.Second, 200},
		{"silence after a complete answer", firstToken, chat(false), []script{after(time.Second, streamHead+token+finish), after(silence, "")}, "", 11 * time.Second, 200},
		{"an open end after the marker", firstToken, chat(false), []script{after(time.Second, streamHead+token+finish+"data: [DONE]\n\n"), after(silence, "")}, "", time.Second + drainTime, 200},
		{"embeddings have no first token", firstToken, &backend.Request{URL: job.URLEmbeddings, Body: []byte(`{}`)}, []script{
			after(9*time.Second, jsonHead+`{"data":[{"embedding":[1]}]}`),
		}, "", 9 * time.Second, 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				resp, took, err := complete(t, row.cfg, row.req, asIs, row.steps...)
				require.Equal(t, row.took, took)
				if row.message == "" {
					require.NoError(t, err)
					require.Equal(t, row.status, resp.Status)
					return
				}
				e := failure(t, err)
				require.Equal(t, backend.Timeout, e.Class)
				require.Equal(t, row.message, e.Message)
				require.Equal(t, row.status, e.Status)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		})
	}
}

func TestTheFirstTokenIsTimed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		token := chunk(`"choices":[{"index":0,"delta":{"reasoning":"x"}}]`)
		finish := chunk(`"choices":[{"index":0,"delta":{"content":"y"},"finish_reason":"stop"}]`)
		cfg := Config{PriceHour: 3600}
		resp, _, err := complete(t, cfg, chat(true), asIs,
			after(time.Second, streamHead+": x\n\n"), after(1500*time.Millisecond, token), after(time.Second, finish))
		require.NoError(t, err)
		require.Equal(t, 2500*time.Millisecond, resp.FirstToken)
		require.InDelta(t, 3.5, *resp.CostUSD, 1e-9) // a dollar a second

		_, _, err = complete(t, cfg, chat(true), asIs, after(2*time.Second, streamHead+token))
		e := failure(t, err)
		require.Equal(t, backend.Truncated, e.Class)
		require.Equal(t, 2*time.Second, e.FirstToken)
		require.InDelta(t, 2, *e.CostUSD, 1e-9)
	})
}

var errBudget = errors.New("sixty seconds are over")

func TestWhoseTimeRanOutShows(t *testing.T) {
	t.Parallel()
	budget := func(ctx context.Context) context.Context {
		ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Second, errors.Join(errBudget, context.DeadlineExceeded))
		context.AfterFunc(ctx, cancel)
		return ctx
	}
	plain := func(ctx context.Context) context.Context {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		context.AfterFunc(ctx, cancel)
		return ctx
	}
	cancelled := func(ctx context.Context) context.Context {
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(3*time.Second, func() { cancel(errBudget) })
		return ctx
	}
	over := func(ctx context.Context) context.Context {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx
	}
	for _, row := range []struct {
		name    string
		ctx     func(context.Context) context.Context
		timeout time.Duration
		class   backend.Class
		message string
		cause   error
		took    time.Duration
	}{
		{"the job's budget", budget, time.Minute, backend.Expired, "the job's time budget ran out", errBudget, 3 * time.Second},
		{"a plain deadline", plain, time.Minute, backend.Expired, "the job's time budget ran out", context.DeadlineExceeded, 3 * time.Second},
		{"the attempt's own limit is shorter", budget, time.Second, backend.Timeout, "no answer in 1s", context.DeadlineExceeded, time.Second},
		{"cancelled", cancelled, time.Minute, backend.Canceled, "the call was cancelled", errBudget, 3 * time.Second},
		{"cancelled before", over, time.Minute, backend.Canceled, "the call was cancelled", context.Canceled, 0},
	} {
		for name, steps := range map[string][]script{
			"no header":   {after(silence, "")},
			"no body":     {after(0, jsonHead), after(silence, "")},
			"no stream":   {after(0, streamHead+chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)), after(silence, "")},
			"bad request": {after(0, "HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\n"), after(silence, "")},
		} {
			if name == "bad request" && row.class != backend.Canceled {
				continue
			}
			t.Run(row.name+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					started := 0
					req := chat(false)
					req.Started = func(string) { started++ }
					_, took, err := complete(t, Config{Timeout: row.timeout}, req, row.ctx, steps...)
					e := failure(t, err)
					require.Equal(t, row.class, e.Class)
					require.Equal(t, row.message, e.Message)
					require.ErrorIs(t, err, row.cause)
					require.Equal(t, row.took, took)
					require.Equal(t, 1, started)
				})
			})
		}
	}
}

func TestAnErrorWhoseBodyHangsIsStillThatError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, _, err := complete(t, Config{}, chat(false), asIs,
			after(0, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n"), after(silence, ""))
		e := failure(t, err)
		require.Equal(t, backend.RateLimit, e.Class)
		require.Equal(t, 7*time.Second, e.RetryAfter)
	})
}

func TestADialThatHangsIsAConnectionFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Name: "b", BaseURL: "http://b", DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		}})
		require.NoError(t, err)
		_, err = c.Complete(t.Context(), chat(false))
		require.Equal(t, backend.Connection, failure(t, err).Class)
	})
}
