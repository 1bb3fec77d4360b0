package fallback

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
)

// random asks the backends in an order drawn for the job, each with the chance
// that its weight gives it: 1 where the policy has none for it, never for 0. A
// primary that the job names comes first all the same, and with fallback off the
// head of the chain is the only one.
type random struct{}

// errNoWeight means that no backend of a chain has a weight.
var errNoWeight = errors.New("no backend of the chain has a weight above 0")

// Next implements [Strategy].
func (random) Next(s *Situation) Move {
	// A draw without putting back: the least of -ln(u)/weight comes first
	// (Efraimidis and Spirakis, 2006). It is the same at every call, so that
	// whoever takes up the job goes on in the same order.
	draw := rand.New(rand.NewPCG(s.Seed, 0))
	keys := make([]float64, len(s.Chain))
	order := make([]int, 0, len(s.Chain))
	for i := range s.Chain {
		c := &s.Chain[i]
		weight := s.Policy.weight(c.Name)
		keys[i] = -math.Log(1-draw.Float64()) / weight
		if c.Name == s.Job.Primary || !s.Policy.Enabled {
			keys[i], weight = -1, 1
		}
		if weight > 0 && !c.Mapped && !c.Degraded {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(keys[a], keys[b]) })
	sortByRounds(order, s.Chain)
	return Move{Order: order}
}

// weight is a backend's weight.
func (p *Policy) weight(name string) float64 {
	if w, ok := p.Weights[name]; ok {
		return w
	}
	return 1
}

// weighs reports whether a backend of a chain has a weight.
func (p *Policy) weighs(chain []string) bool {
	return slices.ContainsFunc(chain, func(name string) bool { return p.weight(name) > 0 })
}
