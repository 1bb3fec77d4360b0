package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

func TestTextCannotSteerATerminal(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a\uFFFD[31mb\tc\nd\uFFFDé", plain("a\x1b[31mb\tc\nd\u009bé"))
	require.Equal(t, "a b c \uFFFD", oneLine("  a\n b\tc \x07", 0))
	require.Equal(t, "abc…", oneLine("abcdef", 4))
	require.Equal(t, "abcd", oneLine("abcd", 4))
	require.Equal(t, "äöü…", oneLine("äöüßé", 4))
}

func TestDurationsAndAgesAreForPeople(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 ms", 950 * time.Millisecond: "950 ms", 7021 * time.Millisecond: "7.0 s", 59900 * time.Millisecond: "59.9 s",
		200 * time.Second: "3m20s", 25 * time.Hour: "25h0m0s",
	} {
		require.Equal(t, want, lasting(d))
	}
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m", 3 * time.Hour: "3h",
		47 * time.Hour: "47h", 48 * time.Hour: "2d", 240 * time.Hour: "10d",
	} {
		require.Equal(t, want, age(noon(), noon().Add(-d)), "%s", d)
	}
	require.Equal(t, "-", age(noon(), time.Time{}))
	require.Equal(t, "1 line", times(1, "line"))
	require.Equal(t, "0 lines", times(0, "line"))
}

func TestATableIsAlignedWithoutSpacesAtTheEnd(t *testing.T) {
	t.Parallel()
	require.Equal(t, "A     B  C\nlöng  x\n-     y  zz\n", table([][]string{{"A", "B", "C"}, {"löng", "x", ""}, {"-", "y", "zz"}}))
}

func TestTheTextOfAnAnswerIsWhatPeopleRead(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ body, want string }{
		{`{"choices":[{"message":{"content":"Hi\nthere"}}]}`, "Hi\nthere"},
		{`{"choices":[{"message":{"content":"first"}},{"message":{"content":"second"}}]}`, "first"},
		{`{"choices":[{"message":{"content":null,"tool_calls":[{"id": "1"}]}}]}`, `[{"id": "1"}]`},
		{`{"choices":[{"message":{"content":"","tool_calls":[{"id":"1"}]}}]}`, `[{"id":"1"}]`},
		{`{"choices":[{"message":{"content":"words","tool_calls":[{"id":"1"}]}}]}`, `words`},
		{`{"choices":[{"message":{"content":null,"refusal":"I will not."}}]}`, "I will not."},
		{`{"choices":[{"message":{"content":[{"type":"text","text":"a"}]}}]}`, `[{"type":"text","text":"a"}]`},
		{`{"choices":[{"message":{"content":null}}]}`, ""},
		{`{"choices":[]}`, `{"choices":[]}`},
		{`{"data":[{"embedding":[0.1]}]}`, `{"data":[{"embedding":[0.1]}]}`},
		{`"plain"`, `"plain"`},
	} {
		require.Equal(t, tc.want, answerText(&job.Response{Body: json.RawMessage(tc.body)}), "%s", tc.body)
	}
	require.Empty(t, answerText(nil))
}

// chunkOf is a chunk of a streamed answer as a worker relays it.
func chunkOf(attempt, words string) *nats.Msg {
	msg := nats.NewMsg("llm.chunks.default.x")
	if attempt != "" {
		msg.Header.Set(job.HeaderAttempt, attempt)
	}
	text, err := json.Marshal(words)
	if err != nil {
		panic(err)
	}
	msg.Data = []byte(`{"choices":[{"delta":{"content":` + string(text) + `}}]}`)
	return msg
}

func TestAStreamedAnswerIsPrintedOnceAndWhole(t *testing.T) {
	t.Parallel()
	type chunks []*nats.Msg
	const anew = "submit: attempt 1 failed; the answer starts anew with attempt 2\n"
	const missed = "submit: parts of the stream were missed; this is the whole answer:\n"
	for name, tc := range map[string]struct {
		chunks           chunks
		whole, out, told string
	}{
		"every chunk":           {chunks{chunkOf("1", "Hel"), chunkOf("1", "lo")}, "Hello", "Hello\n", ""},
		"its line is ended":     {chunks{chunkOf("1", "Hello\n")}, "Hello\n", "Hello\n", ""},
		"no chunk":              {nil, "Hello", "Hello\n", ""},
		"the end is missing":    {chunks{chunkOf("1", "Hel")}, "Hello", "Hello\n", ""},
		"the middle is missing": {chunks{chunkOf("1", "H"), chunkOf("1", "lo")}, "Hello", "Hlo\nHello\n", missed},
		"a new attempt":         {chunks{chunkOf("1", "Hel"), chunkOf("2", "Good"), chunkOf("2", " day")}, "Good day", "Hel\nGood day\n", anew},
		"a late chunk":          {chunks{chunkOf("1", "Hel"), chunkOf("2", "Good"), chunkOf("1", "lo"), chunkOf("2", " day")}, "Good day", "Hel\nGood day\n", anew},
		"no attempt number":     {chunks{chunkOf("", "Hel"), chunkOf("x", "Hel"), chunkOf("1", "Hello")}, "Hello", "Hello\n", ""},
	} {
		c := newCommand(t, "", environment{})
		l := newLive(c.app, false)
		for _, msg := range tc.chunks {
			l.chunk(msg)
		}
		require.NoError(t, l.finish(tc.whole), name)
		require.Equal(t, tc.out, c.out.String(), name)
		require.Equal(t, tc.told, c.err.String(), name)
	}
}

func TestWhatIsNoChunkIsPassedOver(t *testing.T) {
	t.Parallel()
	c := newCommand(t, "", environment{})
	l := newLive(c.app, false)
	for _, data := range []string{"", "no JSON", "{}", `{"choices":[]}`, `{"choices":[{"delta":{"content":null}}]}`, `{"choices":[{"delta":{"content":7}}]}`, `{"choices":7}`} {
		msg := chunkOf("1", "x")
		msg.Data = []byte(data)
		l.chunk(msg)
	}
	require.NoError(t, l.end())
	require.Empty(t, c.out.String())
}

func TestEventsAreOneReadableLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 12, 0, 0, 5e6, time.Local)
	failed := job.Attempt{N: 2, Backend: "vllm", Model: "m", Outcome: job.OutcomeFailed, Class: new("rate_limit"), Status: 429, DurationMS: 1500, Next: new(job.NextFallback)}
	for _, tc := range []struct {
		kind job.EventType
		data any
		want string
	}{
		{job.EventReceived, job.Received{Delivery: 1}, "taken by w-1"},
		{job.EventReceived, job.Received{Delivery: 3, Redrives: 2}, "taken by w-1, delivery 3, redrive 2"},
		{job.EventWaiting, job.Waiting{Why: "every backend\nis resting", Until: at.Add(90 * time.Second)}, "waits until 12:01:30: every backend is resting"},
		{job.EventCompleted, job.Completed{Status: job.Succeeded, Backend: "vllm", Attempts: 2, DurationMS: 7021, CostUSD: new(0.5)}, "succeeded in 7.0 s, 2 attempts, vllm, $0.500000"},
		{job.EventCompleted, job.Completed{Status: job.Failed, Class: new("timeout"), Attempts: 1, Degraded: true}, "failed in 0 ms, 1 attempt, timeout, degraded"},
		{job.EventDeadLettered, job.DeadLettered{Reason: "timeout"}, "dead letter: timeout"},
		{job.EventDeadLettered, job.DeadLettered{Reason: "timeout", Redrives: 1}, "dead letter: timeout, after redrive 1"},
		{job.EventAttemptStarted, job.Attempt{N: 1, Backend: "vllm"}, "attempt 1 vllm: called"},
		{job.EventAttemptSucceeded, job.Attempt{N: 1, Backend: "vllm", Model: "m", DurationMS: 20}, "attempt 1 vllm (m): answered in 20 ms"},
		{job.EventAttemptFailed, failed, "attempt 2 vllm (m): failed after 1.5 s, rate_limit 429, next: fallback"},
		{job.EventAttemptSkipped, job.Attempt{N: 3, Backend: "vllm", Class: new("circuit_open"), Next: new(job.NextWait)}, "attempt 3 vllm: skipped, circuit_open, next: wait"},
		{job.EventAttemptUnknown, job.Attempt{N: 1, Backend: "vllm"}, "attempt 1 vllm: outcome unknown, its worker died"},
		{job.EventBreakerChanged, job.BreakerChanged{From: "closed", To: "open", Class: "timeout", ForMS: 60000}, "breaker closed -> open (timeout) for 1m0s"},
		{job.EventBreakerChanged, job.BreakerChanged{From: "open", To: "half-open"}, "breaker open -> half-open"},
		{"understudy.job.promoted", struct{}{}, "job.promoted"},
	} {
		e := job.NewEvent("w-1", tc.kind, "row-17", at, tc.data)
		require.Equal(t, "12:00:00.005 row-17 "+tc.want, eventLine(e))
	}
	broken := job.NewEvent("w-1", job.EventReceived, "x\x1b[2J", at, struct{}{})
	broken.Data = json.RawMessage(`7`)
	require.Equal(t, "12:00:00.005 x\uFFFD[2J job.received", eventLine(broken))
}
