package scenarios_test

import (
	"time"

	"understudy/internal/fallback"
	"understudy/internal/llmtest"
)

// once is a script that misbehaves once, or n times, and then is well.
func once(r llmtest.Reply) llmtest.Script { return times(1, r) }

func times(n int, r llmtest.Reply) llmtest.Script {
	return func(c llmtest.Call) llmtest.Reply {
		if c.N <= n {
			return r
		}
		return well()(c)
	}
}

func always(r llmtest.Reply) llmtest.Script { return llmtest.Always(r) }

// streaming has the primary called streaming, for a first token within 2 s.
func streaming(_ *fallback.Policy, parts []part) {
	parts[0].client.FirstTokenTimeout = 2 * time.Second
}

// words is a reply of ten tokens.
func words(s llmtest.Stream) llmtest.Reply {
	return llmtest.Reply{Text: "one two three four five six seven eight nine ten", Stream: s}
}

func apiError(status int, kind, code, message string) llmtest.Reply {
	return bad(llmtest.Reply{Status: status, Type: kind, Code: code, Text: message})
}

// wants are the facts of a job that the secondary answers.
func wants(follows, took, second string) facts {
	return facts{follows, "answered by vllm", took, "openrouter 1, vllm 1", second}
}

// failures are the scenarios in which the primary says or shows that it has failed.
func failures() []scenario {
	limited := llmtest.Fail(429, "Rate limit reached for requests")
	limited.Code = "rate_limit_exceeded"
	seconds, date := limited, limited
	seconds.RetryAfter, date.RetryAfterDate = "20", 30*time.Second
	return []scenario{
		{
			name: "one 500", does: "500 once, then well", primary: once(bad(llmtest.Fail(500, "Internal error"))),
			want: wants("`server_error`, counts, fallback", "1.2s", "openrouter: 1s"),
		},
		{
			name: "burst of 500", does: "500 five times in a row, then well; this is the fifth job",
			primary: times(5, bad(llmtest.Fail(500, "Internal error"))), before: 4, later: time.Minute,
			want: wants("`server_error`, opens for 1m0s, fallback", "1.2s", "vllm: 1s"),
		},
		{
			name: "503", does: "503", primary: always(bad(llmtest.Fail(503, "Service unavailable"))),
			want: wants("`overloaded`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "429, seconds", does: "429 with `Retry-After: 20` once, then well", primary: once(bad(seconds)), later: 19 * time.Second,
			want: wants("`rate_limit`, opens for 20s, fallback", "1.2s", "vllm: 1s"),
		},
		{
			name: "429, date", does: "429 with a `Retry-After` that is a date 30 s from now, once, then well",
			primary: once(bad(date)), later: 29 * time.Second,
			want: wants("`rate_limit`, opens for 30s, fallback", "1.2s", "vllm: 1s"),
		},
		{
			name: "429 without a time", does: "429 once, then well", primary: once(bad(limited)),
			want: wants("`rate_limit`, opens for 1s, fallback", "1.2s", "openrouter: 1s"),
		},
		{
			name: "quota 429", does: "429 with `insufficient_quota`", later: time.Minute,
			primary: always(apiError(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan and billing details.")),
			want:    wants("`quota`, opens for 1m0s, fallback", "1.2s", "vllm: 1s"),
		},
		{
			name: "bad key", does: "401", primary: always(apiError(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")),
			want: wants("`auth`, opens for 1m0s, fallback", "1.2s", "vllm: 1s"),
		},
		{
			name: "context overflow", does: "400 `context_length_exceeded`",
			primary: always(apiError(400, "invalid_request_error", "context_length_exceeded",
				"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.")),
			want: wants("`context_length`, ignored, fallback", "1.2s", "vllm: 1s"),
		},
		{
			name: "content filter", does: "400 `content_filter`; not routed around",
			primary: always(apiError(400, "", "content_filter", "The response was filtered due to the prompt triggering the content management policy.")),
			want: facts{
				"`content_filter`, ignored, stop", "failed: `content_filter`", "200ms", "openrouter 1, vllm 0", "openrouter: 200ms, failed",
			},
		},
		{
			name: "answer filtered", does: "200 with `finish_reason` `content_filter`; not routed around",
			primary: always(bad(llmtest.Reply{Finish: "content_filter"})),
			want: facts{
				"`content_filter`, ignored, stop", "failed: `content_filter`", "200ms", "openrouter 1, vllm 0", "openrouter: 200ms, failed",
			},
		},
		{
			name: "malformed request", does: "400; not routed around",
			primary: always(apiError(400, "invalid_request_error", "", "Invalid type for 'messages[0].content': expected a string.")),
			want: facts{
				"`invalid_request`, ignored, stop", "failed: `invalid_request`", "200ms", "openrouter 1, vllm 0", "openrouter: 200ms, failed",
			},
		},
		{
			name: "model not found", does: "404; not routed around by default",
			primary: always(apiError(404, "invalid_request_error", "model_not_found", "The model `m` does not exist or you do not have access to it.")),
			want: facts{
				"`model_not_found`, ignored, stop", "failed: `model_not_found`", "200ms", "openrouter 1, vllm 0", "openrouter: 200ms, failed",
			},
		},
	}
}

// silences are the scenarios in which the primary is slow, dead or half dead.
func silences() []scenario {
	return []scenario{
		{
			name: "connection refused", does: "accepts no connection", refuses: true,
			want: wants("`connection`, counts, fallback", "1s", "openrouter, vllm: 1s"),
		},
		{
			name: "connection breaks", does: "closes the connection before the header",
			primary: always(bad(llmtest.Broken(llmtest.Reset))),
			want:    wants("`connection`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "silence before headers", does: "accepts the call and never answers", primary: always(llmtest.Broken(llmtest.Hang)),
			want: wants("`timeout`, counts, fallback", "6s", "openrouter, vllm: 6s"),
		},
		{
			name: "headers, then silence", does: "sends the header of a 200 and nothing more", primary: always(llmtest.Broken(llmtest.Silence)),
			want: wants("`timeout`, counts, fallback", "6s", "openrouter, vllm: 6s"),
		},
		{
			name: "slow first token", does: "keeps a stream alive with comments for 10 s; `FIRST_TOKEN_TIMEOUT=2`", set: streaming,
			primary: always(words(llmtest.Stream{FirstDelay: 10 * time.Second, Comments: 10})),
			want:    wants("`timeout`, counts, fallback", "3s", "openrouter, vllm: 3s"),
		},
		{
			name: "slow tokens", does: "a token a second, 9 s in all; `FIRST_TOKEN_TIMEOUT=2`", set: streaming,
			primary: always(words(llmtest.Stream{TokenDelay: time.Second})),
			want:    facts{"nothing", "answered by openrouter", "9s", "openrouter 1, vllm 0", "openrouter: 9s"},
		},
		{
			name: "time budget", does: "never answers; the job has `timeout_ms` 3000", primary: always(llmtest.Broken(llmtest.Hang)),
			ask:  question{budget: 3 * time.Second},
			want: facts{"`expired`, ignored, stop", "failed: `expired`", "3s", "openrouter 1, vllm 0", "openrouter: 3s, failed"},
		},
	}
}

// nonsense are the scenarios in which the primary answers with a 200 that is no
// answer.
func nonsense() []scenario {
	spaced := func(end llmtest.StreamEnd) llmtest.Reply {
		return words(llmtest.Stream{TokenDelay: 100 * time.Millisecond, After: 3, End: end})
	}
	return []scenario{
		{
			name: "cut stream", does: "breaks the connection after three tokens", set: streaming, primary: always(spaced(llmtest.EndCut)),
			want: wants("`truncated`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "clean close without finish", does: "ends the stream after three tokens, without `finish_reason` and `[DONE]`", set: streaming,
			primary: always(spaced(llmtest.EndClose)),
			want:    wants("`truncated`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "error inside a 200", does: "200 with an error in the body, code 502",
			primary: always(bad(llmtest.Raw(200, "application/json", `{"error":{"message":"Provider returned error","code":502}}`))),
			want:    wants("`server_error`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "error in a stream", does: "sends an error as a chunk after three tokens", set: streaming, primary: always(spaced(llmtest.EndErrorChunk)),
			want: wants("`server_error`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "HTML 200", does: "200 with a proxy's page", primary: always(bad(llmtest.HTML(200))),
			want: wants("`bad_response`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "body cut", does: "200, half the body", primary: always(bad(llmtest.Broken(llmtest.CutLength))),
			want: wants("`bad_response`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "empty answer", does: "200 with empty content",
			primary: always(bad(llmtest.Raw(200, "application/json",
				`{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}`))),
			want: wants("`empty_output`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "answer too long", does: "an answer of 1 MiB where 64 KiB are allowed",
			primary: always(bad(llmtest.Reply{Size: 1 << 20})),
			set:     func(_ *fallback.Policy, parts []part) { parts[0].client.MaxResponseBytes = 64 << 10 },
			want:    wants("`bad_response`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
		{
			name: "redirect", does: "307 to another host, which is not followed",
			primary: always(bad(llmtest.Reply{Status: 307, Header: map[string]string{"Location": "http://elsewhere.test/v1/chat/completions"}, Body: []byte("")})),
			want:    wants("`bad_response`, counts, fallback", "1.2s", "openrouter, vllm: 1.2s"),
		},
	}
}

// several are the scenarios with more than a failure and a fallback.
func several() []scenario {
	down := always(bad(llmtest.Fail(503, "Service unavailable")))
	return []scenario{
		{
			name: "one retry", does: "503 once, then well; `RETRIES=1`", primary: once(bad(llmtest.Fail(503, "Service unavailable"))),
			set:  func(_ *fallback.Policy, parts []part) { parts[0].retries = 1 },
			want: facts{"`overloaded`, counts until the answer, retry", "answered by openrouter", "2.2s", "openrouter 2, vllm 0", "openrouter: 1s"},
		},
		{
			name: "loser of a hedge", does: "takes 4 s; strategy `parallel`, `HEDGE_DELAY=0.5`",
			primary: always(llmtest.Reply{Delay: 4 * time.Second}),
			set: func(p *fallback.Policy, _ []part) {
				p.Strategy, p.HedgeDelay = fallback.Parallel, 500*time.Millisecond
			},
			want: wants("`cancelled`, ignored, stop", "1.5s", "openrouter, vllm: 1.5s"),
		},
		{
			name: "two of three down", does: "503; vllm never answers; a third is well", primary: down,
			secondary: always(llmtest.Broken(llmtest.Hang)), third: well(),
			want: facts{
				"`overloaded`, counts, fallback; vllm: `timeout`, counts, fallback", "answered by third", "11.2s",
				"openrouter 1, vllm 1, third 1", "openrouter, vllm, third: 11.2s",
			},
		},
		{
			name: "everybody down", does: "503, and so does vllm", primary: down, secondary: down,
			want: facts{
				"`overloaded`, counts, fallback; vllm: `overloaded`, counts, fallback; `overloaded`, counts, stop",
				"failed: `overloaded`", "1.6s", "openrouter 2, vllm 1", "openrouter, vllm, openrouter: 1.6s, failed",
			},
		},
		{
			name: "two down, one back", does: "503, and so does vllm, five times and then it is well; this is the third job", before: 2,
			primary: down, secondary: times(5, bad(llmtest.Fail(503, "Service unavailable"))),
			want: facts{
				"`overloaded`, opens for 1m0s, fallback; vllm: `overloaded`, counts until the answer, retry; " +
					"`circuit_open`, not called, wait; vllm: `overloaded`, counts until the answer, wait; " +
					"vllm: `overloaded`, opens for 1m0s, wait; vllm: `circuit_open`, not called, wait; " +
					"`overloaded`, opens for 1m0s, wait; `circuit_open`, not called, wait",
				"answered by vllm", "1m4.8s", "openrouter 2, vllm 4", "vllm: 1s",
			},
		},
	}
}
