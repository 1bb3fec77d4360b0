package job_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	noField = "is no field of a job; there are: custom_id, method, url, body, route, chain, primary, policy, " +
		"timeout_ms, not_before, deadline, reply_to, events_to, metadata"
	noPolicyField = "is no field of a policy; there are: enabled, strategy, max_attempts, base_delay_ms, max_delay_ms, " +
		"exponential_base, jitter, on_status_codes, on_errors, error_mappings, conditions, weights, hedge_delay_ms, " +
		"timeout_ms, max_cost_usd, on_limit"
	badDeadline = "deadline: must be a time as in RFC 3339, such as 2026-12-01T00:00:00Z"
)

// invalidJob is a job that is refused, and whether the schema, which knows
// neither bytes nor repeated names nor the worker's rules, can tell.
type invalidJob struct {
	payload, want string
	bySchema      bool
}

func envelope(fields string) string { return `{"body":` + chat + `,` + fields + `}` }

func policy(fields string) string { return envelope(`"policy":{` + fields + `}`) }

func invalidJobs() []invalidJob {
	const yes, no = true, false
	long := strings.Repeat("x", 65)
	list := func(entry string, n int) string { return "[" + strings.Repeat(entry+",", n-1) + entry + "]" }
	return []invalidJob{
		{`null`, "payload: must be an object, not null", yes},
		{`[]`, "payload: must be an object, not an array", yes},
		{`"x"`, "payload: must be an object, not a string", yes},
		{`1`, "payload: must be an object, not a number", yes},
		{`true`, "payload: must be an object, not a boolean", yes},
		{`{}`, "body: is required, or messages, prompt or input of a bare request", yes},
		{`{"custom_id":"x"}`, "body: is required, or messages, prompt or input of a bare request", yes},
		{`{"messages":null}`, "messages: is required by url /v1/chat/completions", yes},
		{`{"messages":[],"model":1}`, "model: must be a string, not a number", yes},
		{`{"messages":[],"stream":"yes"}`, "stream: must be a boolean, not a string", yes},
		{`{"messages":[],"model":1,"model":"x"}`, "model: must be a string, not a number", no},

		{`{"body":null}`, "body: is required", yes},
		{`{"body":"{}"}`, "body: must be an object, not a string", yes},
		{`{"body":[]}`, "body: must be an object, not an array", yes},
		{`{"body":{}}`, "body.messages: is required by url /v1/chat/completions", yes},
		{`{"body":{"messages":null}}`, "body.messages: is required by url /v1/chat/completions", yes},
		{`{"body":{"prompt":"x"}}`, "body.messages: is required by url /v1/chat/completions; with prompt it is /v1/completions", yes},
		{`{"body":{"messages":[]},"url":"/v1/completions"}`, "body.prompt: is required by url /v1/completions; with messages it is /v1/chat/completions", yes},
		{`{"body":{"prompt":""},"url":"/v1/embeddings"}`, "body.input: is required by url /v1/embeddings; with prompt it is /v1/completions", yes},
		{`{"body":{"messages":[],"model":{}}}`, "body.model: must be a string, not an object", yes},
		{`{"body":{"messages":[],"stream":1}}`, "body.stream: must be a boolean, not a number", yes},
		{envelope(`"body":` + chat), "body: is given twice", no},
		{envelope(`"route":"a","route":"a"`), "route: is given twice", no},
		{envelope(`"route":null,"\u0072oute":"a"`), "route: is given twice", no},

		{envelope(`"nope":1`), "nope: " + noField, yes},
		{envelope(`"nope":null`), "nope: " + noField, yes},
		{envelope(`"Route":"a"`), "Route: " + noField, yes},
		{envelope(`"messages":[]`), "messages: " + noField, yes},
		{envelope(`"id":"x"`), "id: belongs into a request to an endpoint; a job in a stream has it in its subject", yes},
		{envelope(`"queue":"x"`), "queue: belongs into a request to an endpoint; a job in a stream has it in its subject", yes},

		{envelope(`"custom_id":1`), "custom_id: must be a string, not a number", yes},
		{envelope(`"custom_id":"` + strings.Repeat("x", 513) + `"`), "custom_id: has 513 bytes; at most 512", yes},
		{envelope(`"custom_id":"` + strings.Repeat("é", 257) + `"`), "custom_id: has 514 bytes; at most 512", no},
		{envelope(`"method":"GET"`), "method: must be POST", yes},
		{envelope(`"method":"post"`), "method: must be POST", yes},
		{envelope(`"method":1`), "method: must be a string, not a number", yes},
		{envelope(`"url":"/v1/models"`), "url: must be /v1/chat/completions, /v1/completions, /v1/embeddings", yes},
		{envelope(`"url":""`), "url: must be /v1/chat/completions, /v1/completions, /v1/embeddings", yes},
		{envelope(`"url":[]`), "url: must be a string, not an array", yes},

		{envelope(`"route":""`), "route: an empty token; use A-Z a-z 0-9 _ -", yes},
		{envelope(`"route":"a.b"`), "route: '.' is not allowed; use A-Z a-z 0-9 _ -", yes},
		{envelope(`"route":"` + long + `"`), "route: a token of 65 bytes; at most 64", yes},
		{envelope(`"primary":true`), "primary: must be a string, not a boolean", yes},
		{envelope(`"primary":"a b"`), "primary: ' ' is not allowed; use A-Z a-z 0-9 _ -", yes},
		{envelope(`"chain":"a"`), "chain: must be an array, not a string", yes},
		{envelope(`"chain":[]`), "chain: is empty", yes},
		{envelope(`"chain":["a",""]`), "chain[1]: an empty token; use A-Z a-z 0-9 _ -", yes},
		{envelope(`"chain":["a",null]`), "chain[1]: must be a string, not null", yes},
		{envelope(`"chain":` + list(`"a"`, 101)), "chain: has more than 100 entries", yes},

		{envelope(`"timeout_ms":0`), "timeout_ms: must be between 1 and 604800000", yes},
		{envelope(`"timeout_ms":-1`), "timeout_ms: must be between 1 and 604800000", yes},
		{envelope(`"timeout_ms":604800001`), "timeout_ms: must be between 1 and 604800000", yes},
		{envelope(`"timeout_ms":1.5`), "timeout_ms: must be a whole number", yes},
		{envelope(`"timeout_ms":"60"`), "timeout_ms: must be a number, not a string", yes},
		{envelope(`"deadline":1764547200`), "deadline: must be a string, not a number", yes},
		{envelope(`"deadline":"tomorrow"`), badDeadline, yes},
		{envelope(`"deadline":"2026-12-01"`), badDeadline, yes},
		{envelope(`"deadline":"2026-12-01T00:00:00"`), badDeadline, yes},
		{envelope(`"deadline":"2026-13-01T00:00:00Z"`), badDeadline, yes},
		{envelope(`"deadline":"2026-12-01T0:00:00Z"`), badDeadline, yes},
		{envelope(`"deadline":"2026-12-01T00:00:00,5Z"`), badDeadline, yes},
		{envelope(`"deadline":"2026-12-01T00:00:00+24:00"`), badDeadline, yes},
		{envelope(`"deadline":"2026-12-01T00:00:00+01:60"`), badDeadline, yes},
		{envelope(`"deadline":""`), badDeadline, yes},
		{envelope(`"not_before":1764547200`), "not_before: must be a string, not a number", yes},
		{envelope(`"not_before":"tomorrow"`), "not_before: must be a time as in RFC 3339, such as 2026-12-01T00:00:00Z", yes},
		{envelope(`"deadline":"0001-01-01T00:00:00Z"`), "deadline: must be between the years 1970 and 9999", no},
		{envelope(`"deadline":"9999-12-31T23:59:59-01:00"`), "deadline: must be between the years 1970 and 9999", no},

		{envelope(`"reply_to":1`), "reply_to: must be a string, not a number", yes},
		{envelope(`"reply_to":""`), "reply_to: is empty", yes},
		{envelope(`"reply_to":"_INBOX.*"`), "reply_to: holds a wildcard where none is allowed", yes},
		{envelope(`"reply_to":"_INBOX.>"`), "reply_to: holds a wildcard where none is allowed", yes},
		{envelope(`"reply_to":"$JS.API.INFO"`), "reply_to: holds a $, which is for subjects of the NATS server", yes},
		{envelope(`"reply_to":"_INBOX..a"`), "reply_to: holds an empty token", yes},
		{envelope(`"reply_to":"_INBOX.a "`), "reply_to: holds a space or a control character", yes},
		{envelope(`"reply_to":"_INBOX.a\u0000"`), "reply_to: holds a space or a control character", yes},
		{envelope(`"reply_to":"_INBOX.` + strings.Repeat("a", 249) + `"`), "reply_to: has 256 bytes; at most 255", yes},
		{envelope(`"reply_to":"llm.jobs.q.x"`), "reply_to: lies in the subjects of this installation, llm.>", no},
		{envelope(`"reply_to":"orders.new"`), "reply_to: is not among the subjects that the workers may reply to", no},
		{envelope(`"events_to":"_INBOX"`), "events_to: is not among the subjects that the workers may reply to", no},
		{envelope(`"events_to":"_INBOX.a.>"`), "events_to: holds a wildcard where none is allowed", yes},

		{envelope(`"metadata":"x"`), "metadata: must be an object, not a string", yes},
		{envelope(`"metadata":[]`), "metadata: must be an object, not an array", yes},
		{envelope(`"metadata":{"x":"` + strings.Repeat("x", 16<<10) + `"}`), "metadata: has 16392 bytes; at most 16384", no},

		{envelope(`"policy":[]`), "policy: must be an object, not an array", yes},
		{policy(`"nope":1`), "policy.nope: " + noPolicyField, yes},
		{policy(`"jitter":true,"jitter":true`), "policy.jitter: is given twice", no},
		{policy(`"enabled":1`), "policy.enabled: must be a boolean, not a number", yes},
		{policy(`"jitter":"no"`), "policy.jitter: must be a boolean, not a string", yes},
		{policy(`"strategy":"best"`), "policy.strategy: must be sequential, priority, error_type, random, parallel, conditional", yes},
		{policy(`"max_attempts":0`), "policy.max_attempts: must be between 1 and 1000", yes},
		{policy(`"max_attempts":1001`), "policy.max_attempts: must be between 1 and 1000", yes},
		{policy(`"max_attempts":2.5`), "policy.max_attempts: must be a whole number", yes},
		{policy(`"base_delay_ms":-1`), "policy.base_delay_ms: must be between 0 and 86400000", yes},
		{policy(`"max_delay_ms":86400001`), "policy.max_delay_ms: must be between 0 and 86400000", yes},
		{policy(`"hedge_delay_ms":86400001`), "policy.hedge_delay_ms: must be between 0 and 86400000", yes},
		{policy(`"exponential_base":0.5`), "policy.exponential_base: must be between 1 and 100", yes},
		{policy(`"exponential_base":100.5`), "policy.exponential_base: must be between 1 and 100", yes},
		{policy(`"timeout_ms":0`), "policy.timeout_ms: must be between 1 and 604800000", yes},
		{policy(`"max_cost_usd":-0.01`), "policy.max_cost_usd: must be 0 or more", yes},
		{policy(`"max_cost_usd":1e400`), "policy.max_cost_usd: must be 0 or more", no},
		{policy(`"on_limit":"skip"`), "policy.on_limit: must be wait, fallback", yes},
		{policy(`"on_limit":""`), "policy.on_limit: must be wait, fallback", yes},
		{policy(`"on_limit":"Wait"`), "policy.on_limit: must be wait, fallback", yes},
		{policy(`"on_limit":true`), "policy.on_limit: must be a string, not a boolean", yes},
		{policy(`"on_status_codes":429`), "policy.on_status_codes: must be an array, not a number", yes},
		{policy(`"on_status_codes":[99]`), "policy.on_status_codes[0]: must be between 100 and 599", yes},
		{policy(`"on_status_codes":[429,600]`), "policy.on_status_codes[1]: must be between 100 and 599", yes},
		{policy(`"on_status_codes":["429"]`), "policy.on_status_codes[0]: must be a number, not a string", yes},
		{policy(`"on_status_codes":` + list(`429`, 501)), "policy.on_status_codes: has more than 500 entries", yes},
		{policy(`"on_errors":["timeout",""]`), "policy.on_errors[1]: is empty", yes},
		{policy(`"on_errors":["` + long + `"]`), "policy.on_errors[0]: has 65 bytes; at most 64", yes},
		{policy(`"on_errors":` + list(`"x"`, 101)), "policy.on_errors: has more than 100 entries", yes},
		{policy(`"error_mappings":{"timeout":"a"}`), "policy.error_mappings.timeout: must be an array, not a string", yes},
		{policy(`"error_mappings":{"timeout":["a","b c"]}`), "policy.error_mappings.timeout[1]: ' ' is not allowed; use A-Z a-z 0-9 _ -", yes},
		{policy(`"error_mappings":{"":[]}`), `policy.error_mappings."": has a name of 0 bytes; 1 to 64`, yes},
		{policy(`"error_mappings":{"a":[],"a":[]}`), "policy.error_mappings.a: is given twice", no},
		{policy(`"conditions":"on_timeout"`), "policy.conditions: must be an array, not a string", yes},
		{policy(`"conditions":[" "]`), "policy.conditions[0]: is empty", yes},
		{policy(`"conditions":["` + strings.Repeat("x", 1025) + `"]`), "policy.conditions[0]: has 1025 bytes; at most 1024", yes},
		{policy(`"conditions":` + list(`"x"`, 33)), "policy.conditions: has more than 32 entries", yes},
		{policy(`"weights":[1]`), "policy.weights: must be an object, not an array", yes},
		{policy(`"weights":{"a":-1}`), "policy.weights.a: must be between 0 and 1000000000", yes},
		{policy(`"weights":{"a":1e10}`), "policy.weights.a: must be between 0 and 1000000000", yes},
		{policy(`"weights":{"a.b":1}`), "policy.weights.a.b: '.' is not allowed; use A-Z a-z 0-9 _ -", yes},
		{policy(`"weights":{"a":null}`), "policy.weights.a: must be a number, not null", yes},
	}
}

func TestDecodeNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	d, compiled := decoder(t), schema(t, "job")
	for _, tt := range invalidJobs() {
		name := tt.payload[:min(len(tt.payload), 100)]
		j, err := d.Decode("q", "id", []byte(tt.payload), nil)
		require.Nil(t, j, name)
		requireFieldError(t, err, tt.want)
		if tt.bySchema {
			require.Error(t, compiled.Validate(instance(t, tt.payload)), "the schema accepts %s", name)
		} else {
			require.NoError(t, compiled.Validate(instance(t, tt.payload)), "the schema refuses %s, which the table says it cannot", name)
		}
	}
}
