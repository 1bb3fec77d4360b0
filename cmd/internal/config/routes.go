package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"understudy/internal/backend"
	"understudy/internal/fallback"
)

// The strategies that read variables of their own.
const (
	strategyPriority    = "priority"
	strategyErrorType   = "error_type"
	strategyRandom      = "random"
	strategyParallel    = "parallel"
	strategyConditional = "conditional"
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
	e.checkStrategy(r)
	chain := on(backends)
	if s.Chain.given && s.Chain.err == nil {
		before := len(r.report.Problems)
		chain = pick(r, s.Chain.name, s.Chain.value, backends)
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
	if s.ErrorMappings.given {
		p.ErrorMappings = make(map[backend.Class][]string)
		for _, class := range slices.Sorted(maps.Keys(s.ErrorMappings.value)) {
			p.ErrorMappings[class] = pick(r, s.ErrorMappings.name, s.ErrorMappings.value[class], backends)
		}
	}
	if s.Weights.given {
		p.Weights = make(map[string]float64)
		for _, name := range pick(r, s.Weights.name, slices.Sorted(maps.Keys(s.Weights.value)), backends) {
			p.Weights[name] = s.Weights.value[name]
		}
	}
}

// checkStrategy reports a strategy that does not exist, and settings that the
// route's strategy does not read.
func (e *routeEntry) checkStrategy(r *reader) {
	s := &e.spec
	known := slices.Sorted(maps.Keys(fallback.Strategies()))
	if !slices.Contains(known, s.Strategy.value) {
		mend := "use one of " + strings.Join(known, ", ")
		if slices.Contains([]string{strategyPriority, strategyErrorType, strategyRandom, strategyParallel, strategyConditional}, s.Strategy.value) {
			r.report.problem(s.Strategy.name, mend, "%s is not available in this version", s.Strategy.value)
		} else if s.Strategy.err == nil {
			r.report.problem(s.Strategy.name, mend, "%s is not a strategy", quoted(s.Strategy.value))
		}
		return
	}
	for _, extra := range []struct {
		setting variable
		readers []string
	}{
		{&s.ErrorMappings, []string{strategyPriority, strategyErrorType}},
		{&s.Conditions, []string{strategyConditional}},
		{&s.Weights, []string{strategyRandom}},
		{&s.HedgeDelay, []string{strategyParallel}},
	} {
		if extra.setting.isGiven() && !slices.Contains(extra.readers, s.Strategy.value) {
			r.report.warn(extra.setting.label(), "set "+s.Strategy.name+" to "+strings.Join(extra.readers, " or ")+", or unset it",
				"is set but not in effect with %s=%s", s.Strategy.name, s.Strategy.value)
		}
	}
}
