package condition_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback/condition"
	"understudy/internal/job"
)

// slow is how long a text may take before the fuzzer reports it. It is no pass
// condition of the seeds, which take microseconds.
const slow = 5 * time.Second

func expressions() []string {
	return []string{
		"on_timeout", "", `error.class == "timeout"`, `error.klass == 1`, `error.message matches "(a|b)*x{100}"`, `1 < (1 < 2 < 3) < 4`,
		`job.metadata.a.b[0] == nil and not job.metadata.c`, `lower(job.metadata.tenant) in ["acme"]`, `int(job.metadata.n) ** 9999 > 1`,
		`[job.metadata, job.metadata] == [[job.metadata], 1]`, `job.metadata[job.metadata] == job.metadata`, `error.status in 1..999999999`,
		`let x = error.message; x + x == x`, `all(job.metadata.l, {# == 1})`, `error.code ?? job.metadata?.x ?? "y" == nil`, `(true ?: false)`,
		`-job.metadata.n % 2 == job.attempt % job.metadata.n`, `b"x" == nil`, "`raw` == '\\u00e9'", `error.message | lower() contains "x"`,
		`not not not true`, `{"a": [1, {"b": 2}]} == nil`, `job.attempt ? 1 : 2`, `error.message[0:3] == "abc"`, `$env["error"] == nil`,
	}
}

func FuzzCompile(f *testing.F) {
	for _, text := range expressions() {
		f.Add(text)
	}
	hostile := condition.Env{
		Error: condition.Failure{Class: backend.Timeout, Message: strings.Repeat("aé", 4096), Code: "7"},
		Job: condition.Job{Attempt: 2, Metadata: json.RawMessage(`{"a":{"b":[1,2.5,"x",null,true]},"l":[` + strings.Repeat("[],", 9999) + `1],"n":7,"x":"` +
			strings.Repeat("a", 9999) + `","tenant":"acme"}`)},
	}
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		c, err := condition.Compile(text)
		if err != nil {
			mistake, ok := errors.AsType[*condition.SyntaxError](err)
			require.True(t, ok)
			require.NotEmpty(t, mistake.Message)
			checkExcerpt(t, mistake.Error())
			return
		}
		require.LessOrEqual(t, len(c.String()), job.MaxCondition)
		for _, env := range []condition.Env{{}, example(), hostile} {
			holds, err := c.Holds(env)
			if err != nil {
				require.False(t, holds)
				checkExcerpt(t, err.Error())
			}
			again, err2 := c.Holds(env)
			require.Equal(t, holds, again)
			require.Equal(t, err, err2)
		}
		if took := time.Since(start); took > slow {
			t.Errorf("%q took %v", text, took)
		}
	})
}

// checkExcerpt checks that a message is short, printable and ends with a caret
// line that is no longer than the line above it, except by the caret.
func checkExcerpt(t *testing.T, message string) {
	t.Helper()
	require.True(t, utf8.ValidString(message))
	lines := strings.Split(message, "\n")
	if len(lines) == 1 {
		require.Equal(t, "the condition is empty", message)
		return
	}
	require.Len(t, lines, 3, "%q", message)
	require.Equal(t, "^", strings.TrimLeft(lines[2], " ."))
	require.LessOrEqual(t, len([]rune(lines[2])), len([]rune(lines[1]))+1)
	require.LessOrEqual(t, len([]rune(lines[1])), 104)
}

func FuzzHolds(f *testing.F) {
	f.Add("overloaded", []byte(`{"tenant":"acme","a":{"b":[1]},"n":1}`))
	f.Add("\xff\xfe", []byte(`[1e999,-1e999,123456789012345678901234567890]`))
	f.Add(strings.Repeat("é", 3000), []byte(`"x"`))
	f.Add("", []byte(`{"a":{"b":{"0":null}},"c":0,"n":0,"l":{"x":1},"tenant":7}`))
	var compiled []*condition.Condition
	for _, text := range append(expressions(),
		`job.metadata.n < 3 or job.metadata.tenant > "a"`, `job.metadata.a + job.metadata.n == 2`, `job.metadata / 2 == 1`, `job.metadata ** job.metadata > 0`,
		`"x" in job.metadata.l`, `job.metadata.n in job.metadata.l`, `job.metadata`, `len(job.metadata) > 1`, `string(job.metadata.n) == "1"`,
		`int(job.metadata.n) % int(job.metadata.c) == 0`, `-job.metadata.n < 0`, `job.metadata.tenant contains error.message`,
		`error.message matches "^(.|\\s)*(a|b)+$"`, `job.metadata.a == job.metadata.l`, `job.metadata[0] >= job.metadata[1]`,
	) {
		if c, err := condition.Compile(text); err == nil {
			compiled = append(compiled, c)
		}
	}
	f.Fuzz(func(t *testing.T, message string, metadata []byte) {
		env := condition.Env{Error: condition.Failure{Message: message}, Job: condition.Job{Metadata: metadata, Attempt: 1}}
		for _, c := range compiled {
			holds, err := c.Holds(env)
			if err != nil {
				require.False(t, holds)
				failed, ok := errors.AsType[*condition.EvalError](err)
				require.True(t, ok)
				require.Equal(t, c.String(), failed.Text)
				checkExcerpt(t, err.Error())
			}
		}
	})
}
