package fallback

import "slices"

// parallel asks the whole chain at once, or one more backend every hedge delay;
// the first success wins. When all have failed, it starts again.
type parallel struct{}

// Next implements [Strategy].
func (parallel) Next(s *Situation) Move {
	models := slices.DeleteFunc(byRounds(s.Chain), func(i int) bool { return s.Chain[i].Degraded })
	return Move{Order: models, Fan: len(s.Chain), Stagger: s.Policy.HedgeDelay}
}
