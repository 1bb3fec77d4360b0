// Command bench measures what the worker costs above the bare minimum.
//
// It runs a bare loop and the worker in turn, against the same NATS server and
// the same scripted provider, and prints the ratios beside the goals. Every part
// is a process of its own, so that each has its own account of CPU and memory:
//
//	bench ──> server, provider (once) ──> bare, worker, bare, worker, …
//
// docs/performance.md is the method. It is no part of what is shipped.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit codes. A missed goal is no failure: machines differ.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code) //nolint:forbidigo // this is a main
}

// run is the command, or one of its child processes.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if child, ok := roles()[args[0]]; ok {
			if err := child(ctx, args[1:], stdout); err != nil {
				return fail(stderr, exitFailed, fmt.Errorf("%s: %w", args[0], err))
			}
			return exitOK
		}
	}
	o := defaults()
	if err := o.parse(args, stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return fail(stderr, exitUsage, err)
	}
	report, err := measure(ctx, o, stderr)
	if err != nil {
		return fail(stderr, exitFailed, err)
	}
	if err := publish(report, o, stdout, stderr); err != nil {
		return fail(stderr, exitFailed, err)
	}
	return exitOK
}

// publish prints the report and writes it into the document.
func publish(r *report, o options, stdout, stderr io.Writer) error {
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else if err := r.text(stdout); err != nil {
		return err
	}
	if o.doc == "" {
		return nil
	}
	if !o.whole() {
		_, err := fmt.Fprintln(stderr, "bench: "+o.doc+" is left as it is: only a whole run, or a whole one of -only "+partScale+", without profiles is written")
		return err
	}
	return r.document(o.doc)
}

func fail(stderr io.Writer, code int, err error) int {
	_, _ = fmt.Fprintf(stderr, "bench: %v\n", err) // there is nowhere else to say it
	return code
}

// roles are the child processes of this program, by their first argument.
func roles() map[string]func(ctx context.Context, args []string, stdout io.Writer) error {
	return map[string]func(ctx context.Context, args []string, stdout io.Writer) error{
		"child-server":   runServer,
		"child-provider": runProvider,
		"child-bare":     runBare,
		"child-worker":   runWorker,
	}
}
