package natstest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// clusterTimeout bounds each wait for the servers of a cluster to agree. An
// election takes 4 to 9 s; the rest is for a machine that runs many tests at once.
const clusterTimeout = 60 * time.Second

// clusterPoll is the pause between looks at what sends no event.
const clusterPoll = 20 * time.Millisecond

// Cluster is a number of servers that know each other and share their streams.
// Its methods are safe for concurrent use; each server is stopped, started and
// restarted by its own methods.
type Cluster struct {
	// Servers are the servers, named s0, s1 and so on.
	Servers []*Server
}

// membership is what a [Server] knows of its cluster.
type membership struct {
	name    string
	cluster *Cluster
	port    int // for the other servers; the same over a restart
}

// RunCluster starts n servers with JetStream, each on 127.0.0.1 with random
// ports and a store of its own, and returns when every one says that it is
// healthy: about 5 s for three. The test's cleanup stops them and waits for
// their end.
func RunCluster(tb testing.TB, n int) *Cluster {
	tb.Helper()
	return RunClusterWith(tb, n, Options{})
}

// RunClusterWith is [RunCluster] with options that every server gets. StoreDir
// must be empty: each server has a directory of its own. The cluster of a Config
// keeps its name and its password; its addresses and routes are overridden, and so
// is the name of the server.
func RunClusterWith(tb testing.TB, n int, opts Options) *Cluster {
	tb.Helper()
	if opts.StoreDir != "" {
		tb.Fatalf("the servers of a cluster cannot share the store %s", opts.StoreDir)
	}
	c := &Cluster{}
	for i := range n {
		s := newServer(tb, opts)
		s.member = &membership{name: fmt.Sprintf("s%d", i), cluster: c, port: server.RANDOM_PORT}
		c.Servers = append(c.Servers, s)
	}
	tb.Cleanup(c.stop)
	for _, s := range c.Servers {
		s.Start(tb)
	}
	c.WaitHealthy(tb)
	return c
}

// URL is where clients connect: every server's address, with commas between.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.URL
	}
	return strings.Join(urls, ",")
}

// Conn returns a new connection to one of the servers, which goes to another one
// when that is gone; otherwise it is as [Server.Conn] makes it.
func (c *Cluster) Conn(tb testing.TB, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	return connect(tb, c.URL(), opts...)
}

// JetStream returns the JetStream interface of a new [Cluster.Conn].
func (c *Cluster) JetStream(tb testing.TB, opts ...nats.Option) jetstream.JetStream {
	tb.Helper()
	return openJetStream(tb, c.Conn(tb, opts...))
}

// WaitHealthy returns when every server that runs reports what a rolling restart
// waits for at /healthz: it is current, and so are its streams and consumers; and when
// their leader knows of all of them. It fails the test after a minute, which it will
// where too few servers run.
func (c *Cluster) WaitHealthy(tb testing.TB) {
	tb.Helper()
	var why string
	wait(tb, func() bool {
		why = ""
		running, peers := 0, 0
		for _, s := range c.Servers {
			if srv := s.running(); srv != nil {
				running++
				peers = max(peers, len(srv.JetStreamClusterPeers()))
				why += health(tb.Context(), srv)
			}
		}
		if peers < running { // or it has no place for a stream yet
			why += fmt.Sprintf("its leader knows %d of %d servers; ", peers, running)
		}
		return why == ""
	}, func() string { return "the cluster is not healthy: " + why })
}

// StreamLeader waits for the leader of a stream of the default account and
// returns its server. It fails the test after a minute.
func (c *Cluster) StreamLeader(tb testing.TB, stream string) *Server {
	tb.Helper()
	return c.leader(tb, "stream "+stream, func(srv *server.Server) bool {
		return srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
	})
}

// ConsumerLeader is [Cluster.StreamLeader] for a consumer of a stream.
func (c *Cluster) ConsumerLeader(tb testing.TB, stream, consumer string) *Server {
	tb.Helper()
	return c.leader(tb, "consumer "+consumer, func(srv *server.Server) bool {
		return srv.JetStreamIsConsumerLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream, consumer)
	})
}

// MetaLeader is [Cluster.StreamLeader] for the leader that creates and deletes
// streams and consumers.
func (c *Cluster) MetaLeader(tb testing.TB) *Server {
	tb.Helper()
	return c.leader(tb, "the cluster", (*server.Server).JetStreamIsLeader)
}

func (c *Cluster) leader(tb testing.TB, of string, leads func(*server.Server) bool) *Server {
	tb.Helper()
	var leader *Server
	wait(tb, func() bool {
		i := slices.IndexFunc(c.Servers, func(s *Server) bool {
			srv := s.running()
			return srv != nil && leads(srv)
		})
		if i >= 0 {
			leader = c.Servers[i]
		}
		return i >= 0
	}, func() string { return of + " has no leader" })
	return leader
}

// stop stops the servers side by side: one that is left alone would wait for
// the others.
func (c *Cluster) stop() {
	done := make(chan struct{}, len(c.Servers))
	for _, s := range c.Servers {
		go func() { // ends with the server; waited for below
			s.stop()
			done <- struct{}{}
		}()
	}
	for range c.Servers {
		<-done
	}
}

// join makes opts those of the member s of its cluster.
func (m *membership) join(s *Server, opts *server.Options) {
	opts.ServerName = m.name
	if opts.Cluster.Name == "" {
		opts.Cluster.Name = "natstest"
	}
	opts.Cluster.Host, opts.Cluster.Port = "127.0.0.1", m.port
	var user *url.Userinfo
	if opts.Cluster.Username != "" {
		user = url.UserPassword(opts.Cluster.Username, opts.Cluster.Password)
	}
	var routes []*url.URL
	for _, other := range m.cluster.Servers {
		if other != s && other.member.port > 0 {
			routes = append(routes, &url.URL{Scheme: "nats", User: user, Host: net.JoinHostPort(opts.Cluster.Host, strconv.Itoa(other.member.port))})
		}
	}
	if len(routes) == 0 { // the first server: JetStream wants a route, even one that leads nowhere
		routes = append(routes, &url.URL{Scheme: "nats", Host: "127.0.0.1:1"})
	}
	opts.Routes = routes
}

// health is empty, or says why a server is not healthy.
func health(ctx context.Context, srv *server.Server) string {
	if !srv.JetStreamIsCurrent() {
		return srv.Name() + ": is not current; "
	}
	answer := httptest.NewRecorder()
	srv.HandleHealthz(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/healthz", nil))
	if answer.Code != http.StatusOK {
		return srv.Name() + ": " + answer.Body.String() + "; "
	}
	return ""
}

// wait polls until cond holds and fails the test with why after [clusterTimeout].
func wait(tb testing.TB, cond func() bool, why func() string) {
	tb.Helper()
	timeout := time.NewTimer(clusterTimeout)
	defer timeout.Stop()
	tick := time.NewTicker(clusterPoll)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-timeout.C:
			tb.Fatal(why())
		}
	}
}
