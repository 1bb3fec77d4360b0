package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // a job did not succeed, or is not there
	exitUsage       = 2
	exitUnreachable = 3
	exitInterrupted = 130
)

// Errors that stand for an exit code.
var (
	// errFailed says that a job did not succeed; what there is to say was said.
	errFailed = errors.New("not everything succeeded")
	// errShown ends a command that has printed its help.
	errShown = errors.New("help was shown")
)

// unreachableError says why NATS cannot be reached, or was lost for good.
type unreachableError struct{ err error }

// Error implements error.
func (e *unreachableError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *unreachableError) Unwrap() error { return e.err }

// usageError is what is wrong with a command line, its input or the
// configuration, on one line or more.
type usageError struct {
	text string
	// help names the command whose help tells more; empty for none.
	help string
}

// Error implements error.
func (e *usageError) Error() string { return e.text }

func usage(help, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...), help: help}
}

// terminals tells which of the three streams is a person's terminal.
type terminals struct{ in, out, err bool }

// app is one run of the command, with everything it takes from the process.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	terminals      terminals
	now            func() time.Time
	// load reads the environment; see environment.
	load func() environment
	env  *environment
	// loadWorker reads what concerns a worker; only explain asks.
	loadWorker func() workerSettings
}

// environment is what the environment says. It is read once.
func (a *app) environment() *environment {
	if a.env == nil {
		a.env = new(a.load())
	}
	return a.env
}

// run runs one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	err := a.dispatch(ctx, args)
	if ctx.Err() != nil && err != nil {
		return exitInterrupted
	}
	var wrong *usageError
	var away *unreachableError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errShown):
		return exitUsage
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.As(err, &wrong):
		a.complain(wrong)
		return exitUsage
	case errors.As(err, &away):
		a.note("submit: %v", err)
		return exitUnreachable
	}
	a.note("submit: %v", err)
	return exitFailed
}

func (a *app) complain(e *usageError) {
	a.note("submit: %s", e.text)
	if e.help != "" {
		a.note("Run %q for help.", e.help+" -h")
	}
}

// note says something to the person who runs the command.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...) // nobody is left to tell
}

// print writes data to standard output.
func (a *app) print(data ...[]byte) error {
	for _, part := range data {
		if _, err := a.stdout.Write(part); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
	}
	return nil
}

// version is the version of the module that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// readCapped reads r to its end, or until ctx is done; more than limit bytes are
// a usage error.
func readCapped(ctx context.Context, r io.Reader, limit int64, what string) ([]byte, error) {
	var data []byte
	var err error
	read := make(chan struct{})
	go func() { // ends with r, or with the process: a read of a terminal cannot be stopped
		defer close(read)
		data, err = io.ReadAll(io.LimitReader(r, limit+1))
	}()
	select {
	case <-read:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, usage("", "%s cannot be read: %v", what, err)
	}
	if int64(len(data)) > limit {
		return nil, usage("", "%s has more than %d bytes", what, limit)
	}
	return data, nil
}

// open returns the file called name, or standard input for "-".
func (a *app) open(name string) (io.Reader, func(), error) {
	if name == "-" {
		return a.stdin, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, usage("", "%v", err)
	}
	return f, func() { _ = f.Close() }, nil // only read
}

// syncWriter lets several goroutines write whole lines. Its zero value has no
// writer and must not be used.
type syncWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

// Write implements io.Writer.
func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// through makes what is written from now on go to what wrap makes of the
// present writer, until the returned function is called.
func (s *syncWriter) through(wrap func(io.Writer) io.Writer) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.w
	s.w = wrap(before)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.w = before
	}
}
