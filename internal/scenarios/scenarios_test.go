package scenarios_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// document is where the table is kept.
const document = "../../docs/scenarios.md"

func TestScenarios(t *testing.T) {
	t.Parallel()
	var all []scenario
	for _, group := range [][]scenario{failures(), silences(), nonsense(), several()} {
		all = append(all, group...)
	}
	loads := loads()
	accounts := make([]account, len(all)+len(loads))
	t.Run("each", func(t *testing.T) {
		t.Parallel()
		for i, sc := range all {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					accounts[i] = sc.play(t)
					require.Equal(t, sc.want, accounts[i].facts)
				})
			})
		}
		for i, l := range loads {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					accounts[len(all)+i] = l.play(t)
					require.Equal(t, l.want, accounts[len(all)+i].facts)
				})
			})
		}
	})
	t.Cleanup(func() { // when each has ended
		if t.Failed() {
			return
		}
		text := render(accounts)
		if *update {
			require.NoError(t, os.WriteFile(document, []byte(text), 0o644))
		}
		raw, err := os.ReadFile(document)
		require.NoError(t, err)
		require.Equal(t, string(raw), text, "the scenarios came out differently; `make scenarios` writes them")
	})
}

// render writes the document.
func render(accounts []account) string {
	var b strings.Builder
	b.WriteString(`# What happens when backends misbehave

This page is written by a test: ` + "`make scenarios`" + ` plays every scenario and writes what it saw, and the test fails when
something comes out differently. The whole stack is real (the fallback engine, the limits, the breakers, the HTTP clients and
servers) but for the network, which is in memory, and the clock, which is virtual: a minute takes no time, and every time below
is exact.

What is assumed: the two presets ` + "`openrouter`" + ` (5 s) and ` + "`vllm`" + ` (10 s), in that order; the default route and breakers, without
jitter, unless the scenario says otherwise; ` + "`vllm`" + ` answers every call in 1 s; what fails, fails after 0.2 s unless the scenario
says when. A scenario is about the first job, or the one it names. The second job is a job of the same kind that comes the moment
the first one has ended, so that one sees what the breaker does. [fallback.md](fallback.md) explains the rules.

| Scenario | What openrouter does | What understudy does: class, breaker, next | Outcome | Time to answer | Calls | The job right after |
|---|---|---|---|---|---|---|
`)
	for _, a := range accounts {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s | %s | %s |\n",
			a.name, anchor(a.name), a.does, a.Follows, a.Outcome, a.Took, a.Calls, a.Second)
	}
	b.WriteString("\n## Trails\n\nThe times of an entry count from the beginning of its job.\n")
	for _, a := range accounts {
		fmt.Fprintf(&b, "\n### %s\n\n```text\n%s\n```\n", a.name, strings.Join(a.story, "\n"))
	}
	return b.String()
}

// anchor is the link to a heading, as GitHub makes it.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(heading), ",", ""), " ", "-")
}
