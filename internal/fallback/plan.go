package fallback

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// Plan is what one job's route came to: whom to ask, and how.
type Plan struct {
	// Route is the name of the route taken.
	Route string
	// Policy is the route's policy with the job's own laid over it.
	Policy Policy
	// Budget is the time the job has from its first delivery; 0 means no limit.
	Budget time.Duration

	*lineup

	job      *job.Job
	strategy NewStrategy
}

// Chain names the backends the plan may ask, in order.
func (p *Plan) Chain() []string {
	names := make([]string, p.own)
	for i, b := range p.chain[:p.own] {
		names[i] = b.Name()
	}
	return names
}

// MaxAttempts is the cap on the calls of the job.
func (p *Plan) MaxAttempts() int {
	limit := p.Policy.MaxAttempts
	switch {
	case !p.Policy.Enabled && limit > 0:
		return min(1+p.retries[0], limit)
	case !p.Policy.Enabled:
		return 1 + p.retries[0]
	case limit > 0:
		return limit
	}
	return max(DefaultMaxAttempts, p.own)
}

// Plan resolves the route of j and lays the job's own settings over it. A job
// that names a route or backend that does not exist gets a *[job.FieldError].
func (e *Engine) Plan(j *job.Job) (*Plan, error) {
	route, err := e.route(j)
	if err != nil {
		return nil, err
	}
	p := &Plan{Route: route.Name, Policy: route.Policy, job: j, lineup: route.lineup, strategy: route.newStrategy}
	if j.Policy != nil || len(j.Chain) > 0 || j.Primary != "" {
		if err := e.adapt(p, route); err != nil {
			return nil, err
		}
	}
	if _, err := p.strategy(&p.Policy); err != nil {
		return nil, &job.FieldError{Field: "policy.strategy", Reason: err.Error()}
	}
	p.Budget = p.Policy.Timeout
	if j.Timeout > 0 {
		p.Budget = j.Timeout
	}
	return p, nil
}

// adapt makes of the route's plan that of a job with settings of its own.
func (e *Engine) adapt(p *Plan, route *Route) error {
	j := p.job
	if err := overlay(&p.Policy, j.Policy); err != nil {
		return err
	}
	if err := e.checkPolicy(j.Policy); err != nil {
		return err
	}
	names := route.Chain
	if len(j.Chain) > 0 {
		names = j.Chain
		if err := e.checkChain(names); err != nil {
			return err
		}
	}
	if _, ok := e.backends[j.Primary]; j.Primary != "" && !ok {
		return &job.FieldError{Field: "primary", Reason: e.unknownBackend(j.Primary)}
	}
	names = promote(names, j.Primary)
	if !p.Policy.Enabled {
		names = names[:1]
	}
	if len(j.Chain) > 0 || j.Primary != "" || j.Policy.Enabled != nil || j.Policy.ErrorMappings != nil {
		p.lineup = e.lineup(names, &p.Policy)
	}
	if p.Policy.Strategy == Random && p.Policy.Enabled && !p.Policy.weighs(names) {
		return &job.FieldError{Field: "policy.weights", Reason: errNoWeight.Error()}
	}
	var ok bool
	if p.strategy, ok = e.strategies[p.Policy.Strategy]; !ok {
		return &job.FieldError{Field: "policy.strategy", Reason: e.unknownStrategy(p.Policy.Strategy)}
	}
	return nil
}

// checkChain checks the chain of a job.
func (e *Engine) checkChain(names []string) error {
	for i, name := range names {
		field := fmt.Sprintf("chain[%d]", i)
		if _, ok := e.backends[name]; !ok {
			return &job.FieldError{Field: field, Reason: e.unknownBackend(name)}
		}
		if slices.Contains(names[:i], name) {
			return &job.FieldError{Field: field, Reason: fmt.Sprintf("names %q a second time; a chain wraps round by itself", name)}
		}
	}
	return nil
}

// checkPolicy checks the backends that a job's own policy names.
func (e *Engine) checkPolicy(o *job.Policy) error {
	if o == nil {
		return nil
	}
	for _, class := range slices.Sorted(maps.Keys(o.ErrorMappings)) {
		for i, name := range o.ErrorMappings[class] {
			if _, ok := e.backends[name]; !ok {
				return &job.FieldError{Field: fmt.Sprintf("policy.error_mappings.%s[%d]", class, i), Reason: e.unknownBackend(name)}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Weights)) {
		if _, ok := e.backends[name]; !ok {
			return &job.FieldError{Field: "policy.weights." + name, Reason: e.unknownBackend(name)}
		}
	}
	return nil
}

// route is the route the job names, or the one its model names, or the default.
func (e *Engine) route(j *job.Job) (*Route, error) {
	if j.Route != "" {
		r, ok := e.routes[j.Route]
		if !ok {
			names := slices.Sorted(maps.Keys(e.routes))
			return nil, &job.FieldError{Field: "route", Reason: fmt.Sprintf("no route is called %q; there are: %s", j.Route, strings.Join(names, ", "))}
		}
		return r, nil
	}
	if r, ok := e.routes[j.Model]; ok {
		return r, nil
	}
	return e.routes[DefaultRoute], nil
}

// promote returns names with primary moved, or put, to the front.
func promote(names []string, primary string) []string {
	if primary == "" {
		return names
	}
	out := []string{primary}
	for _, name := range names {
		if name != primary {
			out = append(out, name)
		}
	}
	return out
}

// overlay lays what a job's own policy gives over p.
func overlay(p *Policy, o *job.Policy) error {
	if o == nil {
		return nil
	}
	set(&p.Enabled, o.Enabled)
	set(&p.Strategy, o.Strategy)
	set(&p.MaxAttempts, o.MaxAttempts)
	set(&p.ExponentialBase, o.ExponentialBase)
	set(&p.Jitter, o.Jitter)
	set(&p.MaxCostUSD, o.MaxCostUSD)
	set(&p.OnLimit, o.OnLimit)
	setMS(&p.BaseDelay, o.BaseDelayMS)
	setMS(&p.MaxDelay, o.MaxDelayMS)
	setMS(&p.HedgeDelay, o.HedgeDelayMS)
	setMS(&p.Timeout, o.TimeoutMS)
	if o.OnStatusCodes != nil {
		p.OnStatusCodes = o.OnStatusCodes
	}
	if o.Conditions != nil {
		var err error
		if p.compiled, err = compile(o.Conditions); err != nil {
			wrong, _ := errors.AsType[*conditionError](err)
			return &job.FieldError{Field: fmt.Sprintf("policy.conditions[%d]", wrong.index), Reason: wrong.err.Error()}
		}
		p.Conditions = o.Conditions
	}
	if o.Weights != nil {
		p.Weights = o.Weights
	}
	return overlayClasses(p, o)
}

// overlayClasses lays the settings that name classes over p.
func overlayClasses(p *Policy, o *job.Policy) error {
	if o.OnErrors != nil {
		p.OnErrors = make([]backend.Class, len(o.OnErrors))
		for i, name := range o.OnErrors {
			c, err := parseClass(fmt.Sprintf("policy.on_errors[%d]", i), name)
			if err != nil {
				return err
			}
			p.OnErrors[i] = c
		}
	}
	if o.ErrorMappings == nil {
		return nil
	}
	p.ErrorMappings = make(map[backend.Class][]string, len(o.ErrorMappings))
	for _, name := range slices.Sorted(maps.Keys(o.ErrorMappings)) {
		c, err := parseClass("policy.error_mappings", name)
		if err != nil {
			return err
		}
		for _, to := range o.ErrorMappings[name] {
			if !slices.Contains(p.ErrorMappings[c], to) { // two names of one class
				p.ErrorMappings[c] = append(p.ErrorMappings[c], to)
			}
		}
	}
	return nil
}

// parseClass reads the name of a class that a job gave in a field.
func parseClass(field, name string) (backend.Class, error) {
	c, err := backend.ParseClass(name)
	if err != nil {
		known := make([]string, 0, len(backend.Classes()))
		for _, class := range backend.Classes() {
			known = append(known, string(class))
		}
		return "", &job.FieldError{Field: field, Reason: err.Error() + "; there are: " + strings.Join(known, ", ")}
	}
	return c, nil
}

func set[T any](dst *T, v *T) {
	if v != nil {
		*dst = *v
	}
}

func setMS(dst *time.Duration, ms *int64) {
	if ms != nil {
		*dst = time.Duration(*ms) * time.Millisecond
	}
}
