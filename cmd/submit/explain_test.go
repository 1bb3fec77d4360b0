package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend/openai"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/worker"
)

// twoBackends is the worker of the presets, without jitter, and a route.
func twoBackends() workerSettings {
	policy := fallback.DefaultPolicy()
	policy.Jitter = false
	race := policy
	race.Strategy, race.HedgeDelay = fallback.Parallel, 300*time.Millisecond
	return workerSettings{config: worker.Config{
		Backends: []worker.Backend{
			{Name: "openrouter", OpenAI: openai.Config{Timeout: 5 * time.Second}},
			{Name: "vllm", OpenAI: openai.Config{Timeout: 10 * time.Second, Model: "llama"}},
			{Name: "rules", Kind: worker.KindRules},
		},
		Routes: []fallback.Route{
			{Name: fallback.DefaultRoute, Chain: []string{"openrouter", "vllm"}, Policy: policy},
			{Name: "offline", Policy: policy},
			{Name: "race", Chain: []string{"openrouter", "vllm"}, Policy: race},
		},
	}}
}

// explained runs submit explain on a job.
func explained(t *testing.T, settings workerSettings, text string, args ...string) (code int, out, stderr string) {
	t.Helper()
	c := newCommand(t, text, environment{})
	c.loadWorker = func() workerSettings { return settings }
	c.start(append([]string{"explain"}, args...)...)
	code = c.wait()
	return code, c.out.String(), c.err.String()
}

const greeting = `{"model":"auto","messages":[{"role":"user","content":"hello there"}]}`

func TestExplainShowsThePathOfAJob(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		job  string
		args []string
	}{
		"every-call-times-out":    {greeting, nil},
		"the-second-answers":      {greeting, []string{"-as", "openrouter=timeout", "-as", "vllm=ok@7s"}},
		"a-recorded-quota":        {greeting, []string{"-as", "openai-429-insufficient-quota"}},
		"a-stop-and-the-rules":    {`{"route":"offline","body":` + greeting + `}`, []string{"-as", "400"}},
		"a-stop":                  {greeting, []string{"-as", "content_filter"}},
		"a-race":                  {`{"route":"race","body":` + greeting + `}`, []string{"-as", "ok@2s", "-as", "ok@1s"}},
		"an-outage":               {greeting, []string{"-as", "openrouter=auth", "-as", "vllm=auth"}},
		"out-of-time":             {`{"timeout_ms":7000,"body":` + greeting + `}`, nil},
		"its-own-chain-and-route": {`{"chain":["vllm"],"policy":{"max_attempts":1},"body":{"model":"race","messages":[]}}`, []string{"-as", "503@1s"}},
	} {
		code, out, stderr := explained(t, twoBackends(), c.job, c.args...)
		require.Equal(t, exitOK, code, stderr)
		requireGolden(t, "explain/"+name+".txt", out)
		require.Equal(t, len(c.args) == 0, strings.Contains(stderr, "every call times out"))
		require.NotContains(t, out+stderr, "hello there")
	}
}

func TestExplainAsJSONHasTheWholeTrail(t *testing.T) {
	t.Parallel()
	code, out, _ := explained(t, twoBackends(), greeting, "-json", "-as", "openrouter=timeout", "-as", "vllm=ok@7s")
	require.Equal(t, exitOK, code)
	var p journey
	require.NoError(t, json.Unmarshal([]byte(out), &p))
	require.Equal(t, job.Succeeded, p.Status)
	require.Equal(t, "vllm", p.Backend)
	require.Equal(t, int64(12000), p.DurationMS)
	require.Len(t, p.Attempts, 2)
	require.Equal(t, "llama", p.Attempts[1].Model)
	require.Equal(t, []string{"openrouter", "vllm"}, p.Chain)
	require.Equal(t, 3, p.MaxAttempts)
}

func TestExplainListsTheRecordedAnswers(t *testing.T) {
	t.Parallel()
	code, out, _ := explained(t, workerSettings{}, "", "-list")
	require.Equal(t, exitOK, code)
	require.Equal(t, 68, strings.Count(out, "\n"))
	require.Contains(t, out, "openai-429-insufficient-quota")
	code, out, _ = explained(t, workerSettings{}, "", "-list", "-json")
	require.Equal(t, exitOK, code)
	require.Equal(t, 67, strings.Count(out, "\n"))
}

func TestExplainSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	broken := workerSettings{problems: []string{"BACKENDS: no backend is configured"}}
	for _, c := range []struct {
		settings workerSettings
		job      string
		args     []string
		want     string
	}{
		{broken, greeting, nil, "BACKENDS: no backend is configured"},
		{twoBackends(), `{"route":"nope","body":` + greeting + `}`, nil, `the job would be dead-lettered as invalid_job: route: no route is called "nope"; there are: default, offline, race`},
		{twoBackends(), greeting, []string{"-as", "mistral=503"}, `no backend is called "mistral"; there are: openrouter, vllm, rules`},
		{twoBackends(), greeting, []string{"-as", "99"}, "99 is not a status from 200 to 599"},
		{twoBackends(), greeting, []string{"-as", "oops"}, `"oops" is neither ok, nor a status, nor a class of error, nor a recorded answer (submit explain -list)`},
		{twoBackends(), greeting, []string{"-as", "poison"}, "poison is not how a call ends"},
		{twoBackends(), greeting, []string{"-as", "503@soon"}, `"soon" is not a duration such as 7s or 300ms`},
		{twoBackends(), greeting, []string{"again"}, `there is an argument too many, "again"`},
		{twoBackends(), `[]`, nil, "object"},
	} {
		code, out, stderr := explained(t, c.settings, c.job, c.args...)
		require.Equal(t, exitUsage, code, stderr)
		require.Empty(t, out)
		require.Contains(t, stderr, c.want)
	}
}
