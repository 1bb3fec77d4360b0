package fallback

// priority asks the backends first that the class of the failure is mapped to,
// then the rest of the chain. Before the first failure it is the chain.
type priority struct{}

// Next implements [Strategy].
func (priority) Next(s *Situation) Move {
	order := append(s.mapped(), byRounds(s.Chain)...) // the engine drops what comes twice
	sortByRounds(order, s.Chain)
	return Move{Order: order}
}

// GoesOn implements [Judge]: who maps a class wants to go on after it.
func (priority) GoesOn(s *Situation) bool {
	return len(s.mapped()) > 0 || s.Policy.goesOn(s.Failure.Class, s.Failure.Status)
}
