package worker

import (
	"time"

	"github.com/nats-io/nats.go"

	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/queue"
)

// Config is the whole of a worker. [New] fills in the documented defaults of
// zero fields and reports every problem at once.
type Config struct {
	// Name identifies this worker in events and results; it should be unique in
	// the fleet. Empty means the host's name and a random suffix.
	Name string
	// Version is what the micro service reports; semantic version.
	Version string
	// Prefix is the first token of every subject; empty means [job.DefaultPrefix].
	Prefix string
	// Queues are the queues served, with their weights; empty means the queue
	// [job.DefaultQueue] alone.
	Queues []queue.Weighted
	// Concurrency is how many jobs run at once; 0 means [DefaultConcurrency].
	Concurrency int
	// Replicas is the number of copies of a stream this worker creates; 0 means 1.
	Replicas int
	// ReplyAllow says which subjects a job may name for replies and events.
	ReplyAllow job.ReplyRule
	// MaxCrashes is how often a job may kill its worker before it is dead-lettered
	// as poison; 0 means [DefaultMaxCrashes].
	MaxCrashes int
	// ResultsMaxAge and EventsMaxAge are how long streams this worker creates keep
	// results and events; 0 means [queue.DefaultMaxAge].
	ResultsMaxAge, EventsMaxAge time.Duration
	// MaxPayload is the longest payload of a job and the longest answer, in bytes,
	// that travel by object store where they do not fit a message; 0 means
	// [DefaultMaxPayload], negative that nothing does.
	MaxPayload int64
	// ShutdownGrace is how long running calls may go on after a stop; 0 means
	// [DefaultShutdownGrace], negative means not at all.
	ShutdownGrace time.Duration
	// HTTPAddr serves /metrics, /healthz and /readyz; empty means no HTTP.
	HTTPAddr string
	// Embedded runs a JetStream server inside this process; nil means none, and
	// then Connect is required.
	Embedded *Embedded
	// Connect connects to NATS with opts on top of what the user configured.
	Connect func(opts ...nats.Option) (*nats.Conn, error)
	// Backends are the backends, in order. At least one is required.
	Backends []Backend
	// Routes are the routes; the one called [fallback.DefaultRoute] is the default.
	Routes []fallback.Route
}

// The defaults of a [Config].
const (
	DefaultConcurrency   = 64
	DefaultMaxCrashes    = 3
	DefaultMaxPayload    = 64 << 20
	DefaultShutdownGrace = 25 * time.Second
)

// Embedded is the configuration of a server inside the worker.
type Embedded struct {
	// Addr is where other clients connect, host:port; port 0 picks a free one.
	Addr string
	// DataDir is where JetStream keeps its files. Every write is synced to disk.
	DataDir string
}

// The kinds of a [Backend].
const (
	KindOpenAI = "openai"
	KindAzure  = "azure"
	KindRules  = "rules"
)

// Backend is the configuration of one backend.
type Backend struct {
	// Name is the backend's name; required.
	Name string
	// Kind is one of the Kind constants; empty means [KindOpenAI].
	Kind string
	// OpenAI is the endpoint of the kinds [KindOpenAI] and [KindAzure]; its Name
	// and Kind are set by [New].
	OpenAI openai.Config
	// RulesFile is the file of the kind [KindRules]; empty means the built-in rules.
	RulesFile string
	// Breaker is the backend's circuit breaker. A backend of [KindRules] has none.
	Breaker breaker.Config
	// Concurrency is how many calls of the backend this worker makes at once; 0
	// means no limit. [openai.Config.Concurrency] limits no calls.
	Concurrency int
	// RPM and TPM are how many calls and tokens a minute this worker sends to the
	// backend; 0 means no limit. A backend of [KindRules] has no limits.
	RPM, TPM int64
	// Retries is how often the backend is called again after a failure that may
	// pass, before the next one of the chain is; 0 means not at all.
	Retries int
}
