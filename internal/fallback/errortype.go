package fallback

import "errors"

// errorType asks only the backends that the class of the failure is mapped to;
// when there are none, the job stops. The first call goes to the chain.
type errorType struct{}

func newErrorType(p *Policy) (Strategy, error) {
	if p.Enabled && len(p.ErrorMappings) == 0 {
		return nil, errors.New("error_type needs error mappings: without them no failure leads to another backend")
	}
	return errorType{}, nil
}

// Next implements [Strategy].
func (errorType) Next(s *Situation) Move {
	if s.Failure == nil {
		return s.walk()
	}
	order := s.mapped()
	sortByRounds(order, s.Chain)
	return Move{Order: order}
}

// GoesOn implements [Judge].
func (errorType) GoesOn(s *Situation) bool { return len(s.mapped()) > 0 }
