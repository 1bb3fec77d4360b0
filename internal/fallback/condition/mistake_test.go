package condition_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/fallback/condition"
)

func TestAMistakeIsShownWhereItIs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:      "the condition is empty",
		" \t\n": "the condition is empty",
		`on_timeouts`: `unknown name on_timeouts; did you mean on_timeout?
  on_timeouts
  ^`,
		`On_Rate_Limit`: `unknown name On_Rate_Limit; did you mean on_rate_limit?
  On_Rate_Limit
  ^`,
		`something`: `unknown name something; there are error, job
  something
  ^`,
		`on_timeout and job.attempt < 2`: `on_timeout stands alone; in an expression, use error.class
  on_timeout and job.attempt < 2
  ^`,
		`error.klass == "timeout"`: `unknown field klass of error; did you mean class?
  error.klass == "timeout"
  ......^`,
		`job.tenant == "acme"`: `unknown field tenant of job; there are queue, route, metadata, attempt
  job.tenant == "acme"
  ....^`,
		`error["klass"] == "timeout"`: `unknown field klass of error; did you mean class?
  error["klass"] == "timeout"
  ......^`,
		`error[job.queue] == ""`: `the fields of error are class, status, code, type, message, backend
  error[job.queue] == ""
  ..........^`,
		`error == nil`: `error is no value by itself; it has the fields class, status, code, type, message, backend
  error == nil
  ^`,
		`$env == nil`: `unknown name $env; there are error, job
  $env == nil
  ^`,
		`error.class == "timeuot"`: `unknown class "timeuot"; did you mean timeout?
  error.class == "timeuot"
  ...............^`,
		`"RateLimitError" != error.class`: `unknown class "RateLimitError"; did you mean rate_limit?
  "RateLimitError" != error.class
  ^`,
		`error.class in ["timeout", "auht"]`: `unknown class "auht"; did you mean auth?
  error.class in ["timeout", "auht"]
  ...........................^`,
		`error.class == "timeout`: `the quoted text does not end
  error.class == "timeout
  .......................^`,
		`error.status = 429`: `a condition assigns nothing; to compare, use ==
  error.status = 429
  .............^`,
		`error.status == "429"`: `== cannot be applied to a number and a text
  error.status == "429"
  .............^`,
		`not error.status`: `not cannot be applied to a number
  not error.status
  ^`,
		`error.message`: `the expression is a text, but must be true or false
  error.message
  ^`,
		`error.message + "x" == "y"`: `+ adds numbers, not texts
  error.message + "x" == "y"
  ..............^`,
		`error.message.size > 3`: `a text has no field size
  error.message.size > 3
  ..............^`,
		`error.status ? true : false`: `true or false is needed here, not a number
  error.status ? true : false
  ......^`,
		`job.attempt < 3 and`: `the expression ends too early
  job.attempt < 3 and
  ..................^`,
		`job.attempt << 3`: `did not expect "<"
  job.attempt << 3
  .............^`,
		`(job.attempt < 3))`: `did not expect ")"
  (job.attempt < 3))
  .................^`,
		`1 < job.attempt < 3`: `comparisons cannot be chained; join them with and
  1 < job.attempt < 3
  ........^`,
		`error.status ?: true`: `a condition has no operator ?:
  error.status ?: true
  ...................^`,
		`error.status in 400..499`: `a condition has no operator ..
  error.status in 400..499
  ...................^`,
		`all(job.metadata.tags, # == "x")`: `unknown function all; there are int, len, lower, string, trim, upper
  all(job.metadata.tags, # == "x")
  ^`,
		`uper(error.message) == "X"`: `unknown function uper; did you mean upper?
  uper(error.message) == "X"
  ^`,
		`trim(error.message, "x") == ""`: `trim takes one value
  trim(error.message, "x") == ""
  ^`,
		`lower(error.status) == ""`: `lower takes a text, not a number
  lower(error.status) == ""
  ............^`,
		`error.message.upper() == ""`: `a field cannot be called
  error.message.upper() == ""
  ..............^`,
		`error.message matches "("`: `the pattern is not right: missing closing )
  error.message matches "("
  ......................^`,
		`error.message matches error.code`: `a pattern must be written out in quotes
  error.message matches error.code
  ............................^`,
		`error.code matches "x{250}" or error.code matches "x{250}"`: `the patterns are too long: 504 steps with their repetitions; at most 500
  error.code matches "x{250}" or error.code matches "x{250}"
  ..................................................^`,
		`let x = 1; x == 1`: `a condition has no variables
  let x = 1; x == 1
  ....^`,
		`true; true`: `a condition is one expression, without ;
  true; true
  ^`,
		`error.code[1:2] == "3"`: `a condition takes no slices
  error.code[1:2] == "3"
  ..........^`,
		`{"a": 1} == nil`: `a condition cannot hold this
  {"a": 1} == nil
  ^`,
		`99999999999999999999 > 1`: `the number is too big
  99999999999999999999 > 1
  .....................^`,
		"job.attempt < 3\n\tand error.klass == 1": `unknown field klass of error; did you mean class?
   and error.klass == 1
  ...........^`,
		"\x1b == 'é'": `unrecognized character: U+001B
  ? == 'é'
  ^`,
		"'é' == \"\xff\"": `the condition is not valid UTF-8
  'é' == "?"
  ........^`,
		strings.Repeat("true and ", 20) + "error.klass" + strings.Repeat(" and true", 20): `unknown field klass of error; did you mean class?
  …true and true and true and true and true and true and error.klass and true and true and true and tru…
  .............................................................^`,
		strings.Repeat("1", 1025): `the condition has 1025 bytes; at most 1024
  …111111111111111111111111111111111111111111111111111111111111` + `1
  .............................................................^`,
		"1" + strings.Repeat("+1", 100) + " > 0": `the expression has more than 200 parts
  …1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1 > 0
  .............................................................^`,
	} {
		c, err := condition.Compile(text)
		require.Nil(t, c, text)
		var mistake *condition.SyntaxError
		require.ErrorAs(t, err, &mistake, text)
		require.Equal(t, want, mistake.Error(), "%q", text)
	}
}

func TestWhatAnExpressionMayBeMadeOf(t *testing.T) {
	t.Parallel()
	// Nested chains would be checked in exponential time; they end at the first.
	nested := strings.Repeat("1 < (", 50) + "1" + strings.Repeat(") < 1", 50)
	_, err := condition.Compile(nested)
	require.ErrorContains(t, err, "the expression has more than 200 parts")
	nested = strings.Repeat("1 < (", 30) + "1" + strings.Repeat(") < 1", 30)
	_, err = condition.Compile(nested)
	require.ErrorContains(t, err, "comparisons cannot be chained")

	_, err = condition.Compile(strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500))
	require.NoError(t, err)
	c, err := condition.Compile("job.attempt > 0" + strings.Repeat(" and true", 90))
	require.NoError(t, err)
	holds, err := c.Holds(condition.Env{Job: condition.Job{Attempt: 1}})
	require.NoError(t, err)
	require.True(t, holds)
}
