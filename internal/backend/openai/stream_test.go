package openai

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// spellings are the ways to send one and the same stream.
func spellings() map[string]func(string) string {
	return map[string]func(string) string{
		"LF":            func(s string) string { return s },
		"CRLF":          func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"CR":            func(s string) string { return strings.ReplaceAll(s, "\n", "\r") },
		"BOM":           func(s string) string { return "\xef\xbb\xbf" + s },
		"no space":      func(s string) string { return strings.ReplaceAll(s, "data: ", "data:") },
		"no last line":  func(s string) string { return strings.TrimRight(s, "\n") },
		"with comments": func(s string) string { return ": OPENROUTER PROCESSING\n\n" + s },
	}
}

func TestAnErrorInAStreamIsFoundInEveryForm(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"Hel"}}]`)
	finish := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
	const done = "data: [DONE]\n\n"
	const full = `{"error":{"message":"The server is overloaded","code":503}}`
	for _, row := range []struct {
		name, stream string
		class        backend.Class
	}{
		{"first", "data: " + full + "\n\n", backend.Overloaded},
		{"later", token + "data: " + full + "\n\n" + done, backend.Overloaded},
		{"beside a choice", token + chunk(`"error":{"code":429,"message":"x"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]`) + done, backend.RateLimit},
		{"named", token + "event: error\ndata: {\"message\":\"Overloaded\"}\n\n", backend.Overloaded},
		{"named in capitals", token + "event: Error\ndata: {\"message\":\"Overloaded\"}\n\n", backend.Overloaded},
		{"named with more", token + "event: response.error\ndata: {\"code\":\"rate_limit_exceeded\"}\n\n", backend.RateLimit},
		{"named by AWS", token + "event: throttlingException\ndata: {\"message\":\"Too many requests\"}\n\n", backend.RateLimit},
		{"named after its data", token + "data: {\"message\":\"Overloaded\"}\nevent: error\n\n", backend.Overloaded},
		{"named, in words", token + "event: error\ndata: rate limit exceeded\n\n", backend.RateLimit},
		{"a field", token + "error: {\"code\":400,\"message\":\"exceeds the available context size\"}\n\n", backend.ContextLength},
		{"a field in capitals", token + "Error: rate limit exceeded\n\n", backend.RateLimit},
		{"several lines", token + "data: {\"error\":\ndata: {\"code\":429,\ndata: \"message\":\"x\"}}\n\n", backend.RateLimit},
		{"bare", token + full + "\n", backend.Overloaded},
		{"bare, on several lines", token + "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"x\"\n  }\n}\n", backend.Overloaded},
		{"marked", token + "data: [ERROR]\n\n" + done, backend.ServerError},
		{"marked, with words", token + "data: [ERROR] rate limit exceeded\n\n", backend.RateLimit},
		{"marked, with an object", token + "data: [Error] " + full + "\n\n", backend.Overloaded},
		{"words as data", token + "data: The server is overloaded\n\n", backend.Overloaded},
		{"words on a line", token + "The server is overloaded: try again later\n", backend.Overloaded},
		{"words of a proxy", "upstream connect error: service unavailable\n", backend.Overloaded},
		{"words that could be a model's", token + "This violates our content policy.\n", backend.Truncated},
		{"half a bare chunk", token + `{"choices":[{"delta":{"content":"rate limit exceeded`, backend.Truncated},
		{"half a chunk", token + `data: {"choices":[{"delta":{"content":"rate limit exceeded`, backend.Truncated},
		{"a broken chunk", token + "data: {\"choices\":[{\"delta\":{\"content\":\"rate limit exceeded\n\n" + done, backend.BadResponse},
		{"of another shape", token + "data: {\"detail\":\"Rate limit exceeded\"}\n\n", backend.RateLimit},
		{"of another shape, before the marker", token + "data: {\"message\":\"Rate limit exceeded\",\"code\":null}\n\n" + done, backend.RateLimit},
		{"in a choice", token + chunk(`"choices":[{"index":0,"delta":{},"error":{"code":502,"message":"Overloaded"}}]`), backend.Overloaded},
		{"in a choice, unknown", token + chunk(`"choices":[{"index":0,"delta":{},"error":{"message":"x"}}]`), backend.ServerError},
		{"after the finish reason", token + finish + "data: " + full + "\n\n" + done, backend.Overloaded},
		{"named, after the finish reason", token + finish + "event: error\ndata: " + full + "\n\n", backend.Overloaded},
		{"marked, after the finish reason", token + finish + "data: [ERROR]\n\n", backend.ServerError},
		{"named after its data, after the finish reason", token + finish + "data: {\"message\":\"Overloaded\"}\nevent: error\n\n", backend.Overloaded},
		{"a field in capitals, after the finish reason", token + finish + "Error: rate limit exceeded\n\n", backend.RateLimit},
		{"of a kind", token + "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n", backend.Overloaded},
		{"an object instead of a stream", full, backend.Overloaded},
		{"an unexplained end", token + "foo: bar\n\n", backend.Truncated},
	} {
		for spelling, spell := range spellings() {
			if row.name == "an object instead of a stream" && spelling == "with comments" {
				continue // then it is a bare object, as above
			}
			t.Run(row.name+", "+spelling, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					_, took, err := complete(t, Config{}, chat(true), asIs, after(0, streamHead+spell(row.stream)))
					e := failure(t, err)
					require.Equal(t, row.class, e.Class, e.Message)
					require.Equal(t, 200, e.Status)
					require.Zero(t, took)
				})
			})
		}
	}
}

func TestWhatIsNoErrorDoesNotEndAStream(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	finish := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
	for name, stream := range map[string]string{
		"comments":                      strings.Repeat(": OPENROUTER PROCESSING\n\n", 500) + token + ": x\n" + finish,
		"null":                          token + "data: null\n\n" + finish,
		"nothing":                       token + "data:\n\ndata: \n\n" + finish,
		"a ping":                        "event: ping\ndata: {\"type\":\"ping\"}\n\n" + token + finish,
		"a queue":                       "data: {\"message\":\"high demand: 5 are before you\"}\n\n" + token + finish,
		"no error":                      chunk(`"error":null,"choices":[{"index":0,"delta":{"content":"x"}}]`) + finish,
		"words after a complete answer": token + finish + "The server is overloaded\n",
		"an unknown field":              token + "retry-after: rate limit exceeded\n\n" + finish,
		"an error that is content":      chunk(`"choices":[{"index":0,"delta":{"content":"[ERROR] x"}}]`) + finish,
	} {
		for spelling, spell := range spellings() {
			t.Run(name+", "+spelling, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					resp, _, err := complete(t, Config{}, chat(true), asIs, after(0, streamHead+spell(stream+"data: [DONE]\n\n")))
					require.NoError(t, err)
					content := "x"
					if strings.Contains(stream, "[ERROR]") {
						content = "[ERROR] x"
					}
					require.Contains(t, string(resp.Body), `"message":{"role":"assistant","content":"`+content+`"},"finish_reason":"stop"`)
				})
			})
		}
	}
}

func TestOnlyTokensKeepAStreamAlive(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	cfg := Config{Timeout: 4 * time.Second, FirstTokenTimeout: 2 * time.Second}
	for name, kept := range map[string]string{
		"comments":        ": OPENROUTER PROCESSING\n\n",
		"roles":           chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]`),
		"empty deltas":    chunk(`"choices":[{"index":0,"delta":{}}]`),
		"empty reasoning": chunk(`"choices":[{"index":0,"delta":{"reasoning":"","reasoning_content":null,"refusal":null,"tool_calls":[]}}]`),
		"no choices":      chunk(`"choices":[]`),
		"usage":           chunk(`"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}`),
		"pings":           "event: ping\ndata: {\"type\":\"ping\"}\n\n",
		"blank lines":     "\n\n",
	} {
		keep := func(conn net.Conn) {
			for { // until the client has had enough
				if _, err := io.WriteString(conn, kept); err != nil {
					return
				}
				time.Sleep(300 * time.Millisecond)
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, took, err := complete(t, cfg, chat(false), asIs, after(0, streamHead), keep)
				require.Equal(t, "no first token in 2s", failure(t, err).Message)
				require.Equal(t, 2*time.Second, took)
				_, took, err = complete(t, cfg, chat(false), asIs, after(time.Second, streamHead+token), keep)
				require.Equal(t, "no token for 4s", failure(t, err).Message)
				require.Equal(t, 5*time.Second, took)
				_, took, err = complete(t, Config{Timeout: 7 * time.Second}, chat(true), asIs, after(time.Second, streamHead+token), keep)
				require.Equal(t, "no answer in 7s", failure(t, err).Message)
				require.Equal(t, 7*time.Second, took)
			})
		})
	}
}

func TestSilenceInTheMiddleIsATimeout(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	for _, row := range []struct {
		name, text string
		firstToken time.Duration
		message    string
		took       time.Duration
	}{
		{"a stream's header", streamHead, 0, "no answer in 6s", 6 * time.Second},
		{"half an event", streamHead + token + `data: {"choices":[{"ind`, 0, "no answer in 6s", 6 * time.Second},
		{"half a comment", streamHead + ": OPENR", 2 * time.Second, "no first token in 2s", 2 * time.Second},
		{"half an event, first token", streamHead + token + `data: {"choices":[{"ind`, 2 * time.Second, "no token for 6s", 6 * time.Second},
		{"half an error", streamHead + token + `data: {"error":{"code":429`, 2 * time.Second, "no token for 6s", 6 * time.Second},
		{"half an answer where a stream was asked for", jsonHead + goodAnswer[:50], 2 * time.Second, "no first token in 2s", 2 * time.Second},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-Ty", 0, "no answer in 6s", 6 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, took, err := complete(t, Config{Timeout: 6 * time.Second, FirstTokenTimeout: row.firstToken}, chat(true), asIs, after(0, row.text), untilClosed)
				e := failure(t, err)
				require.Equal(t, backend.Timeout, e.Class)
				require.Equal(t, row.message, e.Message)
				require.Equal(t, row.took, took)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		})
	}
}

func TestACallThatLostTheRaceHangsUpAtOnce(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}`)
	usage := &job.Usage{InputTokens: 7, OutputTokens: 1}
	for _, row := range []struct {
		name, text string
		cfg        Config
		usage      *job.Usage
		cost       float64
		status     int
	}{
		{"no header", "", Config{PriceHour: 3600}, nil, 3, 0},
		{"no body", jsonHead, Config{PriceHour: 3600}, nil, 3, 200},
		{"half a body", jsonHead + goodAnswer[:50], Config{PriceHour: 3600}, nil, 3, 200},
		{"half an error", "HTTP/1.1 429 X\r\nContent-Length: 99\r\n\r\n{\"err", Config{PriceHour: 3600}, nil, 3, 429},
		{"a stream without tokens", streamHead + ": wait\n\n", Config{PriceHour: 3600, FirstTokenTimeout: time.Minute}, nil, 3, 200},
		{"a stream", streamHead + token, Config{PriceHour: 3600}, usage, 3, 200},
		{"a stream, by token", streamHead + token, Config{PriceHour: 3600, PriceInput: 1e6, PriceOutput: 3e6}, usage, 10, 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				lost := fmt.Errorf("another backend was first: %w", context.Canceled)
				started := time.Now()
				var aborted time.Duration
				_, took, err := complete(t, row.cfg, chat(false), func(ctx context.Context) context.Context {
					ctx, cancel := context.WithCancelCause(ctx)
					time.AfterFunc(3*time.Second, func() { cancel(lost) })
					return ctx
				}, after(0, row.text), func(conn net.Conn) {
					untilClosed(conn)
					aborted = time.Since(started)
				})
				e := failure(t, err)
				require.Equal(t, 3*time.Second, took)
				require.Equal(t, 3*time.Second, aborted) // the provider can stop working
				require.Equal(t, backend.Canceled, e.Class)
				require.ErrorIs(t, err, lost)
				require.Equal(t, row.status, e.Status)
				require.Equal(t, row.usage, e.Usage)
				require.InDelta(t, row.cost, *e.CostUSD, 1e-9)
			})
		})
	}
}

func TestStreamsOfEveryKindAreKeptWhole(t *testing.T) {
	t.Parallel()
	stream := chunk(`"choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"th"}},{"index":1,"delta":{"role":"assistant","refusal":"I "}}]`) +
		chunk(`"choices":[{"index":0,"delta":{"reasoning_content":"ink"}}]`) +
		chunk(`"choices":[{"index":1,"delta":{"refusal":"cannot"},"finish_reason":"stop"}]`) +
		chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{"}}]}}]`) +
		chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"[1"}},{"index":1,"function":{"arguments":"}"}}]}}]`) +
		chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"]"}}]}}]`) +
		chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]`) +
		chunk(`"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"cost":0.5,"prompt_tokens_details":{"cached_tokens":8}}`) +
		"data: [DONE]\n\n"
	const want = `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[` +
		`{"index":0,"message":{"role":"assistant","content":null,"reasoning_content":"think","tool_calls":[` +
		`{"id":"a","type":"function","function":{"name":"f","arguments":"[1]"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"},` +
		`{"index":1,"message":{"role":"assistant","content":null,"refusal":"I cannot"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":9,"completion_tokens":4,"cost":0.5,"prompt_tokens_details":{"cached_tokens":8}}}`
	for name, spell := range spellings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, serve(t, &recorder{kind: "text/event-stream", answer: spell(stream)}), func(c *Config) { c.FirstTokenTimeout = time.Minute })
			resp, err := c.Complete(t.Context(), chat(false))
			require.NoError(t, err)
			sameBytes(t, want, resp.Body)
			require.Equal(t, &job.Usage{InputTokens: 9, OutputTokens: 4}, resp.Usage)
			require.InDelta(t, 0.5, *resp.CostUSD, 1e-9)
		})
	}
}

func TestFailedCallsKeepWhatTheyCost(t *testing.T) {
	t.Parallel()
	const usage = `"usage":{"prompt_tokens":2000000,"completion_tokens":1000000,"total_tokens":3000000,"prompt_tokens_details":{"cached_tokens":1500000},"completion_tokens_details":{"reasoning_tokens":7}}`
	const reported = `"usage":{"prompt_tokens":2000000,"completion_tokens":1000000,"cost":0.25,"cost_details":{"upstream_inference_cost":9}}`
	counted := &job.Usage{InputTokens: 2000000, OutputTokens: 1000000}
	token := func(usage string) string {
		return chunk(`"choices":[{"index":0,"delta":{"content":"x"}}],` + usage)
	}
	for _, row := range []struct {
		name, answer, header string
		status               int
		class                backend.Class
		usage                *job.Usage
		cost                 float64
	}{
		{"an error with its usage", `{"error":{"code":500,"message":"x"},` + usage + `}`, "", 500, backend.ServerError, counted, 4},
		{"an error in a good answer", `{"error":{"code":500,"message":"x"},` + reported + `}`, "", 200, backend.ServerError, counted, 0.25},
		{"an empty answer", `{"choices":[{"message":{"content":""},"finish_reason":"stop"}],` + usage + `}`, "", 200, backend.EmptyOutput, counted, 4},
		{"a filtered answer", `{"choices":[{"message":{"content":"x"},"finish_reason":"content_filter"}],` + reported + `}`, "", 200, backend.ContentFilter, counted, 0.25},
		{"litellm's header", `{"error":{"code":500,"message":"x"}}`, "0.125", 500, backend.ServerError, nil, 0.125},
		{"half an answer, litellm's header", `{"choices":[{"mess`, "0.125", 200, backend.BadResponse, nil, 0.125},
		{"a stream that broke off", token(usage), "", 200, backend.Truncated, counted, 4},
		{"a stream that broke off, reported", token(reported), "", 200, backend.Truncated, counted, 0.25},
		{"a stream that failed", token(usage) + "data: {\"error\":{\"code\":429,\"message\":\"x\"}}\n\n", "", 200, backend.RateLimit, counted, 4},
		{"a stream that failed, reported with it", token(`"x":1`) + `data: {"error":{"code":429,"message":"x"},` + reported + "}\n\n", "", 200, backend.RateLimit, counted, 0.25},
		{"a stream that explains its end", token(usage) + "The server is overloaded\n", "", 200, backend.Overloaded, counted, 4},
		{"nothing known", `{"error":{"code":500,"message":"x"}}`, "", 500, backend.ServerError, nil, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Litellm-Response-Cost", row.header)
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.answer)
			})), func(cfg *Config) { cfg.PriceInput, cfg.PriceOutput = 0.5, 3 })
			_, err := c.Complete(t.Context(), chat(false))
			e := failure(t, err)
			require.Equal(t, row.class, e.Class, e.Message)
			require.Equal(t, row.usage, e.Usage)
			if row.cost < 0 {
				require.Nil(t, e.CostUSD)
				return
			}
			require.InDelta(t, row.cost, *e.CostUSD, 1e-9)
		})
	}
}

func TestARentedMachineCostsItsTime(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		steps []script
		class backend.Class // empty: success
		cost  float64
	}{
		{"an answer", []script{after(2*time.Second, jsonHead+`{"choices":[{"message":{"content":"x"}}]}`)}, "", 2},
		{"an answer with its usage but no price of tokens", []script{after(2*time.Second, jsonHead+goodAnswer)}, "", 2},
		{"a failure", []script{after(3*time.Second, "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")}, backend.ServerError, 3},
		{"half an answer", []script{after(time.Second, jsonHead+goodAnswer[:40]), after(time.Second, "")}, backend.BadResponse, 2},
		{"no answer", []script{untilClosed}, backend.Timeout, 5},
		{"a closed connection", []script{after(time.Second, "")}, backend.Connection, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				resp, _, err := complete(t, Config{Timeout: 5 * time.Second, PriceHour: 3600}, chat(false), asIs, row.steps...)
				if row.class == "" {
					require.NoError(t, err)
					require.InDelta(t, row.cost, *resp.CostUSD, 1e-9)
					return
				}
				e := failure(t, err)
				require.Equal(t, row.class, e.Class, e.Message)
				require.InDelta(t, row.cost, *e.CostUSD, 1e-9)
			})
		})
	}
}
