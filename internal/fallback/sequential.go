package fallback

// sequential walks the chain in order and starts again at its head.
type sequential struct{}

// Next implements [Strategy].
func (sequential) Next(s *Situation) Move { return s.walk() }
