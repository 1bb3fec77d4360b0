package openai

import (
	"bytes"
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// benchmarkCall makes calls of a server that answers at once. Its allocations
// are counted too: compare with a run of the same benchmark, nothing else.
func benchmarkCall(b *testing.B, header http.Header, answer string) {
	b.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), header)
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(server.Close)
	c, err := New(Config{Name: "b", BaseURL: server.URL})
	require.NoError(b, err)
	b.Cleanup(c.Close)
	req := chat(false)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Complete(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCall(b *testing.B) { benchmarkCall(b, nil, goodAnswer) }

func BenchmarkStreamedCall(b *testing.B) {
	benchmarkCall(b, http.Header{"Content-Type": {"text/event-stream"}}, longStream())
}

func longStream() string {
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	finish := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
	return strings.Repeat(token, 200) + finish + "data: [DONE]\n\n"
}

// stub answers every request without a network, and takes no memory for it but
// that of the response.
type stub struct {
	header http.Header
	answer string
}

func (s *stub) RoundTrip(req *http.Request) (*http.Response, error) {
	_ = req.Body.Close()
	return &http.Response{
		StatusCode: http.StatusOK, Header: s.header, ContentLength: int64(len(s.answer)), Request: req,
		Body: io.NopCloser(strings.NewReader(s.answer)),
	}, nil
}

// usualAnswer is an answer of about 600 bytes, as providers give them.
func usualAnswer() *stub {
	return &stub{
		header: http.Header{
			"Content-Type": {"application/json"}, "Date": {"Sat, 01 Aug 2026 00:00:00 GMT"}, "Server": {"uvicorn"},
			"X-Request-Id": {"req_0123456789abcdef"}, "Content-Length": {"600"},
		},
		answer: `{"id":"chatcmpl-8f0c9d0e6b7a4f5e","object":"chat.completion","created":1790000000,"model":"qwen3-32b",` +
			`"choices":[{"index":0,"message":{"role":"assistant","reasoning_content":null,"content":"` +
			strings.Repeat("The sky is blue because of how air scatters light. ", 5) + `","tool_calls":[]},` +
			`"logprobs":null,"finish_reason":"stop","stop_reason":null}],` +
			`"usage":{"prompt_tokens":212,"total_tokens":275,"completion_tokens":63,"prompt_tokens_details":null},"prompt_logprobs":null}`,
	}
}

// usualRequest is one with a prompt of about 1 KB.
func usualRequest(size int) *backend.Request {
	body := `{"model":"auto","messages":[{"role":"system","content":"You are brief."},{"role":"user","content":"` +
		strings.Repeat("Why is the sky blue? ", size/21) + `"}],"temperature":0.2,"max_tokens":200}`
	return &backend.Request{JobID: "batch-7.row-17", URL: job.URLChat, Body: []byte(body), Model: "auto"}
}

// stubbed returns a client whose HTTP client is of a stub.
func stubbed(b *testing.B, s *stub) *Client {
	b.Helper()
	c, err := New(Config{Name: "b", BaseURL: "http://127.0.0.1:1/v1", APIKey: "sk-test-0123456789abcdef0123456789", Model: "qwen3-32b"})
	require.NoError(b, err)
	c.http.Transport = s
	return c
}

// BenchmarkOwnShare is a call without the network: what it takes more than
// BenchmarkBareShare is ours.
func BenchmarkOwnShare(b *testing.B) {
	for name, size := range map[string]int{"1KB": 1 << 10, "1MB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			s := usualAnswer()
			s.answer += strings.Repeat(" ", max(0, size-1<<10))
			c := stubbed(b, s)
			req := usualRequest(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Complete(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBareShare is what the same calls take of net/http, given a request
// and somebody who reads the answer.
func BenchmarkBareShare(b *testing.B) {
	client := &http.Client{Transport: usualAnswer()}
	body := usualRequest(1 << 10).Body
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://127.0.0.1:1/v1", nil)
	require.NoError(b, err)
	answer := make([]byte, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		req.Body = io.NopCloser(bytes.NewReader(body))
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.ReadFull(resp.Body, answer)
		_ = resp.Body.Close()
	}
}

func BenchmarkRead(b *testing.B) {
	chatAnswer := usualAnswer()
	answers := map[string][]byte{
		"chat":       []byte(chatAnswer.answer),
		"1MB":        []byte(strings.Replace(chatAnswer.answer, "The sky", strings.Repeat("The sky", 1<<20/7), 1)),
		"embeddings": []byte(`{"object":"list","data":[{"index":0,"embedding":[` + strings.Repeat("-0.0123456789,", 1535) + `1]}],"usage":{"prompt_tokens":5}}`),
	}
	for name, body := range answers {
		b.Run(name, func(b *testing.B) {
			url := job.URLChat
			if name == "embeddings" {
				url = job.URLEmbeddings
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if a := read(url, 200, chatAnswer.header, body); a.verdict.Class != "" {
					b.Fatal(a.verdict)
				}
			}
		})
	}
}

func BenchmarkBodyFor(b *testing.B) {
	c, err := New(Config{Name: "b", BaseURL: "http://127.0.0.1:1/v1"})
	require.NoError(b, err)
	for name, size := range map[string]int{"1KB": 1 << 10, "1MB": 1 << 20} {
		for model, what := range map[string]string{"auto": "unchanged", "other": "changed"} {
			req := usualRequest(size)
			b.Run(name+"/"+what, func(b *testing.B) {
				b.SetBytes(int64(len(req.Body)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.bodyFor(req, model, false); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	header := http.Header{"Content-Type": {"application/json"}, "Retry-After": {"7"}, "Date": {"Sat, 01 Aug 2026 00:00:00 GMT"}}
	for name, row := range map[string]struct {
		status int
		body   string
	}{
		"429": {429, `{"error":{"message":"Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, ` +
			`Used 29000, Requested 1500. Please try again in 1s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`},
		"500": {500, `{"error":{"message":"The server had an error while processing your request. Sorry about that!",` +
			`"type":"server_error","param":null,"code":null}}`},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Classify(row.status, header, []byte(row.body))
			}
		})
	}
}

// BenchmarkStream reads a stream of 200 chunks without the network.
func BenchmarkStream(b *testing.B) {
	stream := longStream()
	b.ReportAllocs()
	for b.Loop() {
		if x := exchangeOf(stream); !x.done {
			b.Fatal(x.err)
		}
	}
}

func BenchmarkAdaptiveLimit(b *testing.B) {
	c := &Client{cfg: Config{Timeout: DefaultTimeout, AdaptiveTimeout: true}}
	random := rand.New(rand.NewPCG(1, 2))
	took := func() time.Duration { return time.Duration(random.Int64N(int64(time.Minute))) }
	for range ringSize {
		c.latency.add(pace{}, true, took(), 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.latency.add(c.pace(false), true, took(), 0) // so that every call has something to learn
	}
}

// waitingConn is a connection whose peer takes everything and says nothing.
type waitingConn struct {
	net.Conn
	sent func()
	over chan struct{}
	once sync.Once
}

func (c *waitingConn) Write(p []byte) (int, error) {
	c.sent()
	return len(p), nil
}

func (c *waitingConn) Read([]byte) (int, error) {
	<-c.over
	return 0, io.EOF
}

func (c *waitingConn) Close() error {
	c.once.Do(func() { close(c.over) })
	return nil
}

func (*waitingConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*waitingConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*waitingConn) SetDeadline(time.Time) error      { return nil }
func (*waitingConn) SetReadDeadline(time.Time) error  { return nil }
func (*waitingConn) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkWaitingCall says how much memory a call holds that waits for its
// answer, the connection included, compared to one of net/http alone. Each goroutine has
// its own request, as each job has.
func BenchmarkWaitingCall(b *testing.B) {
	const calls = 2000
	for _, name := range []string{"ours", "bare"} {
		b.Run(name, func(b *testing.B) {
			var heap, stack float64
			for b.Loop() {
				h, s := waiting(b, calls, name == "ours")
				heap, stack = heap+h, stack+s
			}
			b.ReportMetric(heap/float64(b.N), "heap-B/call")
			b.ReportMetric(stack/float64(b.N), "stack-B/call")
		})
	}
}

// waiting returns how much heap and stack each of so many calls holds.
func waiting(b *testing.B, calls int, ours bool) (heap, stack float64) {
	b.Helper()
	var sent sync.WaitGroup
	c, err := New(Config{
		Name: "b", BaseURL: "http://127.0.0.1:1/v1", APIKey: "sk-test-0123456789abcdef0123456789", Model: "qwen3-32b", Concurrency: calls,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &waitingConn{sent: sent.Done, over: make(chan struct{})}, nil
		},
	})
	require.NoError(b, err)
	bare := &http.Client{Transport: c.transport}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithCancel(b.Context())
	var over sync.WaitGroup
	sent.Add(calls)
	for range calls {
		over.Go(func() {
			req := usualRequest(1 << 10)
			if ours {
				_, _ = c.Complete(ctx, req)
				return
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:1/v1/chat/completions", bytes.NewReader(req.Body))
			if err == nil {
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer sk-test-0123456789abcdef0123456789")
				if resp, err := bare.Do(r); err == nil {
					_ = resp.Body.Close()
				}
			}
		})
	}
	sent.Wait()
	runtime.GC() // which also shrinks stacks
	runtime.GC()
	runtime.ReadMemStats(&after)
	cancel()
	over.Wait()
	c.Close()
	return (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(calls),
		(float64(after.StackInuse) - float64(before.StackInuse)) / float64(calls)
}
