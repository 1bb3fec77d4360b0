package natstest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// readyTimeout bounds the start of a server. It takes 3 ms; the rest is for a
// machine that runs many tests at once.
const readyTimeout = 20 * time.Second

// Options changes the server that [RunWith] starts. The zero value is what [Run] uses.
type Options struct {
	// MaxPayload is the largest message in bytes; 0 means the server's 1 MiB.
	MaxPayload int32
	// Config is the text of a nats-server configuration file, for accounts,
	// users and permissions. Addresses, store and logging in it are overridden, and
	// it is not monitored.
	Config string
	// StoreDir is the JetStream store; empty means a new temporary directory
	// that the test removes.
	StoreDir string
	// SyncAlways syncs the store to disk on every write, as the worker's own
	// embedded server does. It costs about 150 µs per publish.
	SyncAlways bool
}

// Server is a running NATS server with JetStream. Its methods are safe for
// concurrent use.
type Server struct {
	// URL is where clients connect; it stays the same over a restart.
	URL string
	// StoreDir is where JetStream keeps its files.
	StoreDir string

	opts       Options
	configFile string
	port       int
	member     *membership // of a cluster; nil without one

	mu  sync.Mutex // guards srv
	srv *server.Server
}

// Run starts a server with JetStream on 127.0.0.1 and a random port, and returns
// when clients can connect. The test's cleanup stops it and waits for its end.
func Run(tb testing.TB) *Server {
	tb.Helper()
	return RunWith(tb, Options{})
}

// RunWith is [Run] with options.
func RunWith(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s := newServer(tb, opts)
	tb.Cleanup(s.stop)
	s.Start(tb)
	return s
}

// newServer prepares a server that nobody has started.
func newServer(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s := &Server{opts: opts, port: server.RANDOM_PORT, StoreDir: opts.StoreDir}
	if s.StoreDir == "" {
		s.StoreDir = tb.TempDir()
	}
	if opts.Config != "" {
		s.configFile = filepath.Join(tb.TempDir(), "nats.conf")
		if err := os.WriteFile(s.configFile, []byte(opts.Config), 0o600); err != nil {
			tb.Fatalf("write the server's configuration: %v", err)
		}
	}
	return s
}

// Start starts the server again after [Server.Stop], on the same port and with
// the same store. It fails the test when the server runs already or does not
// start within 20 seconds.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		tb.Fatalf("the NATS server runs already")
	}
	srv, err := s.prepare()
	if err != nil {
		tb.Fatalf("start a NATS server: %v", err)
	}
	s.srv = srv
	srv.Start()
	if !srv.ReadyForConnections(readyTimeout) {
		tb.Fatalf("the NATS server is not ready after %s", readyTimeout)
	}
	if s.URL != "" { // a restart; others may be reading it
		return
	}
	s.URL = srv.ClientURL()
	if addr, ok := srv.Addr().(*net.TCPAddr); ok {
		s.port = addr.Port
	}
	if s.member != nil {
		s.member.port = srv.ClusterAddr().Port
	}
}

// Stop shuts the server down and returns when it is gone. Clients see a lost
// connection. Stopping a stopped server does nothing.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	s.stop()
}

// Restart is [Server.Stop] and [Server.Start].
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop(tb)
	s.Start(tb)
}

// Conn returns a new connection over TCP, closed by the test's cleanup. It
// reconnects for ever and at once, so that it survives [Server.Restart]; opts
// come after the defaults and may change that.
func (s *Server) Conn(tb testing.TB, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	return connect(tb, s.URL, opts...)
}

func connect(tb testing.TB, url string, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	all := append([]nats.Option{
		nats.Name(tb.Name()),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(10 * time.Millisecond),
		nats.ReconnectJitter(0, 0),
	}, opts...)
	nc, err := nats.Connect(url, all...)
	if err != nil {
		tb.Fatalf("connect to the NATS server: %v", err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// InProcess makes a connection of [Server.Conn] go through memory instead of
// TCP. It survives [Server.Restart] too.
func (s *Server) InProcess() nats.Option { return nats.InProcessServer(s) }

// InProcessConn implements [nats.InProcessConnProvider] for the server that runs
// at the moment.
func (s *Server) InProcessConn() (net.Conn, error) {
	srv := s.running()
	if srv == nil {
		return nil, errors.New("the NATS server is stopped")
	}
	return srv.InProcessConn()
}

// JetStream returns the JetStream interface of a new [Server.Conn].
func (s *Server) JetStream(tb testing.TB, opts ...nats.Option) jetstream.JetStream {
	tb.Helper()
	return openJetStream(tb, s.Conn(tb, opts...))
}

func openJetStream(tb testing.TB, nc *nats.Conn) jetstream.JetStream {
	tb.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		tb.Fatalf("open JetStream: %v", err)
	}
	return js
}

// DropClients closes every client connection at the server, as a network that
// breaks. The clients reconnect if they want to. It returns how many there were.
func (s *Server) DropClients(tb testing.TB) int {
	tb.Helper()
	srv := s.running()
	if srv == nil {
		return 0
	}
	conns, err := srv.Connz(&server.ConnzOptions{})
	if err != nil {
		tb.Fatalf("list the server's connections: %v", err)
	}
	for _, c := range conns.Conns {
		if err := srv.DisconnectClientByID(c.Cid); err != nil {
			tb.Logf("connection %d was gone already: %v", c.Cid, err)
		}
	}
	return len(conns.Conns)
}

// running is the server that runs at the moment; nil when it is stopped.
func (s *Server) running() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return
	}
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.srv = nil
}

// prepare builds the options anew for every start, because the server keeps and
// changes the ones it gets.
func (s *Server) prepare() (*server.Server, error) {
	opts := &server.Options{}
	if s.configFile != "" {
		var err error
		if opts, err = server.ProcessConfigFile(s.configFile); err != nil {
			return nil, err
		}
	}
	opts.Host = "127.0.0.1"
	opts.Port = s.port
	opts.HTTPHost, opts.HTTPPort = "", 0
	opts.JetStream = true
	opts.StoreDir = s.StoreDir
	opts.NoLog = true
	opts.NoSigs = true
	opts.SyncAlways = s.opts.SyncAlways
	if s.opts.MaxPayload != 0 {
		opts.MaxPayload = s.opts.MaxPayload
	}
	// Limits, not reservations; without them the server derives them from the disk.
	opts.JetStreamMaxMemory = 256 << 20
	opts.JetStreamMaxStore = 4 << 30
	if s.member != nil {
		s.member.join(s, opts)
	}
	return server.NewServer(opts)
}
