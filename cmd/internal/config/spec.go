package config

// natsSpec is NATS_*.
type natsSpec struct {
	URL      serversSetting `desc:"The servers, with commas between: nats://, tls://, ws:// or wss://. Without it and without NATS_CONTEXT, the worker starts a server of its own, and submit looks for it at nats://127.0.0.1:4222."`
	Creds    textSetting    `desc:"A credentials file (JWT and seed)."`
	User     secretSetting  `desc:"The user; without NATS_PASSWORD it is a token, as in the nats command."`
	Password secretSetting  `desc:"The user's password."`
	Token    secretSetting  `desc:"A token."`
	Nkey     textSetting    `desc:"A file with an nkey seed."`
	CA       textSetting    `desc:"A file with the certificate authorities to trust, PEM."`
	Cert     textSetting    `desc:"A file with the client's certificate, PEM; needs NATS_KEY."`
	Key      textSetting    `desc:"A file with the key of NATS_CERT, PEM."`
	Context  textSetting    `desc:"A context of the nats command, by name, or a context file by its absolute path. The other NATS_* variables go on top of it."`
}

// workerSpec is WORKER_*.
type workerSpec struct {
	Queues        queuesSetting   `default:"default" desc:"The queues to serve, with weights: high=6,default=3,low=1. A weight is a queue's share of the slots while other queues have jobs too."`
	Concurrency   positiveCount   `default:"64" desc:"How many jobs run at once."`
	HTTPAddr      addressSetting  `split_words:"true" default:"127.0.0.1:8080" empty:"off" desc:"Where /metrics, /healthz and /readyz are served, host:port; empty turns them off."`
	Name          nameSetting     `shown:"the host's name and a random suffix" desc:"The worker's name in events and results; unique in the fleet."`
	ShutdownGrace durationSetting `split_words:"true" default:"25" desc:"How long running calls may go on after SIGTERM; then their jobs go back to the queue. Keep it below the grace period of whatever stops the worker."`
	SubjectPrefix prefixSetting   `split_words:"true" default:"llm" desc:"The first token of every subject and, in upper case, of every stream. submit reads it too."`
	Replicas      positiveCount   `default:"1" desc:"How many copies the streams keep that this worker creates; 3 in a cluster. Streams that exist are not altered."`
	ReplyAllow    replySetting    `split_words:"true" default:"_INBOX.>,_R_.>" desc:"The subjects that a job may name in reply_to and events_to, as NATS patterns."`
	MaxCrashes    positiveCount   `split_words:"true" default:"3" desc:"How often a job may kill its worker before it is dead-lettered as poison."`
	ResultsMaxAge positiveTime    `split_words:"true" default:"168h" desc:"How long the results stream keeps results, when this worker creates it."`
	EventsMaxAge  positiveTime    `split_words:"true" default:"168h" desc:"How long the events stream keeps events, when this worker creates it."`
	MaxPayload    sizeSetting     `split_words:"true" default:"64MB" desc:"The longest payload of a job, and the longest answer, that travels by object store because it does not fit a message of the server (max_payload): in bytes, KB, MB or GB of 1024 each. A worker may hold as many as WORKER_CONCURRENCY of them in memory. 0 turns it off: what does not fit a message is refused."`
	LogLevel      levelSetting    `split_words:"true" default:"info" desc:"debug, info, warn or error. Logs go to standard error."`
	LogFormat     formatSetting   `split_words:"true" default:"text" desc:"text or json."`
	EmbeddedAddr  addressSetting  `split_words:"true" default:"127.0.0.1:4222" desc:"Where the embedded NATS server listens, host:port. It asks nobody for credentials."`
	DataDir       textSetting     `split_words:"true" default:"./data" desc:"Where the embedded NATS server keeps its files. Every write is synced to disk."`
}

// listsSpec are the variables that name what other variables belong to.
type listsSpec struct {
	Backends namesSetting `default:"openrouter,vllm" desc:"The backends, in order, with commas between. Each has variables that begin with its name in upper case, with _ for -."`
	Routes   namesSetting `desc:"The named routes, with commas between. Each has variables that begin with ROUTE_ and its name in upper case, with _ for -."`
}

// backendSpec is <NAME>_*.
type backendSpec struct {
	Kind              kindSetting     `default:"openai" desc:"openai: an endpoint with the OpenAI paths. azure: an Azure OpenAI resource. rules: answers without a model, from a file; also the default of a backend called rules."`
	BaseURL           urlSetting      `split_words:"true" shown:"openrouter: https://openrouter.ai/api/v1; others with a key: https://api.openai.com/v1" desc:"What /chat/completions is appended to. vllm is off without it. For azure the resource, such as https://acme.openai.azure.com."`
	APIKey            secretSetting   `split_words:"true" desc:"The key. openrouter is off without it, other backends are when they have no BASE_URL either."`
	APIKeyFile        textSetting     `split_words:"true" desc:"A file that holds the key, instead of API_KEY."`
	Model             textSetting     `desc:"Replaces the model a job asks for."`
	Models            pairsSetting    `desc:"Names for models, alias=actual with commas between. They beat MODEL."`
	Timeout           positiveTime    `shown:"openrouter: 5.0; vllm: 10.0; others: 30" desc:"How long one call may take. With FIRST_TOKEN_TIMEOUT: how long its stream may be silent."`
	FirstTokenTimeout durationSetting `split_words:"true" desc:"How long the first token may take; calls are then streamed, and long answers are not cut. 0 turns it off."`
	AdaptiveTimeout   boolSetting     `split_words:"true" default:"false" desc:"Lets the timeout follow the backend's own recent latency: 1.5 times its 99th percentile, but at least a quarter of TIMEOUT and at most TIMEOUT, which also holds until 20 calls are known. With FIRST_TOKEN_TIMEOUT it is that one which follows."`
	Retries           countSetting    `default:"0" desc:"How often the same backend is called again before the next one is: after failures that may pass with time, if the pause before it is short. Each costs one of MAX_ATTEMPTS, of which one is kept for every backend that was not tried yet. STRATEGY=parallel makes none."`
	Concurrency       positiveCount   `shown:"no limit of its own" desc:"How many calls of the backend one worker makes at once; further ones wait for their turn, or see ON_LIMIT. As many idle connections are kept; without it, WORKER_CONCURRENCY."`
	RPM               countSetting    `desc:"How many calls per minute one worker makes: with three workers, set it to a third of what the provider allows. 0 or empty: no limit."`
	TPM               countSetting    `desc:"How many tokens per minute one worker spends, of requests and answers together; what a call will take is estimated before it leaves. 0 or empty: no limit."`
	PriceInput        priceSetting    `split_words:"true" desc:"US dollars per million input tokens. What the provider itself reports as cost beats it."`
	PriceOutput       priceSetting    `split_words:"true" desc:"US dollars per million output tokens."`
	PriceHour         priceSetting    `split_words:"true" desc:"US dollars per hour of call time, for a rented machine without a price per token."`
	Headers           headersSetting  `desc:"Headers for every call: Name: value, with semicolons between, or line breaks where values hold semicolons."`
	Set               fieldsSetting   `desc:"Top-level fields to put into every request: field=json with semicolons between, such as temperature=0;stop=[\"END\"]. What is not JSON is a string."`
	Drop              dropSetting     `desc:"Top-level fields to take out of every request, with commas between."`
	Rules             textSetting     `shown:"built-in rules" desc:"The rules file of KIND=rules."`
	APIVersion        textSetting     `split_words:"true" desc:"The api-version of the query; required for azure."`
	BreakerFailures   positiveCount   `split_words:"true" shown:"BREAKER_FAILURES" desc:"As BREAKER_FAILURES, for this backend."`
	BreakerCooldown   positiveTime    `split_words:"true" shown:"BREAKER_COOLDOWN" desc:"As BREAKER_COOLDOWN, for this backend."`
}

// breakerSpec is BREAKER_*.
type breakerSpec struct {
	Failures    positiveCount `default:"5" desc:"How many failures in a row open a backend's breaker."`
	Cooldown    positiveTime  `default:"60" desc:"How long an open breaker lets no call through."`
	MaxCooldown positiveTime  `split_words:"true" default:"300" desc:"The longest time a provider's hint, or failed probes, may keep a breaker open."`
	Probes      positiveCount `default:"1" desc:"How many calls try a backend again after the cooldown."`
	Shared      boolSetting   `default:"true" inert:"every worker has breakers of its own" desc:"Lets all workers know of each other's open breakers."`
}

// routeSpec is FALLBACK_* and ROUTE_<NAME>_*.
type routeSpec struct {
	Enabled         boolSetting       `default:"true" desc:"false: the first backend of the chain only, one call and its RETRIES."`
	Chain           namesSetting      `shown:"all backends" desc:"The backends in the order to ask them, with commas between."`
	Strategy        textSetting       `default:"sequential" desc:"How the next backend is chosen. sequential: in the order of the chain. priority: those that ERROR_MAPPINGS names for the error first, then the rest of the chain. error_type: only those that ERROR_MAPPINGS names for the error. random: any that was not tried yet, by WEIGHTS. parallel: all at once, or one more every HEDGE_DELAY; the first answer wins and the other calls are cancelled. conditional: in the order of the chain, as long as one of CONDITIONS holds."`
	MaxAttempts     positiveCount     `split_words:"true" shown:"3, or the chain's length where that is more" desc:"How many calls a job may cost over all backends. KIND=rules costs none."`
	BaseDelay       durationSetting   `split_words:"true" default:"1" desc:"The pause before a backend is called a second time. The first call of a backend never waits."`
	MaxDelay        durationSetting   `split_words:"true" default:"60" desc:"The longest such pause."`
	ExponentialBase factorSetting     `split_words:"true" default:"2" desc:"The factor by which the pause grows."`
	Jitter          boolSetting       `default:"true" desc:"Shortens pauses at random, by up to a half."`
	OnStatusCodes   codesSetting      `split_words:"true" default:"429,500,502,503,504" desc:"HTTP statuses after which the next backend is asked. When set, they overrule the class of the error. The strategies error_type and conditional decide without them."`
	OnErrors        classesSetting    `split_words:"true" default:"timeout,connection,server_error,overloaded,rate_limit,quota,auth,permission,context_length,too_large,unsupported,bad_response,truncated,empty_output" desc:"The classes of errors after which the next backend is asked. The strategies error_type and conditional decide without them, and priority also goes on after the classes in ERROR_MAPPINGS."`
	ErrorMappings   mappingsSetting   `split_words:"true" desc:"Whom to ask after which class of error: rate_limit=a|b;timeout=c. It may name backends that are not in CHAIN: they are asked only when mapped. For the strategies priority and error_type."`
	Conditions      conditionsSetting `desc:"When to go on, with semicolons between; one that holds is enough. Each is a name (on_timeout, on_rate_limit, on_service_unavailable, on_authentication_error, on_model_not_found, on_token_limit, on_content_filter, on_invalid_request, on_any_error, on_retryable_error) or an expression over error (class, status, code, type, message, backend) and job (queue, route, metadata, attempt), such as error.message contains \"overloaded\". For the strategy conditional."`
	Weights         weightsSetting    `desc:"Weights of backends, a=2,b=1. A backend without one has the weight 1. For the strategy random."`
	HedgeDelay      durationSetting   `split_words:"true" desc:"The pause between the starts of calls; 0 or empty: all at once. For the strategy parallel."`
	Timeout         durationSetting   `desc:"The time a whole job may take from its first delivery; 0 or empty: no limit."`
	MaxCostUSD      priceSetting      `split_words:"true" desc:"A job that has cost this many US dollars calls no model any more; 0 or empty: no limit. Calls whose cost is not known count as 0."`
	OnLimit         limitSetting      `split_words:"true" default:"wait" desc:"What a job does when a backend's CONCURRENCY, RPM or TPM makes it wait for its turn. wait: it waits. fallback: it goes to another backend of the chain that is free, and waits only when there is none."`
	AcceptSchema    boolSetting       `split_words:"true" default:"false" desc:"true: an answer that does not match the JSON schema in the request's own response_format counts as bad_response, and the chain goes on."`
}
