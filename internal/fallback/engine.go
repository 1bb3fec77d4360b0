package fallback

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"understudy/internal/backend"
)

// DefaultHold is how long a job may pause inside its slot when [Config.Hold] is
// 0. A shorter pause is not worth the hand-back (a stored event, a redelivery);
// a longer one would keep healthy routes' jobs from the slot.
const DefaultHold = 2 * time.Second

// Config is what an [Engine] is made of.
type Config struct {
	// Backends are all backends, in configured order.
	Backends []backend.Backend
	// Routes are the named routes. One called [DefaultRoute] is added when absent.
	Routes []Route
	// Strategies are the strategies by name; nil means [Strategies].
	Strategies map[string]NewStrategy
	// Retries are how often a backend is called again, by its name, before the
	// next one is; see [Engine.Run]. Absent means not at all.
	Retries map[string]int
	// Accept judges an answer of a route with AcceptSchema: nil accepts it. It may
	// be nil, and must be safe for concurrent use.
	Accept func(req *backend.Request, resp *backend.Response) *backend.Error
	// Hold is how long a job may pause inside its slot between two calls; 0 means
	// [DefaultHold], negative not at all. A job that must pause for longer is
	// handed back with a [Wait].
	Hold time.Duration
}

// Engine resolves routes and runs jobs. It is safe for concurrent use and
// starts no goroutine.
type Engine struct {
	backends   map[string]backend.Backend
	names      []string // in configured order
	routes     map[string]*Route
	strategies map[string]NewStrategy
	retries    map[string]int
	accept     func(*backend.Request, *backend.Response) *backend.Error
	hold       time.Duration
	fit        *fit
}

// New checks cfg whole and returns an Engine, or every problem joined, each
// with the name of the route and setting it is about.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		backends:   make(map[string]backend.Backend, len(cfg.Backends)),
		routes:     make(map[string]*Route, len(cfg.Routes)+1),
		strategies: cfg.Strategies,
		retries:    cfg.Retries,
		accept:     cfg.Accept,
		hold:       cfg.Hold,
		fit:        newFit(),
	}
	if e.strategies == nil {
		e.strategies = Strategies()
	}
	if e.hold == 0 {
		e.hold = DefaultHold
	}
	e.hold = max(e.hold, 0)
	var errs []error
	if len(cfg.Backends) == 0 {
		errs = append(errs, errors.New("no backend is configured"))
	}
	for _, b := range cfg.Backends {
		if _, dup := e.backends[b.Name()]; dup {
			errs = append(errs, fmt.Errorf("backend %s is configured twice", b.Name()))
			continue
		}
		e.backends[b.Name()] = b
		e.names = append(e.names, b.Name())
	}
	errs = append(errs, e.unknown("RETRIES", slices.Sorted(maps.Keys(cfg.Retries)))...)
	for _, r := range cfg.Routes {
		if r.Name == "" {
			errs = append(errs, errors.New("a route has no name"))
			continue
		}
		if _, dup := e.routes[r.Name]; dup {
			errs = append(errs, fmt.Errorf("route %s is configured twice", r.Name))
		}
		e.routes[r.Name] = &r
	}
	if e.routes[DefaultRoute] == nil {
		e.routes[DefaultRoute] = &Route{Name: DefaultRoute, Policy: DefaultPolicy()}
	}
	for _, name := range slices.Sorted(maps.Keys(e.routes)) {
		for _, err := range e.check(e.routes[name]) {
			errs = append(errs, fmt.Errorf("route %s: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	e.lineUp()
	return e, nil
}

// Routes returns the names of the routes, sorted.
func (e *Engine) Routes() []string { return slices.Sorted(maps.Keys(e.routes)) }

// check completes r with the defaults and returns every problem of it.
func (e *Engine) check(r *Route) []error {
	errs := r.validate()
	if r.Strategy == "" {
		r.Strategy = Sequential
	}
	if len(r.Chain) == 0 {
		r.Chain = e.names
	}
	for i, name := range r.Chain {
		if slices.Contains(r.Chain[:i], name) {
			errs = append(errs, fmt.Errorf("CHAIN: names %q twice", name))
		}
	}
	errs = append(errs, e.unknown("CHAIN", r.Chain)...)
	for _, class := range slices.Sorted(maps.Keys(r.ErrorMappings)) {
		errs = append(errs, e.unknown("ERROR_MAPPINGS", r.ErrorMappings[class])...)
	}
	errs = append(errs, e.unknown("WEIGHTS", slices.Sorted(maps.Keys(r.Weights)))...)
	var err error
	if r.compiled, err = compile(r.Conditions); err != nil {
		return append(errs, fmt.Errorf("CONDITIONS: %w", err))
	}
	if r.Strategy == Random && r.Enabled && !r.weighs(r.Chain) {
		errs = append(errs, fmt.Errorf("WEIGHTS: %w", errNoWeight))
	}
	var ok bool
	if r.newStrategy, ok = e.strategies[r.Strategy]; !ok {
		return append(errs, fmt.Errorf("STRATEGY: %s", e.unknownStrategy(r.Strategy)))
	}
	if _, err := r.newStrategy(&r.Policy); err != nil {
		errs = append(errs, fmt.Errorf("STRATEGY: %w", err))
	}
	return errs
}

// unknown returns an error for every name that is no backend's.
func (e *Engine) unknown(setting string, names []string) (errs []error) {
	for _, name := range names {
		if _, ok := e.backends[name]; !ok {
			errs = append(errs, fmt.Errorf("%s: %s", setting, e.unknownBackend(name)))
		}
	}
	return errs
}

func (e *Engine) unknownBackend(name string) string {
	return fmt.Sprintf("no backend is called %q; there are: %s", name, strings.Join(e.names, ", "))
}

func (e *Engine) unknownStrategy(name string) string {
	return fmt.Sprintf("%q is not available; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(e.strategies)), ", "))
}
