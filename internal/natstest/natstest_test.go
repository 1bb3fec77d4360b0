package natstest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/leaktest"
	"understudy/internal/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaktest.Patient(m)) }

func TestServersShareNothing(t *testing.T) {
	t.Parallel()
	a, b := natstest.Run(t), natstest.Run(t)
	require.NotEqual(t, a.URL, b.URL)
	_, err := a.JetStream(t).CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
	require.NoError(t, err)
	_, err = b.JetStream(t).Stream(t.Context(), "S")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestARestartKeepsAddressAndStoredMessages(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]func(*natstest.Server) []nats.Option{
		"over TCP":       func(*natstest.Server) []nats.Option { return nil },
		"through memory": func(s *natstest.Server) []nats.Option { return []nats.Option{s.InProcess()} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.RunWith(t, natstest.Options{SyncAlways: true})
			url := srv.URL
			lost, back := make(chan struct{}, 9), make(chan struct{}, 9)
			js := srv.JetStream(t, append(opts(srv),
				nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- struct{}{} }),
				nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))...)
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
			require.NoError(t, err)
			_, err = js.Publish(t.Context(), "s.1", []byte("kept"))
			require.NoError(t, err)

			srv.Stop(t)
			<-lost
			srv.Stop(t)
			srv.Start(t)
			<-back

			require.Equal(t, url, srv.URL)
			s, err := js.Stream(t.Context(), "S")
			require.NoError(t, err)
			msg, err := s.GetLastMsgForSubject(t.Context(), "s.1")
			require.NoError(t, err)
			require.Equal(t, "kept", string(msg.Data))
			srv.Restart(t)
			<-back
		})
	}
}

func TestAStoppedServerRefusesConnections(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	srv.Stop(t)
	_, err := nats.Connect(srv.URL)
	require.ErrorIs(t, err, nats.ErrNoServers)
	_, err = srv.InProcessConn()
	require.ErrorContains(t, err, "stopped")
	require.Zero(t, srv.DropClients(t))
}

func TestMaxPayloadIsToldToClients(t *testing.T) {
	t.Parallel()
	srv := natstest.RunWith(t, natstest.Options{MaxPayload: 4096})
	nc := srv.Conn(t)
	require.Equal(t, int64(4096), nc.MaxPayload())
	require.ErrorIs(t, nc.Publish("x", make([]byte, 4097)), nats.ErrMaxPayload)
}

func TestConfigGrantsAndDeniesPerUser(t *testing.T) {
	t.Parallel()
	srv := natstest.RunWith(t, natstest.Options{Config: `
port: 4222 # overridden
accounts { APP { jetstream: enabled, users: [
  {user: worker, password: pw}
  {user: client, password: pw, permissions: {publish: ["llm.jobs.>", "$JS.API.INFO"], subscribe: ["_INBOX.>"]}}
] } }`})
	require.False(t, strings.HasSuffix(srv.URL, ":4222"), srv.URL)
	_, err := nats.Connect(srv.URL)
	require.ErrorIs(t, err, nats.ErrAuthorization)

	_, err = srv.JetStream(t, nats.UserInfo("worker", "pw")).CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"llm.>"}})
	require.NoError(t, err)
	denied := make(chan error, 1)
	nc := srv.Conn(t, nats.UserInfo("client", "pw"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	_, err = nc.Request("llm.jobs.default.1", []byte("{}"), 5*time.Second)
	require.NoError(t, err)
	require.NoError(t, nc.Publish("llm.results.default.1", []byte("forged")))
	require.ErrorContains(t, <-denied, `Permissions Violation for Publish to "llm.results.default.1"`)
}

func TestDroppedClientsReconnect(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	back := make(chan struct{}, 1)
	nc := srv.Conn(t, nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	require.NoError(t, nc.Flush())
	require.Equal(t, 1, srv.DropClients(t))
	<-back
	require.Equal(t, uint64(1), nc.Stats().Reconnects)
}
