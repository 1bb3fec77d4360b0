package job_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenDir = "testdata/golden"

// golden is the content of a golden file.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(goldenDir, name))
	require.NoError(tb, err)
	return data
}

// requireGolden requires encoded, indented for people, to be the golden file.
func requireGolden(t *testing.T, name string, encoded []byte) {
	t.Helper()
	var text bytes.Buffer
	require.NoError(t, json.Indent(&text, encoded, "", "  "))
	text.WriteByte('\n')
	if *update {
		require.NoError(t, os.WriteFile(filepath.Join(goldenDir, name), text.Bytes(), 0o644))
	}
	require.Equal(t, string(golden(t, name)), text.String())
}

// at is a moment of the story that the golden files tell, in a time zone and
// with nanoseconds that the wire does not have.
func at(second, milli int) time.Time {
	return time.Date(2026, 11, 2, 10, 30, second, milli*1e6+999, time.FixedZone("", 3600))
}

// succeededAttempt and failedAttempt are two attempts of that story.
func succeededAttempt(n int) job.Attempt {
	return job.Attempt{
		N: n, Backend: "vllm", Model: "qwen3-32b", Outcome: job.OutcomeSucceeded, Status: 200,
		StartedAt: at(5, 8), DurationMS: 2011, FirstTokenMS: new(int64(310)), WaitMS: 2,
		InputTokens: new(int64(12)), OutputTokens: new(int64(80)), CostUSD: new(0.00031),
	}
}

func failedAttempt(next job.Next) job.Attempt {
	return job.Attempt{
		N: 1, Backend: "openrouter", Model: "qwen/qwen3-32b", Outcome: job.OutcomeFailed,
		Class: new("timeout"), Error: new("no answer in 5s"), StartedAt: at(0, 4), DurationMS: 5003, Next: new(next),
	}
}

func skippedAttempt(n int) job.Attempt {
	return job.Attempt{
		N: n, Backend: "openrouter", Outcome: job.OutcomeSkipped,
		Class: new("circuit_open"), Error: new("the breaker is open for 42s"), StartedAt: at(0, 4),
		RetryAfterMS: new(int64(42000)), Next: new(job.NextFallback),
	}
}

// fullAttempt is the skip of a backend whose own limit leaves no room, and
// racedAttempt a call that another one was faster than.
func fullAttempt(n int) job.Attempt {
	a := skippedAttempt(n)
	a.Backend, a.Class, a.Error, a.RetryAfterMS = "groq", new("rate_limit"), new("its limits leave no room for 12s"), new(int64(12000))
	return a
}

func racedAttempt(n int) job.Attempt {
	a := failedAttempt(job.NextStop)
	a.N, a.Class, a.Error, a.FirstTokenMS, a.DurationMS = n, new("cancelled"), new("another backend answered first"), new(int64(900)), 7015
	a.InputTokens, a.OutputTokens, a.CostUSD = new(int64(12)), new(int64(31)), new(0.00012)
	return a
}

func unknownAttempt(n int) job.Attempt {
	return job.Attempt{
		N: n, Backend: "vllm", Model: "qwen3-32b", Outcome: job.OutcomeUnknown, StartedAt: at(5, 8),
		Error: new("the worker died during this call: whether it was answered is not known"),
	}
}

func failure() *job.Failure {
	return &job.Failure{Backend: "openrouter", Class: "timeout", Message: "no answer in 5s"}
}

func lastFailure() *job.Failure {
	return &job.Failure{Backend: "vllm", Class: "overloaded", Status: 503, Message: "the model is loading"}
}

func lastAttempt() job.Attempt {
	return job.Attempt{
		N: 2, Backend: "vllm", Model: "qwen3-32b", Outcome: job.OutcomeFailed, Class: new("overloaded"), Status: 503,
		Error: new("the model is loading"), Code: "model_loading", Type: "unavailable_error", StartedAt: at(5, 8), DurationMS: 21, RetryAfterMS: new(int64(1500)), Next: new(job.NextStop),
	}
}

func results() map[string]*job.Result {
	return map[string]*job.Result{
		"result-succeeded.json": {
			ID: "row-17", CustomID: "row-17", Status: job.Succeeded, Queue: "default", Route: "simple_qa", Backend: "vllm", Model: "qwen3-32b",
			Response: &job.Response{StatusCode: 200, RequestID: "req_8c1f", Body: json.RawMessage(
				`{"id":"cmpl-1","model":"qwen3-32b","choices":[{"index":0,"message":{"role":"assistant","content":"Because <blue> light scatters more."},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":80,"total_tokens":92}}`)},
			Usage: &job.Usage{InputTokens: 12, OutputTokens: 80}, CostUSD: new(0.00031),
			Attempts: []job.Attempt{failedAttempt(job.NextFallback), succeededAttempt(2)},
			QueuedMS: 4, DurationMS: 7021, Deliveries: 1, Worker: "w-1", FinishedAt: at(7, 25), Metadata: json.RawMessage(`{"tenant":"acme"}`),
		},
		"result-raced.json": {
			ID: "row-22", CustomID: "row-22", Status: job.Succeeded, Queue: "default", Route: "hurried", Backend: "vllm", Model: "qwen3-32b",
			Response: &job.Response{StatusCode: 200, Body: json.RawMessage(`{"choices":[{"index":0,"message":{"role":"assistant","content":"Scattering."}}]}`)},
			Usage:    &job.Usage{InputTokens: 12, OutputTokens: 80}, CostUSD: new(0.00043),
			Attempts: []job.Attempt{fullAttempt(1), racedAttempt(2), succeededAttempt(3)},
			QueuedMS: 4, DurationMS: 7021, Deliveries: 1, Worker: "w-1", FinishedAt: at(7, 25),
		},
		"result-object.json": {
			ID: "row-23", CustomID: "row-23", Status: job.Succeeded, Queue: "default", Route: "default", Backend: "vllm", Model: "qwen3-32b",
			Response: &job.Response{StatusCode: 200, RequestID: "req_8c20", Object: "llm.results.default.row-23@4711.GQ7V2QKXH3YD5ZB6MTP4NRJWLE", Bytes: 1843201},
			Usage:    &job.Usage{InputTokens: 12, OutputTokens: 80}, CostUSD: new(0.00031),
			Attempts: []job.Attempt{succeededAttempt(1)},
			QueuedMS: 4, DurationMS: 7021, Deliveries: 1, Worker: "w-1", FinishedAt: at(7, 25),
		},
		"result-failed.json": {
			ID: "row-18", CustomID: "row-18", Status: job.Failed, Queue: "default", Route: "simple_qa",
			Response: &job.Response{StatusCode: 503, Body: json.RawMessage(`{"error":{"message":"the model is loading"}}`)},
			Error: &job.Error{
				Code: "overloaded", Message: "no backend answered; the last error was of vllm: the model is loading",
				First: failure(), Last: lastFailure(),
			},
			Attempts: []job.Attempt{failedAttempt(job.NextFallback), lastAttempt()},
			QueuedMS: 4, DurationMS: 5031, Deliveries: 1, Redrives: 1, Worker: "w-1", FinishedAt: at(5, 35),
		},
		"result-invalid-job.json": {
			ID: "row-19", CustomID: "row-19", Status: job.Failed, Queue: "default",
			Error:    &job.Error{Code: "invalid_job", Message: "policy.max_attempts: must be between 1 and 1000"},
			QueuedMS: 3, Deliveries: 1, Worker: "w-1", FinishedAt: at(0, 3),
		},
		"result-expired.json": {
			ID: "row-20", CustomID: "row-20", Status: job.Expired, Queue: "default", Route: "default",
			Error:    &job.Error{Code: "expired", Message: "the deadline 2026-11-02T09:30:05Z has passed", First: failure(), Last: failure()},
			Attempts: []job.Attempt{failedAttempt(job.NextStop)},
			QueuedMS: 4, DurationMS: 5003, Deliveries: 1, Worker: "w-1", FinishedAt: at(5, 7),
		},
		"result-cancelled.json": {
			ID: "nightly.21", CustomID: "row-21", Status: job.Cancelled, Queue: "low",
			Error:    &job.Error{Code: "cancelled", Message: "cancelled before it was run"},
			QueuedMS: 60000, Worker: "w-1", FinishedAt: at(0, 3),
		},
	}
}

func letterHandled() job.LetterHandled {
	return job.LetterHandled{Queue: "default", By: "ada@console-1", Seq: 42, Reason: "overloaded", Redrives: 1}
}

// bySubmit makes e one that the command has sent.
func bySubmit(e *job.Event) *job.Event {
	e.Source = "understudy/submit"
	return e
}

func events() map[string]*job.Event {
	event := func(t job.EventType, subject string, data any) *job.Event {
		e := job.NewEvent("w-1", t, subject, at(0, 4), data)
		e.ID = "GQ7V2QKXH3YD5ZB6MTP4NRJWLE"
		return e
	}
	started := failedAttempt(job.NextFallback)
	started.Outcome, started.Class, started.Error, started.DurationMS, started.Next = "", nil, nil, 0, nil
	edited := letterHandled()
	edited.OldSHA256, edited.NewSHA256 = strings.Repeat("0123456789abcdef", 4), strings.Repeat("fedcba9876543210", 4)
	failed := event(job.EventAttemptFailed, "row-18", lastAttempt())
	failed.Time = at(5, 29)
	return map[string]*job.Event{
		"event-job-received.json": event(job.EventReceived, "row-17", job.Received{Queue: "default", Delivery: 1, JobSeq: 4711}),
		"event-job-waiting.json": event(job.EventWaiting, "row-17", job.Waiting{
			Queue: "default", Why: "no backend can be called now", Until: at(42, 0), Delivery: 1, JobSeq: 4711,
			StartedAt: at(0, 4), Attempts: []job.Attempt{skippedAttempt(1)},
		}),
		"event-job-completed.json": event(job.EventCompleted, "row-17", job.Completed{
			Queue: "default", Status: job.Succeeded, Route: "simple_qa", Backend: "vllm", Attempts: 2, DurationMS: 7021, CostUSD: new(0.00031),
		}),
		"event-job-dead-lettered.json":    event(job.EventDeadLettered, "row-18", job.DeadLettered{Queue: "default", Reason: "overloaded", Redrives: 1}),
		"event-attempt-started.json":      event(job.EventAttemptStarted, "row-17", started),
		"event-attempt-succeeded.json":    event(job.EventAttemptSucceeded, "row-17", succeededAttempt(2)),
		"event-attempt-failed.json":       failed,
		"event-attempt-skipped.json":      event(job.EventAttemptSkipped, "row-17", skippedAttempt(1)),
		"event-attempt-unknown.json":      event(job.EventAttemptUnknown, "row-17", unknownAttempt(1)),
		"event-dead-letter-redriven.json": bySubmit(event(job.EventLetterRedriven, "row-18", letterHandled())),
		"event-dead-letter-edited.json":   bySubmit(event(job.EventLetterEdited, "row-18", edited)),
		"event-dead-letter-purged.json":   bySubmit(event(job.EventLetterPurged, "row-18", letterHandled())),
		"event-breaker-changed.json":      event(job.EventBreakerChanged, "vllm", job.BreakerChanged{Backend: "vllm", From: "closed", To: "open", Class: "overloaded", ForMS: 60000}),
	}
}

func deadLetters() map[string]*job.DeadLetter {
	letter := func(id, reason string, payload string) *job.DeadLetter {
		return &job.DeadLetter{ID: id, Queue: "default", Reason: reason, Job: job.RawJob([]byte(payload)), Deliveries: 1, Worker: "w-1", Time: at(5, 33)}
	}
	failed := letter("row-18", "overloaded", `{"body":{"messages":[{"role":"user","content":"Why is the sky blue?"}]},"route":"simple_qa"}`)
	failed.Error = results()["result-failed.json"].Error
	failed.Headers = map[string][]string{"Nats-Reply-To": {"_INBOX.abc"}, "Understudy-Redrives": {"1"}}
	failed.Attempts = results()["result-failed.json"].Attempts
	failed.FirstError, failed.LastError, failed.Redrives = failure(), lastFailure(), 1
	broken := letter("row-19", "invalid_job", `{"messages":[`)
	broken.Error = &job.Error{Code: "invalid_job", Message: "payload: is not valid JSON: see byte 13 of 13"}
	return map[string]*job.DeadLetter{"dead-letter.json": failed, "dead-letter-base64.json": broken}
}

func TestMessagesHaveTheFormOfTheGoldenFiles(t *testing.T) {
	t.Parallel()
	for name, r := range results() {
		requireGolden(t, name, r.Encode())
	}
	for name, e := range events() {
		requireGolden(t, name, e.Encode())
	}
	for name, d := range deadLetters() {
		requireGolden(t, name, d.Encode())
	}
	requireGolden(t, "receipt.json", subjects(t).Receipt("default", "row-17").Encode())
}

func TestGoldenFilesAreReadBackAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for name, want := range results() {
		r, err := job.DecodeResult(want.Encode())
		require.NoError(t, err, name)
		require.Equal(t, string(want.Encode()), string(r.Encode()), name)
		fromFile, err := job.DecodeResult(golden(t, name))
		require.NoError(t, err, name)
		require.Equal(t, want.Status, fromFile.Status)
		require.Equal(t, want.Error, fromFile.Error)
	}
	for name, want := range events() {
		e, err := job.DecodeEvent(golden(t, name))
		require.NoError(t, err, name)
		require.Equal(t, want.Type, e.Type)
		require.JSONEq(t, string(want.Data), string(e.Data))
		require.Equal(t, want.Time.UTC().Truncate(time.Millisecond), e.Time)
	}
	for name, want := range deadLetters() {
		d, err := job.DecodeDeadLetter(want.Encode())
		require.NoError(t, err, name)
		require.Equal(t, string(want.Encode()), string(d.Encode()), name)
	}
}

// TestEveryGoldenFileIsMadeHere finds a file that no test looks at any more.
func TestEveryGoldenFileIsMadeHere(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"job-full.json": true, "job-minimal.json": true, "job-bare.json": true, "receipt.json": true}
	for name := range results() {
		known[name] = true
	}
	for name := range events() {
		known[name] = true
	}
	for name := range deadLetters() {
		known[name] = true
	}
	files, err := os.ReadDir(goldenDir)
	require.NoError(t, err)
	for _, file := range files {
		require.True(t, known[file.Name()], "nothing compares %s", file.Name())
		delete(known, file.Name())
	}
	require.Empty(t, known)
}

func TestTheGoldenJobsAreDecoded(t *testing.T) {
	t.Parallel()
	minimal := golden(t, "job-minimal.json")
	j, err := decoder(t).Decode("default", "row-17", minimal, nil)
	require.NoError(t, err)
	requireBytes(t, `{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}`, j.Body)
	bare := golden(t, "job-bare.json")
	j, err = decoder(t).Decode("default", "row-17", bare, nil)
	require.NoError(t, err)
	require.Equal(t, string(bare), string(j.Body))
	require.Equal(t, "auto", j.Model)
}
