package llmtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/leaktest"
	"understudy/internal/llmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaktest.Patient(m)) }

const hello = `{"model":"m","messages":[{"role":"user","content":"hello big world"}]}`

// client returns a plain client with a connection of its own per call, so that
// nothing is replayed on a connection that went stale.
func client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error // of the call or of reading the body
}

func post(ctx context.Context, t *testing.T, url, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client(t).Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: string(raw), err: err}
}

func ended(n int) func(llmtest.Stats) bool {
	return func(s llmtest.Stats) bool { return s.Ended >= n }
}

func TestAnEchoIsDeterministicAndRecorded(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t)
	got := post(t.Context(), t, p.URL()+"/chat/completions", hello, "Authorization", "Bearer sk-secret", "X-Mark", "7")
	require.NoError(t, got.err)
	require.Equal(t, 200, got.status)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, "req-1", got.header.Get("X-Request-Id"))
	require.JSONEq(t, `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",
		"choices":[{"index":0,"message":{"role":"assistant","content":"echo: hello big world"},"finish_reason":"stop"}],
		"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9}}`, got.body)

	require.NoError(t, p.Wait(t.Context(), ended(1)))
	require.Equal(t, llmtest.Stats{Calls: 1, Ended: 1, MaxInFlight: 1}, p.Stats())
	require.Equal(t, 1, p.Count("m"))
	c := p.Calls()[0]
	require.True(t, bytes.Equal([]byte(hello), c.Body), "byte for byte")
	require.Equal(t, llmtest.Chat, c.Endpoint)
	require.Equal(t, "7", c.Header.Get("X-Mark"))
	require.True(t, c.Done)
	require.False(t, c.Aborted)
	require.Equal(t, 200, c.Status)
	require.True(t, c.HasKey("sk-secret"))
	require.False(t, c.HasKey(""))
	require.NotContains(t, fmt.Sprintf("%+v", c), "sk-secret")
}

func TestTheEndpointsAnswerInTheirOwnForm(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t)
	for name, tc := range map[string]struct{ path, body, model, endpoint, want string }{
		"completions": {
			"/v1/completions", `{"model":"c","prompt":["one","two"]}`, "c", llmtest.Completions,
			`"choices":[{"index":0,"text":"echo: one\ntwo","finish_reason":"stop"}]`,
		},
		"embeddings": {
			"/v1/embeddings", `{"model":"e","input":["one","two"]}`, "e", llmtest.Embeddings,
			`"index":1,"object":"embedding"`,
		},
		"azure": {
			"/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", hello, "gpt-4o", llmtest.Chat,
			`"model":"gpt-4o"`,
		},
		"content parts": {
			"/v1/chat/completions", `{"model":"parts","messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url"},{"type":"text","text":"this"}]},{"role":"assistant","content":"x"}]}`,
			"parts", llmtest.Chat, `"content":"echo: see\nthis"`,
		},
		"json mode": {
			"/v1/chat/completions", `{"model":"json","response_format":{"type":"json_schema"},"messages":[{"role":"user","content":"q"}]}`,
			"json", llmtest.Chat, `"content":"{\"echo\":\"q\"}"`,
		},
		"no user message": {
			"/v1/chat/completions", `{"model":"none","messages":[]}`, "none", llmtest.Chat, `"content":"echo: "`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := post(t.Context(), t, p.RootURL()+tc.path, tc.body)
			require.NoError(t, got.err)
			require.Equal(t, 200, got.status)
			require.Contains(t, got.body, tc.want)
			require.Equal(t, 1, p.Count(tc.model))
			for _, c := range p.Calls() {
				if c.Model == tc.model {
					require.Equal(t, tc.endpoint, c.Endpoint)
				}
			}
		})
	}
}

func TestARepeatedModelCountsAsItsLastValue(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t)
	post(t.Context(), t, p.URL()+"/chat/completions", `{"model":"cheap","messages":[],"model":"dear"}`)
	require.Equal(t, "dear", p.Calls()[0].Model)
}

func TestCallsOutsideTheAPIAreRefused(t *testing.T) {
	t.Parallel()
	p := llmtest.NewWith(t, llmtest.Config{Key: "right", MaxRequest: 1000})
	auth := []string{"Authorization", "Bearer right"}
	for name, tc := range map[string]struct {
		path, body string
		header     []string
		want       int
	}{
		"no key":      {"/v1/chat/completions", hello, nil, 401},
		"wrong key":   {"/v1/chat/completions", hello, []string{"Authorization", "Bearer wrong"}, 401},
		"right key":   {"/v1/chat/completions", hello, auth, 200},
		"azure key":   {"/v1/chat/completions", hello, []string{"Api-Key", "right"}, 200},
		"other path":  {"/v1/v1/chat/completions", hello, auth, 404},
		"not JSON":    {"/v1/chat/completions", "hello", auth, 400},
		"big request": {"/v1/chat/completions", strings.Repeat("x", 1001), auth, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := post(t.Context(), t, p.RootURL()+tc.path, tc.body, tc.header...)
			require.NoError(t, got.err)
			require.Equal(t, tc.want, got.status)
		})
	}
	t.Run("not a POST", func(t *testing.T) {
		t.Parallel()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL()+"/chat/completions", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer right")
		res, err := client(t).Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 405, res.StatusCode)
	})
}

func TestScriptsChooseByCallAndModel(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t, llmtest.PerModel(map[string]llmtest.Script{
		"a": llmtest.ModelSteps(llmtest.Fail(500, "one"), llmtest.Answer("two")),
		"b": llmtest.Steps(llmtest.Answer("first of all"), llmtest.Answer("later")),
	}))
	call := func(model string) string {
		got := post(t.Context(), t, p.URL()+"/chat/completions", `{"model":"`+model+`","messages":[]}`)
		require.NoError(t, got.err)
		return fmt.Sprint(got.status, " ", got.body)
	}
	require.Equal(t, `500 {"error":{"code":null,"message":"one","param":null,"type":null}}`, call("a"))
	require.Contains(t, call("b"), "later")
	require.Contains(t, call("a"), "two")
	require.Contains(t, call("a"), "two")
	require.Contains(t, call("c"), "model_not_found")
	p.SetScript(llmtest.Steps())
	require.Contains(t, call("c"), "echo: ")
}

func TestRepliesSayWhatTheyAreToldTo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		reply llmtest.Reply
		check func(*testing.T, answer)
	}{
		"seconds": {llmtest.Reply{Status: 429, RetryAfter: "1.5"}, func(t *testing.T, a answer) {
			t.Helper()
			require.Equal(t, 429, a.status)
			require.Equal(t, "1.5", a.header.Get("Retry-After"))
		}},
		"date": {llmtest.Reply{Status: 503, RetryAfterDate: time.Hour}, func(t *testing.T, a answer) {
			t.Helper()
			at, err := http.ParseTime(a.header.Get("Retry-After"))
			require.NoError(t, err)
			require.WithinDuration(t, time.Now().Add(time.Hour), at, 30*time.Second)
		}},
		"html": {llmtest.HTML(502), func(t *testing.T, a answer) {
			t.Helper()
			require.Equal(t, "text/html; charset=utf-8", a.header.Get("Content-Type"))
			require.Contains(t, a.body, "<title>Bad Gateway</title>")
		}},
		"wrong content type": {llmtest.Reply{Header: map[string]string{"Content-Type": "text/plain", "X-A": "b"}}, func(t *testing.T, a answer) {
			t.Helper()
			require.Equal(t, "text/plain", a.header.Get("Content-Type"))
			require.Equal(t, "b", a.header.Get("X-A"))
			require.True(t, json.Valid([]byte(a.body)))
		}},
		"big answer": {llmtest.Reply{Size: 3 << 20}, func(t *testing.T, a answer) {
			t.Helper()
			require.Len(t, a.body, 3<<20)
			require.True(t, json.Valid([]byte(a.body)))
			require.Contains(t, a.body, "echo: hello big worldaaaa")
		}},
		"big error": {llmtest.Reply{Status: 500, Text: "no", Size: 70000}, func(t *testing.T, a answer) {
			t.Helper()
			require.Len(t, a.body, 70000)
			require.True(t, json.Valid([]byte(a.body)))
		}},
		"big raw": {llmtest.Reply{Body: []byte("{}"), Size: 10}, func(t *testing.T, a answer) {
			t.Helper()
			require.Equal(t, "{}        ", a.body)
		}},
		"finish reason": {llmtest.Reply{Finish: "length"}, func(t *testing.T, a answer) {
			t.Helper()
			require.Contains(t, a.body, `"finish_reason":"length"`)
		}},
		"unknown fault": {llmtest.Broken("no such"), func(t *testing.T, a answer) {
			t.Helper()
			require.Equal(t, 501, a.status)
		}},
		"delays": {llmtest.Reply{Delay: time.Millisecond, BodyDelay: time.Millisecond}, func(t *testing.T, a answer) {
			t.Helper()
			require.Contains(t, a.body, "echo: hello big world")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := llmtest.New(t, llmtest.Always(tc.reply))
			got := post(t.Context(), t, p.URL()+"/chat/completions", hello)
			require.NoError(t, got.err)
			tc.check(t, got)
		})
	}
}

func TestBrokenRepliesBreakAsTheirFaultSays(t *testing.T) {
	t.Parallel()
	stream := strings.Replace(hello, `{`, `{"stream":true,`, 1)
	for name, tc := range map[string]struct {
		body   string
		reply  llmtest.Reply
		status int   // 0: no header arrives
		is     error // nil: message only
		text   string
	}{
		"reset":             {hello, llmtest.Broken(llmtest.Reset), 0, syscall.ECONNRESET, ""},
		"garbage":           {hello, llmtest.Broken(llmtest.Garbage), 0, nil, "malformed HTTP"},
		"cut length":        {hello, llmtest.Broken(llmtest.CutLength), 200, io.ErrUnexpectedEOF, ""},
		"cut chunked":       {hello, llmtest.Broken(llmtest.CutChunked), 200, io.ErrUnexpectedEOF, ""},
		"cut after":         {hello, llmtest.Broken(llmtest.CutAfter), 200, io.ErrUnexpectedEOF, ""},
		"reset body":        {hello, llmtest.Broken(llmtest.ResetBody), 200, syscall.ECONNRESET, ""},
		"stream cut":        {stream, llmtest.Streamed(llmtest.Stream{End: llmtest.EndCut, After: 1}), 200, io.ErrUnexpectedEOF, ""},
		"stream reset":      {stream, llmtest.Streamed(llmtest.Stream{End: llmtest.EndReset, After: 1}), 200, syscall.ECONNRESET, ""},
		"stream half":       {stream, llmtest.Broken(llmtest.CutChunked), 200, io.ErrUnexpectedEOF, ""},
		"stream half reset": {stream, llmtest.Broken(llmtest.ResetBody), 200, syscall.ECONNRESET, ""},
		"stream after":      {stream, llmtest.Broken(llmtest.CutAfter), 200, io.ErrUnexpectedEOF, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := llmtest.New(t, llmtest.Always(tc.reply))
			got := post(t.Context(), t, p.URL()+"/chat/completions", tc.body)
			require.Error(t, got.err)
			require.Equal(t, tc.status, got.status)
			if tc.is != nil {
				require.ErrorIs(t, got.err, tc.is)
			}
			require.ErrorContains(t, got.err, tc.text)
			require.NoError(t, p.Wait(t.Context(), ended(1)))
			require.Equal(t, tc.status, p.Calls()[0].Status)
			require.False(t, p.Calls()[0].Aborted)
		})
	}
}

func TestAClientThatGoesAwayIsNoticed(t *testing.T) {
	t.Parallel()
	gone := errors.New("the client goes")
	stream := strings.Replace(hello, `{`, `{"stream":true,`, 1)
	for name, tc := range map[string]struct {
		body   string
		reply  llmtest.Reply
		status int
	}{
		"hang":           {hello, llmtest.Broken(llmtest.Hang), 0},
		"delay":          {hello, llmtest.Reply{Delay: time.Hour}, 0},
		"until":          {hello, llmtest.Reply{Until: make(chan struct{})}, 0},
		"silence":        {hello, llmtest.Broken(llmtest.Silence), 200},
		"stream silence": {stream, llmtest.Broken(llmtest.Silence), 200},
		"stalled stream": {stream, llmtest.Streamed(llmtest.Stream{End: llmtest.EndSilence, After: 2}), 200},
		"slow tokens":    {stream, llmtest.Streamed(llmtest.Stream{TokenDelay: time.Hour}), 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := llmtest.New(t, llmtest.Always(tc.reply))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL()+"/chat/completions", strings.NewReader(tc.body))
			require.NoError(t, err)
			left := make(chan error, 1)
			headers := make(chan int, 1)
			go func() {
				res, err := client(t).Do(req)
				if err != nil {
					left <- err
					return
				}
				defer res.Body.Close()
				headers <- res.StatusCode
				_, err = io.ReadAll(res.Body)
				left <- err
			}()
			if tc.status != 0 {
				require.Equal(t, tc.status, <-headers)
			}
			require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.InFlight == 1 }))
			cancel(gone)
			require.Error(t, <-left)
			require.NoError(t, p.Wait(t.Context(), ended(1)))
			require.Equal(t, llmtest.Stats{Calls: 1, Ended: 1, MaxInFlight: 1, Aborted: 1}, p.Stats())
			require.Equal(t, tc.status, p.Calls()[0].Status)
		})
	}
}

func TestRepliesWaitForTheirChannelAndAreCountedInFlight(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Until: release}))
	done := make(chan answer)
	for range 3 {
		go func() { done <- post(t.Context(), t, p.URL()+"/chat/completions", hello) }()
	}
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.InFlight == 3 }))
	close(release)
	for range 3 {
		require.Equal(t, 200, (<-done).status)
	}
	require.NoError(t, p.Wait(t.Context(), ended(3)))
	require.Equal(t, llmtest.Stats{Calls: 3, Ended: 3, MaxInFlight: 3}, p.Stats())
}

func TestACloseEndsHangingCallsAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t, llmtest.Always(llmtest.Broken(llmtest.Hang)))
	addr := p.Addr()
	left := make(chan answer, 1)
	go func() { left <- post(t.Context(), t, p.URL()+"/chat/completions", hello) }()
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.InFlight == 1 }))
	p.Close()
	require.Error(t, (<-left).err)
	require.Equal(t, llmtest.Stats{Calls: 1, Ended: 1, MaxInFlight: 1}, p.Stats(), "the provider went, not the client")
	require.ErrorIs(t, post(t.Context(), t, p.URL()+"/chat/completions", hello).err, syscall.ECONNREFUSED)

	p.SetScript(llmtest.Echo())
	require.NoError(t, p.Listen(addr))
	require.Equal(t, 200, post(t.Context(), t, p.URL()+"/chat/completions", hello).status)
	p.Close()
	p.Close()
}

func TestAForgetfulProviderStillCounts(t *testing.T) {
	t.Parallel()
	seen := make(chan llmtest.Call, 1)
	p := llmtest.NewWith(t, llmtest.Config{ForgetCalls: true, OnEnd: func(c llmtest.Call) { seen <- c }})
	post(t.Context(), t, p.URL()+"/chat/completions", hello)
	require.True(t, (<-seen).Done)
	require.Empty(t, p.Calls())
	require.Equal(t, 1, p.Count("m"))
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, llmtest.New(t).Wait(ctx, ended(1)), why)
}

func TestABusyAddressIsAnError(t *testing.T) {
	t.Parallel()
	p := llmtest.New(t)
	require.ErrorIs(t, llmtest.NewProvider(llmtest.Config{}).Listen(p.Addr()), syscall.EADDRINUSE)
	failed := ""
	func() {
		defer func() { failed = fmt.Sprint(recover()) }()
		llmtest.New(fatal{}, llmtest.Echo()).Close()
	}()
	require.Equal(t, "<nil>", failed)
}

// fatal is a TB that never fails and cleans up nothing.
type fatal struct{}

func (fatal) Helper()                        {}
func (fatal) Cleanup(func())                 {}
func (fatal) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
