package openai

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

var update = flag.Bool("update", false, "write the golden files")

// said is one thing a provider says.
type said struct {
	name   string
	status int
	body   string
	class  backend.Class
}

// wrap is a provider's error as OpenRouter passes it on.
func wrap(code int, raw string) string {
	return fmt.Sprintf(`{"error":{"message":"Provider returned error","code":%d,"metadata":{"provider_name":"X","raw":%s}}}`, code, quote(raw))
}

func aboutRequests() []said {
	return []said{
		// OpenAI
		{"openai context", 400, `{"error":{"message":"This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, backend.ContextLength},
		{"openai max_tokens", 400, `{"error":{"message":"max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided 32000.","type":"invalid_request_error","param":"max_tokens","code":"invalid_value"}}`, backend.TooLarge},
		{"openai max_tokens parameter", 400, `{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}`, backend.Unsupported},
		{"openai temperature value", 400, `{"error":{"message":"Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported.","type":"invalid_request_error","param":"temperature","code":"unsupported_value"}}`, backend.Unsupported},
		{"openai unknown argument", 400, `{"error":{"message":"Unrecognized request argument supplied: top_k","type":"invalid_request_error","param":null,"code":null}}`, backend.Unsupported},
		{"openai unknown parameter", 400, `{"error":{"message":"Unknown parameter: 'foo'.","type":"invalid_request_error","param":"foo","code":"unknown_parameter"}}`, backend.Unsupported},
		{"openai temperature too high", 400, `{"error":{"message":"Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 200 instead.","type":"invalid_request_error","param":"temperature","code":"decimal_above_max_value"}}`, backend.InvalidRequest},
		{"openai long message", 400, `{"error":{"message":"Invalid 'messages[1].content': string too long. Expected a string with maximum length 1048576, but got a string with length 1200000 instead.","type":"invalid_request_error","param":"messages[1].content","code":"string_above_max_length"}}`, backend.TooLarge},
		{"openai long user", 400, `{"error":{"message":"Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 70 instead.","type":"invalid_request_error","param":"user","code":"string_above_max_length"}}`, backend.InvalidRequest},
		{"openai flagged", 400, `{"error":{"message":"Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt.","type":"invalid_request_error","param":null,"code":"invalid_prompt"}}`, backend.ContentFilter},
		{"openai not a chat model", 404, `{"error":{"message":"This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use v1/completions?","type":"invalid_request_error","param":"model","code":null}}`, backend.Unsupported},
		{"openai role", 400, `{"error":{"message":"Invalid value: 'foo'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.","type":"invalid_request_error","param":"messages[0].role","code":"invalid_value"}}`, backend.InvalidRequest},
		{"openai wrong path", 404, `{"error":{"message":"Invalid URL (POST /v1/chat/completion)","type":"invalid_request_error","param":null,"code":null}}`, backend.ModelNotFound},
		{"openai json mode", 400, `{"error":{"message":"Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.","type":"invalid_request_error","param":null,"code":null}}`, backend.Unsupported},
		// Azure
		{"azure jailbreak", 400, `{"error":{"message":"bad","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`, backend.ContentFilter},
		{"azure operation", 400, `{"error":{"code":"OperationNotSupported","message":"The completion operation does not work with the specified model, gpt-35-turbo. Please choose different model and try again."}}`, backend.Unsupported},
		{"azure deprecating", 400, `{"error":{"code":"ServiceModelDeprecating","message":"The model 'Format:OpenAI,Name:gpt-4o,Version:2024-11-20' is in deprecation."}}`, backend.ModelNotFound},
		// Anthropic
		{"anthropic prompt too long", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 209375 tokens > 200000 maximum"}}`, backend.ContextLength},
		{"anthropic max_tokens and context", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"input length and ` + "`max_tokens`" + ` exceed context limit: 199211 + 20000 > 200000, decrease input length or ` + "`max_tokens`" + ` and try again"}}`, backend.ContextLength},
		{"anthropic max_tokens", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet-20241022"}}`, backend.TooLarge},
		{"anthropic 413", 413, `{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}`, backend.TooLarge},
		{"anthropic extra input", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"frequency_penalty: Extra inputs are not permitted"}}`, backend.Unsupported},
		{"anthropic prefill", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"This model does not support assistant message prefill. The conversation must end with a user message."}}`, backend.Unsupported},
		{"anthropic output blocked", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}`, backend.ContentFilter},
		{"anthropic no messages", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"messages: at least one message is required"}}`, backend.InvalidRequest},
		{"anthropic image", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes"}}`, backend.TooLarge},
		// Google
		{"gemini tokens", 400, `[{"error":{"code":400,"message":"The input token count (185586) exceeds the maximum number of tokens allowed (131072).","status":"INVALID_ARGUMENT"}}]`, backend.ContextLength},
		{"gemini unknown name", 400, `[{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \"foo\": Cannot find field.","status":"INVALID_ARGUMENT"}}]`, backend.Unsupported},
		{"gemini deadline", 504, `[{"error":{"code":504,"message":"The request timed out. Please try again.","status":"DEADLINE_EXCEEDED"}}]`, backend.Timeout},
		{"gemini empty contents", 400, `[{"error":{"code":400,"message":"* GenerateContentRequest.contents: contents is not specified","status":"INVALID_ARGUMENT"}}]`, backend.InvalidRequest},
		// Others
		{"mistral extra field", 422, `{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","foo"],"msg":"Extra inputs are not permitted","input":1}]},"type":"invalid_request_error","param":null,"code":null}`, backend.Unsupported},
		{"mistral too long", 400, `{"object":"error","message":"Prompt contains 40123 tokens and 0 draft tokens, too large for model with 32768 maximum context length","type":"invalid_request_error","param":null,"code":"3051"}`, backend.ContextLength},
		{"mistral last role", 400, `{"object":"error","message":"Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant","type":"invalid_request_message_order","param":null,"code":"3230"}`, backend.Unsupported},
		{"cohere unknown field", 422, `{"message":"unknown field: parameter tool_content is not a valid field."}`, backend.Unsupported},
		{"groq max_tokens", 400, "{\"error\":{\"message\":\"`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model\",\"type\":\"invalid_request_error\",\"param\":\"max_tokens\"}}", backend.TooLarge},
		{"groq length", 400, `{"error":{"message":"Please reduce the length of the messages or completion.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, backend.ContextLength},
		{"groq tool use", 400, `{"error":{"message":"Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"<function=x>"}}`, backend.BadResponse},
		{"deepseek context", 400, `{"error":{"message":"This model's maximum context length is 65536 tokens. However, you requested 66000 tokens.","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}`, backend.ContextLength},
		{"deepseek risk", 400, `{"error":{"message":"Content Exists Risk","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}`, backend.ContentFilter},
		{"deepseek max_tokens", 400, `{"error":{"message":"Invalid max_tokens value, the valid range of max_tokens is [1, 8192]","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}`, backend.TooLarge},
		{"deepseek response_format", 400, `{"error":{"message":"This response_format type is unavailable now","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}`, backend.Unsupported},
		{"xai prompt", 400, `{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 537812 tokens."}`, backend.ContextLength},
		{"xai usage guidelines", 403, `{"code":"The caller does not have permission to execute the specified operation","error":"Content violates usage guidelines. Team: t, API key ID: k, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO"}`, backend.ContentFilter},
		{"cerebras context", 400, `{"message":"Please reduce the length of the messages or completion. Current length is 8977 while limit is 8192","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}`, backend.ContextLength},
		{"together inputs", 422, "{\"error\":{\"message\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 512 `max_new_tokens`\",\"type\":\"invalid_request_error\"}}", backend.ContextLength},
		{"moonshot length", 400, `{"error":{"message":"Invalid request: Your request exceeded model token limit: 8192","type":"invalid_request_error"}}`, backend.ContextLength},
		{"alibaba inspection", 400, `{"error":{"code":"data_inspection_failed","param":null,"message":"Input data may contain inappropriate content.","type":"data_inspection_failed"}}`, backend.ContentFilter},
		{"alibaba length", 400, `{"error":{"code":"invalid_parameter_error","message":"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]","type":"invalid_request_error"}}`, backend.ContextLength},
		{"zhipu sensitive", 400, `{"error":{"code":"1301","message":"系统检测到输入或生成内容可能包含不安全或敏感内容"}}`, backend.ContentFilter},
		{"github models", 413, `{"error":{"code":"tokens_limit_reached","message":"Request body too large for gpt-4o model. Max size: 8000 tokens.","details":"Request body too large for gpt-4o model. Max size: 8000 tokens."}}`, backend.TooLarge},
		{"bedrock long", 400, `{"message":"Input is too long for requested model."}`, backend.ContextLength},
		{"bedrock validation", 400, `{"__type":"com.amazon.coral.validate#ValidationException","message":"messages: text content blocks must be non-empty"}`, backend.InvalidRequest},
		{"bedrock tool field", 400, `{"message":"This model doesn't support tool use."}`, backend.Unsupported},
		// Servers one runs oneself
		{"vllm old context", 400, `{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.","type":"BadRequestError","param":null,"code":400}`, backend.ContextLength},
		{"vllm max_tokens", 400, `{"object":"error","message":"'max_tokens' or 'max_completion_tokens' is too large: 50000. This model's maximum context length is 4096 tokens and your request has 10 input tokens.","type":"BadRequestError","code":400}`, backend.ContextLength},
		{"vllm decoder", 400, `{"error":{"message":"The decoder prompt (length 5000) is longer than the maximum model length of 4096.","type":"BadRequestError","param":null,"code":400}}`, backend.ContextLength},
		{"vllm tool choice", 400, `{"error":{"message":"\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set","type":"BadRequestError","param":null,"code":400}}`, backend.Unsupported},
		{"vllm roles", 400, `{"error":{"message":"Conversation roles must alternate user/assistant/user/assistant/...","type":"BadRequestError","param":null,"code":400}}`, backend.Unsupported},
		{"vllm images", 400, `{"error":{"message":"At most 0 image(s) may be provided in one request.","type":"BadRequestError","param":null,"code":400}}`, backend.Unsupported},
		{"vllm system role", 400, `{"object":"error","message":"System role not supported","type":"BadRequestError","param":null,"code":400}`, backend.Unsupported},
		{"vllm extra field", 400, `{"error":{"message":"[{'type': 'extra_forbidden', 'loc': ('body', 'x'), 'msg': 'Extra inputs are not permitted', 'input': 1}]","type":"Bad Request","param":null,"code":400}}`, backend.Unsupported},
		{"sglang length", 400, `{"object":"error","message":"The input (40000 tokens) is longer than the model's context length (32768 tokens).","type":"BadRequestError","param":null,"code":400}`, backend.ContextLength},
		{"tgi validation", 422, "{\"error\":\"Input validation error: `inputs` must have less than 1024 tokens. Given: 2000\",\"error_type\":\"validation\"}", backend.ContextLength},
		{"tgi temperature", 422, "{\"error\":\"Input validation error: `temperature` must be strictly positive\",\"error_type\":\"validation\"}", backend.InvalidRequest},
		{"tei length", 413, "{\"error\":\"Input validation error: `inputs` must have less than 512 tokens. Given: 600\",\"error_type\":\"Validation\"}", backend.ContextLength},
		{"ollama tools", 400, `{"error":"registry.ollama.ai/library/gemma:latest does not support tools"}`, backend.Unsupported},
		{"ollama openai tools", 400, `{"error":{"message":"registry.ollama.ai/library/phi3:latest does not support tools","type":"api_error","param":null,"code":null}}`, backend.Unsupported},
		{"llama.cpp image", 500, `{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}`, backend.Unsupported},
		{"lmstudio context", 400, `{"error":"Trying to keep the first 6000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}`, backend.ContextLength},
		{"lmstudio initial prompt", 400, `{"error":"The number of tokens to keep from the initial prompt is greater than the context length."}`, backend.ContextLength},
		// Gateways
		{"openrouter tool use", 404, `{"error":{"message":"No endpoints found that support tool use. To learn more about provider routing, visit: https://openrouter.ai/docs/provider-routing","code":404}}`, backend.Unsupported},
		{"openrouter moderation", 403, `{"error":{"message":"x requires moderation on Y. Your input was flagged for \"harassment\".","code":403,"metadata":{"reasons":["harassment"],"flagged_input":"...","provider_name":"Y"}}}`, backend.ContentFilter},
		{"openrouter wrapped openai", 400, wrap(400, `{"error":{"message":"Unsupported parameter: 'max_tokens'","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}`), backend.Unsupported},
		{"openrouter wrapped google list", 400, wrap(400, `[{"error":{"code":400,"message":"The input token count (1) exceeds the maximum number of tokens allowed (0).","status":"INVALID_ARGUMENT"}}]`), backend.ContextLength},
		{"openrouter wrapped text", 400, wrap(400, `prompt is too long`), backend.ContextLength},
		{"litellm context", 400, `{"error":{"message":"litellm.BadRequestError: litellm.ContextWindowExceededError: OpenAIException - too big\nmodel=gpt-4. context_window_fallbacks=None","type":null,"param":null,"code":"400"}}`, backend.ContextLength},
		{"litellm params", 400, `{"error":{"message":"litellm.UnsupportedParamsError: bedrock does not support parameters: ['foo'], for model=x","type":"None","param":null,"code":"400"}}`, backend.Unsupported},
		{"litellm content", 400, `{"error":{"message":"litellm.ContentPolicyViolationError: AzureException - x","type":null,"param":null,"code":"400"}}`, backend.ContentFilter},
		{"litellm python context", 400, `{"error":{"message":"litellm.BadRequestError: OpenAIException - Error code: 400 - {'error': {'message': \"This is 'it'\", 'type': 'invalid_request_error', 'param': 'messages', 'code': 'context_length_exceeded'}}","type":"invalid_request_error","param":null,"code":"400"}}`, backend.ContextLength},
		{"litellm json inside", 500, `{"error":{"message":"litellm.InternalServerError: VertexAIException - {\"error\":{\"code\":429,\"message\":\"x\",\"status\":\"RESOURCE_EXHAUSTED\"}}","type":null,"param":null,"code":"500"}}`, backend.RateLimit},
		{"nginx 413", 413, "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body><center><h1>413 Request Entity Too Large</h1></center><hr><center>nginx</center></body></html>", backend.TooLarge},
		{"flat 422", 422, `{"detail":"There was an error parsing the body"}`, backend.InvalidRequest},
		{"fastapi empty", 400, `{"detail":[]}`, backend.InvalidRequest},
		{"errors list", 400, `{"errors":[{"code":"context_length_exceeded","message":"x"}]}`, backend.ContextLength},
		{"empty 400", 400, ``, backend.InvalidRequest},
		{"null 400", 400, `null`, backend.InvalidRequest},
		{"number 400", 400, `7`, backend.InvalidRequest},
	}
}

func aboutBackends() []said {
	return []said{
		// limits and money
		{"openai rpm", 429, `{"error":{"message":"Rate limit reached for gpt-4 in organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, backend.RateLimit},
		{"openai rpd", 429, `{"error":{"message":"Rate limit reached for gpt-4 in organization org-x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, backend.Quota},
		{"openai too large by numbers", 429, `{"error":{"message":"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 0, Requested 31538.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`, backend.TooLarge},
		{"openai hard limit", 400, `{"error":{"message":"Billing hard limit has been reached","type":"invalid_request_error","param":null,"code":"billing_hard_limit_reached"}}`, backend.Quota},
		{"openai not active", 429, `{"error":{"message":"Your account is not active, please check your billing details on our website.","type":"billing_not_active","param":null,"code":"billing_not_active"}}`, backend.Quota},
		{"openai overloaded", 429, `{"error":{"message":"The engine is currently overloaded, please try again later","type":"server_error","param":null,"code":null}}`, backend.Overloaded},
		{"openai overloaded model", 503, `{"error":{"message":"That model is currently overloaded with other requests. You can retry your request.","type":"server_error","param":null,"code":null}}`, backend.Overloaded},
		{"anthropic credit", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}`, backend.Quota},
		{"anthropic spend limit", 429, `{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your API usage limits: your organization has crossed its monthly spend limit."}}`, backend.Quota},
		{"anthropic 429", 429, `{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 50 requests per minute"}}`, backend.RateLimit},
		{"anthropic 500", 500, `{"type":"error","error":{"type":"api_error","message":"Internal server error"}}`, backend.ServerError},
		{"anthropic timeout", 504, `{"type":"error","error":{"type":"timeout_error","message":"x"}}`, backend.Timeout},
		{"gemini per minute", 429, `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"10"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"18s"}]}}]`, backend.RateLimit},
		{"gemini per day", 429, `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}]`, backend.Quota},
		{"gemini bare", 429, `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED"}}]`, backend.RateLimit},
		{"gemini limit 0", 429, `[{"error":{"code":429,"message":"You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/x, limit: 0, model: gemini-2.5-pro\nPlease retry in 34.07s.","status":"RESOURCE_EXHAUSTED"}}]`, backend.Quota},
		{"gemini exhausted", 429, `[{"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}]`, backend.RateLimit},
		{"gemini prepayment", 429, `[{"error":{"code":429,"message":"Your prepayment credits are depleted. Please go to AI Studio to top up.","status":"RESOURCE_EXHAUSTED"}}]`, backend.Quota},
		{"gemini overloaded", 503, `[{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}]`, backend.Overloaded},
		{"groq tpd", 429, "{\"error\":{\"message\":\"Rate limit reached for model `llama-3.3-70b-versatile` in organization `org` service tier `on_demand` on tokens per day (TPD): Limit 100000, Used 99847, Requested 1527. Please try again in 19m46.896s.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}", backend.Quota},
		{"groq blocked", 400, `{"error":{"message":"","type":"invalid_request_error","code":"blocked_api_access"}}`, backend.Quota},
		{"mistral capacity", 429, `{"object":"error","message":"Service tier capacity exceeded for this model.","type":"service_tier_capacity_exceeded","param":null,"code":"3505"}`, backend.RateLimit},
		{"mistral rate", 429, `{"message":"Requests rate limit exceeded"}`, backend.RateLimit},
		{"deepseek balance", 402, `{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}`, backend.Quota},
		{"xai credits", 403, `{"code":"The caller does not have permission to execute the specified operation","error":"Your team t has either used all available credits or reached its monthly spending limit."}`, backend.Quota},
		{"moonshot overloaded", 429, `{"error":{"message":"The engine is currently overloaded, please try again later","type":"engine_overloaded_error"}}`, backend.Overloaded},
		{"moonshot quota", 403, `{"error":{"message":"Your account x is not active","type":"exceeded_current_quota_error"}}`, backend.Quota},
		{"tgi overloaded", 429, `{"error":"Model is overloaded","error_type":"overloaded"}`, backend.Overloaded},
		{"tgi generation", 424, `{"error":"Request failed during generation: CUDA out of memory","error_type":"generation"}`, backend.ServerError},
		{"huggingface loading", 503, `{"error":"Model meta-llama/Llama-3-8B is currently loading","estimated_time":20.0}`, backend.Overloaded},
		{"huggingface credits", 402, `{"error":"You have exceeded your monthly included credits for Inference Providers."}`, backend.Quota},
		{"llama.cpp loading", 503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, backend.Overloaded},
		{"litellm budget", 400, `{"error":{"message":"Budget has been exceeded! Current cost: 0.0008, Max budget: 1e-06","type":"budget_exceeded","param":null,"code":"400"}}`, backend.Quota},
		{"litellm no deployments", 429, `{"error":{"message":"litellm.RateLimitError: No deployments available for selected model, Try again in 5 seconds. Passed model=x.","type":"throttling_error","param":null,"code":"429"}}`, backend.RateLimit},
		{"litellm timeout", 408, `{"error":{"message":"litellm.Timeout: APITimeoutError - Request timed out.","type":null,"param":null,"code":"408"}}`, backend.Timeout},
		{"one-api channels", 503, `{"error":{"message":"当前分组 default 下对于模型 gpt-4 无可用渠道","type":"new_api_error"}}`, backend.Overloaded},
		{"one-api quota", 403, `{"error":{"message":"用户额度不足","type":"new_api_error","code":"insufficient_user_quota"}}`, backend.Quota},
		{"bedrock throttling", 429, `{"__type":"ThrottlingException","message":"Too many tokens, please wait before trying again."}`, backend.RateLimit},
		{"bedrock per day", 429, `{"__type":"ThrottlingException","message":"Too many tokens per day, please wait before trying again."}`, backend.Quota},
		{"bedrock not ready", 429, `{"__type":"ModelNotReadyException","message":"Model is not ready for inference."}`, backend.Overloaded},
		{"bedrock model timeout", 408, `{"__type":"ModelTimeoutException","message":"x"}`, backend.Timeout},
		{"openrouter credits", 402, `{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 4096 tokens, but can only afford 100.","code":402}}`, backend.Quota},
		{"openrouter rpm", 429, `{"error":{"message":"Rate limit exceeded: free-models-per-min. ","code":429}}`, backend.RateLimit},
		{"openrouter wrapped overload", 502, wrap(502, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), backend.Overloaded},
		{"cloudflare 1015", 429, "<!DOCTYPE html><html><head><title>Access denied | example used Cloudflare to restrict access</title></head><body>Error 1015 You are being rate limited</body></html>", backend.RateLimit},
		{"minimax balance", 200, `{"id":"x","choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}`, backend.Quota},
		{"moonshot concurrency", 429, `{"error":{"message":"Your account org-x request reached max concurrency: 1, please try again after 1 seconds","type":"rate_limit_reached_error"}}`, backend.RateLimit},
		{"cohere trial", 429, `{"message":"You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the Trial key for free or upgrade."}`, backend.Quota},
		{"cohere trial minute", 429, `{"message":"You are using a Trial key, which is limited to 10 API calls / minute. You can upgrade to a Production key."}`, backend.RateLimit},
		{"cerebras minute", 429, `{"message":"Tokens per minute limit exceeded - too many tokens processed.","type":"too_many_tokens_error","param":"quota","code":"token_quota_exceeded"}`, backend.RateLimit},
		{"cerebras day", 429, `{"message":"Tokens per day limit exceeded - too many tokens processed.","type":"too_many_tokens_error","param":"quota","code":"token_quota_exceeded"}`, backend.Quota},
		{"azure no capacity", 429, `{"error":{"code":"NoCapacity","message":"The system is currently experiencing high demand and cannot process your request."}}`, backend.Overloaded},
		{"groq over capacity", 503, `{"error":{"message":"llama-3.3-70b is currently over capacity. Please try again and back off exponentially.","type":"internal_server_error"}}`, backend.Overloaded},
		{"ollama cloud", 429, `{"error":"you have reached your weekly usage limit, upgrade for higher limits"}`, backend.Quota},
		{"xai new team", 403, `{"code":"The caller does not have permission to execute the specified operation","error":"Your newly created team doesn't have any credits yet. You can purchase credits on https://console.x.ai"}`, backend.Quota},
		{"workers ai", 429, `{"errors":[{"message":"AiError: Capacity temporarily exceeded, please try again.","code":3040}],"success":false,"result":{},"messages":[]}`, backend.Overloaded},
		{"lmstudio crash", 400, `{"error":"The model has crashed without additional information. (Exit code: 18446744072635812000)"}`, backend.ServerError},
		{"together over the window", 403, `{"error":{"message":"Input token count plus max_tokens must be less than the context length of the model","type":"invalid_request_error"}}`, backend.ContextLength},
		{"openrouter raw is a word", 502, wrap(502, "ERROR"), backend.ServerError},
		{"openrouter no provider", 503, `{"error":{"code":503,"message":"There is no available model provider that meets your routing requirements"}}`, backend.Overloaded},
		{"litellm token", 401, `{"error":{"message":"Authentication Error, Invalid proxy server token passed.","type":"auth_error","param":"None","code":"401"}}`, backend.Auth},
		{"a disabled key", 401, `{"error":{"message":"API key usage limit reached, key disabled"}}`, backend.Auth},
		{"nvidia", 404, `{"status":404,"title":"Not Found","detail":"Function 'x': Not found for account 'y'"}`, backend.ModelNotFound},
		{"text 429", 429, "Too Many Requests", backend.RateLimit},
		// keys and permissions
		{"openai key", 401, `{"error":{"message":"Incorrect API key provided: sk-abc***xyz. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, backend.Auth},
		{"openai deactivated", 401, `{"error":{"message":"The OpenAI account associated with this API key has been deactivated.","type":"invalid_request_error","param":null,"code":"account_deactivated"}}`, backend.Auth},
		{"openai terminated", 403, `{"error":{"message":"Your account was flagged for potential abuse.","type":"access_terminated","param":null,"code":null}}`, backend.Permission},
		{"openai project model", 403, "{\"error\":{\"message\":\"Project `proj_x` does not have access to model `gpt-5`\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}", backend.ModelNotFound},
		{"anthropic key", 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, backend.Auth},
		{"anthropic permission", 403, `{"type":"error","error":{"type":"permission_error","message":"Your API key does not have permission to use the specified resource."}}`, backend.Permission},
		{"gemini location", 400, `[{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}]`, backend.Permission},
		{"gemini country", 400, `[{"error":{"code":400,"message":"Gemini API free tier is not available in your country. Please enable billing on your project in Google AI Studio.","status":"FAILED_PRECONDITION"}}]`, backend.Permission},
		{"gemini expired key", 400, `[{"error":{"code":400,"message":"API key expired. Please renew the API key.","status":"INVALID_ARGUMENT"}}]`, backend.Auth},
		{"xai key", 400, `{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xx. You can obtain an API key from https://console.x.ai."}`, backend.Auth},
		{"openrouter user", 401, `{"error":{"message":"User not found.","code":401}}`, backend.Auth},
		{"huggingface password", 401, `{"error":"Invalid username or password."}`, backend.Auth},
		{"bedrock signature", 403, `{"__type":"InvalidSignatureException","message":"The request signature we calculated does not match the signature you provided."}`, backend.Auth},
		{"bedrock access", 403, `{"__type":"AccessDeniedException","message":"You don't have access to the model with the specified model ID."}`, backend.Permission},
		{"bedrock unsupported country", 400, `{"message":"Access to Anthropic models is not allowed from unsupported countries, regions, or territories."}`, backend.Permission},
		{"azure firewall", 403, `{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}`, backend.Permission},
		{"azure blocked resource", 403, `{"error":{"code":"Forbidden","message":"Your resource has been temporarily blocked because we detected behavior that may violate our content policy."}}`, backend.Permission},
		{"litellm key model", 401, `{"error":{"message":"key not allowed to access model. This key can only access models=['x']. Tried to access y","type":"key_model_access_denied","param":"model","code":"401"}}`, backend.Permission},
		{"cloudflare challenge", 403, `<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>`, backend.Permission},
		// models
		{"openai model", 404, "{\"error\":{\"message\":\"The model `gpt-9` does not exist or you do not have access to it.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}", backend.ModelNotFound},
		{"groq decommissioned", 400, "{\"error\":{\"message\":\"The model `mixtral-8x7b-32768` has been decommissioned and is no longer supported.\",\"type\":\"invalid_request_error\",\"code\":\"model_decommissioned\"}}", backend.ModelNotFound},
		{"deepseek model", 400, `{"error":{"message":"Model Not Exist","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}`, backend.ModelNotFound},
		{"mistral model", 400, `{"object":"error","message":"Invalid model: mistral-huge","type":"invalid_model","param":null,"code":"1500"}`, backend.ModelNotFound},
		{"openrouter model id", 400, `{"error":{"message":"foo/bar is not a valid model ID","code":400}}`, backend.ModelNotFound},
		{"openrouter providers", 404, `{"error":{"message":"No allowed providers are available for the selected model.","code":404}}`, backend.ModelNotFound},
		{"gemini model", 404, `[{"error":{"code":404,"message":"models/gemini-1.0-pro is not found for API version v1beta, or is not supported for generateContent.","status":"NOT_FOUND"}}]`, backend.ModelNotFound},
		{"bedrock identifier", 400, `{"message":"The provided model identifier is invalid."}`, backend.ModelNotFound},
		{"bedrock on demand", 400, `{"message":"Invocation of model ID anthropic.claude-v2 with on-demand throughput isn't supported. Retry your request with the ID or ARN of an inference profile that contains this model."}`, backend.ModelNotFound},
		{"fireworks model", 404, `{"error":{"object":"error","type":"invalid_request_error","code":"NOT_FOUND","message":"Model not found, inaccessible, and/or not deployed"}}`, backend.ModelNotFound},
		{"litellm model", 400, "{\"error\":{\"message\":\"/chat/completions: Invalid model name passed in model=foo. Call `/v1/models` to view available models for your key.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"400\"}}", backend.ModelNotFound},
		{"lmstudio none", 404, `{"error":{"message":"No models loaded. Please load a model in the developer page or use the 'lms load' command.","type":"invalid_request_error","param":"model","code":"model_not_found"}}`, backend.ModelNotFound},
		{"modal stopped", 404, "modal-http: app for invoked web endpoint is stopped", backend.ModelNotFound},
		{"one-api model", 503, `{"error":{"code":"model_not_found","message":"No available channel for model gpt-x under group default","type":"new_api_error"}}`, backend.ModelNotFound},
		// outages
		{"alb 502", 502, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>", backend.ServerError},
		{"alb 503", 503, "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head></html>", backend.Overloaded},
		{"nginx 504", 504, "<html>\r\n<head><title>504 Gateway Time-out</title></head></html>", backend.Timeout},
		{"cloudflare 520", 520, "<!DOCTYPE html><html><head><title>api.example.com | 520: Web server is returning an unknown error</title></head></html>", backend.ServerError},
		{"cloudflare 524", 524, "error code: 524", backend.Timeout},
		{"envoy", 503, "no healthy upstream", backend.Overloaded},
		{"envoy reset", 503, "upstream connect error or disconnect/reset before headers. reset reason: connection timeout", backend.Overloaded},
		{"ollama oom", 500, `{"error":{"message":"model requires more system memory (5.6 GiB) than is available (3.9 GiB)","type":"api_error","param":null,"code":null}}`, backend.ServerError},
		{"ollama runner", 500, `{"error":"llama runner process has terminated: exit status 2"}`, backend.ServerError},
		{"server timeout", 500, `{"error":{"message":"Request timed out","type":"server_error"}}`, backend.Timeout},
		{"500 context", 500, `{"error":{"message":"the request exceeds the available context size. try increasing the context size","type":"server_error","code":500}}`, backend.ContextLength},
		{"cuda", 500, `{"object":"error","message":"CUDA out of memory","type":"InternalServerError","param":null,"code":500}`, backend.ServerError},
		{"aws 500", 500, `{"message":"Internal Server Error"}`, backend.ServerError},
		{"cancelled upstream", 499, `[{"error":{"code":499,"message":"The operation was cancelled.","status":"CANCELLED"}}]`, backend.Connection},
		{"conflict", 409, `{"error":{"message":"The resource is being updated","type":"conflict_error"}}`, backend.ServerError},
		{"legal", 451, ``, backend.Permission},
		// in a 200
		{"200 text error", 200, `{"error":"something broke"}`, backend.ServerError},
		{"200 quota", 200, `{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}`, backend.Quota},
		{"200 numeric", 200, `{"error":{"message":"x","code":503}}`, backend.Overloaded},
		{"200 list", 200, `[{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}]`, backend.Overloaded},
		{"200 html", 200, `<html><head><title>Rate limit exceeded</title></head></html>`, backend.BadResponse},
		{"200 nothing", 200, ``, backend.BadResponse},
		{"200 null", 200, `null`, backend.BadResponse},
	}
}

// aboutWords are errors with words in them that are not about the failure: an
// offer, or what the caller wrote.
func aboutWords() []said {
	const rpm = "Rate limit reached for gpt-4o in organization org-X on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more. You can increase your rate limit by adding a payment method to your account at https://platform.openai.com/account/billing."
	const echo = `[{'type': 'missing', 'loc': ('body', 'messages', 0, 'content'), 'msg': 'Field required', 'input': {'role': 'user', 'text': 'rate limited by the content policy', 'code': 'insufficient_quota', 'j': '{\"error\":{\"code\":\"invalid_api_key\"}}'}}]`
	return []said{
		{"rpm with an offer", 429, `{"error":{"message":"` + rpm + `","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, backend.RateLimit},
		{"rpm with an offer, no code", 429, `{"error":{"message":"` + rpm + `"}}`, backend.RateLimit},
		{"rpm with an offer, in a stream", 200, `{"error":{"message":"` + rpm + `","code":"rate_limit_exceeded"}}`, backend.RateLimit},
		{"rpm with an offer, wrapped", 429, wrap(429, `{"error":{"message":"`+rpm+`","code":"rate_limit_exceeded"}}`), backend.RateLimit},
		{"per minute or add credits", 429, `{"error":{"message":"You are limited to 20 requests per minute. Add credits to get 60.","code":429}}`, backend.RateLimit},
		{"rpm or recharge", 429, `{"error":{"message":"You reached 60 RPM. Please recharge your account or try again in 2s"}}`, backend.RateLimit},
		{"rate code or top up", 429, `{"error":{"message":"Slow traffic, or top up","type":"rate_limit_error"}}`, backend.RateLimit},
		{"per day and add credits", 429, `{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429}}`, backend.Quota},
		{"per day with an offer", 429, `{"error":{"message":"Rate limit reached on requests per day (RPD): Limit 200. Please try again in 7m. You can add a payment method.","code":"rate_limit_exceeded"}}`, backend.Quota},
		{"per month or purchase credits", 429, `{"error":{"message":"100 requests per month used, purchase credits"}}`, backend.Quota},
		{"quota with a rate code", 429, `{"error":{"message":"You exceeded your current quota. Add a payment method.","code":"rate_limit_exceeded"}}`, backend.Quota},
		{"quota code with a rate", 429, `{"error":{"message":"` + rpm + `","code":"insufficient_quota"}}`, backend.Quota},
		{"an offer alone", 429, `{"error":{"message":"Please add a payment method"}}`, backend.Quota},
		{"an offer and a long wait", 429, `{"error":{"message":"Purchase credits or try again in 9 hours"}}`, backend.Quota},
		{"an offer 403", 403, `{"error":{"message":"Purchase credits to get 60 requests per minute"}}`, backend.Quota},
		{"an offer 400", 400, `{"error":{"message":"Please recharge your account to make 60 requests per minute"}}`, backend.Quota},
		// what the caller wrote
		{"vllm echo", 400, `{"object":"error","message":` + string(quote(echo)) + `,"type":"BadRequestError","param":null,"code":400}`, backend.InvalidRequest},
		{"vllm echo 422", 422, `{"error":{"message":` + string(quote(echo)) + `}}`, backend.InvalidRequest},
		{"pydantic echo", 400, `{"error":{"message":"1 validation error for X\n  Field required [type=missing, input_value={'a': 'content policy'}, input_type=dict]"}}`, backend.InvalidRequest},
		{"pydantic extra and echo", 400, `{"message":"[{'type': 'extra_forbidden', 'msg': 'Extra inputs are not permitted', 'input': 'content policy'}]"}`, backend.Unsupported},
		{"a parameter called input", 400, `{"error":{"message":"Invalid 'input': string too long. Expected a string with maximum length 10.","type":"invalid_request_error","code":"string_above_max_length"}}`, backend.TooLarge},
		{"function name", 400, `{"error":{"message":"Invalid schema for function 'get_rate_limit': In context=(), object schema missing properties.","type":"invalid_request_error","param":"tools[0].function.parameters","code":"invalid_function_parameters"}}`, backend.InvalidRequest},
		{"function name, no code", 400, `{"error":{"message":"Invalid schema for function 'get_rate_limit'","type":"invalid_request_error"}}`, backend.InvalidRequest},
		{"function name and policy", 400, `{"error":{"message":"Invalid schema for function 'content_policy'","code":"invalid_function_parameters"}}`, backend.InvalidRequest},
		{"schema name", 400, `{"error":{"message":"Invalid schema for response_format 'moderation'","code":"invalid_json_schema"}}`, backend.InvalidRequest},
		{"type", 400, `{"error":{"message":"Invalid type for 'metadata.moderation': expected a string","code":"invalid_type"}}`, backend.InvalidRequest},
		{"value", 400, `{"error":{"message":"Invalid value: 'content_filter'. Supported values are: 'a'.","code":"invalid_value"}}`, backend.InvalidRequest},
		{"image", 400, `{"error":{"message":"Error while downloading https://x.example/moderation.png","code":"invalid_image_url"}}`, backend.InvalidRequest},
		{"long name", 400, `{"error":{"message":"Invalid 'metadata.moderation': string too long.","code":"string_above_max_length"}}`, backend.InvalidRequest},
		{"missing", 400, `{"error":{"message":"Missing required parameter: 'metadata.moderation'.","code":"missing_required_parameter"}}`, backend.InvalidRequest},
		{"overloaded function", 422, `{"error":{"message":"tools.0: overloaded_handler is no valid name"}}`, backend.InvalidRequest},
		{"a rate code in a 400", 400, `{"error":{"message":"Rate limit reached","type":"rate_limit_error"}}`, backend.RateLimit},
		{"crash with a prompt", 500, `{"error":{"message":"failed to process prompt: explain the usage policy","type":"server_error"}}`, backend.ServerError},
		{"crash with a prompt, no type", 502, `failed on: what is content moderation`, backend.ServerError},
		{"azure filter in a 500", 500, `{"error":{"message":"content policy","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`, backend.ContentFilter},
		{"litellm filter in a 500", 500, `{"error":{"message":"litellm.APIConnectionError: x - {'error': {'message': 'filtered by the content policy', 'code': 'content_filter'}}","code":"500"}}`, backend.ContentFilter},
		// thousands
		{"within a limit of thousands", 429, `{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 30,000, Used 29,900, Requested 150. Please try again in 100ms.","code":"rate_limit_exceeded"}}`, backend.RateLimit},
		{"over a limit of thousands", 429, `{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 30,000, Requested 31,538.","code":"rate_limit_exceeded"}}`, backend.TooLarge},
		{"just over a limit of thousands", 429, `{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 1,030,000, Requested 1,030,001.","code":"rate_limit_exceeded"}}`, backend.TooLarge},
	}
}

func TestErrorBodiesOfProvidersAreClassed(t *testing.T) {
	t.Parallel()
	rows := slices.Concat(aboutRequests(), aboutBackends(), aboutWords())
	require.GreaterOrEqual(t, len(rows), 150)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := Classify(row.status, nil, []byte(row.body))
			require.Equal(t, row.class, v.Class, "%+v", v)
		})
	}
}

func TestTheInnermostErrorIsTheOneToShow(t *testing.T) {
	t.Parallel()
	v := Classify(400, nil, []byte(wrap(400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 2 tokens > 1 maximum"}}`)))
	require.Equal(t, "prompt is too long: 2 tokens > 1 maximum", v.Message)
	require.Equal(t, "invalid_request_error", v.Type)
	require.Equal(t, "400", v.Code)

	v = Classify(422, nil, []byte(`{"detail":[{"type":"missing","loc":["body","messages",0],"msg":"Field required","input":{"secret":"prompt"}}]}`))
	require.Equal(t, "body.messages.0: Field required", v.Message)

	v = Classify(502, nil, []byte("<html><head><title>502\n Bad   Gateway</title></head></html>"))
	require.Equal(t, "502 Bad Gateway", v.Message)

	header := http.Header{"X-Amzn-Errortype": {"ThrottlingException:http://internal.amazon.com/coral/"}}
	require.Equal(t, backend.RateLimit, Classify(400, header, []byte(`{"message":null}`)).Class)
}

func TestEveryStatusHasAClass(t *testing.T) {
	t.Parallel()
	const golden = "testdata/status.golden"
	var got strings.Builder
	for status := 100; status <= 599; status++ {
		fmt.Fprintf(&got, "%d %s\n", status, Classify(status, nil, nil).Class)
	}
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
	for _, status := range []int{-1, 0, 1, 99, 600, 999, 1 << 31} {
		require.Equal(t, backend.BadResponse, Classify(status, nil, nil).Class, status)
	}
	for _, status := range []int{400, 401, 403, 404, 413, 429, 500, 501, 502, 503, 504, 529} {
		html := fmt.Sprintf("<html><head><title>%d</title></head></html>", status)
		require.Equal(t, Classify(status, nil, nil).Class, Classify(status, nil, []byte(html)).Class, status)
	}
}
