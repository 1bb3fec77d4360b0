package config

import (
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"understudy/internal/worker"
)

// Worker is the environment of the command worker, read and checked.
type Worker struct {
	// Config is the worker's; usable when the report has no problem. Its Version
	// is not set.
	Config worker.Config
	// NATS says how to reach NATS; [worker.Config] has its Connect.
	NATS NATS
	// Report is what there is to say about the environment.
	Report Report

	level    slog.Level
	format   string
	nats     []field
	worker   []field
	lists    []field
	breakers []field
	backends []*backendEntry
	routes   []*routeEntry
}

// ForWorker reads everything the worker needs of env. It reads the files that
// variables name and connects to nothing.
func ForWorker(env *Environment) *Worker {
	w := &Worker{}
	r := newReader(env, &w.Report)
	w.NATS, w.nats = readNATS(r, "check NATS_URL, or unset it to run with the embedded server")

	var spec workerSpec
	w.worker = r.read("WORKER", "the worker", &spec)
	w.readWorker(r, &spec)

	var breakers breakerSpec
	w.breakers = r.read("BREAKER", "the breakers", &breakers)

	var lists listsSpec
	w.lists = r.read("", "the lists", &lists)
	w.backends = readBackends(r, lists.Backends.value, &breakers)
	checkAny(r, &lists, w.backends)
	for _, b := range w.backends {
		if b.off == "" {
			w.Config.Backends = append(w.Config.Backends, b.config(w.Config.Concurrency, &breakers))
		}
	}
	known := w.backends
	if lists.Backends.err != nil {
		known = nil // a name that is none of them may be the one that is misspelt
	}
	w.routes = readRoutes(r, &lists, known)
	for _, e := range w.routes {
		w.Config.Routes = append(w.Config.Routes, e.route)
	}
	r.checkUnknown()
	w.Report.tidy()
	return w
}

// readWorker takes WORKER_* over.
func (w *Worker) readWorker(r *reader, s *workerSpec) {
	w.level, w.format = s.LogLevel.value, s.LogFormat.value
	w.Config = worker.Config{
		Name: s.Name.value, Prefix: s.SubjectPrefix.text, Queues: s.Queues.value, Concurrency: s.Concurrency.value,
		Replicas: s.Replicas.value, ReplyAllow: s.ReplyAllow.value, MaxCrashes: s.MaxCrashes.value,
		ResultsMaxAge: s.ResultsMaxAge.value, EventsMaxAge: s.EventsMaxAge.value,
		MaxPayload:    s.MaxPayload.value,
		ShutdownGrace: s.ShutdownGrace.value, HTTPAddr: s.HTTPAddr.value,
		Connect: w.NATS.Connect,
	}
	if s.ShutdownGrace.value == 0 { // 0 would be the default
		w.Config.ShutdownGrace = -1
	}
	if s.MaxPayload.value == 0 {
		w.Config.MaxPayload = -1
	}
	const most = 5 // of JetStream
	if s.Replicas.value > most {
		r.report.problem(s.Replicas.name, "use 1, 3 or 5", "%d is more than a stream can have", s.Replicas.value)
	}
	if w.NATS.Configured() {
		for _, f := range []variable{&s.EmbeddedAddr, &s.DataDir} {
			if f.isGiven() {
				r.report.warn(f.label(), "unset it", "has no effect: the worker connects to %s", w.NATS.Servers())
			}
			w.worker = slices.DeleteFunc(w.worker, func(shown field) bool { return shown.name == f.label() })
		}
		return
	}
	w.readEmbedded(r, s)
}

// readEmbedded checks what concerns the embedded server.
func (w *Worker) readEmbedded(r *reader, s *workerSpec) {
	w.Config.Embedded = &worker.Embedded{Addr: s.EmbeddedAddr.value, DataDir: s.DataDir.value}
	for _, f := range w.nats {
		if f.isGiven() {
			r.report.warn(f.name, "set NATS_URL or NATS_CONTEXT", "has no effect: without a server to connect to, the worker starts its own")
		}
	}
	if s.Replicas.value > 1 {
		r.report.problem(s.Replicas.name, "use 1, or set NATS_URL", "the embedded server keeps one copy, not %d", s.Replicas.value)
	}
	if info, err := os.Stat(s.DataDir.value); err == nil && !info.IsDir() {
		r.report.problem(s.DataDir.name, "name a directory", "%s is not a directory", quoted(s.DataDir.value))
	}
	if host, port, err := net.SplitHostPort(s.EmbeddedAddr.value); err == nil {
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			r.report.warn(s.EmbeddedAddr.name, "", "the embedded server asks nobody for credentials: who can reach it can use it")
		}
		if port != "0" && s.EmbeddedAddr.value == s.HTTPAddr.value {
			r.report.problem(s.HTTPAddr.name, "use another port", "is the same address as %s", s.EmbeddedAddr.name)
		}
	}
}

// Logger returns a logger that writes to out as WORKER_LOG_LEVEL and
// WORKER_LOG_FORMAT say.
func (w *Worker) Logger(out io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: w.level}
	if strings.EqualFold(w.format, formatJSON) {
		return slog.New(slog.NewJSONHandler(out, opts))
	}
	return slog.New(slog.NewTextHandler(out, opts))
}
