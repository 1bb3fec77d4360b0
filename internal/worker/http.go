package worker

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"understudy/internal/queue"
)

// The numbers of health.
const (
	// pullSilence is how old the last good answer to a pull may be: four pulls.
	pullSilence = 20 * time.Second
	// watchEvery is how often queue and breaker gauges are renewed.
	watchEvery = 10 * time.Second
	// askTimeout bounds a question to the server about its state.
	askTimeout = 2 * time.Second
)

// serveHTTP serves metrics and health on l until ctx is done and requests that
// had come by then are answered, which is given closeTimeout.
func (w *Worker) serveHTTP(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{Registry: w.reg}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { writeHealth(rw, readiness{Ready: true}) })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, r *http.Request) { writeHealth(rw, w.readiness(r.Context())) })
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: closeTimeout, ReadTimeout: closeTimeout,
		WriteTimeout: 2 * pullSilence, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		if err := shutdownHTTP(ctx, srv); err != nil {
			w.logger.WarnContext(ctx, "HTTP did not stop in time", "err", err)
			_ = srv.Close() // nothing more can be done for those who still wait
		}
	})
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		w.logger.ErrorContext(ctx, "HTTP stopped", "err", err)
	}
	if !stop() { // Serve returns when a stop begins; those who are being answered are waited for
		<-done
	}
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// Why says what is wrong; empty when ready.
	Why string `json:"why,omitempty"`
	// LastPullMS is the time since the server last answered a pull as it should.
	LastPullMS int64 `json:"last_pull_ms"`
	Held       int   `json:"held"`
	Slots      int   `json:"slots"`
	// Note says what else is wrong, though jobs are run; empty when nothing is.
	Note string `json:"note,omitempty"`
}

// readiness tells the truth: whether jobs reach this worker now.
func (w *Worker) readiness(ctx context.Context) readiness {
	h := w.source.Health()
	r := readiness{Held: h.Held, Slots: h.Slots, LastPullMS: time.Since(h.LastGood).Milliseconds()}
	if why := w.outbox.Failing(); why != "" {
		r.Note = "the last event could not be stored: " + why
	}
	blockage, blocked := w.store.Blocked()
	switch {
	case h.LastGood.IsZero():
		r.Why, r.LastPullMS = "the server has not answered a pull yet", -1
	case !w.nc.IsConnected():
		r.Why = "not connected to NATS: " + w.nc.Status().String()
	case blocked:
		r.Why = blockage.String()
	case time.Since(h.LastGood) <= pullSilence:
		r.Ready = true
	case h.Held < h.Slots:
		r.Why = "the server does not answer pulls"
	default: // every slot is taken, so nothing is pulled: ask the server something
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if _, err := w.js.Consumer(ctx, w.subjects.JobsStream(), queue.ConsumerName(w.cfg.Queues[0].Name)); err != nil {
			r.Why = "every slot is taken and the server does not answer: " + err.Error()
		} else {
			r.Ready = true
		}
	}
	return r
}

func writeHealth(rw http.ResponseWriter, r readiness) {
	rw.Header().Set("Content-Type", "application/json")
	if !r.Ready {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(rw).Encode(r); err != nil {
		return // the client has gone away
	}
}

// watch renews the gauges that nobody else touches, until ctx is done.
func (w *Worker) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	coldStarts := make(map[string]uint64)
	for {
		for _, g := range w.backends.guards {
			w.metrics.breakerIs(g.Name(), g.State())
		}
		for _, c := range w.backends.clients {
			coldStarts[c.Name()] = w.metrics.latencyIs(c.Name(), c.Latency(), coldStarts[c.Name()])
		}
		for _, q := range w.cfg.Queues {
			w.measure(ctx, q.Name)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// measure renews the gauges of one queue. What cannot be asked stays as it was.
func (w *Worker) measure(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	consumer, err := w.js.Consumer(ctx, w.subjects.JobsStream(), queue.ConsumerName(name))
	if err != nil {
		return
	}
	info := consumer.CachedInfo()
	w.metrics.depth.WithLabelValues(name, "pending").Set(float64(info.NumPending))
	w.metrics.depth.WithLabelValues(name, "taken").Set(float64(info.NumAckPending))
	age := 0.0
	if info.NumPending > 0 || info.NumAckPending > 0 {
		oldest, err := w.layout.Oldest(ctx, w.js, name)
		if err != nil {
			return
		}
		if !oldest.IsZero() {
			age = max(time.Since(oldest).Seconds(), 0)
		}
	}
	w.metrics.age.WithLabelValues(name).Set(age)
}
