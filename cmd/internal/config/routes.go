package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/fallback/condition"
	"understudy/internal/worker"
)

// routeEntry is one route.
type routeEntry struct {
	name, prefix string
	spec         routeSpec
	fields       []field
	route        fallback.Route
}

// readRoutes reads the default route and the routes called names.
func readRoutes(r *reader, lists *listsSpec, backends []*backendEntry) []*routeEntry {
	list := []*routeEntry{{name: fallback.DefaultRoute, prefix: "FALLBACK"}}
	for _, name := range lists.Routes.value {
		if name == fallback.DefaultRoute {
			r.report.problem(lists.Routes.name, "configure the default route with FALLBACK_*, and do not name it here", "names %q", name)
			continue
		}
		list = append(list, &routeEntry{name: name, prefix: "ROUTE_" + envPrefix(name)})
	}
	for _, e := range list {
		e.fields = r.read(e.prefix, "route "+e.name, &e.spec)
		e.resolve(r, backends)
	}
	return list
}

// resolve fills in the route.
func (e *routeEntry) resolve(r *reader, backends []*backendEntry) {
	s := &e.spec
	chain := on(backends)
	if s.Chain.given {
		before := len(r.report.Problems)
		named := pick(r, s.Chain.name, s.Chain.value, backends)
		if s.Chain.err == nil { // else what is left of it is not what was meant
			chain = named
		}
		if len(chain) == 0 && len(on(backends)) > 0 && len(r.report.Problems) == before {
			r.report.problem(s.Chain.name, "name a backend that is configured, or configure one of them", "no backend is left in the chain")
		}
	}
	s.MaxAttempts.use(strconv.Itoa(max(fallback.DefaultMaxAttempts, len(chain))))
	e.route = fallback.Route{
		Name: e.name, Chain: chain,
		Policy: fallback.Policy{
			Enabled: s.Enabled.value, Strategy: s.Strategy.value,
			BaseDelay: s.BaseDelay.value, MaxDelay: s.MaxDelay.value, ExponentialBase: s.ExponentialBase.value, Jitter: s.Jitter.value,
			Conditions: s.Conditions.value, HedgeDelay: s.HedgeDelay.value, Timeout: s.Timeout.value,
			MaxCostUSD: s.MaxCostUSD.value, OnLimit: s.OnLimit.value, AcceptSchema: s.AcceptSchema.value,
		},
	}
	p := &e.route.Policy
	if s.MaxAttempts.given {
		p.MaxAttempts = s.MaxAttempts.value
	}
	if s.OnStatusCodes.given { // only codes that were chosen overrule an exact class
		p.OnStatusCodes = s.OnStatusCodes.value
	}
	if s.OnErrors.given {
		p.OnErrors = s.OnErrors.value
	}
	e.checkStrategy(r)
	e.checkConditions(r)
	e.resolveMappings(r, backends)
	e.resolveWeights(r, backends)
}

// resolveMappings fills in whom to ask after which class of error.
func (e *routeEntry) resolveMappings(r *reader, backends []*backendEntry) {
	s, p, before := &e.spec, &e.route.Policy, len(r.report.Problems)
	if s.ErrorMappings.given {
		p.ErrorMappings = make(map[backend.Class][]string)
		for _, m := range s.ErrorMappings.value {
			if names := pick(r, s.ErrorMappings.name, m.backends, backends); len(names) > 0 {
				p.ErrorMappings[m.class] = names
			}
		}
	}
	usable := on(backends)
	if len(p.ErrorMappings) > 0 || s.ErrorMappings.err != nil || len(r.report.Problems) > before || len(usable) == 0 || !p.Enabled {
		return
	}
	mend := "map a class of error to a backend, such as rate_limit=" + usable[len(usable)-1] + ", or set " + s.Strategy.name + "=" + fallback.Sequential
	wrong := "is not set"
	if s.ErrorMappings.given {
		wrong = "names no backend that is configured"
	}
	switch p.Strategy {
	case fallback.ErrorType:
		r.report.problem(s.ErrorMappings.name, mend, "%s: with %s=%s no other backend would ever be asked", wrong, s.Strategy.name, p.Strategy)
	case fallback.Priority:
		r.report.warn(s.ErrorMappings.name, mend, "%s: with %s=%s the chain is walked in order then", wrong, s.Strategy.name, p.Strategy)
	}
}

// resolveWeights fills in the weights of the backends.
func (e *routeEntry) resolveWeights(r *reader, backends []*backendEntry) {
	s, p := &e.spec, &e.route.Policy
	if !s.Weights.given {
		return
	}
	p.Weights = make(map[string]float64)
	for _, w := range s.Weights.value {
		for _, name := range pick(r, s.Weights.name, []string{w.backend}, backends) {
			p.Weights[name] = w.weight
		}
	}
	if s.Weights.err != nil {
		return
	}
	models, weightless := 0, 0
	for _, b := range backends {
		if !slices.Contains(e.route.Chain, b.name) || b.spec.Kind.value == worker.KindRules {
			continue
		}
		models++
		if weight, ok := p.Weights[b.name]; ok && weight == 0 {
			weightless++
		}
	}
	if p.Strategy == fallback.Random && models > 0 && weightless == models {
		r.report.problem(s.Weights.name, "give one of them a weight above 0", "every backend of the chain that calls a model has the weight 0")
	}
}

// checkConditions reports every condition that cannot be understood, also where
// the strategy does not read them: a job may choose another one.
func (e *routeEntry) checkConditions(r *reader) {
	s := &e.spec
	for i, text := range s.Conditions.value {
		_, err := condition.Compile(text)
		if err == nil {
			continue
		}
		s.Conditions.err = err // so that it is not shown
		if likeSecret(text) {
			r.report.problem(s.Conditions.name, "", "condition %d: %s cannot be understood", i+1, quoted(text))
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		f := Finding{Variable: s.Conditions.name, Wrong: fmt.Sprintf("condition %d: %s", i+1, blanked(lines[0])), Detail: lines[1:]}
		r.report.Problems = append(r.report.Problems, f)
	}
	if s.Strategy.value == fallback.Conditional && s.Enabled.value && !s.Conditions.given {
		r.report.problem(s.Conditions.name, "set it, for example to on_timeout;on_rate_limit, or set "+s.Strategy.name+"="+fallback.Sequential,
			"is not set: with %s=%s no other backend would ever be asked", s.Strategy.name, s.Strategy.value)
	}
}

// checkStrategy reports a strategy that does not exist, and settings that the
// route's strategy does not read.
func (e *routeEntry) checkStrategy(r *reader) {
	s := &e.spec
	known := slices.Sorted(maps.Keys(fallback.Strategies()))
	if !slices.Contains(known, s.Strategy.value) {
		if s.Strategy.err == nil {
			r.report.problem(s.Strategy.name, "use one of "+strings.Join(known, ", "), "%s is not a strategy", quoted(s.Strategy.value))
		}
		return
	}
	judged := []string{fallback.Sequential, fallback.Priority, fallback.Random, fallback.Parallel}
	for _, extra := range []struct {
		setting variable
		readers []string
	}{
		{&s.OnStatusCodes, judged},
		{&s.OnErrors, judged},
		{&s.ErrorMappings, []string{fallback.Priority, fallback.ErrorType}},
		{&s.Conditions, []string{fallback.Conditional}},
		{&s.Weights, []string{fallback.Random}},
		{&s.HedgeDelay, []string{fallback.Parallel}},
	} {
		switch {
		case slices.Contains(extra.readers, s.Strategy.value):
		case !extra.setting.isGiven(): // its default is not in effect either
			e.fields = slices.DeleteFunc(e.fields, func(shown field) bool { return shown.name == extra.setting.label() })
		default:
			r.report.warn(extra.setting.label(), "set "+s.Strategy.name+" to "+either(extra.readers)+", or unset it",
				"is set but not in effect with %s=%s", s.Strategy.name, s.Strategy.value)
		}
	}
}
