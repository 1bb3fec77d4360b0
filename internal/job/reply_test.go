package job_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

func TestReplyRuleAllowsWhatItsPatternsMatch(t *testing.T) {
	t.Parallel()
	for patterns, subjects := range map[string]struct{ allowed, refused []string }{
		job.DefaultReplyAllow: {
			allowed: []string{"_INBOX.a", "_INBOX.a.b.c", "_R_.x"},
			refused: []string{"", "_INBOX", "_INBOX.", "_INBOXX.a", "x._INBOX.a", "orders", "_R_", "_inbox.a"},
		},
		"orders.*.done , x": {
			allowed: []string{"orders.1.done", "x"},
			refused: []string{"orders.done", "orders.1.2.done", "orders..done", "orders.1.done.x", "orders.1", "x.y", ""},
		},
		"*":  {allowed: []string{"a"}, refused: []string{"", "a.b"}},
		">":  {allowed: []string{"a", "a.b"}, refused: []string{""}},
		"":   {refused: []string{"", "a", "_INBOX.a"}},
		"  ": {refused: []string{"", "a"}},
	} {
		rule, err := job.ParseReplyRule(patterns)
		require.NoError(t, err)
		for _, s := range subjects.allowed {
			require.True(t, rule.Allows(s), "%q must allow %q", patterns, s)
		}
		for _, s := range subjects.refused {
			require.False(t, rule.Allows(s), "%q must refuse %q", patterns, s)
		}
	}
	require.False(t, job.ReplyRule{}.Allows("_INBOX.a"), "the zero value allows nothing")
}

func TestParseReplyRuleNamesThePatternThatIsWrong(t *testing.T) {
	t.Parallel()
	for patterns, want := range map[string]string{
		"_INBOX.>,":              `subject pattern "" is empty`,
		",":                      `subject pattern "" is empty`,
		"a..b":                   `subject pattern "a..b" holds an empty token`,
		"a.":                     `subject pattern "a." holds an empty token`,
		"a.>.b":                  `subject pattern "a.>.b" holds a wildcard where none is allowed`,
		"a.b*":                   `subject pattern "a.b*" holds a wildcard where none is allowed`,
		"a.b>":                   `subject pattern "a.b>" holds a wildcard where none is allowed`,
		"a b":                    `subject pattern "a b" holds a space or a control character`,
		"a\x7f":                  `subject pattern "a\x7f" holds a space or a control character`,
		"x,$JS.>":                `subject pattern "$JS.>" holds a $, which is for subjects of the NATS server`,
		"a\xff":                  `subject pattern "a\xff" is not valid UTF-8`,
		strings.Repeat("x", 256): `subject pattern "` + strings.Repeat("x", 256) + `" has 256 bytes; at most 255`,
	} {
		_, err := job.ParseReplyRule(patterns)
		require.EqualError(t, err, want)
	}
}

func TestNoJobMaySendToOurOwnSubjectsWhateverTheRule(t *testing.T) {
	t.Parallel()
	rule, err := job.ParseReplyRule(">")
	require.NoError(t, err)
	own, err := job.NewSubjects("team-a")
	require.NoError(t, err)
	d := job.NewDecoder(own, rule)
	for subject, want := range map[string]string{
		"team-a":          "lies in the subjects of this installation, team-a.>",
		"team-a.jobs.q.x": "lies in the subjects of this installation, team-a.>",
		"team-a.complete": "lies in the subjects of this installation, team-a.>",
		"team-a2.jobs":    "",
		"llm.jobs.q.x":    "",
		"a.$b":            "holds a $, which is for subjects of the NATS server",
	} {
		for _, field := range []string{"reply_to", "events_to"} {
			j, err := d.Decode("q", "id", []byte(envelope(`"`+field+`":"`+subject+`"`)), nil)
			if want != "" {
				requireFieldError(t, err, field+": "+want)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, subject, j.ReplyTo+j.EventsTo)
		}
	}
}
