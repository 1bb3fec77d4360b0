package natstest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

func TestAClusterOutlivesEachOfItsServers(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t, 3)
	js := c.JetStream(t)
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3})
	require.NoError(t, err)
	require.Len(t, s.CachedInfo().Cluster.Replicas, 2)
	_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "C"})
	require.NoError(t, err)
	require.Contains(t, c.Servers, c.ConsumerLeader(t, "S", "C"))
	url := c.URL()

	store := func(n uint64) {
		require.Eventually(t, func() bool { // until there is a leader
			_, err := js.Publish(t.Context(), "s.1", nil, jetstream.WithExpectLastSequence(n-1))
			var api *jetstream.APIError // an answer to an earlier try was lost
			return err == nil || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
		}, time.Minute, 50*time.Millisecond)
	}
	store(1)
	leader := c.StreamLeader(t, "S")
	leader.Stop(t)
	store(2)
	require.NotSame(t, leader, c.StreamLeader(t, "S"))
	leader.Start(t)
	c.WaitHealthy(t)
	c.MetaLeader(t).Restart(t)
	c.WaitHealthy(t)
	store(3)
	require.Equal(t, url, c.URL())

	for _, srv := range c.Servers { // each has all of it
		require.Eventually(t, func() bool {
			nc, err := nats.Connect(srv.URL)
			if err != nil {
				return false
			}
			defer nc.Close()
			own, err := jetstream.New(nc)
			if err != nil {
				return false
			}
			s, err := own.Stream(t.Context(), "S")
			return err == nil && s.CachedInfo().State.Msgs == 3
		}, time.Minute, 50*time.Millisecond)
	}
}
