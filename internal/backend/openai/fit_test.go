package openai

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

// tooLong is an error that says of a request that it does not fit.
func tooLong(message string) string {
	return `{"error":{"code":"context_length_exceeded","message":` + string(quote(message)) + `}}`
}

// sizes are how providers say what fits and what is asked for; 0 where they do not.
func sizes() []struct {
	name             string
	status           int
	body             string
	limit, requested int64
} {
	return []struct {
		name             string
		status           int
		body             string
		limit, requested int64
	}{
		{"openai, prompt and answer", 400, tooLong("This model's maximum context length is 8192 tokens. However, you requested 9021 tokens (8021 in the messages, 1000 in the completion). Please reduce the length."), 8192, 9021},
		{"openai, messages", 400, tooLong("This model's maximum context length is 4096 tokens. However, your messages resulted in 5012 tokens. Please reduce the length of the messages."), 4096, 5012},
		{"openai, functions", 400, tooLong("This model's maximum context length is 4097 tokens. However, your messages resulted in 4824 tokens (4000 in the messages, 824 in the functions)."), 4097, 4824},
		{"openai, embeddings", 400, tooLong("This model's maximum context length is 8192 tokens, however you requested 10000 tokens (10000 in your prompt; 0 for the completion)."), 8192, 10000},
		{"openai, many inputs", 400, tooLong("Requested 412839 tokens, max 300000 tokens per request"), 300000, 412839},
		{"openai, a rate", 429, `{"error":{"message":"Request too large for gpt-4o in organization org-X on tokens per min (TPM): Limit 30000, Requested 31538. The input or output tokens must be reduced.","type":"tokens","code":"rate_limit_exceeded"}}`, 30000, 31538},
		{"openai, a rate in thousands", 429, `{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 1,030,000, Used 0, Requested 1,030,001.","code":"rate_limit_exceeded"}}`, 1030000, 1030001},
		{"azure", 400, tooLong("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 509178 tokens. Please reduce the length of the messages."), 272000, 509178},
		{"groq, a rate", 413, "{\"error\":{\"message\":\"Request too large for model `llama-3.1-8b-instant` on tokens per minute (TPM): Limit 6000, Requested 8214, please reduce\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}", 6000, 8214},
		{"openrouter", 400, tooLong("This endpoint's maximum context length is 131072 tokens. However, you requested about 250012 tokens (250000 of text input, 12 in the output)."), 131072, 250012},
		{"openrouter, wrapped", 400, wrap(400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 209375 tokens > 200000 maximum"}}`), 200000, 209375},
		{"anthropic", 400, tooLong("prompt is too long: 210000 tokens > 200000 maximum"), 200000, 210000},
		{"anthropic, with the answer", 400, tooLong("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again"), 200000, 210000},
		{"google", 400, tooLong("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."), 1048576, 1200000},
		{"google, other words", 400, tooLong("The input token count is 40000 but model only supports up to 32768"), 32768, 40000},
		{"bedrock", 400, tooLong("400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9001 "), 8192, 9001},
		{"github copilot", 400, tooLong("prompt token count of 135000 exceeds the limit of 128000"), 128000, 135000},
		{"vllm", 400, `{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4488 in the messages, 512 in the completion).","type":"BadRequestError","code":400}`, 4096, 5000},
		{"vllm, in all", 400, tooLong("This model's maximum context length is 4096 tokens. However, you requested 512 output tokens and your prompt contains at least 3585 input tokens, for a total of at least 4097 tokens."), 4096, 4097},
		{"vllm, no sum", 400, tooLong("This model's maximum context length is 4096 tokens. However, you requested 512 output tokens and your prompt contains 4000 input tokens."), 4096, 4512},
		{"vllm, input", 400, tooLong("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please reduce the length of the input messages."), 4096, 5000},
		{"vllm, max_tokens", 400, tooLong("'max_tokens' or 'max_completion_tokens' is too large: 4090. This model's maximum context length is 4096 tokens and your request has 10 input tokens (4090 > 4096 - 10)."), 4096, 4100},
		{"vllm, maximum input length", 400, tooLong("You passed 4096 input tokens and requested 512 output tokens. However, the model's context length is only 4096 tokens, resulting in a maximum input length of 3584 tokens."), 4096, 4608},
		{"vllm, decoder", 400, tooLong("The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller."), 4096, 5000},
		{"sglang", 400, tooLong("The input (40000 tokens) is longer than the model's context length (32768 tokens)."), 32768, 40000},
		{"sglang, in all", 400, tooLong("Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of 40100 tokens: 40000 tokens from the input messages and 100 tokens for the completion."), 32768, 40100},
		{"tgi", 422, "{\"error\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`\",\"error_type\":\"validation\"}", 4096, 5100},
		{"tei", 413, "{\"error\":\"Input validation error: `inputs` must have less than 512 tokens. Given: 600\",\"error_type\":\"Validation\"}", 512, 600},
		{"nvidia", 400, tooLong("Input length 1234 exceeds maximum allowed token size 512"), 512, 1234},
		{"a maximum input length", 400, tooLong("Sequence length 600 exceeds the model's maximum input length of 512."), 512, 600},
		{"a maximum input length, got", 400, tooLong("Exceeded the maximum input length of 512 tokens, got 600"), 512, 600},
		{"llama.cpp", 400, `{"error":{"code":400,"message":"request (25837 tokens) exceeds the available context size (25088 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":25837,"n_ctx":25088}}`, 25088, 25837},
		{"llama.cpp, in fields", 400, `{"error":{"code":400,"message":"the request exceeds the available context size. try increasing the context size","type":"exceed_context_size_error","n_prompt_tokens":257,"n_ctx":256}}`, 256, 257},
		{"llama.cpp, no numbers", 400, tooLong("the request exceeds the available context size. try increasing the context size"), 0, 0},
		{"llama-cpp-python", 400, tooLong("Requested tokens (2065) exceed context window of 1800"), 1800, 2065},
		{"lm studio", 400, `{"error":"Trying to keep the first 6000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}`, 4096, 6000},
		{"exllama", 400, tooLong("length of prompt_tokens (163280) must be less than max_seq_len (32768)."), 32768, 163280},
		{"mistral", 400, tooLong("Prompt contains 40123 tokens and 20 draft tokens, too large for model with 32768 maximum context length"), 32768, 40143},
		{"mistral, now", 400, tooLong("Prompt contains 40123 tokens, too large for model with 32768 maximum context length"), 32768, 40123},
		{"xai", 400, tooLong("This model's maximum prompt length is 131072 but the request contains 537812 tokens."), 131072, 537812},
		{"cerebras", 400, tooLong("Please reduce the length of the messages or completion. Current length is 8977 while limit is 8192"), 8192, 8977},
		{"moonshot", 400, tooLong("Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"), 8192, 9000},
		{"moonshot, no request", 400, tooLong("Invalid request: Your request exceeded model token limit: 8192"), 0, 0},
		{"cohere", 400, tooLong("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292. Try using a shorter prompt"), 4081, 4292},
		{"cohere, by how much", 400, tooLong("too many tokens: size limit exceeded by 11326 tokens. Try using shorter or fewer inputs."), 0, 0},
		{"fireworks", 400, tooLong("The prompt is too long: 40000, model maximum context length: 32768"), 32768, 40000},
		{"litellm", 400, `{"error":{"message":"litellm.BadRequestError: litellm.ContextWindowExceededError: OpenAIException - This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.\nmodel=gpt-4","code":"400"}}`, 4096, 5000},

		// What is no pair of sizes, or says nothing about the request as a whole.
		{"an answer too long", 400, `{"error":{"message":"max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided 32000.","param":"max_tokens","code":"invalid_value"}}`, 0, 0},
		{"anthropic, an answer too long", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens"}}`, 0, 0},
		{"characters", 400, tooLong("string too long. Expected a string with maximum length 1048576, but got a string with length 1200000 instead."), 0, 0},
		{"bytes", 400, tooLong("image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes"), 0, 0},
		{"it fits", 400, tooLong("prompt is too long: 200000 tokens > 200000 maximum"), 0, 0},
		{"a limit of nothing", 400, tooLong("prompt is too long: 2 tokens > 0 maximum"), 0, 0},
		{"a huge number", 400, tooLong("prompt is too long: 99999999999 tokens > 200000 maximum"), 0, 0},
		{"no number holds it", 400, tooLong("prompt is too long: 99999999999999999999999 tokens > 200000 maximum"), 0, 0},
		{"a shortened number", 400, tooLong("prompt is too long: 210k tokens > 200000 maximum"), 0, 0},
		{"a number cut short", 400, tooLong("prompt token count of 135000 exceeds the limit of 128k"), 0, 0},
		{"far apart", 400, tooLong("This model's maximum context length is 8192 tokens. " + strings.Repeat("word ", 100) + "you requested 9021 tokens"), 0, 0},
		{"another class", 400, `{"error":{"message":"I said: prompt is too long: 210000 tokens > 200000 maximum","code":"content_filter"}}`, 0, 0},
		{"a rate that passes", 429, `{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 30000, Used 29000, Requested 1538. Please try again in 1s.","code":"rate_limit_exceeded"}}`, 0, 0},
		{"the caller's own words", 422, tooLong(`too long: {'type': 'x', 'input': 'prompt is too long: 210000 tokens > 200000 maximum'}`), 0, 0},
		{"the first of two that makes sense", 400, tooLong("prompt is too long: 5 tokens > 10 tokens; prompt is too long: 5 tokens > 10. Current length is 9 while limit is 8"), 8, 9},
	}
}

func TestAnErrorTellsWhatWouldFit(t *testing.T) {
	t.Parallel()
	for _, row := range sizes() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := Classify(row.status, http.Header{}, []byte(row.body))
			require.Equal(t, [2]int64{row.limit, row.requested}, [2]int64{v.Limit, v.Requested}, "%+v", v)
			if row.limit > 0 { // also by its words alone
				require.Contains(t, []backend.Class{backend.ContextLength, backend.TooLarge}, v.Class)
				bare := strings.Replace(row.body, `"code":"context_length_exceeded",`, "", 1)
				require.Equal(t, row.limit, Classify(row.status, http.Header{}, []byte(bare)).Limit)
			}
		})
	}
}

func TestEverySizeIsPartOfTheError(t *testing.T) {
	t.Parallel()
	body := tooLong("prompt is too long: 210000 tokens > 200000 maximum")
	for name, handler := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(body))
		},
		"good status": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) },
		"stream":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("data: " + body + "\n\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTestClient(t, serve(t, handler)).Complete(t.Context(), chat(false))
			e := failure(t, err)
			require.Equal(t, backend.ContextLength, e.Class)
			require.Equal(t, int64(200000), e.Limit)
			require.Equal(t, int64(210000), e.Requested)
		})
	}
}

func TestEveryFormIsUsable(t *testing.T) {
	t.Parallel()
	for _, form := range fitForms() {
		require.Equal(t, strings.ToLower(form), strings.NewReplacer("<L>", "<l>", "<R>", "<r>").Replace(form), "not in lower case")
		require.Positive(t, wordsEnd(form), form)
		require.Equal(t, 1, strings.Count(form, "<L>"), form)
		require.Positive(t, strings.Count(form, "<R>"), form)
		require.NotContains(t, form, "…<", form)
		text := strings.NewReplacer("<L>", "1,000", "<R>", "2000", "…", " and ").Replace(form)
		s, ok := (fitting{}).find(text, form, len(text))
		require.True(t, ok, form)
		require.Equal(t, fitting{1000, int64(2000 * strings.Count(form, "<R>"))}, s, form)
	}
}

func FuzzFit(f *testing.F) {
	for _, row := range sizes() {
		f.Add(row.body)
	}
	for _, form := range fitForms() {
		f.Add(strings.NewReplacer("<L>", "8", "<R>", "9", "…", "").Replace(form))
	}
	f.Fuzz(func(t *testing.T, text string) {
		reports := append(readReports(nil, []byte(text)), report{message: text})
		for _, class := range backend.Classes() {
			limit, requested := fit(class, reports)
			if class != backend.ContextLength && class != backend.TooLarge {
				require.Zero(t, limit)
			}
			if limit == 0 {
				require.Zero(t, requested)
				continue
			}
			require.Positive(t, limit)
			require.Greater(t, requested, limit)
			require.LessOrEqual(t, requested, int64(maxTokens))
		}
	})
}
