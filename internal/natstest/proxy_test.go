package natstest_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// proxied connects through a proxy, once.
func proxied(t *testing.T, p *natstest.Proxy) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(p.URL, nats.NoReconnect())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func TestAProxyPassesOnWhatIsSaidAndTheEnd(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	p := natstest.RunProxy(t, srv.URL)
	require.NotEqual(t, srv.URL, p.URL)
	nc := proxied(t, p)
	sub, err := nc.SubscribeSync("x")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	long := make([]byte, 100<<10)
	long[len(long)-1] = 1
	require.NoError(t, srv.Conn(t).Publish("x", long))
	msg, err := sub.NextMsg(10 * time.Second)
	require.NoError(t, err)
	require.Equal(t, long, msg.Data)

	ended := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(ended) })
	srv.Stop(t)
	<-ended
	_, err = nats.Connect(p.URL)
	require.Error(t, err, "there is no server")
	srv.Start(t)
	require.NoError(t, proxied(t, p).Flush())
}

func TestAProxyDelaysBothDirections(t *testing.T) {
	t.Parallel()
	p := natstest.RunProxy(t, natstest.Run(t).URL)
	nc := proxied(t, p)
	const d = 50 * time.Millisecond
	p.Delay(d)
	took, err := nc.RTT()
	require.NoError(t, err)
	require.GreaterOrEqual(t, took, 2*d)
}

func TestAProxySwallowsTheConnectionsOfNow(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	p := natstest.RunProxy(t, srv.URL)
	before := proxied(t, p)
	heard := make(chan *nats.Msg, 2)
	_, err := srv.Conn(t).ChanSubscribe("x", heard)
	require.NoError(t, err)
	p.Swallow()
	require.NoError(t, before.Publish("x", []byte("swallowed")))
	require.ErrorIs(t, before.FlushTimeout(100*time.Millisecond), nats.ErrTimeout)
	after := proxied(t, p)
	require.NoError(t, after.Publish("x", []byte("passed on")))
	require.Equal(t, "passed on", string((<-heard).Data))

	ended := make(chan struct{})
	after.SetClosedHandler(func(*nats.Conn) { close(ended) })
	require.Equal(t, 3, srv.DropClients(t))
	<-ended
	require.ErrorIs(t, before.FlushTimeout(100*time.Millisecond), nats.ErrTimeout)
	require.True(t, before.IsConnected(), "nobody told it")
}

func TestAProxyEndsWithItsTestAndBeforeItsServer(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	var p *natstest.Proxy
	t.Cleanup(func() { // between the proxy's and the server's
		_, err := nats.Connect(p.URL)
		require.ErrorIs(t, err, nats.ErrNoServers)
		require.NoError(t, srv.Conn(t).Flush())
	})
	p = natstest.RunProxy(t, srv.URL)
	proxied(t, p)
	p.Swallow() // the server will not be told when its client ends
}
