package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// rounds are rounds of throughput whose worker makes so many jobs to the bare
// loop's 1000 with so much CPU to its 100.
func rounds(rates, cpus []float64) []round {
	var all []round
	for i := range rates {
		all = append(all, round{
			Bare:   sample{JobsPerSec: 1000, CPUMicros: 100, ServerCPU: 10, RSSBytes: 20e6},
			Worker: sample{JobsPerSec: rates[i], CPUMicros: cpus[i], ServerCPU: 20, RSSBytes: 30e6},
		})
	}
	return all
}

func TestGoalsOnRatiosAreJudgedByTheMedian(t *testing.T) {
	t.Parallel()
	lines := judge(&report{Rounds: map[string][]round{partThroughput: rounds([]float64{899, 900, 950}, []float64{115.1, 110, 115.2})}})

	require.Equal(t, line{
		Part: partThroughput, What: "jobs/s", Bare: 1000, Worker: 900, Min: 0.899, Median: 0.9, Max: 0.95, Goal: ">= 0.9", Verdict: "ok",
	}, lines[0])
	require.Equal(t, "<= 1.15", lines[2].Goal)
	require.Equal(t, "missed", lines[2].Verdict)
	require.Empty(t, lines[3].Goal)
	require.Empty(t, lines[3].Verdict)
	require.InDelta(t, 2, lines[3].Median, 1e-9)
}

func TestRedpandaConnectIsDerivedFromTheRatio(t *testing.T) {
	t.Parallel()
	for rate, verdict := range map[float64]string{816: "missed", 817: "ok"} { // 2.3 * 0.355 = 0.8165
		l := judge(&report{Rounds: map[string][]round{partThroughput: rounds([]float64{rate}, []float64{100})}})[1]
		require.Contains(t, l.What, "Redpanda Connect")
		require.InDelta(t, rate/1000/0.355, l.Worker, 1e-9)
		require.True(t, l.Only)
		require.Equal(t, ">= 2.3", l.Goal)
		require.Equal(t, verdict, l.Verdict)
	}
}

func TestBigPromptsHaveAGoalOnCPU(t *testing.T) {
	t.Parallel()
	lines := judge(&report{Rounds: map[string][]round{partPrompt: rounds([]float64{900}, []float64{151})}})
	require.Equal(t, "CPU per job", lines[1].What)
	require.Equal(t, "<= 1.5", lines[1].Goal)
	require.Equal(t, "missed", lines[1].Verdict)
}

func TestStartsAreJudgedByMedianAndWorst(t *testing.T) {
	t.Parallel()
	lines := judge(&report{Starts: []float64{100, 120, 300}})
	require.Len(t, lines, 2)
	require.InDelta(t, 120, lines[0].Worker, 0)
	require.Equal(t, "ok", lines[0].Verdict)
	require.InDelta(t, 300, lines[1].Worker, 0)
	require.Equal(t, "missed", lines[1].Verdict)
}

func TestThirdSideHasAColumnWhereItWasMeasured(t *testing.T) {
	t.Parallel()
	r := drawn()
	r.Rounds[partThroughput][0].Plus = &sample{JobsPerSec: 950, CPUMicros: 110}
	r.Lines = judge(r)
	require.Contains(t, r.markdown(), "| bare loop | bare+ | worker | ratio min / median / max | goal |  |\n|---|---:|---:|---:|---|---|---|\n| jobs/s | 1000 | 950 | 900 |")
	require.Contains(t, r.markdown(), "| CPU of a core, % |  | 0.25 |  |")
}

func TestGoalsOnNumbersAreJudgedByTheWorst(t *testing.T) {
	t.Parallel()
	of := func(seconds, again float64) []line {
		fast := round{Bare: sample{Seconds: 6, RSSBytes: 1}, Worker: sample{Seconds: 6, RSSBytes: 1}}
		slow := round{Bare: sample{Seconds: 6, RSSBytes: 1}, Worker: sample{Seconds: seconds, RSSBytes: 1, Redelivered: again}}
		return judge(&report{Rounds: map[string][]round{partFlight: {fast, slow, fast}}})
	}

	lines := of(6.99, 0)
	require.Equal(t, "< 7", lines[0].Goal)
	require.Equal(t, "ok", lines[0].Verdict)
	require.InDelta(t, 6.99, lines[0].Max, 1e-9)
	require.Equal(t, "ok", lines[3].Verdict)

	lines = of(7, 1)
	require.Equal(t, "missed", lines[0].Verdict)
	require.Equal(t, "redeliveries", lines[3].What)
	require.Equal(t, "missed", lines[3].Verdict)
}

func TestIdleWorkerIsJudged(t *testing.T) {
	t.Parallel()
	lines := judge(&report{Idle: &idleSample{CPUPercent: 0.5, RSSBytes: 39.9e6}})
	require.Len(t, lines, 2)
	require.Equal(t, "missed", lines[0].Verdict)
	require.Equal(t, "ok", lines[1].Verdict)
}

func TestWhatIsNotKnownIsNotJudged(t *testing.T) {
	t.Parallel()
	lines := judge(&report{Rounds: map[string][]round{partFlight: {{Bare: sample{Seconds: 1}, Worker: sample{Seconds: 1}}}}})
	require.Equal(t, "RSS max", lines[2].What)
	require.Empty(t, lines[2].Verdict)
}

func TestMedian(t *testing.T) {
	t.Parallel()
	require.Zero(t, median(nil))
	require.InDelta(t, 2, median([]float64{3, 1, 2}), 0)
	require.InDelta(t, 2.5, median([]float64{4, 1, 3, 2}), 0)
}

// drawn is a report with one part.
func drawn() *report {
	r := &report{Cores: 2, Go: "go1.26.0", OS: "linux/amd64", Jobs: 20000}
	r.Rounds = map[string][]round{partThroughput: rounds([]float64{900}, []float64{120})}
	r.Idle = &idleSample{CPUPercent: 0.25, RSSBytes: 35e6}
	r.Lines = judge(r)
	return r
}

func TestTableForPeople(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, drawn().text(&out))
	require.Equal(t, `2 cores, linux/amd64, go1.26.0; 1 rounds, medians.

64 slots, 20000 jobs in the queue
                                                    bare loop  worker  ratio min / median / max  goal     
  jobs/s                                            1000       900     0.90 / 0.90 / 0.90        >= 0.9   ok
  jobs/s against Redpanda Connect (derived), times             2.54    2.54 / 2.54 / 2.54        >= 2.3   ok
  CPU per job, us                                   100        120     1.20 / 1.20 / 1.20        <= 1.15  missed
  CPU of the server per job, us                     10.0       20.0    2.00 / 2.00 / 2.00                 
  RSS max, MB                                       20.0       30.0    1.50 / 1.50 / 1.50                 
  redeliveries                                      0          0                                 <= 0     ok

Idle worker with the embedded server
                    bare loop  worker  ratio min / median / max  goal   
  CPU of a core, %             0.25                              < 0.5  ok
  RSS, MB                      35.0                              < 40   ok
`, out.String())
}

func TestTableGoesBetweenTheMarkers(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, os.WriteFile(name, []byte("# Before\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nafter\n"), 0o640))
	const want = `# Before

<!-- bench:begin -->

2 cores, linux/amd64, go1.26.0; 1 rounds, medians.

| 64 slots, 20000 jobs in the queue | bare loop | worker | ratio min / median / max | goal |  |
|---|---:|---:|---|---|---|
| jobs/s | 1000 | 900 | 0.90 / 0.90 / 0.90 | >= 0.9 | ok |
| jobs/s against Redpanda Connect (derived), times |  | 2.54 | 2.54 / 2.54 / 2.54 | >= 2.3 | ok |
| CPU per job, us | 100 | 120 | 1.20 / 1.20 / 1.20 | <= 1.15 | missed |
| CPU of the server per job, us | 10.0 | 20.0 | 2.00 / 2.00 / 2.00 |  |  |
| RSS max, MB | 20.0 | 30.0 | 1.50 / 1.50 / 1.50 |  |  |
| redeliveries | 0 | 0 |  | <= 0 | ok |

| Idle worker with the embedded server | bare loop | worker | ratio min / median / max | goal |  |
|---|---:|---:|---|---|---|
| CPU of a core, % |  | 0.25 |  | < 0.5 | ok |
| RSS, MB |  | 35.0 |  | < 40 | ok |

<!-- bench:end -->

after
`
	for range 2 { // writing it again changes nothing
		require.NoError(t, writeDoc(name, sectionTable, drawn().markdown()))
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

func TestDocumentWithoutMarkersIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "<!-- bench:begin -->", "<!-- bench:end -->\n<!-- bench:begin -->"} {
		_, err := between(text, sectionTable, "table")
		require.ErrorContains(t, err, "there is no line <!-- bench:", text)
	}
}
