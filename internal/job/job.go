package job

import (
	"encoding/json"
	"time"
)

// The provider endpoints a job may name in its url field.
const (
	URLChat        = "/v1/chat/completions"
	URLCompletions = "/v1/completions"
	URLEmbeddings  = "/v1/embeddings"
)

// Job is one decoded and validated job: what a publisher asked for. It is made
// by [Decoder.Decode] and not changed afterwards.
type Job struct {
	// Queue and ID come from the subject.
	Queue, ID string
	// CustomID is echoed in the result; [Job.ID] when the publisher gave none.
	CustomID string
	// URL is one of the URL constants; [URLChat] when the publisher gave none.
	URL string
	// Body is the provider's request, byte for byte as published.
	Body json.RawMessage
	// Model is the body's effective top-level model (the last one, should the
	// key be repeated), empty when absent.
	Model string
	// Stream tells that the body says "stream": true.
	Stream bool
	// Route, Chain, Primary and Policy override the worker's routing; empty or
	// nil means not given.
	Route   string
	Chain   []string
	Primary string
	Policy  *Policy
	// Timeout is the job's budget from its first delivery, or from NotBefore where
	// that is later; 0 means not given.
	Timeout time.Duration
	// NotBefore is the moment before which no backend is called; zero means not given.
	NotBefore time.Time
	// Deadline is the moment after which the job expires; zero means not given.
	Deadline time.Time
	// ReplyTo gets the result, EventsTo a copy of every event; empty means nobody.
	ReplyTo, EventsTo string
	// Metadata is echoed in the result, byte for byte; nil means not given.
	Metadata json.RawMessage
	// TraceParent is the publisher's W3C trace context; empty means none.
	TraceParent string
}

// Policy is the part of a route that a job may override. A nil pointer, slice
// or map means "as the route says".
type Policy struct {
	Enabled         *bool               `json:"enabled,omitempty"`
	Strategy        *string             `json:"strategy,omitempty"`
	MaxAttempts     *int                `json:"max_attempts,omitempty"`
	BaseDelayMS     *int64              `json:"base_delay_ms,omitempty"`
	MaxDelayMS      *int64              `json:"max_delay_ms,omitempty"`
	ExponentialBase *float64            `json:"exponential_base,omitempty"`
	Jitter          *bool               `json:"jitter,omitempty"`
	OnStatusCodes   []int               `json:"on_status_codes,omitempty"`
	OnErrors        []string            `json:"on_errors,omitempty"`
	ErrorMappings   map[string][]string `json:"error_mappings,omitempty"`
	Conditions      []string            `json:"conditions,omitempty"`
	Weights         map[string]float64  `json:"weights,omitempty"`
	HedgeDelayMS    *int64              `json:"hedge_delay_ms,omitempty"`
	TimeoutMS       *int64              `json:"timeout_ms,omitempty"`
	MaxCostUSD      *float64            `json:"max_cost_usd,omitempty"`
	// OnLimit is "wait" or "fallback".
	OnLimit *string `json:"on_limit,omitempty"`
}
