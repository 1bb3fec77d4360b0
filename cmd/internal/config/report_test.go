package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// badCase is a value and the one line that is said about it.
type badCase struct{ variable, value, want string }

const (
	wantDuration = "use seconds (5.0) or a Go duration (750ms, 168h)"
	wantClasses  = "use one of timeout, connection, server_error, overloaded, rate_limit, quota, auth, permission, context_length, too_large, unsupported, bad_response, truncated, empty_output, model_not_found, invalid_request, content_filter, cancelled, expired, invalid_job, poison, circuit_open"
	wantURL      = "use a URL such as https://openrouter.ai/api/v1"
	wantNATS     = "use nats://host:4222, or several with commas between"
	wantName     = "use at most 64 of A-Z a-z 0-9 _ -"
	wantFile     = "name a readable file"
)

func badValues() []badCase {
	return []badCase{
		{"NATS_URL", "http://h", "server 1 has a scheme that is not nats, tls, ws or wss; " + wantNATS},
		{"NATS_URL", "nats://a:4222,nats://:4222", "server 2 has no host; " + wantNATS},
		{"NATS_URL", "nats://u:p w@h:4222", "server 1 is not a URL; " + wantNATS},
		{"NATS_URL", ",", "names no server; " + wantNATS},
		{"NATS_CREDS", "/none", `"/none" cannot be read: file does not exist; ` + wantFile},
		{"NATS_NKEY", "/none", `"/none" cannot be read: file does not exist; ` + wantFile},
		{"NATS_CA", "/", `"/" is a directory, not a file; ` + wantFile},
		{"NATS_CERT", "/none", `"/none" cannot be read: file does not exist; ` + wantFile},
		{"NATS_KEY", "/none", `"/none" cannot be read: file does not exist; ` + wantFile},
		{"NATS_USER", "a\x01", "holds a space, a line break or a control character; set it to the secret alone"},
		{"NATS_PASSWORD", "a b", "holds a space, a line break or a control character; set it to the secret alone"},
		{"NATS_TOKEN", "a\nb", "holds a space, a line break or a control character; set it to the secret alone"},
		{"NATS_CONTEXT", "/none.json", "is a file that does not exist; `nats context ls` lists the contexts there are"},
		{"NATS_CONTEXT", "../x", "cannot be used: invalid context name ../x; `nats context ls` lists the contexts there are"},

		{"WORKER_QUEUES", "high=0", `the weight in "high=0" is not a whole number above 0; use queues such as default, or with weights high=6,default=3,low=1`},
		{"WORKER_QUEUES", "a.b", `"a.b" is not a name; ` + wantName},
		{"WORKER_QUEUES", "a,a", `"a" is named twice; name it once`},
		{"WORKER_CONCURRENCY", "0", "0 is too small; use 1 or more"},
		{"WORKER_CONCURRENCY", "64.5", `"64.5" is not a whole number; use 1 or more`},
		{"WORKER_HTTP_ADDR", "8080", `"8080" is not an address; use host:port, such as 127.0.0.1:8080`},
		{"WORKER_HTTP_ADDR", ":99999", `":99999" has no usable port; use a port of 0 to 65535`},
		{"WORKER_HTTP_ADDR", "127.0.0.1:4222", "is the same address as WORKER_EMBEDDED_ADDR; use another port"},
		{"WORKER_NAME", "my worker", `"my worker" is not a name; use at most 128 of A-Z a-z 0-9 . _ -`},
		{"WORKER_SHUTDOWN_GRACE", "soon", `"soon" is not a duration; ` + wantDuration},
		{"WORKER_SHUTDOWN_GRACE", "-5", `"-5" is negative; use 0 or more`},
		{"WORKER_SUBJECT_PREFIX", "a.b", `"a.b" cannot start a subject; ` + wantName},
		{"WORKER_REPLICAS", "9", "9 is more than a stream can have; use 1, 3 or 5"},
		{"WORKER_REPLY_ALLOW", "a..b", `subject pattern "a..b" holds an empty token; use NATS subjects with commas between, such as _INBOX.>,_R_.>`},
		{"WORKER_MAX_CRASHES", "-1", "-1 is too small; use 1 or more"},
		{"WORKER_RESULTS_MAX_AGE", "7d", `"7d" is not a duration; ` + wantDuration},
		{"WORKER_EVENTS_MAX_AGE", "0", `"0" is no time; use a time above 0`},
		{"WORKER_LOG_LEVEL", "loud", `"loud" is not a level; use debug, info, warn or error`},
		{"WORKER_LOG_FORMAT", "xml", `"xml" is not known; use text or json`},
		{"WORKER_MAX_PAYLOAD", "big", `"big" is not a size; use bytes (1048576), or KB, MB or GB of 1024 each (64MB)`},
		{"WORKER_MAX_PAYLOAD", "1.5MB", `"1.5MB" is not a size; use bytes (1048576), or KB, MB or GB of 1024 each (64MB)`},
		{"WORKER_MAX_PAYLOAD", "-1", `"-1" is negative; use 0 or more`},
		{"WORKER_MAX_PAYLOAD", "2GB", `"2GB" is too big; use 1GB at most`},
		{"WORKER_EMBEDDED_ADDR", "localhost", `"localhost" is not an address; use host:port, such as 127.0.0.1:8080`},
		{"WORKER_DATA_DIR", "/etc/passwd", `"/etc/passwd" is not a directory; name a directory`},

		{"BACKENDS", "a,,b c", `"b c" is not a name; ` + wantName},
		{"ROUTES", "default,x-1", `names "default"; configure the default route with FALLBACK_*, and do not name it here`},
		{"A_KIND", "anthropic", `"anthropic" is not known; use openai, azure or rules`},
		{"A_BASE_URL", "localhost:8000", "does not start with http:// or https://; " + wantURL},
		{"A_BASE_URL", "http://", "has no host; " + wantURL},
		{"A_BASE_URL", "http://u:p@h/v1", "holds a user or a password; put credentials into API_KEY or HEADERS"},
		{"A_BASE_URL", "http://h/v1?key=1", "has a query or a fragment; end it with the path; API_VERSION and HEADERS hold the rest"},
		{"A_BASE_URL", "http://h:x/", "is not a URL; " + wantURL},
		{"A_API_KEY", "a b", "holds a space, a line break or a control character; set it to the secret alone"},
		{"A_API_KEY_FILE", "/none", "is set, and so is A_API_KEY; unset one of them"},
		{"AZ_API_VERSION", "", "is not set, and KIND=azure needs it; set it, for example to 2024-10-21"},
		{"AZ_API_KEY", "", "is not set, and KIND=azure needs it; set it to a key of the resource"},
		{"AZ_BASE_URL", "", "is not set, and KIND=azure needs it; set it to the resource, such as https://acme.openai.azure.com"},
		{"A_MODEL", "a\x00", "holds a control character; remove it"},
		{"A_MODELS", "fast", `"fast" is not a pair; use alias=actual, with commas between`},
		{"A_MODELS", "a=b,a=c", `"a" is named twice; name it once`},
		{"A_TIMEOUT", "0", `"0" is no time; use a time above 0`},
		{"A_TIMEOUT", "5,0", `"5,0" is not a duration; ` + wantDuration},
		{"A_TIMEOUT", "1e9", `"1e9" is not a duration; ` + wantDuration},
		{"A_TIMEOUT", "99999999999", `"99999999999" seconds are too long; use 100 years at most`},
		{"A_TIMEOUT", "2000000h", `"2000000h" is too long; use 100 years at most`},
		{"A_FIRST_TOKEN_TIMEOUT", "NaN", `"NaN" is not a duration; ` + wantDuration},
		{"A_ADAPTIVE_TIMEOUT", "maybe", `"maybe" is neither true nor false; use true or false`},
		{"A_RETRIES", "-1", "-1 is too small; use 0 or more"},
		{"A_CONCURRENCY", "0", "0 is too small; use 1 or more"},
		{"A_RETRIES", "1.5", `"1.5" is not a whole number; use 0 or more`},
		{"A_CONCURRENCY", "-1", "-1 is too small; use 1 or more"},
		{"A_RPM", "-1", "-1 is too small; use 0 or more"},
		{"A_TPM", "1e6", `"1e6" is not a whole number; use 0 or more`},
		{"A_RPM", "x", `"x" is not a whole number; use 0 or more`},
		{"A_TPM", "99999999999999999999", `"99999999999999999999" is not a whole number; use 0 or more`},
		{"A_PRICE_INPUT", "-1", `"-1" is not a price; use US dollars, such as 0.15`},
		{"A_PRICE_OUTPUT", "NaN", `"NaN" is not a price; use US dollars, such as 0.15`},
		{"A_PRICE_HOUR", "$2", `"$2" is not a price; use US dollars, such as 0.15`},
		{"A_HEADERS", "X-Title", "header 1 has no colon; use Name: value, with semicolons or line breaks between"},
		{"A_HEADERS", "X: 1; Y Z: 2", "header 2 has a name that is not allowed; use Name: value, with semicolons or line breaks between"},
		{"A_HEADERS", "X: a\x01", "the value of header X has a character that is not allowed; use Name: value, with semicolons or line breaks between"},
		{"A_HEADERS", "X: a; x: b", "header x is there twice; name it once"},
		{"A_SET", "temperature", "field 1 is not a pair; use field=json, with semicolons between"},
		{"A_SET", "a=1;b;c=2", "field 2 is not a pair; use field=json, with semicolons between"},
		{"A_SET", "a=1;a=2", `the field "a" is there twice; name it once`},
		{"A_SET", "model=x", "the model is not set here; use MODEL or MODELS"},
		{"A_DROP", "x,model", "the model cannot be dropped; use MODEL or MODELS"},
		{"R_RULES", "/none", "rules: open /none: no such file or directory"},
		{"A_BREAKER_FAILURES", "0", "0 is too small; use 1 or more"},
		{"A_BREAKER_COOLDOWN", "0s", `"0s" is no time; use a time above 0`},
		{"BREAKER_FAILURES", "five", `"five" is not a whole number; use 1 or more`},
		{"BREAKER_COOLDOWN", "x", `"x" is not a duration; ` + wantDuration},
		{"BREAKER_MAX_COOLDOWN", "0", `"0" is no time; use a time above 0`},
		{"BREAKER_PROBES", "0", "0 is too small; use 1 or more"},
		{"BREAKER_SHARED", "2", `"2" is neither true nor false; use true or false`},

		{"FALLBACK_ENABLED", "x", `"x" is neither true nor false; use true or false`},
		{"FALLBACK_CHAIN", "a,b", `"b" is not a backend; use some of a, az, r, or add it to BACKENDS`},
		{"FALLBACK_STRATEGY", "best", `"best" is not a strategy; use one of conditional, error_type, parallel, priority, random, sequential`},
		{"FALLBACK_STRATEGY", "Parallel", `"Parallel" is not a strategy; use one of conditional, error_type, parallel, priority, random, sequential`},
		{"FALLBACK_MAX_ATTEMPTS", "0", "0 is too small; use 1 or more"},
		{"FALLBACK_BASE_DELAY", "-1s", `"-1s" is negative; use 0 or more`},
		{"FALLBACK_MAX_DELAY", "Inf", `"Inf" is not a duration; ` + wantDuration},
		{"FALLBACK_EXPONENTIAL_BASE", "0.5", `"0.5" is not a factor; use 1 or more`},
		{"FALLBACK_JITTER", "x", `"x" is neither true nor false; use true or false`},
		{"FALLBACK_ON_STATUS_CODES", "429,5xx", `"5xx" is not an HTTP status; use codes such as 429,500,503`},
		{"FALLBACK_ON_STATUS_CODES", "99", `"99" is not an HTTP status; use codes such as 429,500,503`},
		{"FALLBACK_ON_ERRORS", "timeout,oops", `"oops" is not an error class; ` + wantClasses},
		{"FALLBACK_ERROR_MAPPINGS", "oops=a", `"oops" is not an error class; ` + wantClasses},
		{"FALLBACK_ERROR_MAPPINGS", "timeout=", `"timeout=" names no backend; use class=backend|backend, with semicolons between`},
		{"FALLBACK_ERROR_MAPPINGS", "timeout=a;TimeoutError=r", "the class timeout is named twice; name it once"},
		{"FALLBACK_CONDITIONS", " ; ", "holds no condition; use conditions such as on_timeout, with semicolons between"},
		{"FALLBACK_CONDITIONS", strings.Repeat("on_timeout;", 33), "holds 33 conditions; use 32 at most; one may join several with or"},
		{"FALLBACK_WEIGHTS", "a=-1", `"-1" is not a weight; use backend=weight, with commas between, and weights of 0 or more`},
		{"FALLBACK_WEIGHTS", "a", `"a" is not a pair; use backend=weight, with commas between, and weights of 0 or more`},
		{"FALLBACK_HEDGE_DELAY", "x", `"x" is not a duration; ` + wantDuration},
		{"FALLBACK_TIMEOUT", "x", `"x" is not a duration; ` + wantDuration},
		{"FALLBACK_MAX_COST_USD", "-0.01", `"-0.01" is not a price; use US dollars, such as 0.15`},
		{"FALLBACK_MAX_COST_USD", "free", `"free" is not a price; use US dollars, such as 0.15`},
		{"FALLBACK_MAX_COST_USD", "Inf", `"Inf" is not a price; use US dollars, such as 0.15`},
		{"FALLBACK_ON_LIMIT", "skip", `"skip" is not known; use wait or fallback`},
		{"FALLBACK_ON_LIMIT", "true", `"true" is not known; use wait or fallback`},
		{"FALLBACK_ACCEPT_SCHEMA", "strict", `"strict" is neither true nor false; use true or false`},
		{"ROUTE_X_1_TIMEOUT", "x", `"x" is not a duration; ` + wantDuration},
		{"ROUTE_X_1_ERROR_MAPPINGS", "timeout=nope", `"nope" is not a backend; use some of a, az, r, or add it to BACKENDS`},
		{"ROUTE_X_1_WEIGHTS", "nope=1", `"nope" is not a backend; use some of a, az, r, or add it to BACKENDS`},
	}
}

func TestAProblemNamesItsVariableAndTellsHowToMendIt(t *testing.T) {
	t.Parallel()
	for _, c := range badValues() {
		t.Run(c.variable+"="+c.value, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(with(working(), c.variable, c.value)))
			require.Contains(t, findings(w.Report.Problems), c.variable+": "+c.want)
			for _, problem := range w.Report.Problems {
				if problem.Variable != c.variable { // what follows from it
					require.Contains(t, []string{"NATS_URL", "NATS_KEY", "NATS_CERT", "BACKENDS"}, problem.Variable, problem.String())
				}
			}
		})
	}
}

func TestEveryVariableHasAValidAndAnInvalidCase(t *testing.T) {
	t.Parallel()
	valid, invalid := make(map[string]bool), make(map[string]bool)
	generic := strings.NewReplacer("AZ_", "<NAME>_", "R_RULES", "<NAME>_RULES", "ROUTE_X_1_", "FALLBACK_")
	name := func(variable string) string {
		if rest, found := strings.CutPrefix(variable, "A_"); found {
			return "<NAME>_" + rest
		}
		return generic.Replace(variable)
	}
	for _, c := range slices.Concat(workerCases(), backendCases(), routeCases()) {
		valid[name(c.variable)] = true
	}
	for _, c := range badValues() {
		invalid[name(c.variable)] = true
	}
	elsewhere := map[string]string{
		"WORKER_REPLICAS":         "TestTheEmbeddedServerKeepsOneCopy",
		"<NAME>_API_KEY_FILE":     "TestTheKeyIsReadFromAFile",
		"<NAME>_RULES":            "TestRulesAreReadWhenTheWorkerStarts",
		"FALLBACK_ERROR_MAPPINGS": "TestSettingsThatTheStrategyDoesNotReadAreCarriedWithAWarning",
		"FALLBACK_CONDITIONS":     "TestSettingsThatTheStrategyDoesNotReadAreCarriedWithAWarning",
		"FALLBACK_WEIGHTS":        "TestSettingsThatTheStrategyDoesNotReadAreCarriedWithAWarning",
		"FALLBACK_HEDGE_DELAY":    "TestSettingsThatTheStrategyDoesNotReadAreCarriedWithAWarning",
	}
	require.NoError(t, eachGroup(func(g group, list []field) {
		for _, f := range list {
			require.True(t, invalid[f.name], "%s has no invalid case", f.name)
			if g.title != "NATS" && elsewhere[f.name] == "" { // nats_test.go connects with each of those
				require.True(t, valid[f.name], "%s has no valid case", f.name)
			}
		}
	}))
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"NATS_URL": "http://x", "WORKER_CONCURRENCY": "many", "WORKER_LOG_LEVEL": "loud", "BREAKER_PROBES": "0",
		"OPENROUTER_API_KEY": "k", "OPENROUTER_TIMEOUT": "fast", "FALLBACK_CHAIN": "gpt", "ROUTES": "x", "ROUTE_X_STRATEGY": "best",
	}
	w := ForWorker(environment(vars))
	named := make(map[string]bool)
	for _, problem := range w.Report.Problems {
		named[problem.Variable] = true
	}
	require.Equal(t, []string{
		"BREAKER_PROBES", "FALLBACK_CHAIN", "NATS_URL", "OPENROUTER_TIMEOUT", "ROUTE_X_STRATEGY", "WORKER_CONCURRENCY", "WORKER_LOG_LEVEL",
	}, slices.Sorted(maps.Keys(named)))
	require.Len(t, w.Report.Problems, len(named))
	require.False(t, w.Report.OK())
}

func TestProblemsBetweenVariables(t *testing.T) {
	t.Parallel()
	r := map[string]string{"BACKENDS": "r", "R_KIND": "rules"}
	for _, c := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"nothing configured", nil, "BACKENDS: no backend is configured; set OPENROUTER_API_KEY, or VLLM_BASE_URL, or name backends in BACKENDS"},
		{"a chain of off backends", with(r, "BACKENDS", "r,vllm", "FALLBACK_CHAIN", "vllm"), "FALLBACK_CHAIN: no backend is left in the chain; name a backend that is configured, or configure one of them"},
		{"a certificate without a key", with(r, "NATS_URL", "tls://h", "NATS_CERT", "/etc/passwd"), "NATS_KEY: is not set, but NATS_CERT is; set both or none"},
		{"a key without a certificate", with(r, "NATS_URL", "tls://h", "NATS_KEY", "/etc/passwd"), "NATS_CERT: is not set, but NATS_KEY is; set both or none"},
		{"a password without a user", with(r, "NATS_URL", "h", "NATS_PASSWORD", "p"), "NATS_USER: is not set, but NATS_PASSWORD is; set both, or NATS_TOKEN alone"},
		{"a key in two places", map[string]string{"OPENROUTER_API_KEY": "k", "OPENROUTER_API_KEY_FILE": "/f"}, "OPENROUTER_API_KEY_FILE: is set, and so is OPENROUTER_API_KEY; unset one of them"},
		{"a missing key file", map[string]string{"OPENROUTER_API_KEY_FILE": "/none"}, `OPENROUTER_API_KEY_FILE: "/none" cannot be read: file does not exist; name a readable file that holds the key alone`},
		{"an empty key file", map[string]string{"OPENROUTER_API_KEY_FILE": file(t, "\n")}, "OPENROUTER_API_KEY_FILE: the file is empty; write the key into it"},
		{"a key file of two lines", map[string]string{"OPENROUTER_API_KEY_FILE": file(t, "a\nb")}, "OPENROUTER_API_KEY_FILE: the file holds a space, a line break or a control character; let the file hold the key alone"},
		{"a huge key file", map[string]string{"OPENROUTER_API_KEY_FILE": file(t, strings.Repeat("k", maxKey+1))}, "a value of"},
		{"two backends with one prefix", map[string]string{"BACKENDS": "a-b,a_b", "A_B_API_KEY": "k"}, "A_B_KIND: belongs to backend a-b and to backend a_b; give one of them another name"},
		{"a backend called worker", map[string]string{"BACKENDS": "worker", "WORKER_BASE_URL": "http://h"}, "WORKER_CONCURRENCY: belongs to the worker and to backend worker; give one of them another name"},
		{"a backend called fallback", map[string]string{"BACKENDS": "fallback", "FALLBACK_BASE_URL": "http://h"}, "FALLBACK_TIMEOUT: belongs to backend fallback and to route default; give one of them another name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(c.vars))
			require.Contains(t, strings.Join(findings(w.Report.Problems), "\n"), c.want)
		})
	}
}

func TestOneMistakeIsOneProblem(t *testing.T) {
	t.Parallel()
	for name, vars := range map[string]map[string]string{
		"BACKENDS":           {"BACKENDS": "a b", "FALLBACK_CHAIN": "a", "FALLBACK_WEIGHTS": "a=1"},
		"A_BASE_URL":         with(working(), "A_BASE_URL", "h", "A_API_KEY", ""),
		"WORKER_CONCURRENCY": with(working(), "WORKER_CONCURRENCY", "x"),
		"BREAKER_FAILURES":   with(working(), "BREAKER_FAILURES", "x"),
		"AZ_API_KEY_FILE":    with(working(), "AZ_API_KEY", "", "AZ_API_KEY_FILE", "/none"),
	} {
		w := ForWorker(environment(vars))
		require.Len(t, w.Report.Problems, 1, "%s: %v", name, w.Report.Problems)
		require.Equal(t, name, w.Report.Problems[0].Variable)
	}
	w := ForWorker(environment(map[string]string{"BACKENDS": "vllm", "FALLBACK_CHAIN": "vllm"}))
	require.Equal(t, []string{"BACKENDS: no backend is configured; set OPENROUTER_API_KEY, or VLLM_BASE_URL, or name backends in BACKENDS"}, findings(w.Report.Problems))
}

func TestTheEmbeddedServerKeepsOneCopy(t *testing.T) {
	t.Parallel()
	vars := with(working(), "WORKER_REPLICAS", "3")
	w := ForWorker(environment(vars))
	require.Equal(t, []string{"WORKER_REPLICAS: the embedded server keeps one copy, not 3; use 1, or set NATS_URL"}, findings(w.Report.Problems))
	w = ForWorker(environment(with(vars, "NATS_URL", "nats://h:4222")))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, 3, w.Config.Replicas)
	require.Nil(t, w.Config.Embedded)
}

func TestRulesAreReadWhenTheWorkerStarts(t *testing.T) {
	t.Parallel()
	good := file(t, "match: hello\nanswer: hi\n")
	w := ForWorker(environment(with(working(), "R_RULES", good)))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, good, w.Config.Backends[2].RulesFile)

	w = ForWorker(environment(with(working(), "R_RULES", file(t, "match: (\nanswer: hi\n"))))
	require.Len(t, w.Report.Problems, 1)
	require.Equal(t, "R_RULES", w.Report.Problems[0].Variable)
	require.NotContains(t, w.Report.Problems[0].String(), "\n")
}

func TestVariablesWithoutEffectAreWarnedOf(t *testing.T) {
	t.Parallel()
	for _, c := range []badCase{
		{"BREAKER_SHARED", "true", "is set but not in effect in this version: every worker has breakers of its own"},
		{"A_RULES", "rules.txt", "has no effect without KIND=rules; set A_KIND=rules, or unset it"},
		{"R_API_KEY", "k", "has no effect with KIND=rules; unset it"},
		{"R_CONCURRENCY", "8", "has no effect with KIND=rules; unset it"},
		{"R_RPM", "60", "has no effect with KIND=rules; unset it"},
		{"R_TPM", "1000", "has no effect with KIND=rules; unset it"},
		{"R_RETRIES", "2", "has no effect with KIND=rules; unset it"},
		{"R_ADAPTIVE_TIMEOUT", "true", "has no effect with KIND=rules; unset it"},
		{"NATS_TOKEN", "t", "has no effect: without a server to connect to, the worker starts its own; set NATS_URL or NATS_CONTEXT"},
		{"WORKER_EMBEDDED_ADDR", "0.0.0.0:4222", "the embedded server asks nobody for credentials: who can reach it can use it"},
	} {
		t.Run(c.variable, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(with(working(), c.variable, c.value)))
			require.Empty(t, w.Report.Problems)
			require.Equal(t, []string{c.variable + ": " + c.want}, findings(w.Report.Warnings))
		})
	}
	w := ForWorker(environment(with(working(), "NATS_URL", "nats://me:secret@h:4222", "WORKER_DATA_DIR", "/d")))
	require.Equal(t, []string{"WORKER_DATA_DIR: has no effect: the worker connects to nats://[set]@h:4222; unset it"}, findings(w.Report.Warnings))
}

func TestUnknownVariablesAreWarnedOf(t *testing.T) {
	t.Parallel()
	const lists = "is not a variable of this program; `worker -env` lists all"
	for name, want := range map[string]string{
		"WORKER_CONCURENCY":      "is not a variable of this program; did you mean WORKER_CONCURRENCY?",
		"A_API_KEYS":             "is not a variable of this program; did you mean A_API_KEY?",
		"A_BASEURL":              "is not a variable of this program; did you mean A_BASE_URL?",
		"FALLBACK_RETRY_FOREVER": lists,
		"BREAKER_FAILURE":        "is not a variable of this program; did you mean BREAKER_FAILURES?",
		"ROUTE_X_1_CHAINS":       "is not a variable of this program; did you mean ROUTE_X_1_CHAIN?",
		"ROUTE_Y_CHAIN":          "belongs to a route that does not exist; add the route to ROUTES, or unset it",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(with(working(), name, "1")))
			require.Empty(t, w.Report.Problems)
			require.Equal(t, []string{name + ": " + want}, findings(w.Report.Warnings))
		})
	}
}

func TestVariablesOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"VLLM_BASE_URL": "http://vllm/v1", "NATS_OPERATOR_MODE": "1", "PATH": "/bin", "ROUTE_TABLE": "x", "MISTRAL_API_KEY": "k",
		// what Kubernetes sets for services called vllm, worker and worker-http
		"VLLM_PORT": "tcp://10.0.0.1:8000", "VLLM_SERVICE_HOST": "10.0.0.1", "VLLM_SERVICE_PORT": "8000", "VLLM_SERVICE_PORT_HTTP": "8000",
		"VLLM_PORT_8000_TCP": "tcp://10.0.0.1:8000", "VLLM_PORT_8000_TCP_PROTO": "tcp", "VLLM_PORT_8000_TCP_PORT": "8000",
		"VLLM_PORT_8000_TCP_ADDR": "10.0.0.1", "VLLM_PORT_53_UDP": "udp://10.0.0.1:53",
		"WORKER_PORT": "tcp://10.0.0.2:8080", "WORKER_SERVICE_HOST": "10.0.0.2", "WORKER_HTTP_SERVICE_HOST": "10.0.0.3",
		"WORKER_HTTP_PORT": "tcp://10.0.0.3:8080", "WORKER_HTTP_PORT_8080_TCP_ADDR": "10.0.0.3",
	}
	w := ForWorker(environment(vars))
	require.Empty(t, w.Report.Problems)
	require.Empty(t, w.Report.Warnings)

	for _, name := range []string{"VLLM_PORT", "VLLM_PORT_X_TCP"} { // not what Kubernetes sets
		w = ForWorker(environment(with(vars, name, "8000")))
		require.Len(t, w.Report.Warnings, 1)
		require.Equal(t, name, w.Report.Warnings[0].Variable)
	}
}

func TestOneBackendsKeyDoesNotReachAnother(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(map[string]string{
		"OPENROUTER_API_KEY": "k", "VLLM_BASE_URL": "http://vllm/v1",
		"API_KEY": "bare", "MODEL": "bare", "TIMEOUT": "1", "URL": "nats://bare", "TOKEN": "bare",
	}))
	require.Empty(t, w.Report.Problems)
	require.Empty(t, string(w.Config.Backends[1].OpenAI.APIKey))
	require.Empty(t, w.Config.Backends[1].OpenAI.Model)
	require.False(t, w.NATS.Configured())
}
