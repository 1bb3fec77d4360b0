package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embeddedReady bounds the start of the embedded server; reading a large store
// back after a crash takes most of it.
const embeddedReady = 60 * time.Second

// EmbeddedServer is the name of the NATS server inside a worker.
const EmbeddedServer = "understudy-embedded"

// AddrError says that an address cannot be listened on.
type AddrError struct {
	// Setting is the variable that holds the address.
	Setting, Addr string
	Err           error
}

// Error implements error.
func (e *AddrError) Error() string {
	return fmt.Sprintf("%s: cannot listen on %s: %v", e.Setting, e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *AddrError) Unwrap() error { return e.Err }

// DirError says that a data directory cannot be used.
type DirError struct {
	// Setting is the variable that holds the directory.
	Setting, Dir string
	Err          error
}

// Error implements error.
func (e *DirError) Error() string {
	return fmt.Sprintf("%s: cannot use %s: %v", e.Setting, e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *DirError) Unwrap() error { return e.Err }

// errInUse says that another server works on the directory.
var errInUse = errors.New("another worker's embedded server uses it")

// claim makes the data directory and takes its lock, until the returned file is
// closed. Two servers on the same files would each lose what the other stores.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &DirError{Setting: "WORKER_DATA_DIR", Dir: dir, Err: err}
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, &DirError{Setting: "WORKER_DATA_DIR", Dir: dir, Err: err}
	}
	return lock, nil
}

// startEmbedded runs a JetStream server in this process. It blocks until
// clients can connect.
func startEmbedded(ctx context.Context, cfg Embedded, logger *slog.Logger) (*server.Server, error) {
	host, portText, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, &AddrError{Setting: "WORKER_EMBEDDED_ADDR", Addr: cfg.Addr, Err: err}
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, &AddrError{Setting: "WORKER_EMBEDDED_ADDR", Addr: cfg.Addr, Err: err}
	}
	if port == 0 {
		port = server.RANDOM_PORT
	} else if err := probe(ctx, cfg.Addr); err != nil { // the server itself would only log it
		return nil, &AddrError{Setting: "WORKER_EMBEDDED_ADDR", Addr: cfg.Addr, Err: err}
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: EmbeddedServer,
		Host:       host, Port: port,
		JetStream: true, StoreDir: cfg.DataDir, SyncAlways: true,
		NoSigs: true, DontListen: false,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	srv.SetLoggerV2(serverLog{logger}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(embeddedReady) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("embedded NATS server did not start; is WORKER_DATA_DIR writable and used by nobody else?")
	}
	return srv, nil
}

// probe listens on addr for a moment.
func probe(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// serverLog passes the server's warnings and errors on; they do not talk of
// jobs' contents.
type serverLog struct{ log *slog.Logger }

// Noticef implements server.Logger.
func (l serverLog) Noticef(format string, v ...any) {
	l.log.Debug("embedded server", "message", fmt.Sprintf(format, v...))
}

// Debugf implements server.Logger.
func (l serverLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l serverLog) Tracef(string, ...any) {}

// Warnf implements server.Logger.
func (l serverLog) Warnf(format string, v ...any) {
	l.log.Warn("embedded server", "message", fmt.Sprintf(format, v...))
}

// Errorf implements server.Logger.
func (l serverLog) Errorf(format string, v ...any) {
	l.log.Error("embedded server", "message", fmt.Sprintf(format, v...))
}

// Fatalf implements server.Logger.
func (l serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }
