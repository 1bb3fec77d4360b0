package worker

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/job"
)

func TestTheDocumentNamesEveryMetricAndItsLabels(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, labels(), func() float64 { return 0 })
	m.breakerIs("b", breaker.Closed)
	class := "timeout"
	m.attempt(&job.Attempt{Backend: "b", Class: &class, InputTokens: new(int64), FirstTokenMS: new(int64)}, "chat")
	m.jobDuration.WithLabelValues("q", "r").Observe(1)
	m.latencyIs("b", openai.Latency{Percentiles: openai.Percentiles{Samples: 1}}, 0)
	m.deadLetters.WithLabelValues("q", "timeout").Inc()
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]string{}
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		got[f.GetName()] = strings.Join(labels, ", ")
	}

	doc, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, part, ok := strings.Cut(string(doc), "\n## Metrics\n")
	require.True(t, ok)
	part, _, _ = strings.Cut(part, "\n## ")
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z_`, ]+`) \\| ([a-z_, ]*) ?\\|").FindAllStringSubmatch(part, -1) {
		labels := strings.FieldsFunc(row[2], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(labels)
		for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			documented[name[1]] = strings.Join(labels, ", ")
		}
	}
	require.Equal(t, got, documented)
}

// labels are the labels of a worker with one of each.
func labels() metricLabels {
	return metricLabels{backends: []string{"b"}, routes: []string{"r"}, queues: []string{"q"}}
}

func TestSeriesThatNobodyNeededYetAreNotThere(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, labels(), func() float64 { return 0 })
	count := func(name string) int {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == name {
				return len(f.GetMetric())
			}
		}
		return 0
	}
	late := []string{"gen_ai_client_token_usage", "gen_ai_client_operation_duration_seconds", "understudy_first_token_seconds"}
	for _, name := range late {
		require.Zero(t, count(name), name)
	}
	before := count("llm_requests_total")
	m.attempt(&job.Attempt{Backend: "b"}, "chat")
	require.Equal(t, []int{0, 1, 0}, []int{count(late[0]), count(late[1]), count(late[2])})
	m.attempt(&job.Attempt{Backend: "b", InputTokens: new(int64)}, "chat")
	m.attempt(&job.Attempt{Backend: "b", OutputTokens: new(int64), FirstTokenMS: new(int64)}, "embeddings")
	require.Equal(t, []int{2, 2, 1}, []int{count(late[0]), count(late[1]), count(late[2])})
	require.Equal(t, before, count("llm_requests_total"), "they were there from the start")
}

func TestOneSeriesIsMadeForAKeyHoweverManyAsk(t *testing.T) {
	t.Parallel()
	var made atomic.Int64
	s := series[operationKey, *int64]{of: func(operationKey) *int64 { return new(made.Add(1)) }}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, name := range []string{"a", "b", "c"} {
				one := s.get(operationKey{name: name})
				if other := s.get(operationKey{name: name}); one != other {
					t.Error("two values of one key")
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, int64(3), made.Load())
}

func BenchmarkAttemptMetrics(b *testing.B) {
	m := newMetrics(prometheus.NewRegistry(), labels(), func() float64 { return 0 })
	a := &job.Attempt{Backend: "b", InputTokens: new(int64), OutputTokens: new(int64), FirstTokenMS: new(int64), CostUSD: new(0.1)}
	b.ReportAllocs()
	for b.Loop() {
		m.attempt(a, "chat")
	}
}
