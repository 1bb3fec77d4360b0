package job_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// chatBody is a chat request with a prompt of about size bytes.
func chatBody(size int) string {
	prompt := strings.Repeat("Explain it to me as if I were five: why is the sky blue?\\n", size/58+1)[:size/58*58]
	return `{"model":"auto","temperature":0,"max_tokens":256,"messages":[{"role":"system","content":"You are terse."},{"role":"user","content":"` +
		prompt + `"}]}`
}

// chatEnvelope is a job of the request body.
func chatEnvelope(body string) string {
	return `{"custom_id":"row-17","method":"POST","url":"/v1/chat/completions","body":` + body + `,"metadata":{"tenant":"acme"}}`
}

// answerBody is an answer of about 600 bytes.
func answerBody() []byte {
	const form = `{"id":"chatcmpl-9f2c1d7e","object":"chat.completion","created":1767225600,"model":"llama-3.1-8b","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":212,"completion_tokens":80,"total_tokens":292}}`
	return fmt.Appendf(nil, form, strings.Repeat("Blue light is scattered most.\\n", 11))
}

// BenchmarkDecode reads jobs of prompts of several sizes and kinds.
func BenchmarkDecode(b *testing.B) {
	chinese := strings.Repeat("天空为什么是蓝色的？", (1<<20)/30)
	code := strings.Repeat(`if s == \"x\" {\n\treturn 1\n}\n`, (1<<20)/32)
	tokens := strings.Repeat("1234,", (1<<20)/5) + "1"
	for _, bench := range []struct{ name, payload string }{
		{"bare 1 KB", chatBody(1 << 10)},
		{"envelope 1 KB", chatEnvelope(chatBody(1 << 10))},
		{"bare 1 MB", chatBody(1 << 20)},
		{"envelope 1 MB", chatEnvelope(chatBody(1 << 20))},
		{"envelope 1 MB chinese", chatEnvelope(`{"messages":[{"role":"user","content":"` + chinese + `"}]}`)},
		{"envelope 1 MB code", chatEnvelope(`{"messages":[{"role":"user","content":"` + code + `"}]}`)},
		{"bare 1 MB tokens", `{"input":[` + tokens + `]}`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			d, payload := decoder(b), []byte(bench.payload)
			h := job.Header{"Nats-Msg-Id": {"row-17"}}
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				_, err := d.Decode("default", "row-17", payload, h)
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkRawBody looks at an answer once.
func BenchmarkRawBody(b *testing.B) {
	answer := answerBody()
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		job.RawBody(answer)
	}
}

// answered is the result of a job that was answered at once, without its response.
func answered() *job.Result {
	return &job.Result{
		ID: "row-17", CustomID: "row-17", Status: job.Succeeded, Queue: "default", Route: "simple_qa", Backend: "vllm",
		Model: "llama-3.1-8b", Usage: &job.Usage{InputTokens: 212, OutputTokens: 80}, CostUSD: new(0.00031),
		Attempts: []job.Attempt{succeededAttempt(1)}, QueuedMS: 4, DurationMS: 7021, Deliveries: 1, Worker: "w-1", FinishedAt: at(7, 25),
		Metadata: []byte(`{"tenant":"acme"}`),
	}
}

// BenchmarkAnswer takes a provider's answer all the way into an encoded result,
// and encodes a result that was put together by hand.
func BenchmarkAnswer(b *testing.B) {
	r, answer := answered(), answerBody()
	b.Run("NewResponse and Encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Response = job.NewResponse(200, "req-1", answer)
			r.Encode()
		}
	})
	b.Run("Encode by hand", func(b *testing.B) {
		r.Response = &job.Response{StatusCode: 200, RequestID: "req-1", Body: answer}
		b.ReportAllocs()
		for b.Loop() {
			r.Encode()
		}
	})
	b.Run("Encode", func(b *testing.B) {
		r.Response = job.NewResponse(200, "req-1", answer)
		b.ReportAllocs()
		for b.Loop() {
			r.Encode()
		}
	})
}

// BenchmarkReport writes the events that a job has in its normal course.
func BenchmarkReport(b *testing.B) {
	failed, succeeded := failedAttempt(job.NextFallback), succeededAttempt(2)
	received := job.Received{Queue: "default", Delivery: 1, JobSeq: 4711}
	completed := job.Completed{Queue: "default", Status: job.Succeeded, Route: "simple_qa", Backend: "vllm", Attempts: 2, DurationMS: 7021, CostUSD: new(0.00031)}
	report := func(t job.EventType) job.Report {
		return job.Report{Worker: "w-1", Type: t, Subject: "row-17", Time: at(0, 4)}
	}
	for name, encode := range map[string]func() job.EncodedEvent{
		"failed":    func() job.EncodedEvent { return report(job.EventAttemptFailed).Attempt(&failed) },
		"succeeded": func() job.EncodedEvent { return report(job.EventAttemptSucceeded).Attempt(&succeeded) },
		"received":  func() job.EncodedEvent { return report(job.EventReceived).Received(&received) },
		"completed": func() job.EncodedEvent { return report(job.EventCompleted).Completed(&completed) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encode()
			}
		})
	}
}

// BenchmarkDecodeResult reads back what BenchmarkAnswer writes.
func BenchmarkDecodeResult(b *testing.B) {
	r := answered()
	r.Response = &job.Response{StatusCode: 200, RequestID: "req-1", Body: job.RawBody(answerBody())}
	data := r.Encode()
	b.ReportAllocs()
	for b.Loop() {
		_, err := job.DecodeResult(data)
		require.NoError(b, err)
	}
}
