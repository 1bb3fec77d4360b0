package condition_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback/condition"
)

// example is a failure of a job with metadata.
func example() condition.Env {
	return condition.Env{
		Error: condition.Failure{
			Class: backend.RateLimit, Status: 429, Code: "1302", Type: "rate_limit_error",
			Message: "The engine is Overloaded", Backend: "vllm",
		},
		Job: condition.Job{
			Queue: "default", Route: "simple_qa", Attempt: 2,
			Metadata: json.RawMessage(`{"tenant":"acme","tier":3,"ratio":0.5,"vip":true,"none":null,"big":9007199254740993,
				"tags":["a","b",7],"owner":{"name":"Ann"}," odd":1}`),
		},
	}
}

func TestTheNamedConditionsHoldForTheirClasses(t *testing.T) {
	t.Parallel()
	any, retryable := "on_any_error", "on_retryable_error"
	want := map[backend.Class][]string{
		"timeout":         {"on_timeout", any, retryable},
		"connection":      {"on_service_unavailable", any, retryable},
		"server_error":    {"on_service_unavailable", any, retryable},
		"overloaded":      {"on_service_unavailable", any, retryable},
		"rate_limit":      {"on_rate_limit", any, retryable},
		"quota":           {any},
		"auth":            {"on_authentication_error", any},
		"permission":      {"on_authentication_error", any},
		"context_length":  {"on_token_limit", any},
		"too_large":       {"on_token_limit", any},
		"unsupported":     {"on_invalid_request", any},
		"bad_response":    {any, retryable},
		"truncated":       {any, retryable},
		"empty_output":    {any, retryable},
		"model_not_found": {"on_model_not_found", any},
		"invalid_request": {"on_invalid_request", any},
		"content_filter":  {"on_content_filter", any},
		"cancelled":       {any},
		"expired":         {any},
		"invalid_job":     {any},
		"poison":          {any},
		"circuit_open":    {any},
	}
	require.Len(t, condition.Names(), 10)
	require.Len(t, backend.Classes(), len(want))
	for _, class := range backend.Classes() {
		var held []string
		for _, name := range condition.Names() {
			c, err := condition.Compile(" " + name + "\n")
			require.NoError(t, err)
			require.Equal(t, name, c.String())
			holds, err := c.Holds(condition.Env{Error: condition.Failure{Class: class}})
			require.NoError(t, err)
			if holds {
				held = append(held, name)
			}
		}
		require.ElementsMatch(t, want[class], held, class)
	}
}

func TestAnExpressionHoldsOrNot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		// every field
		`error.class == "rate_limit"`: true, `error.class != "rate_limit"`: false, `"timeout" == error.class`: false,
		`error.class in ["timeout", "rate_limit"]`: true, `error.class not in ["timeout"]`: true,
		`error.status == 429`: true, `error.status in [500, 503]`: false, `error.status >= 400 and error.status < 500`: true,
		`error.code == "1302"`: true, `int(error.code) > 1300`: true, `error.type endsWith "_error"`: true, `error.backend == "vllm"`: true,
		`error["class"] == "rate_limit"`: true, `error?.class == "rate_limit"`: true,
		`job.queue == "default"`: true, `job.route startsWith "simple"`: true, `job.attempt < 3`: true, `job.attempt - 1 == 1`: true,
		// texts
		`error.message contains "overloaded"`: false, `lower(error.message) contains "overloaded"`: true,
		`error.message matches "(?i)OVER\\w+$"`: true, `upper(trim(" a ")) == "A"`: true, `len(error.code) == 4`: true,
		`error.message contains "overloaded" and job.metadata.tenant == "acme" and job.attempt < 3`: false,
		`error.message | lower() contains "overloaded"`:                                             true, `string(error.status) == "429"`: true,
		`error.message < "U"`: true,
		// metadata
		`job.metadata.tenant == "acme"`: true, `job.metadata["tenant"] == "acme"`: true, `job.metadata[" odd"] == 1`: true,
		`job.metadata.tier == 3`: true, `job.metadata.tier >= 3.0`: true, `job.metadata.ratio * 2 == 1`: true, `-job.metadata.tier < -2`: true,
		`job.metadata.tier + job.attempt == 5`: true, `job.metadata.tier % 2 == 1`: true, `2 ** job.metadata.tier == 8`: true,
		`job.metadata.tier / 2 == 1.5`: true, `job.metadata.tier - 1 <= 2`: true, `job.metadata.tier ^ 2 > 8`: true,
		`job.metadata.big == 9007199254740993`: true, `job.metadata.big == 9007199254740992`: false,
		`job.metadata.vip`: true, `not job.metadata.vip`: false, `job.metadata.vip and true`: true, `job.metadata.vip ? false : true`: false,
		`"b" in job.metadata.tags`: true, `7 in job.metadata.tags`: true, `"c" in job.metadata.tags`: false, `"name" in job.metadata.owner`: true,
		`job.metadata.owner.name == "Ann"`: true, `job.metadata?.owner?.name == "Ann"`: true, `job.metadata.tags[0] == "a"`: true,
		`job.metadata.tags[-1] == 7`: true, `len(job.metadata.tags) == 3`: true, `len(job.metadata.owner) == 1`: true,
		`lower(job.metadata.owner.name) == "ann"`: true, `int(job.metadata.ratio) == 0`: true, `string(job.metadata.vip) == "true"`: true,
		`string(job.metadata.tier) == "3"`: true, `string(job.metadata.ratio) == "0.5"`: true, `job.metadata.tier in [1, 3]`: true,
		`job.metadata.tenant > "abc"`: true, `job.metadata.tenant matches "^ac"`: true, `trim(job.metadata.tenant) == "acme"`: true,
		`job.metadata.owner == job.metadata.owner`: true, `upper(job.metadata.tenant) == "ACME"`: true, `int(job.metadata.tier) == 3`: true,
		// what is not there
		`job.metadata.none == nil`: true, `job.metadata.gone == nil`: true, `job.metadata.gone == "x"`: false, `job.metadata.gone != "x"`: true,
		`job.metadata.gone.deeper[3].still == "x"`: false, `job.metadata.gone < 3`: false, `not (job.metadata.gone < 3)`: true,
		`job.metadata.gone >= job.metadata.none`: false, `job.metadata.gone + 1 > 0`: false, `-job.metadata.gone == nil`: true,
		`job.metadata.gone contains "x"`: false, `job.metadata.gone matches "x"`: false, `"x" startsWith job.metadata.gone`: false,
		`job.metadata.gone`: false, `not job.metadata.gone`: true, `job.metadata.gone or true`: true, `"x" in job.metadata.gone`: false,
		`job.metadata.gone in [1]`: false, `job.metadata.gone in job.metadata.tags`: false, `job.metadata.gone in job.metadata.owner`: false,
		`lower(job.metadata.gone) == nil`: true, `int(job.metadata.gone) < 3`: false, `len(job.metadata.gone) == nil`: true,
		`(job.metadata.gone ?? "acme") == "acme"`: true, `job.metadata.tags[9] == nil`: true, `job.metadata.tags[job.metadata.gone] == nil`: true,
		`job.metadata[job.metadata.gone] == nil`: true, `7 in job.metadata.owner`: false,
	} {
		c, err := condition.Compile(text)
		require.NoError(t, err, text)
		got, err := c.Holds(example())
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestAnExpressionThatDoesNotFitTheMetadataDoesNotHold(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`job.metadata.tenant < 3`: `
< cannot be applied to a text and a number
  job.metadata.tenant < 3
  ....................^`,
		`job.metadata.tenant + "x" == ""`: `
+ cannot be applied to a text and a text
  job.metadata.tenant + "x" == ""
  ....................^`,
		`error.status > 0 and job.metadata.tenant`: `
true or false is needed here, not a text
  error.status > 0 and job.metadata.tenant
  ..................................^`,
		`job.metadata.tier.x == 1`: `
a number has no fields
  job.metadata.tier.x == 1
  ..................^`,
		`job.metadata.owner[1] == 1`: `
a field of an object is named by a text, not by a number
  job.metadata.owner[1] == 1
  ..................^`,
		`job.metadata.tags.x == 1`: `
an element of a list is numbered, not named by a text
  job.metadata.tags.x == 1
  ..................^`,
		`lower(job.metadata.tier) == ""`: `
lower takes a text, not a number
  lower(job.metadata.tier) == ""
  ^`,
		`int(job.metadata.tenant) == 1`: `
int takes a text of digits
  int(job.metadata.tenant) == 1
  ^`,
		`int(job.metadata.vip) == 1`: `
int takes a number or a text, not true or false
  int(job.metadata.vip) == 1
  ^`,
		`string(job.metadata.tags) == ""`: `
string takes a text, a number, true or false, not a list
  string(job.metadata.tags) == ""
  ^`,
		`len(job.metadata.tier) == 1`: `
len takes a text, a list or an object, not a number
  len(job.metadata.tier) == 1
  ^`,
		`1 in job.metadata.tier`: `
in takes a list or an object, not a number
  1 in job.metadata.tier
  ..^`,
		`job.metadata.tier % 0 == 1`: `
% takes two whole numbers, the second one not 0
  job.metadata.tier % 0 == 1
  ..................^`,
		`-job.metadata.owner == 1`: `
- takes a number, not an object
  -job.metadata.owner == 1
  ^`,
		`job.metadata.tier contains "x"`: `
the kinds of values do not fit
  job.metadata.tier contains "x"
  ..................^`,
		`job.attempt % (job.attempt - 2) == 0`: `
the kinds of values do not fit
  job.attempt % (job.attempt - 2) == 0
  ............^`,
	} {
		c, err := condition.Compile(text)
		require.NoError(t, err, text)
		holds, err := c.Holds(example())
		require.False(t, holds, text)
		var failed *condition.EvalError
		require.ErrorAs(t, err, &failed, text)
		require.Equal(t, want[1:], failed.Error())
	}
}

func TestMetadataThatIsAbsentBrokenOrTooLongIsNil(t *testing.T) {
	t.Parallel()
	c, err := condition.Compile(`job.metadata == nil and job.metadata.tenant == nil`)
	require.NoError(t, err)
	long := func(size int) json.RawMessage {
		const frame = `{"tenant":""}`
		return json.RawMessage(strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1))
	}
	for name, row := range map[string]struct {
		metadata json.RawMessage
		want     bool
	}{
		"nil": {nil, true}, "empty": {json.RawMessage{}, true}, "null": {json.RawMessage("null"), true},
		"broken": {json.RawMessage(`{"tenant"`), true}, "a text": {json.RawMessage(`{"tenant":"x"}`), false},
		"64 KiB": {long(64 << 10), false}, "a byte more": {long(64<<10 + 1), true},
	} {
		env := example()
		env.Job.Metadata = row.metadata
		holds, err := c.Holds(env)
		require.NoError(t, err, name)
		require.Equal(t, row.want, holds, name)
	}
}

func TestOnlyTheFirst4KiBOfATextCount(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 4095) + "é"
	metadata, err := json.Marshal(map[string]any{"list": []string{text}})
	require.NoError(t, err)
	env := condition.Env{Error: condition.Failure{Message: text, Code: text, Type: text}, Job: condition.Job{Metadata: metadata}}
	for _, field := range []string{"error.message", "error.code", "error.type", "job.metadata.list[0]"} {
		c, err := condition.Compile(fmt.Sprintf(`len(%s) == 4095 and not (%s contains "é")`, field, field))
		require.NoError(t, err)
		holds, err := c.Holds(env)
		require.NoError(t, err)
		require.True(t, holds, field)
	}
}

func TestAConditionMayBeUsedAtTheSameTime(t *testing.T) {
	t.Parallel()
	c, err := condition.Compile(`job.metadata.n == job.attempt and error.message matches "^m[0-9]+$" and lower(job.metadata.s) == "s"`)
	require.NoError(t, err)
	wrong := make([]bool, 8)
	var all sync.WaitGroup
	for i := range wrong {
		all.Go(func() {
			for n := range 200 {
				env := condition.Env{
					Error: condition.Failure{Message: fmt.Sprint("m", n)},
					Job:   condition.Job{Attempt: n, Metadata: json.RawMessage(fmt.Sprintf(`{"n":%d,"s":"S"}`, n+n%2))},
				}
				holds, err := c.Holds(env)
				wrong[i] = wrong[i] || err != nil || holds != (n%2 == 0)
			}
		})
	}
	all.Wait()
	require.False(t, slices.Contains(wrong, true))
}

func BenchmarkHolds(b *testing.B) {
	for name, text := range map[string]string{
		"named":    "on_retryable_error",
		"failure":  `error.message contains "overloaded" and error.status in [429, 503] and job.attempt < 3`,
		"metadata": `error.status == 429 and job.metadata.tenant == "acme" and job.metadata.tier < 5`,
	} {
		c, err := condition.Compile(text)
		require.NoError(b, err)
		env := example()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Holds(env)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = condition.Compile(`error.message contains "overloaded" and job.metadata.tenant == "acme" and job.attempt < 3`)
	}
}
