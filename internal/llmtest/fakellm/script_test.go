package main

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

// clock is a time the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func parse(t *testing.T, text string) script {
	t.Helper()
	s, err := parseScript([]byte(text))
	require.NoError(t, err)
	return s
}

func TestWindowsFollowEachOtherFromTheFirstCall(t *testing.T) {
	t.Parallel()
	s := parse(t, `{"a":[
		{"for":"4s","hang":true},
		{"for":2,"status":500},
		{"from":"10s","for":"1s","status":503},
		{"from":"20s","status":404}],
		"b":[{"for":"1s","status":429}]}`)
	c := &clock{at: time.Unix(1000, 0)}
	p := newPlayer(1, c.now)
	a, b := p.script(s["a"]), p.script(s["b"])
	begun := c.at
	for _, tc := range []struct {
		at     time.Duration
		fault  llmtest.Fault
		status int
	}{
		{0, llmtest.Hang, 0},
		{4*time.Second - 1, llmtest.Hang, 0},
		{4 * time.Second, "", 500},
		{6*time.Second - 1, "", 500},
		{6 * time.Second, "", 0},
		{10 * time.Second, "", 503},
		{11 * time.Second, "", 0},
		{20 * time.Second, "", 404},
		{time.Hour, "", 404},
	} {
		c.at = begun.Add(tc.at)
		got := a(llmtest.Call{})
		require.Equal(t, tc.fault, got.Fault, tc.at)
		require.Equal(t, tc.status, got.Status, tc.at)
	}
	require.Equal(t, 0, b(llmtest.Call{}).Status, "the time is everybody's")
}

func TestRulesCanBeForAModelOrForSomeCalls(t *testing.T) {
	t.Parallel()
	s := parse(t, `{"a":[{"model":"x","calls":2,"status":500},{"model":"x","text":"fine"},{"text":"other"}]}`)
	play := newPlayer(1, time.Now).script(s["a"])
	x := llmtest.Call{Model: "x"}
	require.Equal(t, "other", play(llmtest.Call{Model: "y"}).Text)
	require.Equal(t, 500, play(x).Status)
	require.Equal(t, 500, play(x).Status)
	require.Equal(t, "fine", play(x).Text)
}

func TestDiceFallTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	const text = `{"a":[{"p":0,"status":500},{"p":0.2,"status":429},{"delay":"1s","delay_jitter":"1s"}]}`
	throw := func(seed uint64) (limited int, delays []time.Duration) {
		play := newPlayer(seed, time.Now).script(parse(t, text)["a"])
		for range 1000 {
			r := play(llmtest.Call{})
			require.NotEqual(t, 500, r.Status)
			if r.Status == 429 {
				limited++
				continue
			}
			require.GreaterOrEqual(t, r.Delay, time.Second)
			require.Less(t, r.Delay, 2*time.Second)
			delays = append(delays, r.Delay)
		}
		return limited, delays
	}
	n, delays := throw(1)
	require.InDelta(t, 200, n, 50)
	again, same := throw(1)
	require.Equal(t, n, again)
	require.Equal(t, delays, same)
	_, others := throw(2)
	require.NotEqual(t, delays, others)
}

func TestARuleBecomesItsReply(t *testing.T) {
	t.Parallel()
	vector, err := llmtest.FindVector("openrouter-429-retry-after")
	require.NoError(t, err)
	delayed := vector.Reply()
	delayed.Delay = 50 * time.Millisecond
	for text, want := range map[string]llmtest.Reply{
		`{}`: {},
		`{"status":503,"header":{"X-A":"b"},"retry_after":"2","text":"t","code":"c","type":"y","size":9,"body_delay":"3ms"}`: {
			Status: 503, Header: map[string]string{"X-A": "b"}, RetryAfter: "2", Text: "t", Code: "c", Type: "y", Size: 9, BodyDelay: 3 * time.Millisecond,
		},
		`{"retry_after_date":"5s","finish":"length","body":""}`: {RetryAfterDate: 5 * time.Second, Finish: "length", Body: []byte{}},
		`{"fault":"reset"}`: {Fault: llmtest.Reset},
		`{"vector":"openrouter-429-retry-after","delay":0.05}`:                                      delayed,
		`{"stream":{"first_delay":"1s","token_delay":"2s","comments":3,"after":4,"end":"no_done"}}`: llmtest.Streamed(llmtest.Stream{FirstDelay: time.Second, TokenDelay: 2 * time.Second, Comments: 3, After: 4, End: llmtest.EndNoDone}),
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			play := newPlayer(1, time.Now).script(parse(t, `{"a":[`+text+`]}`)["a"])
			require.Equal(t, want, play(llmtest.Call{}))
		})
	}
	require.Empty(t, parse(t, `null`))
}

func TestAWrongScriptNamesTheRuleAndTheReason(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                    "EOF",
		`{} {}`:                               "after the script",
		`{"a":[{"pp":1}]}`:                    `unknown field "pp"`,
		`{"a":[{"for":"soon"}]}`:              "soon",
		`{"a":[{"for":[]}]}`:                  "cannot unmarshal",
		`{"a":[{"for":-1}]}`:                  "negative",
		`{"a":[{},{"p":-0.1}]}`:               "a, rule 2: p must be",
		`{"a":[{"status":100}]}`:              "status must be",
		`{"a":[{"calls":-1}]}`:                "below 0",
		`{"a":[{"size":2000000000}]}`:         "size above",
		`{"a":[{"fault":"boom"}]}`:            `unknown fault "boom"`,
		`{"a":[{"stream":{"end":"x"}}]}`:      `unknown stream end "x"`,
		`{"a":[{"vector":"x"}]}`:              `"x"`,
		`{"a":[null]}`:                        "rule 1: is null",
		`{"a":[{"p":2}],"b":[{"status":99}]}`: "b, rule 1: status",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := parseScript([]byte(text))
			require.ErrorContains(t, err, want)
		})
	}
}

func TestTheDemoOfTheRepositoryIsAScript(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../../deploy/demo.json")
	require.NoError(t, err)
	s, err := parseScript(raw)
	require.NoError(t, err)
	require.Equal(t, []string{"openrouter", "vllm"}, slices.Sorted(maps.Keys(s)))
}
