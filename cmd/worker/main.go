// Command worker takes LLM completion jobs from NATS JetStream and runs each
// through a chain of backends until one answers.
//
// It is configured by the environment alone; `worker -env` lists the variables
// and `worker -check` prints what is in effect.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"understudy/cmd/internal/config"
	"understudy/internal/worker"
)

// The exit codes.
const (
	exitOK            = 0
	exitFailed        = 1
	exitConfiguration = 2 // what the user said cannot be used
	exitUnreachable   = 3 // NATS cannot be reached, or refuses the credentials
)

// dotenv is the file that adds to the environment.
const dotenv = ".env"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the command: data to out, everything else to errOut.
func run(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are told below, on one line
	check := flags.Bool("check", false, "")
	env := flags.Bool("env", false, "")
	version := flags.Bool("version", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return written(errOut, writeHelp(out))
	case err != nil:
		return usage(errOut, err.Error())
	case flags.NArg() > 0:
		return usage(errOut, fmt.Sprintf("unexpected argument %q; the worker is configured by the environment", flags.Arg(0)))
	case *version:
		return written(errOut, writeVersion(out))
	case *env:
		return written(errOut, config.Reference(out))
	case *check:
		return runCheck(out, errOut)
	}
	return serve(errOut)
}

// runCheck prints the effective configuration.
func runCheck(out, errOut io.Writer) int {
	cfg, _ := prepare(io.Discard)
	if code := written(errOut, cfg.Print(out)); code != exitOK {
		return code
	}
	if !cfg.Report.OK() {
		return exitConfiguration
	}
	return exitOK
}

// untilSignal returns a context that ends with SIGINT or SIGTERM. Before it
// ends, signals do again what they do without us, so that whoever sees the worker
// stopping can kill it with a second one; [signal.NotifyContext] would swallow
// that one for a moment.
func untilSignal() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the context; nobody needs to wait
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		stop()
	}()
	return ctx, stop
}

// serve runs the worker until it is told to stop. A first signal stops it in
// order, a second one kills it.
func serve(errOut io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	defer tuneGC()()

	cfg, w := prepare(errOut)
	for _, problem := range cfg.Report.Problems {
		say(errOut, problem.String())
	}
	if w == nil {
		return exitConfiguration
	}
	logger := cfg.Logger(errOut)
	for _, f := range cfg.Report.Warnings {
		logger.WarnContext(ctx, "configuration", "variable", f.Variable, "warning", f.Wrong, "mend", f.Mend)
	}
	return ended(errOut, w.Run(ctx))
}

// prepare reads the environment and builds the worker, which logs to logs. When
// there is a problem the worker is nil and the report holds all of them.
func prepare(logs io.Writer) (*config.Worker, *worker.Worker) {
	cfg := config.ForWorker(config.Process(dotenv))
	if !cfg.Report.OK() {
		return cfg, nil
	}
	cfg.Config.Version = semantic(buildVersion())
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w, err := worker.New(cfg.Config, cfg.Logger(logs), reg)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			cfg.Report.Problems = append(cfg.Report.Problems, config.Finding{Variable: "configuration", Wrong: line})
		}
		return cfg, nil
	}
	return cfg, w
}

// ended tells how a run ended, on one line, and returns the exit code.
func ended(errOut io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	if connect, ok := errors.AsType[*config.ConnectError](err); ok {
		say(errOut, connect.Error())
		return exitUnreachable
	}
	if taken, ok := errors.AsType[*worker.AddrError](err); ok {
		say(errOut, addressProblem(taken).String())
		return exitConfiguration
	}
	if dir, ok := errors.AsType[*worker.DirError](err); ok {
		f := config.Finding{Variable: dir.Setting, Wrong: fmt.Sprintf("cannot use %s: %v", dir.Dir, dir.Err), Mend: "set it to another directory"}
		say(errOut, f.String())
		return exitConfiguration
	}
	say(errOut, strings.ReplaceAll(err.Error(), "\n", ": "))
	if errors.Is(err, worker.ErrConnectionLost) {
		return exitUnreachable
	}
	return exitFailed
}

// addressProblem is why an address cannot be listened on, for people.
func addressProblem(e *worker.AddrError) config.Finding {
	f := config.Finding{Variable: e.Setting, Wrong: fmt.Sprintf("cannot listen on %s: %v", e.Addr, e.Err), Mend: "set it to another address"}
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		f.Wrong = fmt.Sprintf("cannot listen on %s: another program does already", e.Addr)
	case errors.Is(e.Err, syscall.EACCES):
		f.Wrong = fmt.Sprintf("cannot listen on %s: that is not permitted", e.Addr)
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		f.Wrong = fmt.Sprintf("cannot listen on %s: this machine does not have that address", e.Addr)
	}
	return f
}

// usage complains about the arguments.
func usage(errOut io.Writer, problem string) int {
	say(errOut, problem)
	say(errOut, "`worker -help` tells what there is")
	return exitConfiguration
}

// written is the exit code after an attempt to write to standard output.
func written(errOut io.Writer, err error) int {
	if err != nil {
		say(errOut, "write to standard output: "+err.Error())
		return exitFailed
	}
	return exitOK
}

// say prints one line for people. There is nobody to tell when that fails.
func say(errOut io.Writer, line string) { _, _ = fmt.Fprintln(errOut, "worker: "+line) }
