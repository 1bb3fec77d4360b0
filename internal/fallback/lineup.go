package fallback

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"understudy/internal/backend"
)

// lineup is who may be asked for a job, and what is known of them before it
// begins. It is never changed: the jobs of a route share one, so that what a job
// costs does not grow with backends that it does not come to.
type lineup struct {
	chain      []backend.Backend // and what only ERROR_MAPPINGS name
	own        int               // how many of them are the chain
	retries    []int             // by position
	candidates []Candidate       // nobody was called yet
	order      []int             // the positions of the chain itself
}

// withMapped returns a chain, and behind it the backends that only the error
// mappings name.
func withMapped(names []string, p *Policy) []string {
	if !p.Enabled || len(p.ErrorMappings) == 0 {
		return names
	}
	for _, class := range slices.Sorted(maps.Keys(p.ErrorMappings)) {
		for _, name := range p.ErrorMappings[class] {
			if !slices.Contains(names, name) {
				names = append(slices.Clip(names), name)
			}
		}
	}
	return names
}

// lineup returns the backends of a chain under a policy.
func (e *Engine) lineup(chain []string, p *Policy) *lineup {
	return e.lineupOf(withMapped(chain, p), len(chain))
}

// lineupOf returns the backends of those names, of which the first are the chain.
func (e *Engine) lineupOf(names []string, own int) *lineup {
	l := &lineup{
		chain: make([]backend.Backend, len(names)), own: own, retries: make([]int, len(names)),
		candidates: make([]Candidate, len(names)), order: make([]int, own),
	}
	for i, name := range names {
		b := e.backends[name]
		d, ok := b.(backend.Degrader)
		l.chain[i], l.retries[i] = b, e.retries[name]
		l.candidates[i] = Candidate{Name: name, Degraded: ok && d.Degraded(), Mapped: i >= own}
	}
	for i := range l.order {
		l.order[i] = i
	}
	return l
}

// lineUp gives each route its backends; routes of the same ones share them.
func (e *Engine) lineUp() {
	known := make(map[string]*lineup)
	for _, r := range e.routes {
		chain := r.Chain
		if !r.Enabled {
			chain = chain[:1]
		}
		names := withMapped(chain, &r.Policy)
		key := strconv.Itoa(len(chain)) + "\x00" + strings.Join(names, "\x00")
		if known[key] == nil {
			known[key] = e.lineupOf(names, len(chain))
		}
		r.lineup = known[key]
	}
}
