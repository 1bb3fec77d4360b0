package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// answer is what a body with a good status says.
type answer struct {
	// verdict is why the answer is not acceptable; its class is empty when it is.
	verdict Verdict
	id      string
	model   string
	usage   *job.Usage
	cost    *float64
}

// read judges a whole body that came with status, which is 2xx.
func read(url string, status int, header http.Header, body []byte) answer {
	var a answer
	if !a.quick(url, header, body) {
		a = careful(url, status, header, body)
	}
	return a
}

// careful is read for every body there is.
func careful(url string, status int, header http.Header, body []byte) answer {
	text := bytes.TrimSpace(body)
	var top map[string]json.RawMessage
	switch {
	case len(text) == 0:
		return bad(backend.BadResponse, "the answer is empty")
	case isHTML(text):
		return bad(backend.BadResponse, "the answer is an HTML page")
	case !json.Valid(text):
		return bad(backend.BadResponse, "the answer is not JSON, or only a part of it")
	case json.Unmarshal(text, &top) != nil || top == nil:
		if v := Classify(status, header, capped(text)); v.told {
			return answer{verdict: v}
		}
		return bad(backend.BadResponse, "the answer is not a JSON object")
	}
	a := answer{id: str(top["id"]), model: str(top["model"])}
	a.usage, a.cost = usageOf(top["usage"], header)
	if failed(top) {
		a.verdict = Classify(status, header, capped(text))
		return a
	}
	if url == job.URLEmbeddings {
		a.verdict = judgeEmbeddings(top["data"])
	} else {
		a.verdict = judgeChoices(top, status, header)
	}
	if a.verdict.Class == backend.BadResponse {
		// Not an answer: it may still say why in some other shape.
		if v := Classify(status, header, capped(text)); v.told {
			a.verdict = v
		}
	}
	return a
}

// bad is an answer that cannot be used, in our own words.
func bad(class backend.Class, message string) answer {
	return answer{verdict: Verdict{Class: class, Message: message}}
}

// capped returns as much of a body as an error is read from.
func capped(body []byte) []byte { return body[:min(len(body), maxErrorBody)] }

// failed reports whether a JSON object says of itself that it is an error.
func failed(top map[string]json.RawMessage) bool {
	return saysError(top["error"], top["type"], top["object"])
}

// saysError is failed, given the three members that tell.
func saysError(failure, kind, object []byte) bool {
	switch string(bytes.TrimSpace(failure)) {
	case "", "null", "{}", `""`, "false", "[]":
	default:
		return true
	}
	return str(kind) == "error" || str(object) == "error"
}

func judgeEmbeddings(data json.RawMessage) Verdict {
	var list []struct {
		Embedding json.RawMessage `json:"embedding"`
	}
	if json.Unmarshal(data, &list) != nil || len(list) == 0 {
		return Verdict{Class: backend.BadResponse, Message: "the answer has no embeddings"}
	}
	for _, item := range list {
		if emptyVector(item.Embedding) {
			return Verdict{Class: backend.EmptyOutput, Message: "an embedding is empty"}
		}
	}
	return Verdict{}
}

func emptyVector(embedding []byte) bool {
	switch string(bytes.TrimSpace(embedding)) {
	case "", "null", "[]", `""`:
		return true
	}
	return false
}

// judgeChoices accepts an answer when at least one choice is acceptable; what
// is wrong with the first one decides otherwise.
func judgeChoices(top map[string]json.RawMessage, status int, header http.Header) Verdict {
	var feedback struct {
		BlockReason string `json:"blockReason"`
	}
	_ = json.Unmarshal(orNull(top["promptFeedback"]), &feedback)
	if feedback.BlockReason != "" {
		return Verdict{Class: backend.ContentFilter, Code: feedback.BlockReason, Message: "the prompt was blocked"}
	}
	var choices []map[string]json.RawMessage
	if json.Unmarshal(orNull(top["choices"]), &choices) != nil || len(choices) == 0 {
		return Verdict{Class: backend.BadResponse, Message: "the answer has no choices"}
	}
	var first Verdict
	for i, choice := range choices {
		v := judgeChoice(choice, status, header)
		if v.Class == "" {
			return v
		}
		if i == 0 {
			first = v
		}
	}
	return first
}

func judgeChoice(choice map[string]json.RawMessage, status int, header http.Header) Verdict {
	if failed(choice) {
		return Classify(status, header, slices.Concat([]byte(`{"error":`), orNull(choice["error"]), []byte("}")))
	}
	var message map[string]json.RawMessage
	_ = json.Unmarshal(orNull(choice["message"]), &message)
	c := choiceParts{
		finish: choice["finish_reason"], native: choice["native_finish_reason"], text: choice["text"],
		hasMessage: message != nil, message: partsOf(message),
	}
	return c.verdict()
}

// choiceParts is what counts of a choice: its members as they are spelled, nil for
// those that it does not have.
type choiceParts struct {
	finish, native, text, failure, kind, object []byte
	hasMessage                                  bool
	message                                     messageParts
}

// verdict judges a choice that does not say of itself that it failed.
func (c *choiceParts) verdict() Verdict {
	if c.acceptable() {
		return Verdict{}
	}
	switch finish := reason(c.finish); {
	case finish == "error":
		return Verdict{Class: backend.ServerError, Code: finish, Message: "the answer ended with an error"}
	case isFiltered(finish):
		return Verdict{Class: backend.ContentFilter, Code: finish, Message: "the answer was filtered"}
	case !c.hasMessage && c.text == nil:
		return Verdict{Class: backend.BadResponse, Message: "a choice has no message"}
	case isFiltered(reason(c.native)):
		return Verdict{Class: backend.ContentFilter, Message: "the answer was filtered"}
	}
	return Verdict{Class: backend.EmptyOutput, Message: "the answer is empty"}
}

// acceptable reports whether the choice is an answer, if only a part of one: that
// the model ran out of tokens is what the request asked for.
func (c *choiceParts) acceptable() bool {
	switch finish := reason(c.finish); {
	case finish == "error", isFiltered(finish), !c.hasMessage && c.text == nil:
		return false
	case finish == "length" || finish == "max_tokens":
		return true
	}
	return c.text != nil && hasText(c.text) || c.message.hasOutput()
}

// reason returns a finish reason in lower case.
func reason(value []byte) string {
	switch string(value) { // the usual ones take no memory
	case `"stop"`:
		return "stop"
	case `"length"`:
		return "length"
	case `"tool_calls"`:
		return "tool_calls"
	}
	return strings.ToLower(str(value))
}

// isFiltered reports whether a finish reason, in lower case, is a refusal by
// policy: OpenAI's and Azure's, Gemini's, Anthropic's, Bedrock's and Zhipu's.
func isFiltered(reason string) bool {
	switch reason {
	case "content_filter", "content_filtered", "safety", "image_safety", "recitation", "prohibited_content",
		"blocklist", "spii", "refusal", "guardrail_intervened", "guardrails", "sensitive", "model_armor":
		return true
	}
	return false
}

// messageParts is what may be the output of a message: members as they are
// spelled, nil for those that it does not have. Reasoning alone is none.
type messageParts struct {
	texts  [2][]byte // content, refusal
	others [4][]byte // tool_calls, function_call, audio, images
}

func partsOf(message map[string]json.RawMessage) messageParts {
	return messageParts{
		texts:  [...][]byte{message["content"], message["refusal"]},
		others: [...][]byte{message["tool_calls"], message["function_call"], message["audio"], message["images"]},
	}
}

// hasOutput reports whether a message holds an answer.
func (m *messageParts) hasOutput() bool {
	for _, text := range m.texts {
		if hasText(text) {
			return true
		}
	}
	for _, other := range m.others {
		switch string(bytes.TrimSpace(other)) {
		case "", "null", "[]", "{}":
		default:
			return true
		}
	}
	return false
}

// hasText reports whether content is a string that is not blank, or a list with
// a part that is not a blank text.
func hasText(content json.RawMessage) bool {
	if isNull(content) {
		return false
	}
	if content[0] == '"' {
		if isBlank, told := blank(content); told {
			return !isBlank
		}
		return strings.TrimSpace(str(content)) != ""
	}
	var parts []map[string]json.RawMessage
	if json.Unmarshal(content, &parts) != nil {
		return false
	}
	for _, part := range parts {
		text, isText := part["text"]
		if !isText || strings.TrimSpace(str(text)) != "" {
			return true
		}
	}
	return false
}

func orNull(value json.RawMessage) json.RawMessage {
	if len(value) == 0 {
		return json.RawMessage("null")
	}
	return value
}

// usageOf reads what a provider counted, and what it says the call cost in USD:
// OpenRouter in usage.cost, DeepInfra in usage.estimated_cost, LiteLLM in a
// header. Both are nil when it does not say.
func usageOf(raw json.RawMessage, header http.Header) (*job.Usage, *float64) {
	var u map[string]json.RawMessage
	_ = json.Unmarshal(orNull(raw), &u)
	c := counts{
		cost: u["cost"], estimated: u["estimated_cost"], prompt: u["prompt_tokens"], input: u["input_tokens"],
		completion: u["completion_tokens"], output: u["output_tokens"],
	}
	return c.read(header)
}

// usable reports whether a number can be a count or a price.
func usable(f float64) bool { return f >= 0 && f <= 1e15 && !math.IsNaN(f) }

// costOf returns what a call cost in USD: what the provider reported, or else
// by the tokens, or else by the time. It is nil when that is not known.
func (c *Client) costOf(reported *float64, usage *job.Usage, took time.Duration) *float64 {
	switch {
	case reported != nil:
		return reported
	case usage != nil && (c.cfg.PriceInput > 0 || c.cfg.PriceOutput > 0):
		return new((float64(usage.InputTokens)*c.cfg.PriceInput + float64(usage.OutputTokens)*c.cfg.PriceOutput) / 1e6)
	case c.cfg.PriceHour > 0:
		return new(took.Hours() * c.cfg.PriceHour)
	}
	return nil
}
