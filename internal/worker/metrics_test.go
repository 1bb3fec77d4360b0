package worker

import (
	"os"
	"regexp"
	"slices"
	"strings"
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
	m := newMetrics(reg, metricLabels{backends: []string{"b"}, routes: []string{"r"}, queues: []string{"q"}}, func() float64 { return 0 })
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
