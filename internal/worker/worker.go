package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// The numbers of a start and a stop.
const (
	// ensureTimeout bounds the creation of streams and consumers at the start.
	ensureTimeout = 30 * time.Second
	// bucketsTimeout bounds the creation of the object stores within that.
	bucketsTimeout = 10 * time.Second
	// hardStop is how long after the grace a job may still settle.
	hardStop = 10 * time.Second
	// closeTimeout bounds each of the last steps of a stop.
	closeTimeout = 3 * time.Second
)

// ErrConnectionLost says that the connection to NATS was closed for good.
var ErrConnectionLost = errors.New("the connection to NATS was closed")

// Worker takes jobs and runs them. Make one with [New], run it once with
// [Worker.Run].
type Worker struct {
	cfg      Config
	logger   *slog.Logger
	reg      *prometheus.Registry
	subjects job.Subjects
	decoder  *job.Decoder
	engine   *fallback.Engine
	backends *backends
	metrics  *metrics

	// Set by Run, before anything that uses them starts.
	nc      *nats.Conn
	written *results.Writes // sees nc's writes; nil where the server is in this process
	js      jetstream.JetStream
	layout  queue.Layout
	source  *queue.Source
	store   *results.Store
	outbox  *results.Outbox
	hard    context.Context //nolint:containedctx // ends when settling must end; see settling
	lost    chan error      // the connection was closed for good

	held     map[results.Kind]int // jobs that cannot be stored, see blocked; guarded by the store
	stopping <-chan struct{}      // closed when no more jobs are to be taken

	ready chan struct{} // closed when jobs are taken
	url   string        // of the embedded server
	http  string        // where HTTP is served
}

// New checks cfg whole and returns a Worker, or every problem joined. It reads
// the rules files but connects to nothing and starts nothing.
func New(cfg Config, logger *slog.Logger, reg *prometheus.Registry) (*Worker, error) {
	cfg = cfg.withDefaults()
	w := &Worker{cfg: cfg, logger: logger, reg: reg, ready: make(chan struct{}), lost: make(chan error, 1), held: make(map[results.Kind]int)}
	var errs []error
	var err error
	if w.subjects, err = job.NewSubjects(cfg.Prefix); err != nil {
		errs = append(errs, fmt.Errorf("WORKER_SUBJECT_PREFIX: %w", err))
	}
	if cfg.Embedded == nil && cfg.Connect == nil {
		errs = append(errs, errors.New("NATS_URL: neither a server to connect to nor an embedded one is configured"))
	}
	w.decoder = job.NewDecoder(w.subjects, cfg.ReplyAllow)
	if w.backends, err = newBackends(cfg.Backends, w.breakerChanged); err != nil {
		errs = append(errs, err)
	} else if w.engine, err = fallback.New(fallback.Config{
		Backends: w.backends.outer, Retries: w.backends.retries, Routes: cfg.Routes, Accept: openai.NewSchemaChecker().Check,
	}); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return w, nil
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "worker"
		}
		c.Name = host + "-" + job.NewID()[:6]
	}
	if c.Version == "" {
		c.Version = "0.0.0"
	}
	if c.Prefix == "" {
		c.Prefix = job.DefaultPrefix
	}
	if len(c.Queues) == 0 {
		c.Queues = []queue.Weighted{{Name: job.DefaultQueue, Weight: 1}}
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.MaxCrashes == 0 {
		c.MaxCrashes = DefaultMaxCrashes
	}
	if c.ShutdownGrace == 0 {
		c.ShutdownGrace = DefaultShutdownGrace
	}
	c.MaxPayload = max(cmp.Or(c.MaxPayload, DefaultMaxPayload), 0)
	c.Backends = slices.Clone(c.Backends)
	for i := range c.Backends {
		if b := &c.Backends[i].OpenAI; b.MaxResponseBytes == 0 {
			b.MaxResponseBytes = max(openai.DefaultMaxResponseBytes, c.MaxPayload)
		}
	}
	return c
}

// Ready is closed when the worker takes jobs.
func (w *Worker) Ready() <-chan struct{} { return w.ready }

// URL is where the embedded server listens; empty without one, and before Ready.
func (w *Worker) URL() string { return w.url }

// HTTPAddr is where HTTP is served; empty when it is not, and before Ready.
func (w *Worker) HTTPAddr() string { return w.http }

// Run serves until ctx is done, then stops in order: no new requests, no new
// jobs, running calls within the grace, the rest handed back, last events, the
// connection. It returns nil after such a stop, and an error when it could not
// start or lost its connection for good. When it returns, everything it started
// is gone.
func (w *Worker) Run(ctx context.Context) error {
	var listener net.Listener
	if w.cfg.HTTPAddr != "" {
		var err error
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", w.cfg.HTTPAddr); err != nil {
			return &AddrError{Setting: "WORKER_HTTP_ADDR", Addr: w.cfg.HTTPAddr, Err: err}
		}
		defer func() { _ = listener.Close() }() // served and closed by then, but for an early return
		w.http = listener.Addr().String()
	}
	embedded, stopEmbedded, err := w.embed(ctx)
	if err != nil {
		return err
	}
	defer stopEmbedded()
	if err := w.connect(embedded); err != nil {
		return err
	}
	defer w.nc.Close()
	defer w.backends.close()
	if err := w.open(ctx); err != nil {
		return err
	}
	return w.serve(ctx, listener)
}

// embed starts the embedded server, nil when there is none, and returns how to
// stop it.
func (w *Worker) embed(ctx context.Context) (*server.Server, func(), error) {
	cfg := w.cfg.Embedded
	if cfg == nil {
		return nil, func() {}, nil
	}
	lock, err := claim(cfg.DataDir)
	if err != nil {
		return nil, nil, err
	}
	srv, err := startEmbedded(ctx, *cfg, w.logger)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	w.url = srv.ClientURL()
	w.logger.InfoContext(ctx, "no NATS_URL is set: this worker runs its own NATS server", "url", w.url, "data_dir", cfg.DataDir)
	return srv, func() {
		srv.Shutdown()
		srv.WaitForShutdown()
		if err := lock.Close(); err != nil {
			w.logger.WarnContext(ctx, "data directory could not be unlocked", "err", err)
		}
	}, nil
}

// open makes what the worker needs on the server, and what needs the connection.
func (w *Worker) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	var err error
	if w.js, err = jetstream.New(w.nc); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	w.layout = queue.Layout{
		Subjects: w.subjects, Replicas: w.cfg.Replicas,
		ResultsMaxAge: w.cfg.ResultsMaxAge, EventsMaxAge: w.cfg.EventsMaxAge,
	}
	names := make([]string, len(w.cfg.Queues))
	for i, q := range w.cfg.Queues {
		names[i] = q.Name
	}
	differences, err := w.ensure(ctx, names)
	if err != nil {
		return fmt.Errorf("%w (is JetStream enabled on the server, and may this user manage streams?)", err)
	}
	for _, d := range differences {
		w.logger.WarnContext(ctx, "the server's setting differs from what this worker needs; it is left as it is",
			"object", d.Object, "setting", d.Setting, "have", d.Have, "want", d.Want)
	}
	if w.store, err = results.Open(ctx, w.nc, w.js, w.subjects); err != nil {
		return err
	}
	if err := w.store.BatchReads(ctx); err != nil {
		w.logger.InfoContext(ctx, "what is known of a job is read from the leaders, job by job", "why", err)
	}
	if w.cfg.MaxPayload > 0 {
		ctx, cancel := context.WithTimeout(ctx, bucketsTimeout) // a request that is forbidden gets no answer
		defer cancel()
		if err := w.store.EnsureBuckets(ctx, max(w.cfg.Replicas, 1), cmp.Or(w.cfg.ResultsMaxAge, queue.DefaultMaxAge)); err != nil {
			w.logger.ErrorContext(ctx, "what is too big for a message will fail: the object stores cannot be made (WORKER_MAX_PAYLOAD=0 turns them off)", "err", err)
		}
	}
	if w.outbox, err = results.NewOutbox(w.nc, w.written, w.logger); err != nil {
		return err
	}
	w.source, err = queue.NewSource(queue.SourceConfig{
		Conn: w.nc, JS: w.js, Layout: w.layout, Queues: w.cfg.Queues, Slots: w.cfg.Concurrency, Logger: w.logger,
		Paused:  func() bool { _, blocked := w.store.Blocked(); return blocked },
		Arrived: w.arrived,
		Quiet:   w.store.SendRecalls,
	})
	if err != nil {
		return err
	}
	w.metrics = newMetrics(w.reg, metricLabels{backends: w.backends.names, routes: w.engine.Routes(), queues: names},
		func() float64 { return float64(w.outbox.Dropped()) })
	w.metrics.slots.Set(float64(w.cfg.Concurrency))
	w.store.OnBlocked(w.blocked)
	return nil
}

// serve runs everything that runs side by side. The order of the ends is the
// order of a stop:
//
//	ctx done -> endpoints -> source (takes no more) -> grace over: working ends
//	-> every job settled or handed back -> outbox -> HTTP
func (w *Worker) serve(ctx context.Context, listener net.Listener) error {
	working, stopWorking := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWorking(nil)
	hard, stopHard := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHard()
	w.hard = hard
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopBackground()

	taking, stopTaking := context.WithCancelCause(ctx)
	defer stopTaking(nil)
	w.stopping = taking.Done()
	endpoints, err := w.serveEndpoints()
	if err != nil {
		return err
	}
	wg.Go(func() { w.outbox.Run(background) })
	wg.Go(func() { w.store.CheckReads(background) })
	wg.Go(func() { w.watch(background) })
	wg.Go(func() { w.sweep(background) })
	if listener != nil {
		wg.Go(func() { w.serveHTTP(background, listener) })
	}
	wg.Go(func() { // ends with taking; a lost connection ends it early
		select {
		case err := <-w.lost:
			stopTaking(err)
		case <-taking.Done():
		}
	})
	grace := w.stopper(taking, stopWorking, stopHard)
	defer grace()

	close(w.ready)
	w.logger.InfoContext(ctx, "worker takes jobs", "worker", w.cfg.Name, "queues", w.cfg.Queues, "slots", w.cfg.Concurrency,
		"backends", w.backends.names, "routes", w.engine.Routes(), "http", w.http)
	wg.Go(func() { // ends when taking does
		<-taking.Done()
		if err := endpoints.Stop(); err != nil {
			w.logger.WarnContext(taking, "endpoints could not be stopped", "err", err)
		}
	})
	err = w.source.Run(taking, func(d *queue.Delivery) { w.handle(working, d) })
	w.logger.InfoContext(ctx, "worker stopped", "worker", w.cfg.Name)
	if cause := context.Cause(taking); ctx.Err() == nil && cause != nil && err == nil {
		err = cause
	}
	return err
}

// stopper ends running calls when the grace is over, and settling some time
// after. The returned function frees its timers.
func (w *Worker) stopper(taking context.Context, stopWorking context.CancelCauseFunc, stopHard context.CancelFunc) func() {
	var mu sync.Mutex // guards the rest
	var timers []*time.Timer
	over := false
	context.AfterFunc(taking, func() {
		grace := max(w.cfg.ShutdownGrace, 0)
		w.logger.InfoContext(taking, "worker is stopping: no new jobs, running calls may end", "grace", grace)
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		timers = append(timers,
			time.AfterFunc(grace, func() { stopWorking(errStopping) }),
			time.AfterFunc(grace+hardStop, stopHard))
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		for _, t := range timers {
			t.Stop()
		}
	}
}

// settling returns a context for work that must be done whatever happens to the
// job's own, until the hard end of a stop or, where it is not 0, the timeout.
func (w *Worker) settling(_ context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return w.hard, func() {}
	}
	return context.WithTimeout(w.hard, timeout)
}

// breakerChanged hears of every change of a breaker. It must not block.
func (w *Worker) breakerChanged(c breaker.Change) {
	if w.outbox == nil { // before Run
		return
	}
	w.logger.Warn("breaker changed", "backend", c.Backend, "from", c.From, "to", c.To, "class", c.Class, "for", c.For)
	w.metrics.breakerIs(c.Backend, c.To)
	w.outbox.Emit(w.subjects.Breaker(c.Backend), job.NewEvent(w.cfg.Name, job.EventBreakerChanged, c.Backend, time.Now(), job.BreakerChanged{
		Backend: c.Backend, From: string(c.From), To: string(c.To), Class: string(c.Class), ForMS: c.For.Milliseconds(),
	}).Encoded(), "")
}

// shutdownHTTP stops an HTTP server within closeTimeout.
func shutdownHTTP(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return srv.Shutdown(ctx)
}
