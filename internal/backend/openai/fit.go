package openai

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"understudy/internal/backend"
)

const (
	// maxTokens is the largest number of tokens that is believed: a thousand times
	// the largest context there is.
	maxTokens = 1e10
	// maxGap is how much may stand between the two numbers of a sentence.
	maxGap = 240
)

// fit returns how many tokens the backend can take and how many the request would
// need, where a failure of that class says both; otherwise 0 and 0. The innermost
// report decides. How long an answer may be is not meant: a request for too long
// an answer fits, but for its max_tokens.
func fit(class backend.Class, reports []report) (limit, requested int64) {
	if class != backend.ContextLength && class != backend.TooLarge {
		return 0, 0
	}
	for _, rep := range slices.Backward(reports) {
		if over(rep.limit, rep.requested) {
			return rep.limit, rep.requested
		}
		text := strings.ToLower(clip(withoutInput(rep.message), 4096))
		for _, form := range fitForms() {
			if s, ok := (fitting{}).find(text, form, len(text)); ok && over(s.limit, s.requested) {
				return s.limit, s.requested
			}
		}
	}
	return 0, 0
}

// over reports whether two numbers can be a limit and a request over it.
func over(limit, requested int64) bool {
	return limit > 0 && requested > limit && requested <= maxTokens
}

// fitForms returns how providers say that a request is too long, in lower case.
// <L> stands for what fits and <R> for what the request needs; several <R> are
// added up. "…" stands for anything of a sane length, and never comes first or
// last. The first form that fits decides.
func fitForms() []string {
	return []string{
		// OpenAI, Azure, DeepSeek, vLLM in its versions, OpenRouter, SGLang.
		"is too large: <R>. this model's maximum context length is <L> tokens and your request has <R> input tokens",
		"maximum context length is <L> tokens…for a total of at least <R> tokens",
		"maximum context length is <L> tokens…requested <R> output tokens and your prompt contains at least <R> input tokens",
		"maximum context length is <L> tokens…requested <R> output tokens and your prompt contains <R> input tokens",
		"maximum context length is <L> tokens…requested about <R> tokens",
		"maximum context length is <L> tokens…requested <R> tokens",
		"maximum context length is <L> tokens…resulted in <R> tokens",
		"maximum context length is <L> tokens…your request has <R> input tokens",
		"maximum context length is <L> tokens…your prompt contains at least <R> input tokens",
		"maximum context length is <L> tokens…your prompt contains <R> input tokens",
		"maximum context length of <L> tokens…requested a total of <R> tokens",
		"maximum context length of <L> tokens…requested <R> tokens",
		"configured limit of <L> tokens…resulted in <R> tokens",
		"requested <R> tokens, max <L> tokens per request",
		"you passed <R> input tokens and requested <R> output tokens…context length is only <L> tokens",
		"you passed <R> input tokens…context length is only <L> tokens",
		"prompt (length <R>) is longer than the maximum model length of <L>",
		"input prompt (<R> tokens) is too long and exceeds limit of <L>",
		"input (<R> tokens) is longer than the model's context length (<L> tokens)",
		// Rates that one request is over: OpenAI, Groq.
		"limit <L>, …requested <R>", "limit: <L>, …requested: <R>",
		// Anthropic, Bedrock.
		"prompt is too long: <R> tokens > <L>",
		"exceed context limit: <R> + <R> > <L>",
		"max input tokens: <L>, request input token count: <R>",
		// Google, GitHub.
		"token count (<R>) exceeds the maximum number of tokens allowed (<L>)",
		"token count is <R> but model only supports up to <L>",
		"token count of <R> exceeds the limit of <L>",
		// llama.cpp, llama-cpp-python, LM Studio, Ollama, exllama.
		"request (<R> tokens) exceeds the available context size (<L> tokens)",
		"requested tokens (<R>) exceed context window of <L>",
		"keep the first <R> tokens…context length of only <L> tokens",
		"input length (<R> tokens) exceeds…context length (<L> tokens)",
		"prompt_tokens (<R>) must be less than max_seq_len (<L>)",
		// TGI, TEI, Together, NVIDIA.
		"`inputs` tokens + `max_new_tokens` must be <= <L>. given: <R> `inputs` tokens and <R> `max_new_tokens`",
		"must have less than <L> tokens. given: <R>",
		"input length <R> exceeds maximum allowed token size <L>",
		"length <R>…exceeds…maximum input length of <L>", "length (<R>)…exceeds…maximum input length of <L>",
		"input of <R> tokens…maximum input length of <L>", "input has <R> tokens…maximum input length of <L>",
		"maximum input length of <L>…input has <R> tokens", "maximum input length of <L>…got <R>",
		"maximum input length of <L>…given: <R>",
		// Mistral, xAI, Cerebras, Moonshot, Cohere, Fireworks.
		"prompt contains <R> tokens and <R> draft tokens, too large for model with <L>",
		"prompt contains <R> tokens…too large for model with <L>",
		"maximum prompt length is <L> but the request contains <R> tokens",
		"current length is <R> while limit is <L>",
		"token limit: <L> (requested: <R>",
		"cannot exceed <L> - received <R>",
		"prompt is too long: <R>, model maximum context length: <L>",
	}
}

// fitting is what a sentence has told so far.
type fitting struct{ limit, requested int64 }

// find looks for a form that begins with words, within that many bytes of text.
func (s fitting) find(text, form string, within int) (fitting, bool) {
	words := form[:wordsEnd(form)]
	text, rest := text[:min(len(text), within+len(words))], text
	for at := 0; ; at++ {
		i := strings.Index(text[at:], words)
		if i < 0 {
			return s, false
		}
		at += i
		if got, ok := s.match(rest[at+len(words):], form[len(words):]); ok {
			return got, true
		}
	}
}

// match matches what is left of a form at the beginning of text.
func (s fitting) match(text, form string) (fitting, bool) {
	for form != "" {
		if rest, ok := strings.CutPrefix(form, "…"); ok {
			return s.find(text, rest, maxGap)
		}
		if n := wordsEnd(form); n > 0 {
			if !strings.HasPrefix(text, form[:n]) {
				return s, false
			}
			text, form = text[n:], form[n:]
			continue
		}
		n, end := tokens(text)
		if end == 0 {
			return s, false
		}
		if form[1] == 'L' {
			s.limit = n
		} else {
			s.requested += n
		}
		text, form = text[end:], form[len("<L>"):]
	}
	return s, true
}

// wordsEnd returns how much of a form stands before a number or a gap. The "<"
// of a number has no space behind it.
func wordsEnd(form string) int {
	end := len(form)
	for _, stop := range []string{"<L>", "<R>", "…"} {
		if i := strings.Index(form, stop); i >= 0 {
			end = min(end, i)
		}
	}
	return end
}

// tokens reads a number that text begins with, and returns where it ends, 0 when
// there is none: "128k" and "0.5" are none. It may have commas between its thousands.
func tokens(text string) (int64, int) {
	end := digits(text)
	if end == 0 {
		return 0, 0
	}
	for strings.HasPrefix(text[end:], ",") && digits(text[end+1:]) == 3 {
		end += 4
	}
	if next, _ := utf8.DecodeRuneInString(text[end:]); unicode.IsLetter(next) ||
		next == '.' && digits(text[end+1:]) > 0 {
		return 0, 0
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(text[:end], ",", ""), 10, 64)
	if err != nil || n > maxTokens {
		return 0, 0
	}
	return n, end
}

// tokensOf reads a field that is a number of tokens, 0 for anything else.
func tokensOf(v any) int64 {
	number, _ := v.(json.Number)
	n, err := number.Int64()
	if err != nil || n < 0 || n > maxTokens {
		return 0
	}
	return n
}
