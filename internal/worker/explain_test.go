package worker

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/backend/openai/recorded"
	"understudy/internal/breaker"
	"understudy/internal/job"
)

// explainable is a worker with two models whose breakers open after two failures.
func explainable() Config {
	return Config{Backends: []Backend{
		{Name: "a", OpenAI: openai.Config{Timeout: 5 * time.Second}, Breaker: breaker.Config{Failures: 2}, Retries: 1},
		{Name: "b", OpenAI: openai.Config{FirstTokenTimeout: 2 * time.Second}},
	}}
}

const asked = `{"messages":[{"role":"user","content":"hi"}]}`

// TestEveryRecordedAnswerIsExplainedAsItIsMeant plays each to the first backend.
func TestEveryRecordedAnswerIsExplainedAsItIsMeant(t *testing.T) {
	t.Parallel()
	all, err := recorded.Answers()
	require.NoError(t, err)
	cfg := explainable()
	cfg.Backends[0].Retries = 0
	for _, answer := range all {
		x, err := Explain(t.Context(), cfg, "default", "x", []byte(asked), Assumptions{Calls: []Assumption{{Answer: &answer}}})
		require.NoError(t, err)
		first := x.Outcome.Trail[0]
		if answer.Expect.Class == "success" {
			require.Equal(t, job.OutcomeSucceeded, first.Outcome, answer.ID)
			continue
		}
		require.Equal(t, answer.Expect.Class, *first.Class, answer.ID)
		want := job.NextStop
		if answer.Expect.FallbackByDefault {
			want = job.NextFallback
			require.Equal(t, "b", x.Outcome.Backend, answer.ID)
		}
		require.Equal(t, want, *first.Next, answer.ID)
	}
	require.Len(t, all, 67)
}

func TestAnExplanationKnowsTheBreakersAndTheClock(t *testing.T) {
	t.Parallel()
	x, err := Explain(t.Context(), explainable(), "default", "x", []byte(`{"policy":{"jitter":false},"body":`+asked+`}`), Assumptions{
		Of: map[string][]Assumption{"a": {{Class: backend.Timeout}}, "b": {{Class: backend.Timeout}, {Takes: time.Second}}},
	})
	require.NoError(t, err)
	var got []string
	for _, a := range x.Outcome.Trail {
		class := "answer"
		if a.Class != nil {
			class = *a.Class
		}
		got = append(got, a.StartedAt.Sub(x.Start).String()+" "+a.Backend+" "+class+" "+strconv.FormatInt(a.DurationMS, 10))
	}
	require.Equal(t, []string{
		"0s a timeout 5000",
		"6s a timeout 5000", // its retry, which opens the breaker for a minute
		"11s b timeout 2000",
		"13s a circuit_open 0",
		"14s b answer 1000",
	}, got)
	require.Empty(t, x.Waits)
}

func TestAnExplanationMakesNoCallAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := Explain(t.Context(), explainable(), "default", "x", []byte(`{"chain":["c"],"body":`+asked+`}`), Assumptions{})
	require.EqualError(t, err, `chain[0]: no backend is called "c"; there are: a, b`)
	_, err = Explain(t.Context(), Config{}, "default", "x", []byte(asked), Assumptions{})
	require.ErrorContains(t, err, "no backend is configured")
	_, err = Explain(t.Context(), Config{Prefix: "a b"}, "default", "x", []byte(asked), Assumptions{})
	require.ErrorContains(t, err, "WORKER_SUBJECT_PREFIX")
	x, err := Explain(t.Context(), explainable(), "default", "x", []byte(`{"deadline":"2020-01-01T00:00:00Z","body":`+asked+`}`), Assumptions{})
	require.NoError(t, err)
	require.Equal(t, backend.Expired, x.Outcome.Err.Class)
	require.Empty(t, x.Outcome.Trail)
}
