package worker

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// ready asks /readyz.
func (b *bundle) ready(w running) (code int, r readiness) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://"+w.HTTPAddr()+"/readyz", nil)
	require.NoError(b.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	require.NoError(b.t, json.Unmarshal(body, &r))
	return resp.StatusCode, r
}

// gauge is the value of a series.
func (b *bundle) gauge(w running, series string) string {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://"+w.HTTPAddr()+"/metrics", nil)
	require.NoError(b.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	require.FailNow(b.t, "no such series", series)
	return ""
}

// TestNothingIsPaidForThatCannotBeKept pins that a worker whose results or dead
// letters are refused holds its jobs, takes no more, says why, and goes on by
// itself.
func TestNothingIsPaidForThatCannotBeKept(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		stream, kind, why string
		reply             llmtest.Reply
		status            job.Status
		calls             int
	}{
		"results": {"LLM_RESULTS", "results", "results cannot be stored: maximum bytes exceeded", llmtest.Reply{}, job.Succeeded, 1},
		"letters": {"LLM_DEAD", "dead_letters", "dead letters cannot be stored: maximum bytes exceeded", llmtest.Fail(400, "no"), job.Failed, 1},
		"answers": {"OBJ_LLM_ANSWERS", "answers", "answers cannot be stored: maximum bytes exceeded", llmtest.Reply{Size: 2 << 20}, job.Succeeded, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			p := llmtest.New(t, llmtest.Always(tc.reply))
			cfg := b.config(model("vllm", p))
			cfg.Concurrency, cfg.HTTPAddr = 1, "127.0.0.1:0"
			w := b.start(cfg)
			b.limit(tc.stream, 1)
			series := fmt.Sprintf("understudy_store_blocked{kind=%q}", tc.kind)
			require.Equal(t, "0", b.gauge(w, series))
			for i := range 5 {
				b.publish(fmt.Sprint(i), chat("hi"))
			}
			b.eventually("it says why", func() bool {
				code, r := b.ready(w)
				return code == http.StatusServiceUnavailable && r.Why == tc.why
			})
			require.Equal(t, "1", b.gauge(w, series))
			require.Len(t, p.Calls(), tc.calls)
			b.limit(tc.stream, 0)
			for i := range 5 {
				r := b.result(fmt.Sprint(i))
				require.Equal(t, tc.status, r.Status)
				require.Equal(t, 1, r.Deliveries)
			}
			b.settled()
			require.Len(t, p.Calls(), 5)
			b.eventually("it is ready again", func() bool { code, _ := b.ready(w); return code == http.StatusOK })
			require.Equal(t, "0", b.gauge(w, series))
			require.Equal(t, 1, strings.Count(b.logs.String(), "what jobs come to cannot be stored"), "said once")
			require.Equal(t, 1, strings.Count(b.logs.String(), "what jobs come to can be stored again"))
		})
	}
}

// TestABlockedWorkerGivesBackWhatItHasNotBegun pins that jobs which reach a worker
// while it is blocked are given back at a stop, uncalled and at no cost.
func TestABlockedWorkerGivesBackWhatItHasNotBegun(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	released := make(chan struct{})
	p := llmtest.New(t, func(llmtest.Call) llmtest.Reply { return llmtest.Reply{Until: released} })
	cfg := b.config(model("vllm", p))
	cfg.HTTPAddr, cfg.ShutdownGrace, cfg.MaxCrashes = "127.0.0.1:0", -1, 1
	w := b.start(cfg)
	b.publish("first", chat("hi"))
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.Calls == 1 }))
	b.limit("LLM_RESULTS", 1)
	close(released)
	b.eventually("it is blocked", func() bool { code, _ := b.ready(w); return code == http.StatusServiceUnavailable })
	for i := range 20 { // by pulls that were under way
		b.publish(fmt.Sprint(i), chat("hi"))
	}
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	b.eventually("it gives them back", func() bool { return w.source.Health().Held == 1 })
	b.limit("LLM_RESULTS", 0)
	require.NoError(t, <-stopped)
	require.Equal(t, job.Succeeded, b.result("first").Status, "what was held was kept in the end")
	require.Len(t, p.Calls(), 1)
	cfg.Name = "w-2"
	b.start(cfg)
	for i := range 20 {
		require.Equal(t, job.Succeeded, b.result(fmt.Sprint(i)).Status, "to be given back is no crash")
	}
}

// TestEventsThatCannotBeStoredStopNoJob, but what needs them stored holds on.
func TestEventsThatCannotBeStoredStopNoJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	cfg := b.config(model("vllm", p))
	cfg.HTTPAddr = "127.0.0.1:0"
	b.ensure("default")
	consumer, err := b.js.Consumer(t.Context(), "LLM_JOBS", "q-default")
	require.NoError(t, err)
	b.publish("crashed", chat("hi"))
	b.crash(consumer)
	b.limit("LLM_EVENTS", 1)
	w := b.start(cfg)
	for i := range 5 {
		b.publish(fmt.Sprint(i), chat("hi"))
		require.Equal(t, job.Succeeded, b.result(fmt.Sprint(i)).Status)
	}
	b.eventually("it says so", func() bool {
		code, r := b.ready(w)
		return code == http.StatusOK && r.Ready && r.Note == "the last event could not be stored: maximum bytes exceeded"
	})
	require.NotEqual(t, "0", b.gauge(w, "understudy_events_dropped_total"))
	require.Len(t, p.Calls(), 5, "what must be counted waits")
	require.Nil(t, b.last("LLM_RESULTS", "llm.results.default.crashed"))
	b.limit("LLM_EVENTS", 0)
	r := b.result("crashed")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, 2, r.Deliveries)
	b.eventually("the note goes", func() bool { _, r := b.ready(w); return r.Note == "" })
	require.Equal(t, 1, strings.Count(b.logs.String(), "events cannot be stored"), "said once")
	require.Equal(t, 1, strings.Count(b.logs.String(), "events are stored again"))
}

// TestAFullQueueIsToldToTheRequester pins the endpoints' word on it.
func TestAFullQueueIsToldToTheRequester(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.start(b.config(model("vllm", llmtest.New(t))))
	b.limit("LLM_JOBS", 1)
	msg, err := b.nc.Request("llm.submit", chat("hi"), patience)
	require.NoError(t, err)
	require.Equal(t, "503", msg.Header.Get("Nats-Service-Error-Code"))
	require.Contains(t, msg.Header.Get("Nats-Service-Error"), "the queue is full")
}

// TestARequestNextToTheLimitIsRefusedWithTheSizes: with the headers that the
// worker adds it does not fit.
func TestARequestNextToTheLimitIsRefusedWithTheSizes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	payload := chat(strings.Repeat("x", 1<<20-70))
	require.Less(t, len(payload), 1<<20)
	msg, err := b.nc.Request("llm.complete", payload, 10*time.Second)
	require.NoError(t, err)
	r, err := job.DecodeResult(msg.Data)
	require.NoError(t, err, "%s", msg.Header)
	require.Equal(t, job.Succeeded, r.Status)
	require.Len(t, p.Calls(), 1)
}

// TestAStopLosesNoAttemptWhileEventsAreRefused pins that the trail is kept on to
// while there is time, for the worker that comes next.
func TestAStopLosesNoAttemptWhileEventsAreRefused(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	broken := llmtest.New(t, llmtest.Always(llmtest.Fail(503, "down")))
	slow := llmtest.New(t, llmtest.Always(llmtest.Broken(llmtest.Hang)))
	cfg := b.config(model("broken", broken), model("slow", slow))
	cfg.ShutdownGrace = -1
	cfg.Backends[1].OpenAI.Timeout = time.Minute
	b.ensure("default")
	b.limit("LLM_EVENTS", 1)
	w := b.start(cfg)
	b.publish("a", chat("hi"))
	require.NoError(t, slow.Wait(t.Context(), func(s llmtest.Stats) bool { return s.Calls == 1 }))
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	b.eventually("it cannot be handed back", func() bool { return strings.Contains(b.logs.String(), "the job's wait could not be stored") })
	b.limit("LLM_EVENTS", 0)
	require.NoError(t, <-stopped)
	slow.SetScript(llmtest.Always(llmtest.Answer("late")))
	cfg.Name = "w-2"
	b.start(cfg)
	r := b.result("a")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, "broken:overloaded>fallback", trail(r.Attempts)[0])
	require.Len(t, broken.Calls(), 1, "no call is repeated but the one that was cut off")
}
