package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

const goodAnswer = `{"id":"gen-1","object":"chat.completion","created":1,"model":"m-2026","provider":"P",` +
	`"choices":[{"index":0,"message":{"role":"assistant","content":"hi","reasoning":"r"},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":1000000,"completion_tokens":500000},  "big":12345678901234567890}`

// sameBytes is for answers that have to be the same to the byte.
func sameBytes(t *testing.T, want string, got []byte) {
	t.Helper()
	require.Equal(t, want, string(got))
}

// taken is a request as a server got it.
type taken struct {
	path, query, body string
	header            http.Header
	length            int64
}

// recorder answers every request the same and keeps the last one.
type recorder struct {
	mu     sync.Mutex
	last   taken
	calls  int
	answer string
	kind   string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	r.last = taken{req.URL.EscapedPath(), req.URL.RawQuery, string(body), req.Header, req.ContentLength}
	r.calls++
	r.mu.Unlock()
	if r.kind != "" {
		w.Header().Set("Content-Type", r.kind)
	}
	w.Header().Set("X-Request-Id", "req-7")
	_, _ = io.WriteString(w, r.answer)
}

func (r *recorder) taken() taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func TestTheBodyTravelsByteForByteButForTheModel(t *testing.T) {
	t.Parallel()
	server := &recorder{answer: goodAnswer}
	c := newTestClient(t, serve(t, server), func(cfg *Config) { cfg.Models = map[string]string{"auto": "vendor/real:free"} })
	const body = "{ \"zeta\":1,\n\t\"model\" : \"auto\", \"temperature\": 0, \"stop\": \"a\", \"seed\": 12345678901234567890, \"top_p\":1.0e0," +
		"\"provider\":{\"order\":[\"x\"],\"model\":\"inner\"}, \"messages\":[{\"role\":\"user\",\"content\":\"\\u00e4\\/<>& \\ud83d\\ude00 ä\"}]," +
		" \"mo\\u0064el\":\"bypass\", \"alpha\" : null , \"model\":\"second\" }\r\n"
	want := strings.Replace(body, `"auto"`, `"vendor/real:free"`, 1)
	want = strings.Replace(want, ", \"mo\\u0064el\":\"bypass\", \"alpha\" : null , \"model\":\"second\" }", ", \"alpha\" : null }", 1)
	want = strings.Replace(want, `ä"}], "alpha"`, `ä"}], "alpha"`, 1)

	var started []string
	resp, err := c.Complete(t.Context(), &backend.Request{
		JobID: "batch.1", URL: job.URLChat, Body: []byte(body), Model: "auto",
		Started: func(model string) { started = append(started, model) },
		Chunk:   func([]byte) { t.Error("a chunk of an answer that was no stream") },
	})
	require.NoError(t, err)
	got := server.taken()
	require.Equal(t, want, got.body)
	require.Equal(t, int64(len(want)), got.length)
	require.Equal(t, "/v1/chat/completions", got.path)
	require.Empty(t, got.query)
	require.Equal(t, "Bearer sk-test-0123456789abcdef", got.header.Get("Authorization"))
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, "batch.1", got.header.Get("X-Client-Request-Id"))
	require.Empty(t, got.header.Values("Idempotency-Key"))
	require.Empty(t, got.header.Values("Cookie"))
	require.Equal(t, []string{"vendor/real:free"}, started)

	sameBytes(t, goodAnswer, resp.Body)
	require.Equal(t, 200, resp.Status)
	require.Equal(t, "req-7", resp.RequestID)
	require.Equal(t, "m-2026", resp.Model)
	require.Equal(t, &job.Usage{InputTokens: 1000000, OutputTokens: 500000}, resp.Usage)
	require.Nil(t, resp.CostUSD)
	require.Zero(t, resp.FirstToken)
}

func TestTheModelIsMapped(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, model, body, asked, want string
		models                         map[string]string
	}{
		{"the job's own", "", `{"model":"a"}`, "a", `{"model":"a"}`, nil},
		{"the backend's", "m", `{"model":"a"}`, "a", `{"model":"m"}`, nil},
		{"an alias", "m", `{"model":"a"}`, "a", `{"model":"x"}`, map[string]string{"a": "x"}},
		{"no alias of it", "m", `{"model":"b"}`, "b", `{"model":"m"}`, map[string]string{"a": "x"}},
		{"none at all", "", `{"a":1}`, "", `{"a":1}`, nil},
		{"none but several", "", `{"model":"a","model":""}`, "", `{"model":""}`, nil},
		{"added", "m", `{"a":1}`, "", `{"a":1,"model":"m"}`, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := &recorder{answer: goodAnswer}
			c := newTestClient(t, serve(t, server), func(cfg *Config) { cfg.Model, cfg.Models = row.model, row.models })
			_, err := c.Complete(t.Context(), &backend.Request{URL: job.URLChat, Body: []byte(row.body), Model: row.asked})
			require.NoError(t, err)
			require.Equal(t, row.want, server.taken().body)
		})
	}
}

func TestSetAndDropShapeTheBody(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, body, want string
		url              string
		stream           bool
		change           func(*Config)
	}{
		{"set and drop", `{"a":1,"b":2}`, `{"a":[3]}`, job.URLChat, false, func(c *Config) {
			c.Set, c.Drop = map[string]json.RawMessage{"a": json.RawMessage(`[3]`), "x": json.RawMessage("1")}, []string{"b", "x"}
		}},
		{"streaming for the first token", `{"stream":false}`, `{"stream":true,"stream_options":{"include_usage":true}}`, job.URLChat, false, func(c *Config) { c.FirstTokenTimeout = time.Minute }},
		{"a job's own stream options stay", `{"stream_options":{}}`, `{"stream_options":{},"stream":true}`, job.URLCompletions, false, func(c *Config) { c.FirstTokenTimeout = time.Minute }},
		{"a streaming job is left alone", `{"stream":true}`, `{"stream":true}`, job.URLChat, true, func(c *Config) { c.FirstTokenTimeout = time.Minute }},
		{"a backend that rejects stream options", `{}`, `{"stream":true}`, job.URLChat, false, func(c *Config) {
			c.FirstTokenTimeout, c.Drop = time.Minute, []string{"stream_options"}
		}},
		{"embeddings do not stream", `{"input":"x"}`, `{"input":"x"}`, job.URLEmbeddings, false, func(c *Config) { c.FirstTokenTimeout = time.Minute }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := &recorder{answer: goodAnswer}
			c := newTestClient(t, serve(t, server), row.change)
			_, _ = c.Complete(t.Context(), &backend.Request{URL: row.url, Body: []byte(row.body), Stream: row.stream})
			require.Equal(t, row.want, server.taken().body)
			require.Equal(t, "/v1"+strings.TrimPrefix(row.url, "/v1"), server.taken().path)
		})
	}
}

func TestAzureHasDeploymentsAndItsOwnKeyHeader(t *testing.T) {
	t.Parallel()
	server := &recorder{answer: goodAnswer}
	url := serve(t, server)
	c := newTestClient(t, url, func(cfg *Config) {
		cfg.Kind, cfg.BaseURL, cfg.Headers = KindAzure, url+"/openai/", Headers{"X-Extra": "1", "User-Agent": "me"}
	})
	for path, model := range map[string]string{
		"chat/completions": "gpt-4", "completions": "gpt-4", "embeddings": "gpt-3.5:turbo/x?y",
	} {
		_, _ = c.Complete(t.Context(), &backend.Request{URL: "/v1/" + path, Body: []byte(`{}`), Model: model})
		got := server.taken()
		want := map[string]string{"gpt-4": "gpt-4", "gpt-3.5:turbo/x?y": "gpt-3.5:turbo%2Fx%3Fy"}[model]
		require.Equal(t, "/openai/deployments/"+want+"/"+path, got.path)
		require.Equal(t, "api-version="+DefaultAPIVersion, got.query)
		require.Equal(t, "sk-test-0123456789abcdef", got.header.Get("Api-Key"))
		require.Empty(t, got.header.Get("Authorization"))
		require.Equal(t, "1", got.header.Get("X-Extra"))
		require.Equal(t, "me", got.header.Get("User-Agent"))
	}
	for _, model := range []string{"", "..", "."} {
		calls := 0
		_, err := c.Complete(t.Context(), &backend.Request{
			URL: job.URLChat, Body: []byte(`{}`), Model: model, Started: func(string) { calls++ },
		})
		require.Equal(t, backend.ModelNotFound, failure(t, err).Class)
		require.Equal(t, 1, calls)
	}
}

func TestWhatCannotBeSentIsAnInvalidRequest(t *testing.T) {
	t.Parallel()
	server := &recorder{answer: goodAnswer}
	c := newTestClient(t, serve(t, server))
	for _, req := range []backend.Request{
		{URL: job.URLChat, Body: []byte(`[]`)},
		{URL: job.URLChat, Body: []byte(`{"a":`)},
		{URL: job.URLChat},
		{URL: "/v1/images", Body: []byte(`{}`)},
	} {
		calls := 0
		req.Started = func(string) { calls++ }
		_, err := c.Complete(t.Context(), &req)
		e := failure(t, err)
		require.Equal(t, backend.InvalidRequest, e.Class)
		require.Zero(t, e.Status)
		require.Equal(t, 1, calls)
	}
	require.Zero(t, server.calls)
}

func TestARedirectIsRefusedAndTheKeyStays(t *testing.T) {
	t.Parallel()
	elsewhere := &recorder{answer: goodAnswer}
	target := serve(t, elsewhere)
	for _, status := range []int{301, 302, 303, 307, 308} {
		c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target+r.URL.Path, status)
		})))
		_, err := c.Complete(t.Context(), chat(false))
		e := failure(t, err)
		require.Equal(t, backend.BadResponse, e.Class)
		require.Equal(t, status, e.Status)
	}
	require.Zero(t, elsewhere.calls)
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]func(http.ResponseWriter, *http.Request){
		"answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, goodAnswer) },
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, goodAnswer[:40])
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, goodAnswer[40:]+"\n")
		},
		"stream": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, chunk(`"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]`)+"data: [DONE]\n\n")
		},
		"failure": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "broken")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			conns := 0
			server := httptest.NewUnstartedServer(http.HandlerFunc(kind))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				mu.Lock()
				defer mu.Unlock()
				if state == http.StateNew {
					conns++
				}
			}
			server.Start()
			t.Cleanup(server.Close)
			c := newTestClient(t, server.URL)
			for range 20 {
				_, _ = c.Complete(t.Context(), chat(false))
			}
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, 1, conns)
		})
	}
}

func TestAsManyConnectionsAreKeptAsThereAreCalls(t *testing.T) {
	t.Parallel()
	const calls = 16
	var mu sync.Mutex
	conns := 0
	together := make(chan struct{}, calls) // all calls of a round are in the server at once
	goOn := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		together <- struct{}{}
		<-goOn
		_, _ = io.WriteString(w, goodAnswer)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			conns++
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c := newTestClient(t, server.URL, func(cfg *Config) { cfg.Concurrency = calls })
	for range 5 {
		var round sync.WaitGroup
		errs := make([]error, calls)
		for i := range calls {
			round.Go(func() { _, errs[i] = c.Complete(t.Context(), chat(false)) })
		}
		for range calls {
			<-together
		}
		for range calls {
			goOn <- struct{}{}
		}
		round.Wait()
		require.NoError(t, errors.Join(errs...))
	}
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, calls, conns)
}

func TestHTTP2IsSpokenWhereTheBackendCan(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"model":"`+r.Proto+`","choices":[{"message":{"content":"x"}}]}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newTestClient(t, server.URL)
	c.transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	resp, err := c.Complete(t.Context(), chat(false))
	require.NoError(t, err)
	require.Equal(t, "HTTP/2.0", resp.Model)
}

func TestAnswersAreCapped(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 1<<20)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/chat/completions"):
			w.WriteHeader(http.StatusBadRequest)
		case strings.HasSuffix(r.URL.Path, "/embeddings"):
			w.Header().Set("Content-Type", "text/event-stream")
			for range 100 {
				_, _ = io.WriteString(w, chunk(`"choices":[{"index":0,"delta":{"content":"`+huge[:1000]+`"}}]`))
			}
			return
		}
		_, _ = io.WriteString(w, `{"error":{"message":"`+huge+`"}}`)
	})
	c := newTestClient(t, serve(t, handler), func(cfg *Config) { cfg.MaxResponseBytes = 20000 })
	_, err := c.Complete(t.Context(), chat(false))
	e := failure(t, err)
	require.Equal(t, backend.InvalidRequest, e.Class)
	require.Len(t, e.Body, maxErrorBody)
	require.Len(t, e.Message, maxMessage)
	for _, url := range []string{job.URLCompletions, job.URLEmbeddings} {
		_, err = c.Complete(t.Context(), &backend.Request{URL: url, Body: []byte(`{}`)})
		e = failure(t, err)
		require.Equal(t, backend.BadResponse, e.Class)
		require.Equal(t, "the answer is longer than 20000 bytes", e.Message)
	}
}

func TestStreamsEndInManyWays(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"Hel"}}]`)
	finish := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
	usage := chunk(`"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"cost":0.25}`)
	for _, row := range []struct {
		name, body string
		cut        bool
		class      backend.Class // empty: success
		tokens     bool
	}{
		{"finish and marker", token + finish + usage + "data: [DONE]\n\n", false, "", true},
		{"finish without a marker", token + finish + usage, false, "", true},
		{"finish, then cut", token + finish, true, "", true},
		{"no finish", token, false, backend.Truncated, true},
		{"marker without a finish", token + "data: [DONE]\n\n", false, backend.Truncated, true},
		{"cut", token, true, backend.Truncated, true},
		{"cut in a chunk", token + "data: {\"id\":", true, backend.Truncated, true},
		{"closed in a chunk", token + "data: {\"id\":", false, backend.Truncated, true},
		{"one of two choices finished", chunk(`"choices":[{"index":1,"delta":{"content":"b"}}]`) + token + finish, false, backend.Truncated, true},
		{"comments only", ": hello\n\n: hello\n\n", false, backend.Truncated, false},
		{"marker only", "data: [DONE]\n\n", false, backend.BadResponse, false},
		{"nothing", "", false, backend.BadResponse, false},
		{"nonsense", "data: <html>\n\n", false, backend.BadResponse, false},
		{"a list", token + "data: [1]\n\n", false, backend.BadResponse, true},
		{"filtered", token + chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]`), false, backend.ContentFilter, true},
		{"finish error", token + chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"error"}]`), false, backend.ServerError, true},
		{"finish error with a reason", token + chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"error","error":{"code":429,"message":"x"}}]`), false, backend.RateLimit, true},
		{"error without words", token + "event: error\ndata: {}\n\n", false, backend.ServerError, true},
		{"error in bare JSON", token + "{\"error\":{\"message\":\"context length exceeded\"}}\n", false, backend.ContextLength, true},
		{"an error in a list", token + "data: [{\"error\":{\"code\":503,\"message\":\"x\",\"status\":\"UNAVAILABLE\"}}]\n\n", false, backend.Overloaded, true},
		{"error after usage", token + usage + "data: {\"error\":{\"code\":503,\"message\":\"x\"}}\n\n", false, backend.Overloaded, true},
		{"no content", finish + usage, false, backend.EmptyOutput, false},
		{"plain JSON instead", goodAnswer, false, "", false},
		{"a plain error instead", `{"error":{"code":429,"message":"x"}}`, false, backend.RateLimit, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, row.body)
				w.(http.Flusher).Flush()
				if row.cut {
					panic(http.ErrAbortHandler)
				}
			})))
			resp, err := c.Complete(t.Context(), chat(true))
			if row.class == "" {
				require.NoError(t, err)
				require.True(t, json.Valid(resp.Body))
				require.Equal(t, row.tokens, resp.FirstToken > 0)
				return
			}
			e := failure(t, err)
			require.Equal(t, row.class, e.Class, e.Message)
			require.Equal(t, row.tokens, e.FirstToken > 0)
			if strings.Contains(row.body, "0.25") {
				require.Equal(t, &job.Usage{InputTokens: 7, OutputTokens: 3}, e.Usage)
				require.InDelta(t, 0.25, *e.CostUSD, 1e-9)
			}
		})
	}
}

func TestChunksAreHandedOutAsTheyCome(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": wait\r\n\r\ndata:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\r\n\r\n")
		w.(http.Flusher).Flush()
		select { // the first chunk has to arrive before there is a second
		case <-goOn:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	})))
	var chunks []string
	req := chat(true)
	req.Chunk = func(data []byte) {
		if chunks = append(chunks, string(data)); len(chunks) == 1 {
			close(goOn)
		}
	}
	resp, err := c.Complete(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, []string{
		`{"choices":[{"index":0,"delta":{"content":"a"}}]}`, `{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]}`,
	}, chunks)
	require.JSONEq(t, `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"ab"},"finish_reason":"stop"}]}`, string(resp.Body))
	require.Equal(t, "m", resp.Model)
}

func TestAStreamNobodyAskedForIsAssembled(t *testing.T) {
	t.Parallel()
	server := &recorder{kind: "text/plain", answer: chunk(`"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]`)}
	resp, err := newTestClient(t, serve(t, server)).Complete(t.Context(), chat(false))
	require.NoError(t, err)
	sameBytes(t, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}`, resp.Body)
}

func TestBrokenConnectionsAreConnectionFailures(t *testing.T) {
	t.Parallel()
	reset := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	tls.Config.ErrorLog = nil
	t.Cleanup(tls.Close)
	plain := serve(t, http.NotFoundHandler())
	for name, url := range map[string]string{
		"refused": "http://127.0.0.1:1", "reset": reset, "unknown authority": tls.URL,
		"no TLS": strings.Replace(plain, "http:", "https:", 1), "DNS": "http://does-not-exist.invalid",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, url, func(cfg *Config) { cfg.APIVersion = "v" })
			_, err := c.Complete(t.Context(), chat(false))
			e := failure(t, err)
			require.Equal(t, backend.Connection, e.Class, e.Message)
			require.Zero(t, e.Status)
			require.NotContains(t, e.Message, "api-version")
			require.True(t, strings.HasPrefix(e.Message, "the connection failed: "), e.Message)
			require.Error(t, e.Cause)
			if name == "refused" {
				require.ErrorIs(t, err, syscall.ECONNREFUSED)
			}
		})
	}
}

func TestABodyThatBreaksOffIsNoAnswer(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 429} {
		c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, goodAnswer[:100])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})))
		_, err := c.Complete(t.Context(), chat(false))
		e := failure(t, err)
		require.Equal(t, map[int]backend.Class{200: backend.BadResponse, 429: backend.RateLimit}[status], e.Class)
		require.Equal(t, status, e.Status)
		require.Equal(t, goodAnswer[:100], string(e.Body))
	}
}

func TestTheKeyIsNowhere(t *testing.T) {
	t.Parallel()
	const key = "zz/secret+key=0123456789"
	cut := strings.Repeat("y", maxErrorBody-50) // so that the key lies across the limit
	for name, body := range map[string]string{
		"json":    `{"error":{"message":"Incorrect API key provided: ` + key + `","code":"` + key + `","type":"Bearer ` + key + `"}}`,
		"masked":  `{"error":{"message":"Incorrect API key provided: sk-abc***xyz and zz/se****6789, sk-proj-AbC_12-3, Bearer eyJh.abc-def"}}`,
		"encoded": `bad key zz%2Fsecret%2Bkey%3D0123456789`,
		"html":    "<html><head><title>" + key + "</title></head></html>",
		"long":    `{"error":{"message":"` + cut + key + key + key + key + `"}}`,
		"header":  `{"message":"you sent X-Token tok-123456 and Basic dXNlcjpwYXNz"}`,
	} {
		for _, status := range []int{200, 401} {
			c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Request-Id", "r-"+key)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			})), func(cfg *Config) { cfg.APIKey, cfg.Headers = key, Headers{"X-Token": "tok-123456"} })
			_, err := c.Complete(t.Context(), chat(false))
			e := failure(t, err)
			all := fmt.Sprintf("%v|%+v|%s|%s", e, *e, e.Body, e.Message)
			for cause := error(e); cause != nil; cause = errors.Unwrap(cause) {
				all += cause.Error()
			}
			for _, leak := range []string{
				key, key[:8], "zz%2F", "abc***", "***xyz", "AbC_12", "eyJh", "tok-123456", "dXNlcj", "zz/se", "0123456789",
			} {
				require.NotContains(t, all, leak, "%s %d", name, status)
			}
			require.NotEmpty(t, e.Body)
		}
	}
	// Not in what fails before there is an answer, nor in the configuration.
	c := newTestClient(t, "http://127.0.0.1:1", func(cfg *Config) { cfg.APIKey = key })
	_, err := c.Complete(t.Context(), chat(false))
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, failure(t, err), err), key)
}

func TestTheCostIsTheProvidersOrOurs(t *testing.T) {
	t.Parallel()
	answer := func(usage string) string {
		return `{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],"usage":` + usage + `}`
	}
	for _, row := range []struct {
		name, usage string
		change      func(*Config)
		header      string
		want        float64 // -1: unknown
		tokens      *job.Usage
	}{
		{"unknown", `null`, func(*Config) {}, "", -1, nil},
		{"tokens without a price", `{"prompt_tokens":1}`, func(*Config) {}, "", -1, &job.Usage{InputTokens: 1}},
		{"the provider's", `{"prompt_tokens":1,"completion_tokens":1,"cost":0.5}`, func(c *Config) { c.PriceInput = 9e8 }, "", 0.5, &job.Usage{InputTokens: 1, OutputTokens: 1}},
		{"the provider's zero", `{"prompt_tokens":1,"cost":0}`, func(c *Config) { c.PriceInput = 9e8 }, "", 0, &job.Usage{InputTokens: 1}},
		{"litellm's header", `{"prompt_tokens":1}`, func(*Config) {}, "0.125", 0.125, &job.Usage{InputTokens: 1}},
		{"by tokens", `{"prompt_tokens":2000000,"completion_tokens":1000000}`, func(c *Config) { c.PriceInput, c.PriceOutput, c.PriceHour = 0.5, 3, 9 }, "", 4, &job.Usage{InputTokens: 2000000, OutputTokens: 1000000}},
		{"other names", `{"input_tokens":2,"output_tokens":3.0}`, func(*Config) {}, "", -1, &job.Usage{InputTokens: 2, OutputTokens: 3}},
		{"nonsense", `{"prompt_tokens":-2,"completion_tokens":"3","cost":-1}`, func(*Config) {}, "NaN", -1, nil},
		{"no object", `[1]`, func(*Config) {}, "", -1, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Litellm-Response-Cost", row.header)
				_, _ = io.WriteString(w, answer(row.usage))
			})), row.change)
			resp, err := c.Complete(t.Context(), chat(false))
			require.NoError(t, err)
			require.Equal(t, row.tokens, resp.Usage)
			if row.want < 0 {
				require.Nil(t, resp.CostUSD)
				return
			}
			require.InDelta(t, row.want, *resp.CostUSD, 1e-9)
		})
	}
}

func TestACancelledCallIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	lost := fmt.Errorf("another backend was first: %w", context.Canceled)
	c := newTestClient(t, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client is gone
		cancel(lost)
		<-r.Context().Done()
	})))
	_, err := c.Complete(ctx, chat(false))
	e := failure(t, err)
	require.Equal(t, backend.Canceled, e.Class)
	require.Equal(t, "the call was cancelled", e.Message)
	require.ErrorIs(t, err, lost)
	require.ErrorIs(t, err, backend.Canceled)
}
