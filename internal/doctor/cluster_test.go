package doctor

import (
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
	"understudy/internal/queue"
)

func TestAClusterIsJudgedByItsCopies(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	b := &bundle{t: t, srv: cluster.Servers[0], nc: cluster.Servers[0].Conn(t), layout: queue.Layout{Subjects: subjects, Replicas: 3}}
	b.js, err = jetstream.New(b.nc)
	require.NoError(t, err)
	b.ensure("default", "low")
	b.worker("w-1", nil)
	b.until("every copy is up to date", func(findings []Finding) bool { return len(bad(findings)) == 0 })

	cluster.Servers[2].Stop(t)
	b.until("a copy is missing", func(findings []Finding) bool {
		return slices.ContainsFunc(findings, func(f Finding) bool { return f.Check == "stream.replica" })
	})

	one := queue.Layout{Subjects: subjects}
	for _, stream := range one.Streams() {
		require.NoError(t, b.js.DeleteStream(t.Context(), stream.Name))
		_, err := b.js.CreateStream(t.Context(), stream)
		require.NoError(t, err)
	}
	findings, err := Examine(t.Context(), Config{Conn: cluster.Servers[0].Conn(t, nats.MaxReconnects(-1)), Layout: one})
	require.NoError(t, err)
	f := found(t, findings, "stream.replicas", "LLM_JOBS")
	require.Equal(t, Warning, f.Level)
	require.Equal(t, "nats stream edit LLM_JOBS --replicas=3, and WORKER_REPLICAS=3", f.Mend)
}
