package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The kinds of endpoint.
const (
	// KindOpenAI is any endpoint that takes the OpenAI paths under its base URL
	// and a bearer token.
	KindOpenAI = "openai"
	// KindAzure is an Azure OpenAI resource: the model is a deployment in the
	// path, the key travels as api-key, and there is an API version.
	KindAzure = "azure"
)

// Defaults of [Config].
const (
	DefaultTimeout          = 30 * time.Second
	DefaultConcurrency      = 64
	DefaultMaxResponseBytes = 8 << 20
	// DefaultAPIVersion is the last dated version of the Azure OpenAI API that
	// is generally available.
	DefaultAPIVersion = "2024-10-21"
)

// maxMaxResponseBytes bounds what one call may hold in memory.
const maxMaxResponseBytes = 1 << 30

// Config says how to call one backend. The zero value of every field but Name
// and BaseURL is usable.
type Config struct {
	// Name is the backend's name in chains, events, metrics and errors.
	Name string

	// Kind is [KindOpenAI] or [KindAzure]; empty means [KindOpenAI].
	Kind string

	// BaseURL is what the paths /chat/completions, /completions and /embeddings
	// are appended to, such as https://openrouter.ai/api/v1 or
	// http://localhost:8000/v1. It is used as given but for trailing slashes;
	// nothing is added to it. For [KindAzure] it is the resource, such as
	// https://acme.openai.azure.com; a trailing /openai is tolerated. It holds
	// neither a user, a query nor a fragment: credentials belong into APIKey or
	// Headers.
	BaseURL string

	// APIKey authenticates every call; empty means none is sent. It never
	// appears in an error, also not when the provider echoes it.
	APIKey Secret

	// Model replaces the model a job asks for; empty leaves it as it is.
	Model string

	// Models maps a model a job asks for to the one that is called. It beats Model.
	Models map[string]string

	// Timeout is how long one call may take, from sending to the last byte;
	// 0 means [DefaultTimeout]. With FirstTokenTimeout it is instead how long
	// the stream may be silent once the first token has come, and it starts
	// anew with every token, so that a long answer is not cut.
	Timeout time.Duration

	// FirstTokenTimeout is how long the first token may take, from sending. When
	// it is set, every completion is called streaming, whether the job asked for
	// that or not, and the answer is assembled. For the usage, which a stream
	// leaves out by itself, stream_options is added unless the body has it or the
	// job itself streams. A token is non-empty content,
	// reasoning or a piece of a tool call; comments and empty chunks that only
	// keep the connection alive are none. 0 turns it off. Embeddings have no
	// tokens: for them Timeout alone counts, as the time of the whole call.
	FirstTokenTimeout time.Duration

	// AdaptiveTimeout lets Timeout follow the backend: once 20 calls are known, a
	// call gets p99 x 1.5 of the latest 256, but no less than a quarter of Timeout
	// and no more than Timeout. With FirstTokenTimeout that limit follows the times
	// of the first tokens in the same way, and Timeout stays as it is. A call that
	// the limit cuts counts as one that took so long, so that a backend that becomes
	// slower gets more time, step by step. After 5 minutes without an answer the
	// model may have to be loaded first: then all of the time holds.
	AdaptiveTimeout bool

	// Concurrency is how many idle connections to the backend are kept: as many
	// as there may be calls at once. It limits no calls. 0 means
	// [DefaultConcurrency].
	Concurrency int

	// PriceInput and PriceOutput are USD per million tokens; PriceHour is USD
	// per hour of call time, for a rented machine. What the provider itself
	// reports as the cost of a call beats them, and a token price beats
	// PriceHour. All 0 means that the cost is not known.
	PriceInput, PriceOutput, PriceHour float64

	// Headers are sent with every call and beat the headers of the client's own.
	Headers Headers

	// Set holds top-level fields of the request body to add or replace, as raw
	// JSON. It beats what the job says. The model is not set here, but by Model.
	Set map[string]json.RawMessage

	// Drop names top-level fields to remove from the request body. It applies
	// last, also to fields the client adds itself: a backend that rejects
	// stream_options is used with that name in here.
	Drop []string

	// APIVersion is the api-version of the query; empty means
	// [DefaultAPIVersion] for [KindAzure] and none for [KindOpenAI].
	APIVersion string

	// MaxResponseBytes is the longest answer that is read, and the longest
	// stream; 0 means [DefaultMaxResponseBytes]. A longer one fails as
	// [backend.BadResponse]. Of the body of an error 64 KiB are read.
	MaxResponseBytes int64

	// DialContext opens the connections to the backend, or to the proxy before it,
	// as that of [net/http.Transport]; nil means over the network, in 3 s at most.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error) `json:"-"`
}

// withDefaults returns the configuration with every zero value resolved.
func (c Config) withDefaults() Config {
	if c.Kind == "" {
		c.Kind = KindOpenAI
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.MaxResponseBytes == 0 {
		c.MaxResponseBytes = DefaultMaxResponseBytes
	}
	if c.Kind == KindAzure && c.APIVersion == "" {
		c.APIVersion = DefaultAPIVersion
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if c.Kind == KindAzure {
		c.BaseURL = strings.TrimSuffix(c.BaseURL, "/openai")
	}
	c.Models = maps.Clone(c.Models)
	c.Headers = maps.Clone(c.Headers)
	c.Set = maps.Clone(c.Set)
	c.Drop = slices.Clone(c.Drop)
	return c
}

// problem is what is wrong with one field of a configuration.
func problem(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...))
}

// validate returns every problem at once; each names its field.
func (c Config) validate() error {
	var problems []error
	add := func(field, format string, args ...any) {
		problems = append(problems, problem(field, format, args...))
	}
	if c.Name == "" {
		add("Name", "is empty")
	}
	if c.Kind != KindOpenAI && c.Kind != KindAzure {
		add("Kind", "is %q; use %s or %s", c.Kind, KindOpenAI, KindAzure)
	}
	if wrong := checkBaseURL(c.BaseURL); wrong != "" {
		add("BaseURL", "%s", wrong)
	}
	if strings.ContainsFunc(string(c.APIKey), notPrintable) {
		add("APIKey", "has a space or a control character in it")
	}
	for field, d := range map[string]time.Duration{"Timeout": c.Timeout, "FirstTokenTimeout": c.FirstTokenTimeout} {
		if d < 0 {
			add(field, "is negative")
		}
	}
	if c.Concurrency < 0 {
		add("Concurrency", "is negative")
	}
	if c.MaxResponseBytes < 0 || c.MaxResponseBytes > maxMaxResponseBytes {
		add("MaxResponseBytes", "is not between 0 and %d", maxMaxResponseBytes)
	}
	for field, price := range map[string]float64{
		"PriceInput": c.PriceInput, "PriceOutput": c.PriceOutput, "PriceHour": c.PriceHour,
	} {
		if !(price >= 0 && price <= 1e9) {
			add(field, "is not a price in USD")
		}
	}
	for name, value := range c.Headers {
		if wrong := checkHeader(name, value); wrong != "" {
			add("Headers", "%q %s", name, wrong)
		}
	}
	problems = append(problems, c.validateBody()...)
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

// validateBody checks what the configuration changes in request bodies.
func (c Config) validateBody() []error {
	var problems []error
	for alias, actual := range c.Models {
		if alias == "" || actual == "" {
			problems = append(problems, problem("Models", "%q=%q has an empty side", alias, actual))
		}
	}
	for name, value := range c.Set {
		switch {
		case name == modelKey:
			problems = append(problems, problem("Set", "the model is set by Model or Models"))
		case !json.Valid(value):
			problems = append(problems, problem("Set", "the value of %q is not JSON", name))
		}
	}
	if slices.Contains(c.Drop, modelKey) {
		problems = append(problems, problem("Drop", "the model cannot be dropped"))
	}
	return problems
}

// checkBaseURL returns what is wrong with a base URL, without quoting it: it
// might hold a password.
func checkBaseURL(base string) string {
	if base == "" {
		return "is empty"
	}
	u, err := url.Parse(base)
	switch {
	case err != nil:
		return "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return "does not start with http:// or https://"
	case u.Host == "":
		return "has no host"
	case u.User != nil:
		return "has a user in it; use APIKey or Headers"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "has a query or a fragment; use APIVersion or Headers"
	}
	return ""
}

// checkHeader returns what is wrong with a header.
func checkHeader(name, value string) string {
	const token = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	if name == "" || strings.Trim(name, token) != "" {
		return "is not a header name"
	}
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "connection", "content-type":
		return "is set by the client itself"
	case "idempotency-key":
		return "would let a call be sent twice"
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r != '\t' && (r < ' ' || r == 0x7f) }) {
		return "has a control character in its value"
	}
	return ""
}

func notPrintable(r rune) bool { return r <= ' ' || r == 0x7f }

// mask is what is shown instead of a secret.
const mask = "[set]"

// Secret is a string that shows itself to nobody: every way of printing or
// encoding it gives [set], or nothing when it is empty. Convert it to a string
// to use it.
type Secret string

// String returns [set], or "" when the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format is String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is String, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, for every encoder of text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON is String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Headers are header lines by name. As their values may hold credentials, they
// show only their names.
type Headers map[string]string

// masked returns the headers with every value hidden.
func (h Headers) masked() map[string]string {
	out := make(map[string]string, len(h))
	for name, value := range h {
		out[name] = Secret(value).String()
	}
	return out
}

// String lists the names.
func (h Headers) String() string { return fmt.Sprint(h.masked()) }

// GoString is String, for %#v.
func (h Headers) GoString() string { return h.String() }

// Format is String for every verb.
func (h Headers) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(h.String())) }

// LogValue is String, for log/slog.
func (h Headers) LogValue() slog.Value { return slog.StringValue(h.String()) }

// MarshalJSON encodes the names, each with a hidden value.
func (h Headers) MarshalJSON() ([]byte, error) { return json.Marshal(h.masked()) }
