package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"understudy/internal/backend/openai"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/worker"
)

// runWorker runs the worker as a library, with the defaults of the command, so
// that profiles can be taken of it. Its log goes to standard error.
func runWorker(ctx context.Context, args []string, _ io.Writer) error {
	flags := flag.NewFlagSet("child-worker", flag.ContinueOnError)
	url := flags.String("nats", "", "NATS `URL`; empty runs the embedded server")
	data := flags.String("data", "", "data `directory` of the embedded server")
	listen := flags.String("listen", "127.0.0.1:0", "`address` of the embedded server")
	addr := flags.String("http", "127.0.0.1:0", "`address` of HTTP")
	provider := flags.String("provider", "", "base `URL` of the provider")
	slots := flags.Int("slots", worker.DefaultConcurrency, "jobs at once")
	backends := flags.Int("backends", 0, "backends of the chain; 0 is the preset vllm")
	routes := flags.Int("routes", 0, "named routes")
	profiles := flags.String("profiles", "", "`directory` for profiles")
	allocs := flags.Bool("allocs", true, "one of allocations, too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg, err := workerConfig(*provider, *slots, names("b", *backends), names("r", *routes))
	if err != nil {
		return err
	}
	cfg.Connect = func(opts ...nats.Option) (*nats.Conn, error) { return nats.Connect(*url, opts...) }
	if *url == "" {
		cfg.Embedded = &worker.Embedded{Addr: *listen, DataDir: *data}
	}
	cfg.HTTPAddr = *addr
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	w, err := worker.New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)), reg)
	if err != nil {
		return err
	}
	if *profiles != "" && !*allocs {
		runtime.MemProfileRate = 0 // it costs CPU
	}
	stop, err := startProfiles(*profiles, "worker")
	if err != nil {
		return err
	}
	untune := worker.TuneGC() // as the command does
	err = w.Run(untilOrphan(ctx))
	untune()
	return errors.Join(err, stop())
}

// workerConfig is what the command makes of an environment that sets the
// servers, VLLM_BASE_URL or the backends, the routes and WORKER_CONCURRENCY alone.
func workerConfig(provider string, slots int, backends, routes []string) (worker.Config, error) {
	const timeout = 10 * time.Second // of the preset vllm
	allow, err := job.ParseReplyRule(job.DefaultReplyAllow)
	if err != nil {
		return worker.Config{}, err
	}
	if len(backends) == 0 {
		backends = []string{"vllm"}
	}
	cfg := worker.Config{Concurrency: slots, ReplyAllow: allow}
	for _, name := range backends {
		cfg.Backends = append(cfg.Backends, worker.Backend{
			Name: name, Kind: worker.KindOpenAI,
			OpenAI: openai.Config{BaseURL: provider, Timeout: timeout, Concurrency: slots},
		})
	}
	for _, name := range append([]string{fallback.DefaultRoute}, routes...) {
		cfg.Routes = append(cfg.Routes, fallback.Route{Name: name, Chain: backends, Policy: fallback.DefaultPolicy()})
	}
	return cfg, nil
}

// profileRate is one sample in so many bytes allocated; the default is too
// coarse to see the small allocations of a job.
const profileRate = 32 << 10

// startProfiles takes profiles of this process until stop is called, which
// writes them as <dir>/<name>-cpu.prof and <dir>/<name>-allocs.prof. Without dir
// it does nothing.
func startProfiles(dir, name string) (stop func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	if runtime.MemProfileRate != 0 {
		runtime.MemProfileRate = profileRate
	}
	cpu, err := os.Create(filepath.Join(dir, name+"-cpu.prof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(err, cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(filepath.Join(dir, name+"-allocs.prof"))
		if err != nil {
			return errors.Join(err, cpu.Close())
		}
		return errors.Join(cpu.Close(), pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
	}, nil
}
