package fallback

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"understudy/internal/backend"
	"understudy/internal/fallback/condition"
	"understudy/internal/job"
)

// DefaultRoute is the name of the route of a job that names none.
const DefaultRoute = "default"

// The defaults of a policy. The numbers are those of the two systems that
// understudy follows; docs/configuration.md names the variables.
const (
	DefaultMaxAttempts     = 3
	DefaultBaseDelay       = time.Second
	DefaultMaxDelay        = time.Minute
	DefaultExponentialBase = 2.0
)

// DefaultStatusCodes are the HTTP statuses after which a chain goes on.
func DefaultStatusCodes() []int { return []int{429, 500, 502, 503, 504} }

// Route is a named fallback policy: whom to ask, and how to go on.
type Route struct {
	// Name is the route's name, [DefaultRoute] for the default one.
	Name string
	// Chain names the backends in order; empty means all of them.
	Chain []string
	Policy

	// What an engine has made of it.
	lineup      *lineup
	newStrategy NewStrategy
}

// Policy says how a chain is walked. [DefaultPolicy] is the documented default;
// the zero value is a policy with fallback off.
type Policy struct {
	// Enabled false means: the first backend only, one call.
	Enabled bool
	// Strategy is the name of a registered strategy; empty means "sequential".
	Strategy string
	// MaxAttempts caps the calls of one job over all backends and deliveries; 0
	// means [DefaultMaxAttempts] or the chain's length, whichever is more.
	MaxAttempts int
	// BaseDelay x ExponentialBase^round is the pause when the chain wraps round,
	// the first round being 0; the first call of a backend never waits. MaxDelay
	// caps it, 0 does not.
	BaseDelay, MaxDelay time.Duration
	ExponentialBase     float64
	// Jitter draws the pause from [0.5, 1) of its length.
	Jitter bool
	// OnStatusCodes goes on after these HTTP statuses whatever their class says;
	// nil means [DefaultStatusCodes], which do not overrule an exact class.
	OnStatusCodes []int
	// OnErrors goes on after these classes; nil means the classes whose
	// FallsBack is true.
	OnErrors []backend.Class
	// ErrorMappings names the backends to prefer after a failure of a class.
	ErrorMappings map[backend.Class][]string
	// Conditions are the conditions of the strategy "conditional".
	Conditions []string
	// Weights are the weights of the strategy "random", by backend.
	Weights map[string]float64
	// HedgeDelay is the delay between the starts of the strategy "parallel".
	HedgeDelay time.Duration
	// Timeout is the budget of a whole job from its first delivery; 0 means none.
	Timeout time.Duration
	// MaxCostUSD lets no model be called any more for a job that has cost this
	// much, as far as the costs of its calls are known; 0 means no limit.
	MaxCostUSD float64
	// OnLimit is [OnLimitWait] or [OnLimitFallback]; empty means [OnLimitWait].
	OnLimit string
	// AcceptSchema lets [Config.Accept] judge answers: one that is refused is a
	// failure of class [backend.BadResponse], after which the chain goes on.
	AcceptSchema bool

	compiled []*condition.Condition // Conditions, once an engine has checked them
}

// What a job does when a backend's own limits make it wait for its turn.
const (
	// OnLimitWait waits for the turn.
	OnLimitWait = "wait"
	// OnLimitFallback goes to another backend of the chain that is free, and
	// waits only when there is none.
	OnLimitFallback = "fallback"
)

// DefaultPolicy is the policy of a route that configures nothing.
func DefaultPolicy() Policy {
	return Policy{
		Enabled: true, Strategy: Sequential, Jitter: true,
		BaseDelay: DefaultBaseDelay, MaxDelay: DefaultMaxDelay, ExponentialBase: DefaultExponentialBase,
	}
}

// validate returns every problem of the policy; each starts with the name of
// the setting.
func (p *Policy) validate() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.MaxAttempts < 0 || p.MaxAttempts > job.MaxAttempts {
		bad("MAX_ATTEMPTS: %d is not between 0 and %d", p.MaxAttempts, job.MaxAttempts)
	}
	if p.BaseDelay < 0 || p.MaxDelay < 0 {
		bad("BASE_DELAY, MAX_DELAY: must not be negative")
	}
	if p.Enabled && !within(p.ExponentialBase, 1) {
		bad("EXPONENTIAL_BASE: %g is not 1 or more", p.ExponentialBase)
	}
	if p.HedgeDelay < 0 || p.Timeout < 0 {
		bad("HEDGE_DELAY, TIMEOUT: must not be negative")
	}
	if p.OnLimit != "" && p.OnLimit != OnLimitWait && p.OnLimit != OnLimitFallback {
		bad("ON_LIMIT: %q is neither %s nor %s", p.OnLimit, OnLimitWait, OnLimitFallback)
	}
	if !within(p.MaxCostUSD, 0) {
		bad("MAX_COST_USD: %g is not 0 or more", p.MaxCostUSD)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Weights)) {
		if w := p.Weights[name]; !within(w, 0) {
			bad("WEIGHTS: %s: %g is not 0 or more", name, w)
		}
	}
	for _, code := range p.OnStatusCodes {
		if code < 100 || code > 599 {
			bad("ON_STATUS_CODES: %d is no HTTP status", code)
		}
	}
	return errs
}

// within reports whether x is a finite number of at least least.
func within(x, least float64) bool { return x >= least && !math.IsInf(x, 1) }

// ends reports whether a failure of this class ends the job: there is nobody
// left to answer, or nothing to answer to.
func ends(class backend.Class) bool {
	return class == backend.Canceled || class == backend.Expired || class == backend.InvalidJob || class == backend.Poison
}

// goesOn reports whether the chain goes on after a failure of this class and
// HTTP status.
func (p *Policy) goesOn(class backend.Class, status int) bool {
	if !p.Enabled || ends(class) {
		return false
	}
	if p.OnStatusCodes != nil && slices.Contains(p.OnStatusCodes, status) {
		return true
	}
	if p.OnErrors != nil {
		return slices.Contains(p.OnErrors, class) ||
			class.FallsBack() && p.OnStatusCodes == nil && slices.Contains(DefaultStatusCodes(), status)
	}
	return class.FallsBack()
}
