package openai

import (
	"slices"
	"strings"

	"understudy/internal/backend"
)

// codeClass returns the class of a provider's own code, type or status word, in
// the spelling of [codeWord], and how far to trust it. The names are those of
// OpenAI, Azure, Anthropic, Google, AWS, Mistral, Groq, OpenRouter, xAI, Cerebras,
// Moonshot, Alibaba, Zhipu, LiteLLM, vLLM, llama.cpp, TGI and one-api.
func codeClass(code string) (backend.Class, strength) {
	if class := exactCode(code); class != "" {
		return class, exact
	}
	if class := weakCode(code); class != "" {
		return class, weak
	}
	switch code {
	case "server_error", "internal_server_error", "internalservererror", "api_error", "apierror", "internal",
		"internal_error", "internalerror", "server", "unknown", "unknown_error", "provider_error", "apiconnectionerror",
		"upstream_error", "internalserverexception", "new_api_error", "one_api_error", "provider_unavailable",
		"bad_gateway", "data_loss", "aborted", "generation", "generation_error", "modelerrorexception",
		"modelstreamerrorexception", "unmapped":
		return backend.ServerError, generic
	case "invalid_request_error", "invalidrequesterror", "badrequesterror", "bad_request", "badrequest",
		"invalid_request", "invalid_argument", "validation_error", "validation", "validationexception",
		"unprocessable_entity", "unprocessableentityerror", "unprocessable", "failed_precondition", "out_of_range",
		"invalid_prompt", "missing", "value_error",
		"invalid_request_invalid_args", "invalidparameter", "invalid_parameter_error", "invalid_request_message_order":
		return backend.InvalidRequest, generic
	}
	return "", unknown
}

// exactCode returns the class of a code that means one thing.
func exactCode(code string) backend.Class {
	switch code {
	case "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance",
		"insufficient_credits", "insufficient_user_quota", "payment_required", "organization_spend_limit_exceeded",
		"project_spend_limit_exceeded", "blocked_api_access", "exceeded_current_quota_error", "budget_exceeded",
		"budgetexceedederror", "budget_exceeded_error", "servicequotaexceededexception", "quota_per_day", "arrearage",
		"accountoverdueerror", "throttling.allocationquota", "allocationquota.freetieronly", "balance_insufficient",
		"credits_exhausted", "out_of_credits", "usage_limit_reached", "billing_error", "pre_consume_token_quota_failed":
		return backend.Quota
	case "quota_per_minute", "too_many_requests", "toomanyrequests", "toomanyrequestsexception", "rate_limited",
		"throttling.ratequota", "throttling.burstrate", "limit_requests", "rate_limit_reached_error", "1302", "1300":
		return backend.RateLimit
	case "invalid_api_key", "api_key_invalid", "invalidapikey", "invalid_authentication_error", "unauthenticated",
		"unrecognizedclientexception", "invalidsignatureexception", "expiredtokenexception",
		"incompletesignatureexception", "missingauthenticationtokenexception", "token_not_found_in_db", "expired_key",
		"invalid_auth", "account_deactivated", "invalid_token", "token_expired", "access_token_expired",
		"no_auth_credentials", "api_key_expired", "invalid_subscription_key", "missing_api_key":
		return backend.Auth
	case "unsupported_country_region_territory", "request_forbidden", "access_terminated", "organization_restricted",
		"ip_not_authorized", "insufficient_permissions", "model_terms_required", "key_model_access_denied",
		"team_model_access_denied", "user_model_access_denied", "model_permission_blocked_org",
		"model_permission_blocked_project", "api_key_service_blocked", "service_disabled", "access_denied",
		"accessdenied", "model_access_denied", "invalid_organization", "mismatched_organization":
		return backend.Permission
	case "context_length_exceeded", "context_window_exceeded", "contextwindowexceedederror", "exceed_context_size_error",
		"model_context_window_exceeded", "prompt_too_long", "input_too_long", "token_limit_exceeded", "context_overflow",
		"max_context_length_exceeded", "context_limit_exceeded", "1261":
		return backend.ContextLength
	case "request_too_large", "payload_too_large", "request_entity_too_large", "requestentitytoolarge",
		"tokens_limit_reached", "image_too_large", "max_tokens_exceeded", "max_tokens_per_request":
		return backend.TooLarge
	case "unsupported_parameter", "unsupported_value", "unsupported_feature", "not_supported_error",
		"unsupportedparamserror", "unsupported_params", "unimplemented", "not_implemented", "notimplementederror",
		"unknown_parameter", "operationnotsupported", "extra_forbidden", "unsupported_image_format",
		"unsupported_api_for_model", "model_no_support_for_function", "unsupported_media_type", "json_mode_not_supported":
		return backend.Unsupported
	case "model_not_found", "deploymentnotfound", "unknown_model", "invalid_model", "invalid_model_error",
		"model_decommissioned", "modeldeprecated", "model_deprecated", "servicemodeldeprecating", "modelnotfounderror",
		"model_not_available", "model_not_supported", "modelnotfound", "model_not_exist", "no_available_model",
		"resourcenotfoundexception", "resource_not_found_error", "1211", "invalid_model_name", "retired_model",
		"modelnotfoundexception", "model_not_found_error":
		return backend.ModelNotFound
	case "content_filter", "content_policy_violation", "contentpolicyviolationerror", "responsibleaipolicyviolation",
		"content_filter_error", "moderation", "refusal", "data_inspection_failed", "datainspectionfailed", "safety",
		"prohibited_content", "content_filtered", "content_moderation", "moderation_blocked", "image_content_policy_violation",
		"1301", "guardrail_violation", "guardrail_intervened", "policy_violation", "risk_control", "sensitive_words_detected",
		"prompt_blocked", "safety_check", "cyber_policy":
		return backend.ContentFilter
	case "overloaded_error", "overloadederror", "overloaded", "engine_overloaded", "engine_overloaded_error",
		"server_overloaded", "server_is_overloaded", "model_overloaded", "provider_overloaded", "capacity_exceeded",
		"serviceunavailableexception", "modelnotreadyexception", "unavailable_error", "slow_down", "system_busy",
		"model_loading", "model_not_ready", "unavailable", "serverbusy", "server_busy", "nocapacity", "systembusyerror", "1305":
		return backend.Overloaded
	case "deadline_exceeded", "modeltimeoutexception", "gateway_timeout", "request_timeout", "requesttimeout",
		"apitimeouterror", "timeout_error", "timeouterror", "upstream_timeout", "requesttimedout", "request_timed_out":
		return backend.Timeout
	case "invalid_function_parameters", "invalid_json_schema", "invalid_type", "invalid_image_url",
		"missing_required_parameter":
		return backend.InvalidRequest
	case "tool_use_failed", "json_validate_failed", "output_parse_failed":
		return backend.BadResponse // the model's output failed the provider's own check
	}
	return ""
}

// weakCode returns the class of a code that the message can refine.
func weakCode(code string) backend.Class {
	switch code {
	case "quota_exceeded", "quotaexceeded":
		return backend.Quota
	case "rate_limit_exceeded", "rate_limit_error", "ratelimiterror", "ratelimitreached", "ratelimitexceeded",
		"throttlingexception", "throttling_error", "throttling", "resource_exhausted", "tokens", "requests", "rate_limit",
		"token_quota_exceeded", "token_quota_reached", "too_many_tokens_error", "too_many_requests_error",
		"service_tier_capacity_exceeded", "3505", "request_quota_exceeded", "concurrency_limit_exceeded":
		return backend.RateLimit
	case "authentication_error", "authenticationerror", "authentication", "unauthorized", "auth_error", "not_authorized",
		"invalid_authentication", "auth", "unauthorizederror":
		return backend.Auth
	case "permission_error", "permissions_error", "permissiondeniederror", "permission_denied", "forbidden",
		"accessdeniedexception", "forbiddenerror":
		return backend.Permission
	case "not_found_error", "notfounderror", "not_found":
		return backend.ModelNotFound
	case "service_unavailable", "service_unavailable_error", "serviceunavailableerror", "serviceunavailable":
		return backend.Overloaded
	case "timeout", "timed_out":
		return backend.Timeout
	case "unsupported", "not_supported", "notsupported":
		return backend.Unsupported
	case "string_too_long":
		return backend.TooLarge
	case "precondition_failed", "invalid_value", "string_above_max_length":
		return backend.InvalidRequest
	}
	return ""
}

// isValueCode reports whether a code says that a value is wrong, of which the
// message can only say that it is too large or not supported.
func isValueCode(code string) bool {
	return code == "invalid_value" || code == "string_above_max_length"
}

// isLoading reports whether a failure of class overloaded says that the model is
// being loaded: Hugging Face, llama.cpp, vLLM, Bedrock and hosts that start
// machines on demand.
func isLoading(e *backend.Error) bool {
	for _, code := range []string{codeWord(e.Code), codeWord(e.Type)} {
		switch code {
		case "model_loading", "model_not_ready", "modelnotreadyexception":
			return true
		}
	}
	return containsAny(strings.ToLower(e.Message), loadingWords())
}

// loadingWords are words about a model that is not ready yet.
func loadingWords() []string {
	return []string{
		"currently loading", "loading model", "model is loading", "still loading", "is starting", "warming up",
		"cold start", "model is being loaded", "model not ready", "model is not ready",
	}
}

// phrase is a piece of knowledge about words: what a message, in lower case,
// contains one of, and one of with, is a failure of the class.
type phrase struct {
	class backend.Class
	any   []string
	with  []string
	// upsell words offer more for money, and say nothing where a rate is named.
	upsell bool
}

// phrases returns what is known about the words of messages. The first that
// fits decides, so that the more telling words come first.
func phrases() []phrase {
	return slices.Concat(aboutAccount(), aboutSize(), aboutLimits(), aboutAccess(), aboutModel(), aboutFeature())
}

// aboutAccount are words about a blocked account, which often mention the
// policy, and about refused content.
func aboutAccount() []phrase {
	return []phrase{
		{class: backend.Permission, any: []string{
			"account was flagged", "account has been flagged", "flagged for potential abuse",
			"resource has been temporarily blocked", "account has been suspended", "account is suspended",
			"organization has been restricted",
		}},
		{class: backend.Auth, any: []string{
			"account has been deactivated", "account deactivated", "account you are accessing has been deactivated",
		}},
		{class: backend.ContentFilter, any: []string{
			"content management policy", "content policy", "content_policy", "content filter", "content_filter",
			"content filtering policy", "safety system", "safety filter", "blocked by safety", "due to safety",
			"safety settings", "for safety reasons", "safety_check", "usage policy", "usage policies", "usage guidelines",
			"input was flagged", "prompt was flagged", "content was flagged", "request was flagged", "flagged as potentially",
			"blocked by guardrail", "guardrail intervened", "violated guardrail", "content violates", "violates our policy",
			"prohibited content", "prohibited_content", "recitation", "blockreason", "block_reason", "prompt was blocked",
			"response was blocked", "request was blocked due to", "inappropriate content", "content exists risk",
			"considered high risk", "sensitive content", "sensitive information", "sensitive words", "敏感", "不安全",
			"model produced invalid content", "prompt injection patterns", "moderation", "responsible ai",
		}},
	}
}

// aboutSize are words about requests that do not fit.
func aboutSize() []phrase {
	return []phrase{
		{class: backend.ContextLength, any: []string{
			"context length", "context_length", "context window", "context size", "context limit", "prompt is too long",
			"prompt too long", "prompt is longer than", "input is too long", "input too long", "input length and `max_tokens` exceed",
			"input tokens exceed", "input token count", "too many input tokens", "too many tokens:", "too many tokens in",
			"maximum number of tokens allowed", "maximum prompt length", "maximum input length", "maximum model length",
			"maximum allowed length", "reduce the length of the", "shorten the prompt", "shorten your prompt",
			"`inputs` tokens + `max_new_tokens`", "`inputs` must have less than",
			"exceed model maximum", "exceeds token limit", "exceeded model token limit", "model token limit",
			"exceed the model's maximum", "exceeds the model's maximum", "while limit is", "range of input length should be",
			"tokens > ", "longer than the model's context", "initial prompt is greater than", "trying to keep the first",
			"prompt length exceeds", "too large for model with", "token count exceeds", "tokens exceeds the limit",
			"exceeds the maximum number of tokens", "exceeds the max token", "max input tokens", "model max length",
			"prompt token count of", "maximum allowed token size", "max_seq_len",
		}},
		{class: backend.TooLarge, any: []string{
			"request too large", "request is too large", "request body too large", "request body is too large",
			"payload too large", "payload is too large", "content too large", "entity too large", "cookie too large",
			"body exceeds", "exceeds the maximum allowed size", "exceeds the maximum size", "maximum request size",
			"request size exceeds", "request exceeds the maximum", "image exceeds", "image is too large", "image too large",
			"file too large", "images exceed", "payload size exceeds", "too many images", "tokens per request",
		}},
		{class: backend.TooLarge, with: []string{"'messages", "'input", "'prompt"}, any: []string{"string too long"}},
		{class: backend.TooLarge, with: []string{"max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "maxoutputtokens"}, any: []string{
			"is too large", "maximum allowed number of output tokens", "must be less than or equal to", "valid range of max",
			"valid range is", "supports at most", "exceeds the maximum", "must be between", "cannot be greater than",
			"range of max_tokens should be", "supported range", "maximum output tokens", "must be <=",
		}},
	}
}

// aboutLimits are words about money, rates and load.
func aboutLimits() []phrase {
	return []phrase{
		{class: backend.Permission, any: []string{"not available in your country", "not available in your region"}},
		{class: backend.Quota, any: []string{
			"exceeded your current quota", "credit balance is too low", "credit balance too low", "insufficient balance",
			"insufficient_balance", "insufficient credit", "insufficient fund", "insufficient quota", "insufficient_quota",
			"out of credits", "no credits", "not enough credits", "credits are depleted", "credits have been",
			"available credits", "included credits", "credit limit", "credits exhausted",
			"prepayment", "spend limit", "spending limit", "spending cap", "spend cap", "monthly limit", "monthly spend",
			"monthly usage", "monthly quota", "monthly included", "hard limit", "usage limit", "weekly limit", "/ month", "any credits",
			"key limit exceeded", "account is not active", "billing hard limit",
			"billing_hard_limit", "payment required", "overdue", "arrears",
			"daily limit", "daily rate limit", "daily quota", "daily request", "daily token", "per day", "per-day", "perday",
			"limit_rpd", "(tpd)", "(rpd)", "budget has been exceeded", "exceeded budget", "exceededbudget", "over budget",
			"call volume quota", "limit: 0,", "limit: 0\n", "free quota", "free tier of the model has been exhausted",
			"余额不足", "额度不足", "欠费", "额度已用尽", "资源包",
		}},
		{class: backend.Quota, upsell: true, any: []string{
			"more credits", "add credits", "purchase credits", "payment method", " top up", "recharge", "billing details",
			"requires billing", "plan and billing",
		}},
		{class: backend.RateLimit, any: []string{
			"rate limit", "rate-limit", "rate_limit", "ratelimit", "too many requests", "per minute", "per min", "per second",
			"requests per", "tokens per", "throttl", "request limit", "concurrent requests", "concurrency limit",
			"too many concurrent", "rate exceeded", "exceeded the rate", "resource exhausted", "resource has been exhausted",
			"too many tokens, please wait", "rate increased too quickly", "limit_rpm", "quota exceeded", "请求过于频繁",
			"频率", "service tier capacity exceeded", "no deployments available",
		}},
		{class: backend.Overloaded, any: []string{
			"overload", "over capacity", "at capacity", "out of capacity", "capacity exceeded", "no capacity",
			"insufficient capacity", "limited capacity", "slow down", "server busy", "server is busy", "system is busy",
			"too busy", "temporarily unavailable", "currently unavailable", "service unavailable", "unavailable right now",
			"currently loading", "loading model", "model is loading", "still loading", "is starting", "warming up",
			"cold start", "no available workers", "no workers available", "queue is full", "queue full",
			"maximum pending requests", "high demand", "high load", "high traffic", "model is not ready", "not ready yet",
			"no healthy upstream", "no healthy deployment", "capacity temporarily exceeded", "try again later due to", "负载", "繁忙", "无可用渠道",
		}},
	}
}

// aboutAccess are words about keys, permissions and regions.
func aboutAccess() []phrase {
	return []phrase{
		{class: backend.Auth, any: []string{
			"api key not valid", "invalid api key", "incorrect api key", "api key expired", "api key has expired",
			"invalid api-key", "api_key_invalid", "invalid x-api-key", "invalid subscription key", "api key is invalid",
			"api key was reported as leaked", "api key is valid", "wrong api key", "missing api key", "no api key",
			"api key is missing", "api key is required", "provide an api key", "api key disabled", "api key not found",
			"key has been revoked", "key has been disabled", "authentication fail", "authentication error", "not authenticated",
			"no auth credentials", "no cookie auth", "missing authentication", "invalid authentication",
			"invalid credentials", "could not validate credentials", "token has expired", "token is expired",
			"token expired", "invalid token", "access token is missing", "security token", "invalid bearer",
			"invalid username or password", "authorization header", "unauthenticated", "authenticationerror",
			"incorrect authentication token", "无效的令牌", "令牌已过期", "api key 无效",
		}},
		{class: backend.Permission, any: []string{
			"country, region", "unsupported countries", "location is not supported", "region is not supported",
			"does not have permission", "do not have permission", "don't have permission", "permission denied", "access denied",
			"not allowed to access", "not authorized to", "firewall rules", "must be verified", "accept the terms",
			"terms acceptance", "is gated", "gated repo", "is not allowed to use", "not been used in project",
			"is blocked at the", "not permitted to", "access to this model is", "don't have access to the model",
			"caller does not have permission", "permissiondenied", "only authorized for",
		}},
	}
}

// aboutModel are words about models that are not there.
func aboutModel() []phrase {
	return []phrase{
		{class: backend.Unsupported, any: []string{"no endpoints found that support"}},
		{class: backend.ModelNotFound, any: []string{
			"no endpoints found", "no allowed providers", "no endpoints available", "model not exist", "unknown model",
			"invalid model", "not a valid model", "no such model", "model identifier is invalid", "inference profile",
			"on-demand throughput", "no models loaded", "unsupported model", "model is not supported", "model not supported",
			"model_not_found", "unrecognized model", "deployment for this resource does not exist", "模型不存在",
		}},
		{class: backend.ModelNotFound, with: []string{"model", "deployment"}, any: []string{
			"not found", "does not exist", "doesn't exist", "not exist", "decommissioned", "is deprecated", "deprecation",
			"been deprecated", "retired", "end of its life", "end-of-life", "no longer available", "no longer supported",
			"has been removed", "was removed", "is not available", "not deployed", "could not be found",
			"could not resolve", "not servable", "was sunset",
		}},
	}
}

// aboutFeature are words about what a backend cannot do, and about time.
func aboutFeature() []phrase {
	return []phrase{
		{class: backend.Unsupported, any: []string{
			"does not support", "doesn't support", "do not support", "not supported", "isn't supported", "aren't supported",
			"unsupported", "unrecognized request argument", "unrecognized field", "unrecognized key", "unrecognized argument",
			"unknown field", "unknown name", "unknown parameter", "unknown argument", "unexpected keyword",
			"extra inputs are not permitted", "extra fields not permitted", "extra_forbidden", "is not a valid field",
			"additional properties are not allowed", "additional properties not allowed", "not implemented", "prefill",
			"cannot be used with", "can't be used with", "incompatible with this model", "requires --enable", "is only supported",
			"are only supported", "only supports", "(1) value is supported", "roles must alternate", "not a multimodal model",
			"support image", "image input is not", "image inputs are not", "may be provided in one request", "chat template", "does not work with the specified model",
			"is not enabled", "is unavailable now", "expected last role", "not a chat model", "must be disabled",
			"only available for", "mmproj",
		}},
		{class: backend.Timeout, any: []string{
			"timed out", "timeout", "time out", "time-out", "deadline exceeded", "took too long",
		}},
		{class: backend.ServerError, any: []string{ // LM Studio says so with a 400
			"model has crashed", "model unloaded", "model was unloaded", "failed to load model", "channel error",
			"cuda error", "out of memory", "engine is dead",
		}},
	}
}
