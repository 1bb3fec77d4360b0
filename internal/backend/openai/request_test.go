package openai

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

func TestTheContextOfACallEndsWithItsCallers(t *testing.T) {
	t.Parallel()
	end := errors.New("the end")
	deadline := time.Now().Add(time.Hour)
	parent, cancelParent := context.WithDeadline(t.Context(), deadline)
	defer cancelParent()
	caller, cancel := context.WithCancelCause(parent)
	var w watch
	ctx := w.start(caller, pace{limit: time.Hour})
	defer w.stop()
	below, cancelBelow := context.WithCancelCause(ctx) // as net/http does it
	defer cancelBelow(nil)
	got, ok := ctx.Deadline()
	require.True(t, ok)
	require.Equal(t, deadline, got)
	require.NoError(t, context.Cause(ctx))
	cancel(end)
	<-below.Done()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
	require.Equal(t, end, context.Cause(ctx))
	require.Equal(t, end, context.Cause(below))
}

// The one request that all calls share is the one that go-openai would make of each.
func TestARequestIsMadeOnceForAllCalls(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, "http://127.0.0.1:1", func(cfg *Config) { cfg.APIVersion = "7" })
	type key struct{}
	for _, path := range []string{job.URLChat, job.URLCompletions, job.URLEmbeddings} {
		caller, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "the first call's"))
		first, err := c.request(caller, path, "a")
		require.NoError(t, err)
		cancel()
		second, err := c.request(t.Context(), path, "b")
		require.NoError(t, err)
		require.Same(t, first, second)

		fresh, err := c.newRequest(t.Context(), path, "b")
		require.NoError(t, err)
		require.Equal(t, http.MethodPost, second.Method)
		require.Equal(t, "http://127.0.0.1:1"+path+"?api-version=7", second.URL.String())
		require.Equal(t, fresh.URL, second.URL)
		require.Equal(t, fresh.Host, second.Host)
		require.Equal(t, fresh.Header, second.Header)
		require.Equal(t, http.Header{
			"Accept": {"application/json"}, "Authorization": {"Bearer sk-test-0123456789abcdef"}, "Content-Type": {"application/json"},
		}, second.Header)

		// Nothing of the first call lives on in it.
		require.NoError(t, second.Context().Err())
		require.Nil(t, second.Context().Value(key{}))
		require.Nil(t, second.Body)
		require.Nil(t, second.GetBody)
	}
	for range 2 {
		_, err := c.request(t.Context(), "/v1/images", "a")
		require.ErrorIs(t, err, errUnknownURL)
	}
}

func TestAnAzureRequestIsMadeForEachCall(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, "http://127.0.0.1:1", func(cfg *Config) { cfg.Kind, cfg.BaseURL = KindAzure, "http://127.0.0.1:1" })
	for _, model := range []string{"a", "b", "a"} {
		req, err := c.request(t.Context(), job.URLChat, model)
		require.NoError(t, err)
		require.Equal(t, "/openai/deployments/"+model+"/chat/completions", req.URL.Path)
	}
}

// careless answers every request, and then changes all that belongs to the call.
type careless struct {
	mu   sync.Mutex
	seen map[string]*http.Request // by body
}

func (c *careless) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	seen := req.Clone(req.Context())
	for name := range req.Header {
		req.Header[name] = []string{"changed"}
	}
	req.Header["X-Left-Behind"] = []string{string(body)}
	req.Method, req.Host, req.ContentLength, req.Body, req.GetBody = "changed", "changed", -7, nil, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[string(body)] = seen
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(goodAnswer)),
		Body: io.NopCloser(bytes.NewReader([]byte(goodAnswer))),
	}, nil
}

func TestCallsAtOnceHaveARequestEach(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, "http://127.0.0.1:1", func(cfg *Config) { cfg.Headers = Headers{"X-Extra": "e"} })
	transport := &careless{seen: make(map[string]*http.Request)}
	c.http.Transport = transport
	const calls = 64
	body := func(i int) string { return fmt.Sprintf(`{"i":%d,"model":"m","stream":true}`, i) }
	streams := func(i int) bool { return i%2 == 0 }
	id := func(i int) string { // one call in three has none
		if i%3 == 0 {
			return ""
		}
		return fmt.Sprintf("job-%d", i)
	}
	errs := make([]error, calls)
	var over sync.WaitGroup
	for i := range calls {
		over.Go(func() {
			_, errs[i] = c.Complete(t.Context(), &backend.Request{
				JobID: id(i), URL: job.URLChat, Body: []byte(body(i)), Model: "m", Stream: streams(i),
			})
		})
	}
	over.Wait()
	for i := range calls {
		require.NoError(t, errs[i])
		want := http.Header{
			"Accept": {"application/json"}, "Authorization": {"Bearer sk-test-0123456789abcdef"}, "Content-Type": {"application/json"},
			"User-Agent": {"understudy"}, "X-Extra": {"e"},
		}
		if streams(i) {
			want.Set("Accept", "text/event-stream, application/json")
		}
		if id(i) != "" {
			want.Set("X-Client-Request-Id", id(i))
		}
		got := transport.seen[body(i)]
		require.NotNil(t, got, i)
		require.Equal(t, want, got.Header)
		require.Equal(t, http.MethodPost, got.Method)
		require.Equal(t, "127.0.0.1:1", got.Host)
		require.Equal(t, "http://127.0.0.1:1/v1/chat/completions", got.URL.String())
		require.Equal(t, int64(len(body(i))), got.ContentLength)
		again, err := got.GetBody()
		require.NoError(t, err)
		text, err := io.ReadAll(again)
		require.NoError(t, err)
		require.Equal(t, body(i), string(text))
	}
}
