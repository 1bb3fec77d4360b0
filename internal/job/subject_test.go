package job_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

func TestSubjectsAndStreamsHaveTheirNames(t *testing.T) {
	t.Parallel()
	s, err := job.NewSubjects("team-a")
	require.NoError(t, err)
	for want, got := range map[string]string{
		"team-a":               s.Prefix(),
		"team-a.jobs.q.a.b":    s.Job("q", "a.b"),
		"team-a.results.q.a.b": s.Result("q", "a.b"),
		"team-a.done.q.a.b":    s.Done("q", "a.b"),
		"team-a.events.q.a.b":  s.Event("q", "a.b"),
		"team-a.dead.q.a.b":    s.Dead("q", "a.b"),
		"team-a.chunks.q.a.b":  s.Chunks("q", "a.b"),
		"team-a.breakers.vllm": s.Breaker("vllm"),
		"team-a.complete":      s.Endpoint("complete"),
		"team-a.results.>":     s.All("results"),
		"team-a.jobs.q.>":      s.Queue("q"),
		"TEAM-A_JOBS":          s.JobsStream(),
		"TEAM-A_RESULTS":       s.ResultsStream(),
		"TEAM-A_EVENTS":        s.EventsStream(),
		"TEAM-A_DEAD":          s.DeadStream(),
	} {
		require.Equal(t, want, got)
	}
	require.Equal(t, job.Receipt{
		ID: "a", Queue: "q", ResultSubject: "team-a.results.q.a", DoneSubject: "team-a.done.q.a", EventsSubject: "team-a.events.q.a",
	}, s.Receipt("q", "a"))
}

func TestNewSubjectsRefusesABadPrefix(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{
		"":                      `subject prefix "": an empty token; use A-Z a-z 0-9 _ -`,
		"a.b":                   `subject prefix "a.b": '.' is not allowed; use A-Z a-z 0-9 _ -`,
		"$JS":                   `subject prefix "$JS": '$' is not allowed; use A-Z a-z 0-9 _ -`,
		strings.Repeat("x", 65): `subject prefix "` + strings.Repeat("x", 65) + `": a token of 65 bytes; at most 64`,
	} {
		_, err := job.NewSubjects(prefix)
		require.EqualError(t, err, want)
	}
}

func TestParseTakesASubjectApart(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string][3]string{
		"llm.jobs.default.row-17": {"jobs", "default", "row-17"},
		"llm.dead.q.a.b.c.d":      {"dead", "q", "a.b.c.d"},
		"llm.jobs.q." + strings.Repeat("x", 64) + "." + strings.Repeat("y", 63): {"jobs", "q", strings.Repeat("x", 64) + "." + strings.Repeat("y", 63)},
	} {
		kind, queue, id, err := subjects(t).Parse(subject)
		require.NoError(t, err)
		require.Equal(t, want, [3]string{kind, queue, id})
	}
	for subject, want := range map[string]string{
		"":                                       `subject: does not start with "llm."`,
		"llm":                                    `subject: does not start with "llm."`,
		"llmx.jobs.q.a":                          `subject: does not start with "llm."`,
		"llm.jobs":                               "queue: an empty token; use A-Z a-z 0-9 _ -",
		"llm.jobs.q":                             "id: an empty token; use A-Z a-z 0-9 _ -",
		"llm.jobs..a":                            "queue: an empty token; use A-Z a-z 0-9 _ -",
		"llm.jobs.q.a.":                          "id: an empty token; use A-Z a-z 0-9 _ -",
		"llm.jobs.q.>":                           "id: '>' is not allowed; use A-Z a-z 0-9 _ -",
		"llm.jobs.q.a.b.c.d.e":                   "id: has 5 tokens; at most 4",
		"llm.jobs.q." + strings.Repeat("x", 129): "id: has 129 bytes; at most 128",
		"llm.jobs.q." + strings.Repeat("x", 65):  "id: a token of 65 bytes; at most 64",
		"llm.jobs." + strings.Repeat("x", 65) + ".a": "queue: a token of 65 bytes; at most 64",
	} {
		_, _, _, err := subjects(t).Parse(subject)
		requireFieldError(t, err, want)
	}
}

func TestOwnIsEverythingBelowThePrefix(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]bool{
		"llm": true, "llm.": true, "llm.jobs.q.a": true, "llm.anything": true,
		"llmx": false, "llmx.jobs": false, "LLM.jobs": false, "a.llm": false, "": false,
	} {
		require.Equal(t, want, subjects(t).Own(subject), subject)
	}
}
