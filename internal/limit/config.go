package limit

import (
	"errors"
	"fmt"
	"math"
)

// Config holds the limits of one backend. The zero value has none.
type Config struct {
	// Concurrency is how many calls run at once; 0 means any number.
	Concurrency int
	// RPM is how many calls start in a minute; 0 means any number.
	RPM int64
	// TPM is how many tokens, of prompts and answers, are used in a minute; 0
	// means any number.
	TPM int64
}

// validate names every field that cannot be used.
func (c Config) validate() error {
	var problems []error
	for _, f := range []struct {
		name  string
		value int64
	}{{"Concurrency", int64(c.Concurrency)}, {"RPM", c.RPM}, {"TPM", c.TPM}} {
		if f.value < 0 || f.value > math.MaxInt32*1000 {
			problems = append(problems, fmt.Errorf("limit: %s is %d; use 0 for no limit, or 1 to %d", f.name, f.value, int64(math.MaxInt32*1000)))
		}
	}
	return errors.Join(problems...)
}
