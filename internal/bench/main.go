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
	"slices"
	"strings"
	"syscall"
	"time"
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

// options are the flags, and what tests make smaller.
type options struct {
	worker  string // the worker's binary; empty means the worker as a library
	rounds  int
	jobs    int
	only    string
	json    bool
	sync    bool
	profile bool
	dir     string // of the profiles; empty means none are taken
	doc     string // the file to write the table into

	hold time.Duration // the provider's time with many jobs in flight
	idle time.Duration // how long the idle worker is watched
}

// defaults are the options of a run without flags, of about three minutes.
func defaults() options {
	return options{worker: "bin/worker", rounds: 3, jobs: 20000, hold: 5 * time.Second, idle: 20 * time.Second}
}

// parse reads the flags.
func (o *options) parse(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.worker, "worker", o.worker, "the worker's `binary`; another version can be measured as well")
	flags.IntVar(&o.rounds, "rounds", o.rounds, "how `often` each side runs")
	flags.IntVar(&o.jobs, "jobs", o.jobs, "jobs of a throughput run; the other parts take an eighth, a twentieth, a quarter")
	flags.StringVar(&o.only, "only", "", "run only these `parts`, with commas between: "+strings.Join(partNames(), ", "))
	flags.BoolVar(&o.json, "json", false, "print one JSON document with every sample")
	flags.BoolVar(&o.sync, "sync", false, "let the server sync every write to disk")
	flags.BoolVar(&o.profile, "profile", false, "run the worker inside a process of this program and take profiles (bin/, unless -cpuprofile says where)")
	flags.StringVar(&o.dir, "cpuprofile", "", "`directory` for CPU and allocation profiles of both sides; implies -profile")
	flags.StringVar(&o.doc, "doc", "", "write the table between the markers of this `file`, after a whole run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.dir != "" {
		o.profile = true
	} else if o.profile {
		o.dir = "bin"
	}
	if o.profile {
		o.worker = ""
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.rounds < 1 {
		errs = append(errs, fmt.Errorf("-rounds: %d is below 1", o.rounds))
	}
	const fewest = 100 // below, a share of the jobs is none
	if o.jobs < fewest {
		errs = append(errs, fmt.Errorf("-jobs: %d is below %d", o.jobs, fewest))
	}
	for _, name := range o.parts() {
		if !slices.Contains(partNames(), name) {
			errs = append(errs, fmt.Errorf("-only: %q is not one of %s", name, strings.Join(partNames(), ", ")))
		}
	}
	return errors.Join(errs...)
}

// parts are the names of the parts to run.
func (o *options) parts() []string {
	if o.only == "" {
		return partNames()
	}
	return strings.Split(o.only, ",")
}

// whole reports whether the run is one whose table is worth keeping.
func (o *options) whole() bool { return o.only == "" && !o.profile }

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
		_, err := fmt.Fprintln(stderr, "bench: "+o.doc+" is left as it is: only a whole run without profiles is written")
		return err
	}
	return writeDoc(o.doc, r.markdown())
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
