package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// natsdConfig is the variable that turns this test binary into a NATS server
// with that configuration file, so that one can be killed.
const natsdConfig = "UNDERSTUDY_NATSD"

// serverReady bounds the start of a server, on a busy machine and after a crash.
const serverReady = time.Minute

// runNATS is the main function of a server process. It ends with SIGTERM, or
// when its parent is gone; SIGHUP makes it read its configuration again.
func runNATS(config string) int {
	opts, err := server.ProcessConfigFile(config)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	opts.NoSigs, opts.NoLog = true, true
	srv, err := server.NewServer(opts)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	srv.Start()
	if !srv.ReadyForConnections(serverReady) {
		fmt.Println("not ready in time")
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	orphan := make(chan struct{})
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(orphan)
	}()
	fmt.Println("ready")
	for {
		select {
		case <-orphan:
			return 1
		case s := <-signals:
			if s == syscall.SIGTERM {
				srv.Shutdown()
				srv.WaitForShutdown()
				return 0
			}
			if err := srv.Reload(); err != nil {
				fmt.Println("reload:", err)
			} else {
				fmt.Println("reloaded")
			}
		}
	}
}

// natsd is a NATS server in a process of its own.
type natsd struct {
	t      *testing.T
	name   string
	addr   string // of clients
	route  string // of the cluster; "" without one
	routes []string
	dir    string
	config string
	store  int // what it may store, in bytes

	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

// The users of a server: the workers, and the tests.
const (
	workerUser = "worker"
	testUser   = "test"
)

// How much a server may store, in bytes: little, to be filled, or enough.
const (
	smallStore = 32 << 20
	bigStore   = 8 << 30
)

// freeAddr is an address of this machine that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// newServers starts n servers, which form a cluster if they are several.
func newServers(t *testing.T, n, store int) []*natsd {
	t.Helper()
	servers := make([]*natsd, n)
	var routes []string
	for i := range servers {
		dir := t.TempDir()
		s := &natsd{t: t, name: fmt.Sprintf("s%d", i+1), addr: freeAddr(t), dir: dir, config: filepath.Join(dir, "nats.conf"), store: store}
		if n > 1 {
			s.route = freeAddr(t)
			routes = append(routes, "nats://"+s.route)
		}
		servers[i] = s
	}
	for _, s := range servers {
		s.routes = routes
		s.configure("")
		s.launch()
		t.Cleanup(s.kill)
	}
	for _, s := range servers {
		s.says("ready")
	}
	return servers
}

// configure writes the configuration; denied is what the workers may not publish.
func (s *natsd) configure(denied string) {
	s.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\nlisten: %q\nmax_payload: 1MB\n", s.name, s.addr)
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file_store: %d, max_memory_store: 67108864 }\n", filepath.Join(s.dir, "js"), s.store)
	if s.route != "" {
		fmt.Fprintf(&b, "cluster { name: c, listen: %q, routes: [%s] }\n", s.route, strings.Join(s.routes, ", "))
	}
	permissions := ""
	if denied != "" {
		permissions = fmt.Sprintf(", permissions: { publish: { deny: [%s] }, subscribe: \">\" }", denied)
	}
	fmt.Fprintf(&b, "authorization { users: [ {user: %s, password: p%s}, {user: %s, password: p} ] }\n", workerUser, permissions, testUser)
	require.NoError(s.t, os.WriteFile(s.config, []byte(b.String()), 0o600))
}

// launch starts the process and does not wait until it is ready.
func (s *natsd) launch() {
	s.t.Helper()
	s.cmd = exec.CommandContext(context.WithoutCancel(s.t.Context()), os.Args[0])
	s.cmd.Env = append(os.Environ(), natsdConfig+"="+s.config)
	var err error
	s.stdin, err = s.cmd.StdinPipe() // its end tells the server that we are gone
	require.NoError(s.t, err)
	out, err := s.cmd.StdoutPipe()
	require.NoError(s.t, err)
	s.out = bufio.NewReader(out)
	require.NoError(s.t, s.cmd.Start())
}

// says waits for a word of the server.
func (s *natsd) says(word string) {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	require.NoError(s.t, err)
	require.Equal(s.t, word+"\n", line)
}

// start starts the server again.
func (s *natsd) start() {
	s.t.Helper()
	s.launch()
	s.says("ready")
}

// kill kills the process and waits for its end.
func (s *natsd) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// stop ends the server in order.
func (s *natsd) stop() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(s.t, s.cmd.Wait())
}

// reload makes the server read its configuration again.
func (s *natsd) reload() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGHUP))
	s.says("reloaded")
}

// url is where user connects, by way of addr.
func url(user, addr string) string { return "nats://" + user + ":p@" + addr }
