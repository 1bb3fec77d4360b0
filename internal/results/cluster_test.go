package results

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/natstest"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/queue"
)

// newCluster starts three servers that know each other, stops them in the
// cleanup, and returns a connection to each.
func newCluster(t *testing.T) []*nats.Conn {
	t.Helper()
	var servers []*server.Server
	var conns []*nats.Conn
	var routes string
	for i := range 3 {
		opts := &server.Options{
			ServerName: fmt.Sprintf("s%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 1 << 30,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: server.RANDOM_PORT},
			Routes:  server.RoutesFromStr(routes),
		}
		srv, err := server.NewServer(opts)
		require.NoError(t, err)
		t.Cleanup(func() {
			srv.Shutdown()
			srv.WaitForShutdown()
		})
		srv.Start()
		servers = append(servers, srv)
		require.True(t, srv.ReadyForConnections(patience))
		if i == 0 {
			routes = "nats://" + srv.ClusterAddr().String()
		}
	}
	for _, srv := range servers {
		nc, err := nats.Connect(srv.ClientURL(), nats.MaxReconnects(-1))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		conns = append(conns, nc)
	}
	return conns
}

func TestAClusterHasOneResultAndThreeCopies(t *testing.T) {
	t.Parallel()
	conns := newCluster(t)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	layout := queue.Layout{Subjects: subjects, Replicas: 3}
	var stores []*Store
	var js jetstream.JetStream
	for _, nc := range conns {
		js, err = jetstream.New(nc)
		require.NoError(t, err)
		require.Eventually(t, func() bool { // until the servers have a leader
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			diffs, err := layout.Ensure(ctx, js, []string{"default"})
			return err == nil && len(diffs) == 0
		}, patience, 50*time.Millisecond)
		s, err := Open(t.Context(), nc, js, subjects)
		require.NoError(t, err)
		stores = append(stores, s)
	}
	for _, name := range []string{"LLM_JOBS", "LLM_RESULTS", "LLM_EVENTS", "LLM_DEAD"} {
		s, err := js.Stream(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, 3, s.CachedInfo().Config.Replicas)
		require.Len(t, s.CachedInfo().Cluster.Replicas, 2)
	}
	for id := range 10 {
		id := fmt.Sprintf("job%d", id)
		errs := make([]error, 15)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = stores[i%3].Commit(t.Context(), result(id, i), uint64(i+1), 0) })
		}
		wg.Wait()
		var winners []uint64
		for i, err := range errs {
			if err == nil {
				winners = append(winners, uint64(i+1))
				continue
			}
			require.ErrorIs(t, err, ErrCommitted)
		}
		require.Len(t, winners, 1)
		for _, s := range stores { // whoever is asked, at once
			stored, err := s.Lookup(t.Context(), "default", id)
			require.NoError(t, err)
			require.NotNil(t, stored)
			require.Equal(t, winners[0], stored.JobSeq)
		}
	}
	l := deadLetter("a")
	require.NoError(t, stores[0].Bury(t.Context(), l, make([]byte, 1<<20), 7))
	payload, err := stores[1].Payload(t.Context(), l)
	require.NoError(t, err)
	require.Len(t, payload, 1<<20)
	s, err := js.Stream(t.Context(), "OBJ_LLM_DEAD_PAYLOADS")
	require.NoError(t, err)
	require.Equal(t, 3, s.CachedInfo().Config.Replicas)
}

// A write to the same subject that is still under way can fail yet: who believes
// it would wait for a result that nobody has.
func TestAWriteUnderWayIsNoResult(t *testing.T) {
	t.Parallel()
	const silence = ""
	wrong := func(code int) string {
		return fmt.Sprintf(`{"error":{"code":400,"err_code":%d,"description":"no"},"stream":"X","seq":0}`, code)
	}
	srv := natstest.Run(t)
	for name, tc := range map[string]struct {
		words []string // of the stream; then it takes the message
		want  error
		tries int
	}{
		"it is stored":     {[]string{wrong(10164), wrong(10164), wrong(10071)}, ErrCommitted, 3},
		"it is not stored": {[]string{wrong(10164), silence, "what?", "{}"}, nil, 5},
		"stored before":    {[]string{wrong(10071)}, ErrCommitted, 1},
		"taken":            {nil, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream, nc, subject := srv.Conn(t), srv.Conn(t), nats.NewInbox()
			var tries atomic.Int64
			_, err := stream.Subscribe(subject, func(m *nats.Msg) {
				word := `{"stream":"X","seq":1}`
				if n := int(tries.Add(1)); n <= len(tc.words) {
					word = tc.words[n-1]
				}
				if word != silence {
					_ = m.Respond([]byte(word)) // else the try times out, which is an answer too many
				}
			})
			require.NoError(t, err)
			require.NoError(t, stream.Flush())
			s := &Store{nc: nc, tryTimeout: 2 * time.Second, blocked: newBlockages()}
			require.ErrorIs(t, s.store(t.Context(), KindResults, nats.NewMsg(subject)), tc.want)
			require.Equal(t, int64(tc.tries), tries.Load())
		})
	}
}
