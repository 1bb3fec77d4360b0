package config

import (
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/queue"
	"understudy/internal/worker"
)

// validCase says what a variable does to the configuration of [working].
type validCase struct {
	variable, value string
	get             func(*Worker) any
	want            any
}

func ofA(get func(worker.Backend) any) func(*Worker) any {
	return func(w *Worker) any { return get(w.Config.Backends[0]) }
}

func ofAz(get func(openai.Config) any) func(*Worker) any {
	return func(w *Worker) any { return get(w.Config.Backends[1].OpenAI) }
}

func ofX(get func(fallback.Policy) any) func(*Worker) any {
	return func(w *Worker) any { return get(w.Config.Routes[1].Policy) }
}

func workerCases() []validCase {
	conf := func(get func(worker.Config) any) func(*Worker) any {
		return func(w *Worker) any { return get(w.Config) }
	}
	return []validCase{
		{"WORKER_QUEUES", "high=6, default=3,low", conf(func(c worker.Config) any { return c.Queues }), []queue.Weighted{{Name: "high", Weight: 6}, {Name: "default", Weight: 3}, {Name: "low", Weight: 1}}},
		{"WORKER_CONCURRENCY", "128", conf(func(c worker.Config) any { return c.Concurrency }), 128},
		{"WORKER_CONCURRENCY", "128", ofA(func(b worker.Backend) any { return []int{b.Concurrency, b.OpenAI.Concurrency} }), []int{0, 128}},
		{"WORKER_HTTP_ADDR", ":9090", conf(func(c worker.Config) any { return c.HTTPAddr }), ":9090"},
		{"WORKER_HTTP_ADDR", "", conf(func(c worker.Config) any { return c.HTTPAddr }), ""},
		{"WORKER_NAME", "w-1.example", conf(func(c worker.Config) any { return c.Name }), "w-1.example"},
		{"WORKER_SHUTDOWN_GRACE", "90", conf(func(c worker.Config) any { return c.ShutdownGrace }), 90 * time.Second},
		{"WORKER_SHUTDOWN_GRACE", "0", conf(func(c worker.Config) any { return c.ShutdownGrace }), time.Duration(-1)},
		{"WORKER_SUBJECT_PREFIX", "acme", conf(func(c worker.Config) any { return c.Prefix }), "acme"},
		{"WORKER_REPLY_ALLOW", "acme.>", conf(func(c worker.Config) any {
			return []bool{c.ReplyAllow.Allows("acme.x"), c.ReplyAllow.Allows("_INBOX.x")}
		}), []bool{true, false}},
		{"WORKER_MAX_CRASHES", "1", conf(func(c worker.Config) any { return c.MaxCrashes }), 1},
		{"WORKER_RESULTS_MAX_AGE", "24h", conf(func(c worker.Config) any { return c.ResultsMaxAge }), 24 * time.Hour},
		{"WORKER_EVENTS_MAX_AGE", "3600", conf(func(c worker.Config) any { return c.EventsMaxAge }), time.Hour},
		{"WORKER_MAX_PAYLOAD", "8 mib", conf(func(c worker.Config) any { return c.MaxPayload }), int64(8 << 20)},
		{"WORKER_MAX_PAYLOAD", "1000", conf(func(c worker.Config) any { return c.MaxPayload }), int64(1000)},
		{"WORKER_MAX_PAYLOAD", "1GB", conf(func(c worker.Config) any { return c.MaxPayload }), int64(1 << 30)},
		{"WORKER_MAX_PAYLOAD", "", conf(func(c worker.Config) any { return c.MaxPayload }), int64(64 << 20)},
		{"WORKER_MAX_PAYLOAD", "0", conf(func(c worker.Config) any { return c.MaxPayload }), int64(-1)},
		{"WORKER_LOG_LEVEL", "WARN", func(w *Worker) any { return w.level }, slog.LevelWarn},
		{"WORKER_LOG_FORMAT", "json", func(w *Worker) any { return w.format }, "json"},
		{"WORKER_EMBEDDED_ADDR", "localhost:0", conf(func(c worker.Config) any { return c.Embedded.Addr }), "localhost:0"},
		{"WORKER_DATA_DIR", "/var/lib/understudy", conf(func(c worker.Config) any { return c.Embedded.DataDir }), "/var/lib/understudy"},
		{"BACKENDS", "r", conf(func(c worker.Config) any { return len(c.Backends) }), 1},
		{"ROUTES", "x-1, y", conf(func(c worker.Config) any { return []string{c.Routes[1].Name, c.Routes[2].Name} }), []string{"x-1", "y"}},
	}
}

func backendCases() []validCase {
	ai := func(get func(openai.Config) any) func(*Worker) any {
		return ofA(func(b worker.Backend) any { return get(b.OpenAI) })
	}
	raw := func(fields map[string]string) map[string]json.RawMessage {
		m := make(map[string]json.RawMessage)
		for name, text := range fields {
			m[name] = json.RawMessage(text)
		}
		return m
	}
	return []validCase{
		{"A_KIND", "OpenAI", ofA(func(b worker.Backend) any { return b.Kind }), worker.KindOpenAI},
		{"A_BASE_URL", "http://localhost:8000/v1", ai(func(c openai.Config) any { return c.BaseURL }), "http://localhost:8000/v1"},
		{"A_API_KEY", " sk-1 ", ai(func(c openai.Config) any { return string(c.APIKey) }), "sk-1"},
		{"A_MODEL", "meta/llama:free", ai(func(c openai.Config) any { return c.Model }), "meta/llama:free"},
		{
			"A_MODELS", "fast=openai/gpt-4o-mini:free, slow = a/b", ai(func(c openai.Config) any { return c.Models }),
			map[string]string{"fast": "openai/gpt-4o-mini:free", "slow": "a/b"},
		},
		{"A_TIMEOUT", "5.0", ai(func(c openai.Config) any { return c.Timeout }), 5 * time.Second},
		{"A_TIMEOUT", "750ms", ai(func(c openai.Config) any { return c.Timeout }), 750 * time.Millisecond},
		{"A_TIMEOUT", "", ai(func(c openai.Config) any { return c.Timeout }), 30 * time.Second},
		{"A_FIRST_TOKEN_TIMEOUT", "1.5", ai(func(c openai.Config) any { return c.FirstTokenTimeout }), 1500 * time.Millisecond},
		{"A_PRICE_INPUT", "0.15", ai(func(c openai.Config) any { return c.PriceInput }), 0.15},
		{"A_PRICE_OUTPUT", "1", ai(func(c openai.Config) any { return c.PriceOutput }), 1.0},
		{"A_PRICE_HOUR", "2.5", ai(func(c openai.Config) any { return c.PriceHour }), 2.5},
		{
			"A_HEADERS", "X-Title: my app; HTTP-Referer: https://a.example/", ai(func(c openai.Config) any { return c.Headers }),
			openai.Headers{"X-Title": "my app", "HTTP-Referer": "https://a.example/"},
		},
		{
			"A_HEADERS", "Accept: a;q=1\nX-Title: b\n", ai(func(c openai.Config) any { return c.Headers }),
			openai.Headers{"Accept": "a;q=1", "X-Title": "b"},
		},
		{
			"A_SET", `temperature=0; stop=["a;b", "c"];user=some one;o={"x":1};`, ai(func(c openai.Config) any { return c.Set }),
			raw(map[string]string{"temperature": "0", "stop": `["a;b", "c"]`, "user": `"some one"`, "o": `{"x":1}`}),
		},
		{"A_SET", "t=", ai(func(c openai.Config) any { return c.Set }), raw(map[string]string{"t": `""`})},
		{"A_DROP", "stream_options, top_k", ai(func(c openai.Config) any { return c.Drop }), []string{"stream_options", "top_k"}},
		{"AZ_API_VERSION", "2025-01-01", ofAz(func(c openai.Config) any { return c.APIVersion }), "2025-01-01"},
		{"A_BREAKER_FAILURES", "2", ofA(func(b worker.Backend) any { return b.Breaker.Failures }), 2},
		{"A_BREAKER_COOLDOWN", "7", ofA(func(b worker.Backend) any { return b.Breaker.Cooldown }), 7 * time.Second},
		{"BREAKER_FAILURES", "3", ofA(func(b worker.Backend) any { return b.Breaker.Failures }), 3},
		{"BREAKER_COOLDOWN", "5m", ofA(func(b worker.Backend) any { return b.Breaker.Cooldown }), 5 * time.Minute},
		{"BREAKER_MAX_COOLDOWN", "600", ofA(func(b worker.Backend) any { return b.Breaker.MaxCooldown }), 10 * time.Minute},
		{"BREAKER_PROBES", "2", ofA(func(b worker.Backend) any { return b.Breaker.Probes }), 2},
		{"BREAKER_SHARED", "no", ofA(func(b worker.Backend) any { return b.Name }), "a"},
		{"A_ADAPTIVE_TIMEOUT", "on", ai(func(c openai.Config) any { return c.AdaptiveTimeout }), true},
		{"A_ADAPTIVE_TIMEOUT", "off", ai(func(c openai.Config) any { return c.AdaptiveTimeout }), false},
		{"A_RETRIES", "3", ofA(func(b worker.Backend) any { return b.Retries }), 3},
		{"A_RETRIES", "0", ofA(func(b worker.Backend) any { return b.Retries }), 0},
		{"A_CONCURRENCY", "8", ofA(func(b worker.Backend) any { return []int{b.Concurrency, b.OpenAI.Concurrency} }), []int{8, 8}},
		{"A_CONCURRENCY", "1", ofA(func(b worker.Backend) any { return b.Concurrency }), 1},
		{"A_CONCURRENCY", "", ofA(func(b worker.Backend) any { return []int{b.Concurrency, b.OpenAI.Concurrency} }), []int{0, 64}},
		{"A_RPM", "60", ofA(func(b worker.Backend) any { return []int64{b.RPM, b.TPM} }), []int64{60, 0}},
		{"A_RPM", "0", ofA(func(b worker.Backend) any { return b.RPM }), int64(0)},
		{"A_TPM", "2147483647", ofA(func(b worker.Backend) any { return []int64{b.RPM, b.TPM} }), []int64{0, 2147483647}},
		{"A_TPM", "", ofA(func(b worker.Backend) any { return b.TPM }), int64(0)},
	}
}

func routeCases() []validCase {
	return []validCase{
		{"ROUTE_X_1_ENABLED", "0", ofX(func(p fallback.Policy) any { return p.Enabled }), false},
		{"ROUTE_X_1_CHAIN", "r,a", func(w *Worker) any { return w.Config.Routes[1].Chain }, []string{"r", "a"}},
		{"FALLBACK_CHAIN", "az", func(w *Worker) any { return w.Config.Routes[0].Chain }, []string{"az"}},
		{"ROUTE_X_1_STRATEGY", "sequential", ofX(func(p fallback.Policy) any { return p.Strategy }), fallback.Sequential},
		{"ROUTE_X_1_STRATEGY", "random", ofX(func(p fallback.Policy) any { return p.Strategy }), fallback.Random},
		{"ROUTE_X_1_STRATEGY", "parallel", ofX(func(p fallback.Policy) any { return p.Strategy }), fallback.Parallel},
		{"ROUTE_X_1_MAX_ATTEMPTS", "7", ofX(func(p fallback.Policy) any { return p.MaxAttempts }), 7},
		{"ROUTE_X_1_BASE_DELAY", "0.5", ofX(func(p fallback.Policy) any { return p.BaseDelay }), 500 * time.Millisecond},
		{"ROUTE_X_1_MAX_DELAY", "10", ofX(func(p fallback.Policy) any { return p.MaxDelay }), 10 * time.Second},
		{"ROUTE_X_1_EXPONENTIAL_BASE", "1.5", ofX(func(p fallback.Policy) any { return p.ExponentialBase }), 1.5},
		{"ROUTE_X_1_JITTER", "false", ofX(func(p fallback.Policy) any { return p.Jitter }), false},
		{"ROUTE_X_1_ON_STATUS_CODES", "429, 418", ofX(func(p fallback.Policy) any { return p.OnStatusCodes }), []int{429, 418}},
		{
			"ROUTE_X_1_ON_ERRORS", "timeout,RateLimitError", ofX(func(p fallback.Policy) any { return p.OnErrors }),
			[]backend.Class{backend.Timeout, backend.RateLimit},
		},
		{"ROUTE_X_1_TIMEOUT", "2m", ofX(func(p fallback.Policy) any { return p.Timeout }), 2 * time.Minute},
		{"ROUTE_X_1_MAX_COST_USD", "0.05", ofX(func(p fallback.Policy) any { return p.MaxCostUSD }), 0.05},
		{"ROUTE_X_1_MAX_COST_USD", "0", ofX(func(p fallback.Policy) any { return p.MaxCostUSD }), 0.0},
		{"FALLBACK_MAX_COST_USD", "1", func(w *Worker) any { return []float64{w.Config.Routes[0].MaxCostUSD, w.Config.Routes[1].MaxCostUSD} }, []float64{1, 0}},
		{"ROUTE_X_1_ON_LIMIT", "wait", ofX(func(p fallback.Policy) any { return p.OnLimit }), fallback.OnLimitWait},
		{"ROUTE_X_1_ON_LIMIT", "Fallback", ofX(func(p fallback.Policy) any { return p.OnLimit }), fallback.OnLimitFallback},
		{"FALLBACK_ON_LIMIT", "fallback", func(w *Worker) any { return []string{w.Config.Routes[0].OnLimit, w.Config.Routes[1].OnLimit} }, []string{fallback.OnLimitFallback, fallback.OnLimitWait}},
		{"ROUTE_X_1_ACCEPT_SCHEMA", "true", ofX(func(p fallback.Policy) any { return p.AcceptSchema }), true},
		{"ROUTE_X_1_ACCEPT_SCHEMA", "no", ofX(func(p fallback.Policy) any { return p.AcceptSchema }), false},
		{"FALLBACK_TIMEOUT", "9", func(w *Worker) any { return w.Config.Routes[0].Timeout }, 9 * time.Second},
	}
}

func TestEveryVariableArrivesInTheConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(workerCases(), backendCases(), routeCases()) {
		t.Run(c.variable+"="+c.value, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(with(working(), c.variable, c.value)))
			require.Empty(t, w.Report.Problems)
			require.Empty(t, w.Report.Warnings)
			require.Equal(t, c.want, c.get(w))
		})
	}
}

func TestWithoutVariablesTheDocumentedDefaultsHold(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(map[string]string{"OPENROUTER_API_KEY": "k", "VLLM_BASE_URL": "http://vllm:8000/v1"}))
	require.Empty(t, w.Report.Problems)
	require.Empty(t, w.Report.Warnings)
	require.False(t, w.NATS.Configured())

	c := w.Config
	require.Equal(t, []queue.Weighted{{Name: "default", Weight: 1}}, c.Queues)
	require.Equal(t, worker.DefaultConcurrency, c.Concurrency)
	require.Equal(t, "127.0.0.1:8080", c.HTTPAddr)
	require.Empty(t, c.Name)
	require.Equal(t, worker.DefaultShutdownGrace, c.ShutdownGrace)
	require.Equal(t, "llm", c.Prefix)
	require.Equal(t, 1, c.Replicas)
	require.True(t, c.ReplyAllow.Allows("_INBOX.a.b"))
	require.True(t, c.ReplyAllow.Allows("_R_.a"))
	require.False(t, c.ReplyAllow.Allows("other.a"))
	require.Equal(t, worker.DefaultMaxCrashes, c.MaxCrashes)
	require.Equal(t, queue.DefaultMaxAge, c.ResultsMaxAge)
	require.Equal(t, queue.DefaultMaxAge, c.EventsMaxAge)
	require.Equal(t, worker.Embedded{Addr: "127.0.0.1:4222", DataDir: "./data"}, *c.Embedded)

	breakers := breaker.Config{
		Failures: breaker.DefaultFailures, Cooldown: breaker.DefaultCooldown,
		MaxCooldown: breaker.DefaultMaxCooldown, Probes: breaker.DefaultProbes,
	}
	require.Equal(t, []worker.Backend{
		{
			Name: "openrouter", Kind: worker.KindOpenAI, Breaker: breakers,
			OpenAI: openai.Config{BaseURL: "https://openrouter.ai/api/v1", APIKey: "k", Timeout: 5 * time.Second, Concurrency: 64},
		},
		{
			Name: "vllm", Kind: worker.KindOpenAI, Breaker: breakers,
			OpenAI: openai.Config{BaseURL: "http://vllm:8000/v1", Timeout: 10 * time.Second, Concurrency: 64},
		},
	}, c.Backends)
	policy := fallback.DefaultPolicy()
	policy.OnLimit = fallback.OnLimitWait // which is what the empty one means
	require.Equal(t, []fallback.Route{{
		Name: fallback.DefaultRoute, Chain: []string{"openrouter", "vllm"}, Policy: policy,
	}}, c.Routes)
}

func TestDefaultsInTheManualAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	var s routeSpec
	require.NoError(t, environment(nil).process("FALLBACK", &s))
	require.Equal(t, fallback.DefaultStatusCodes(), s.OnStatusCodes.value)
	var goOn []backend.Class
	for _, class := range backend.Classes() {
		if class.FallsBack() {
			goOn = append(goOn, class)
		}
	}
	require.Equal(t, goOn, s.OnErrors.value)
}

func TestTheManualTellsWhichStrategiesThereAre(t *testing.T) {
	t.Parallel()
	list, err := fields("FALLBACK", &routeSpec{})
	require.NoError(t, err)
	i := slices.IndexFunc(list, func(f field) bool { return f.name == "FALLBACK_STRATEGY" })
	desc := list[i].tag.Get("desc")
	require.Len(t, fallback.Strategies(), 6)
	for name := range fallback.Strategies() {
		require.Regexp(t, `\. `+name+`: \w`, desc)
	}
}

func TestBackendsThatAreNotConfiguredAreOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		vars map[string]string
		on   []string
		off  string
	}{
		{"openrouter without a key", map[string]string{"BACKENDS": "openrouter,r", "R_KIND": "rules", "OPENROUTER_BASE_URL": "http://x/v1", "OPENROUTER_API_KEY": ""}, []string{"r"}, "openrouter is off: OPENROUTER_API_KEY is not set"},
		{"vllm without a base URL", map[string]string{"BACKENDS": "vllm,r", "R_KIND": "rules", "VLLM_API_KEY": "k"}, []string{"r"}, "vllm is off: VLLM_BASE_URL is not set"},
		{"another with neither", map[string]string{"BACKENDS": "groq,r", "R_KIND": "rules"}, []string{"r"}, "groq is off: neither GROQ_API_KEY nor GROQ_BASE_URL is set"},
		{"another with a base URL", map[string]string{"BACKENDS": "groq", "GROQ_BASE_URL": "http://x/v1"}, []string{"groq"}, ""},
		{"vllm without a key", map[string]string{"BACKENDS": "vllm", "VLLM_BASE_URL": "http://x/v1"}, []string{"vllm"}, ""},
		{"rules by its name", map[string]string{"BACKENDS": "rules"}, []string{"rules"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(c.vars))
			require.Empty(t, w.Report.Problems)
			var names []string
			for _, b := range w.Config.Backends {
				names = append(names, b.Name)
			}
			require.Equal(t, c.on, names)
			require.Equal(t, c.on, w.Config.Routes[0].Chain)
			if c.off == "" {
				require.Empty(t, w.Report.Warnings)
			} else {
				require.Equal(t, []string{"BACKENDS: " + c.off}, findings(w.Report.Warnings))
			}
		})
	}
}

func TestABackendWithAKeyAloneIsOpenAI(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(map[string]string{"BACKENDS": "gpt", "GPT_API_KEY": "k"}))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, "https://api.openai.com/v1", w.Config.Backends[0].OpenAI.BaseURL)
}

func TestOffBackendsLeaveTheChainsThatNameThem(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(map[string]string{"OPENROUTER_API_KEY": "k", "FALLBACK_CHAIN": "vllm,openrouter"}))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, []string{"FALLBACK_CHAIN: vllm is left out, it is off: VLLM_BASE_URL is not set"}, findings(w.Report.Warnings))
	require.Equal(t, []string{"openrouter"}, w.Config.Routes[0].Chain)
}

func TestTheKeyIsReadFromAFile(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(map[string]string{"OPENROUTER_API_KEY_FILE": file(t, "sk-from-file\r\n")}))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, "sk-from-file", string(w.Config.Backends[0].OpenAI.APIKey))
}

func TestSettingsThatTheStrategyDoesNotReadAreCarriedWithAWarning(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(),
		"FALLBACK_ERROR_MAPPINGS", "RateLimitError = r | a ;timeout=az", "FALLBACK_CONDITIONS", `on_timeout; error.status == 503`,
		"FALLBACK_WEIGHTS", "a=2,az=0.5", "FALLBACK_HEDGE_DELAY", "0.3",
	)))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, []string{
		"FALLBACK_ERROR_MAPPINGS: is set but not in effect with FALLBACK_STRATEGY=sequential; set FALLBACK_STRATEGY to priority or error_type, or unset it",
		"FALLBACK_CONDITIONS: is set but not in effect with FALLBACK_STRATEGY=sequential; set FALLBACK_STRATEGY to conditional, or unset it",
		"FALLBACK_WEIGHTS: is set but not in effect with FALLBACK_STRATEGY=sequential; set FALLBACK_STRATEGY to random, or unset it",
		"FALLBACK_HEDGE_DELAY: is set but not in effect with FALLBACK_STRATEGY=sequential; set FALLBACK_STRATEGY to parallel, or unset it",
	}, findings(w.Report.Warnings))
	p := w.Config.Routes[0].Policy
	require.Equal(t, map[backend.Class][]string{backend.RateLimit: {"r", "a"}, backend.Timeout: {"az"}}, p.ErrorMappings)
	require.Equal(t, []string{"on_timeout", "error.status == 503"}, p.Conditions)
	require.Equal(t, map[string]float64{"a": 2, "az": 0.5}, p.Weights)
	require.Equal(t, 300*time.Millisecond, p.HedgeDelay)
}
