package worker

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/job"
	"understudy/internal/results"
)

// metrics are the worker's numbers. The label sets are closed: backends, routes
// and queues as configured, classes and statuses; never an id.
type metrics struct {
	requests     *prometheus.CounterVec   // backend, status
	duration     *prometheus.HistogramVec // backend
	operation    *prometheus.HistogramVec // gen_ai_*
	tokens       *prometheus.HistogramVec // gen_ai_*
	firstToken   *prometheus.HistogramVec // backend
	cost         *prometheus.CounterVec   // backend
	latency      *prometheus.GaugeVec     // backend, quantile
	coldStarts   *prometheus.CounterVec   // backend
	skips        *prometheus.CounterVec   // backend, reason
	wait         *prometheus.HistogramVec // backend
	jobs         *prometheus.CounterVec   // queue, route, status
	jobDuration  *prometheus.HistogramVec // queue, route
	inFlight     prometheus.Gauge
	slots        prometheus.Gauge
	depth        *prometheus.GaugeVec   // queue, state
	age          *prometheus.GaugeVec   // queue
	breaker      *prometheus.GaugeVec   // backend, state
	deadLetters  *prometheus.CounterVec // queue, reason
	redeliveries prometheus.Counter
	unknown      prometheus.Counter
	waits        prometheus.Counter
	blocked      *prometheus.GaugeVec // kind

	calls series[string, *callMetrics] // by backend
}

// latencyBuckets are seconds: from a cache's answer to a long generation.
func latencyBuckets() []float64 {
	return []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320}
}

// tokenBuckets are those of the OpenTelemetry GenAI conventions.
func tokenBuckets() []float64 {
	return []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
}

// metricLabels are the closed label sets of one worker.
type metricLabels struct {
	backends, routes, queues []string
}

func newMetrics(reg prometheus.Registerer, labels metricLabels, dropped func() float64) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "llm_requests_total", Help: "Calls of backends, by how they ended: succeeded, or the class of the failure.",
		}, []string{"backend", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "llm_request_duration_seconds", Help: "Time of a call of a backend.", Buckets: latencyBuckets(),
		}, []string{"backend"}),
		operation: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_client_operation_duration_seconds", Help: "OpenTelemetry GenAI: time of a call.", Buckets: latencyBuckets(),
		}, []string{"gen_ai_operation_name", "gen_ai_provider_name", "error_type"}),
		tokens: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gen_ai_client_token_usage", Help: "OpenTelemetry GenAI: tokens of a call.", Buckets: tokenBuckets(),
		}, []string{"gen_ai_provider_name", "gen_ai_token_type"}),
		firstToken: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_first_token_seconds", Help: "Time from sending a streamed call to its first token.", Buckets: latencyBuckets(),
		}, []string{"backend"}),
		cost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_cost_usd_total", Help: "What calls cost, where that is known, in US dollars.",
		}, []string{"backend"}),
		latency: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_backend_latency_seconds", Help: "Time of the latest calls of a backend, cold starts left out; timeouts with the time they took.",
		}, []string{"backend", "quantile"}),
		coldStarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_cold_starts_total", Help: "Calls that waited for a model that was not ready.",
		}, []string{"backend"}),
		skips: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_skips_total", Help: "Times that a job passed over a backend without a call, by reason.",
		}, []string{"backend", "reason"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_attempt_wait_seconds", Help: "Time that a call waited before it left: for its turn, a pause, a breaker.", Buckets: latencyBuckets(),
		}, []string{"backend"}),
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_jobs_total", Help: "Jobs that ended on this worker, by status.",
		}, []string{"queue", "route", "status"}),
		jobDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "understudy_job_duration_seconds", Help: "Time from a job's first delivery to its result.", Buckets: latencyBuckets(),
		}, []string{"queue", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "understudy_jobs_in_flight", Help: "Jobs that hold a slot of this worker.",
		}),
		slots: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "understudy_slots", Help: "Jobs that this worker runs at once at most.",
		}),
		depth: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_queue_jobs", Help: "Jobs in a queue: pending ones were never handed out, taken ones run or wait.",
		}, []string{"queue", "state"}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_queue_age_seconds", Help: "Age of the oldest job in a queue, 0 when it is empty.",
		}, []string{"queue"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_breaker_state", Help: "1 for the state that a backend's breaker is in on this worker.",
		}, []string{"backend", "state"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "understudy_dead_letters_total", Help: "Dead letters stored by this worker, by reason.",
		}, []string{"queue", "reason"}),
		redeliveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_redeliveries_total", Help: "Jobs that reached this worker after their lease was lost elsewhere.",
		}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_unknown_outcomes_total", Help: "Calls whose end a crash has hidden.",
		}),
		waits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "understudy_waits_total", Help: "Jobs handed back to wait: no backend could be called, or their time has not come.",
		}),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "understudy_store_blocked", Help: "Jobs that are held because what they need to have stored cannot be, by what that is.",
		}, []string{"kind"}),
	}
	reg.MustRegister(m.requests, m.duration, m.operation, m.tokens, m.firstToken, m.cost, m.latency, m.coldStarts, m.skips, m.wait, m.jobs, m.jobDuration,
		m.inFlight, m.slots, m.depth, m.age, m.breaker, m.deadLetters, m.redeliveries, m.unknown, m.waits, m.blocked,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "understudy_events_dropped_total", Help: "Events that could not be sent or stored.",
		}, dropped))
	m.calls.of = m.callsOf
	m.createSeries(labels)
	return m
}

// createSeries creates the series of every label up front, so that a rate over
// the first failure is not lost.
func (m *metrics) createSeries(labels metricLabels) {
	for _, b := range labels.backends {
		m.requests.WithLabelValues(b, string(job.Succeeded))
		m.duration.WithLabelValues(b)
		m.cost.WithLabelValues(b)
		m.coldStarts.WithLabelValues(b)
		m.wait.WithLabelValues(b)
		for _, c := range []backend.Class{backend.CircuitOpen, backend.RateLimit, backend.ContextLength, backend.TooLarge, backend.Unsupported, backend.ModelNotFound} {
			m.skips.WithLabelValues(b, string(c))
		}
		for _, c := range backend.Classes() {
			m.requests.WithLabelValues(b, string(c))
		}
	}
	for _, kind := range results.Kinds() {
		m.blocked.WithLabelValues(string(kind))
	}
	for _, q := range labels.queues {
		m.age.WithLabelValues(q)
		for _, state := range []string{"pending", "taken"} {
			m.depth.WithLabelValues(q, state)
		}
		for _, r := range labels.routes {
			for _, s := range []job.Status{job.Succeeded, job.Failed, job.Expired, job.Cancelled} {
				m.jobs.WithLabelValues(q, r, string(s))
			}
		}
	}
}

// breakerIs sets the gauge of a backend's breaker.
func (m *metrics) breakerIs(name string, state breaker.State) {
	for _, s := range []breaker.State{breaker.Closed, breaker.Open, breaker.HalfOpen} {
		value := 0.0
		if s == state {
			value = 1
		}
		m.breaker.WithLabelValues(name, string(s)).Set(value)
	}
}

// latencyIs sets the gauges of a backend's latency, and counts its cold starts
// beyond those that were counted, which it returns.
func (m *metrics) latencyIs(name string, l openai.Latency, counted uint64) uint64 {
	m.coldStarts.WithLabelValues(name).Add(float64(l.ColdStarts - counted))
	if l.Samples > 0 {
		m.latency.WithLabelValues(name, "0.5").Set(l.P50.Seconds())
		m.latency.WithLabelValues(name, "0.95").Set(l.P95.Seconds())
		m.latency.WithLabelValues(name, "0.99").Set(l.P99.Seconds())
	}
	return l.ColdStarts
}

// skipped counts a backend that was passed over.
func (m *metrics) skipped(a *job.Attempt) {
	if a.Class != nil {
		m.skips.WithLabelValues(a.Backend, *a.Class).Inc()
	}
}

// attempt counts one finished call.
func (m *metrics) attempt(a *job.Attempt, operation string) {
	status, errorType := string(job.Succeeded), ""
	if a.Class != nil {
		status, errorType = *a.Class, *a.Class
	}
	seconds := (time.Duration(a.DurationMS) * time.Millisecond).Seconds()
	c := m.calls.get(a.Backend)
	c.requests.get(status).Inc()
	c.duration.Observe(seconds)
	c.wait.Observe(float64(a.WaitMS) / 1000)
	c.operation.get(operationKey{operation, errorType}).Observe(seconds)
	if a.InputTokens != nil {
		c.input().Observe(float64(*a.InputTokens))
	}
	if a.OutputTokens != nil {
		c.output().Observe(float64(*a.OutputTokens))
	}
	if a.FirstTokenMS != nil {
		c.firstToken().Observe(float64(*a.FirstTokenMS) / 1000)
	}
	if a.CostUSD != nil && *a.CostUSD > 0 {
		c.cost().Add(*a.CostUSD)
	}
}

// series are values by a key, each made when it is first asked for. It is safe
// for concurrent use. Keys come from closed sets: none is ever dropped.
type series[K comparable, V any] struct {
	of func(K) V // makes a value

	known atomic.Pointer[map[K]V] // never changed, only replaced
	mu    sync.Mutex              // held by who replaces it
}

// get returns the value of a key.
func (s *series[K, V]) get(key K) V {
	if known := s.known.Load(); known != nil {
		if v, ok := (*known)[key]; ok {
			return v
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[K]V)
	if known := s.known.Load(); known != nil {
		if v, ok := (*known)[key]; ok {
			return v
		}
		next = maps.Clone(*known)
	}
	v := s.of(key)
	next[key] = v
	s.known.Store(&next)
	return v
}

// callMetrics are the numbers of the calls of one backend. Looking them up by
// their labels takes longer than counting: it is done once.
type callMetrics struct {
	duration   prometheus.Observer
	wait       prometheus.Observer
	requests   series[string, prometheus.Counter] // by status
	operation  series[operationKey, prometheus.Observer]
	input      func() prometheus.Observer // these appear with their first value
	output     func() prometheus.Observer
	firstToken func() prometheus.Observer
	cost       func() prometheus.Counter
}

// operationKey is what distinguishes the operations of a backend.
type operationKey struct{ name, errorType string }

// callsOf resolves the numbers of the calls of a backend.
func (m *metrics) callsOf(name string) *callMetrics {
	c := &callMetrics{
		duration:   m.duration.WithLabelValues(name),
		wait:       m.wait.WithLabelValues(name),
		input:      sync.OnceValue(func() prometheus.Observer { return m.tokens.WithLabelValues(name, "input") }),
		output:     sync.OnceValue(func() prometheus.Observer { return m.tokens.WithLabelValues(name, "output") }),
		firstToken: sync.OnceValue(func() prometheus.Observer { return m.firstToken.WithLabelValues(name) }),
		cost:       sync.OnceValue(func() prometheus.Counter { return m.cost.WithLabelValues(name) }),
	}
	c.requests.of = func(status string) prometheus.Counter { return m.requests.WithLabelValues(name, status) }
	c.operation.of = func(k operationKey) prometheus.Observer {
		return m.operation.WithLabelValues(k.name, name, k.errorType)
	}
	return c
}
