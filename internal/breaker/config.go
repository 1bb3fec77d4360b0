package breaker

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// The values that zero fields of a [Config] take.
const (
	DefaultFailures    = 5
	DefaultCooldown    = 60 * time.Second
	DefaultMaxCooldown = 300 * time.Second
	DefaultProbes      = 1
)

// FirstCool is how long a breaker opens after a rate limit that names no time;
// each further one in a row doubles that.
const FirstCool = time.Second

// Config says when a breaker opens and for how long. The zero value is valid:
// a zero field takes its default.
type Config struct {
	// Failures is how many counted failures in a row open the breaker; 0 means
	// [DefaultFailures]. There is no time window: only a success, a change of
	// state or [Guard.Reset] starts the count again.
	Failures int
	// Cooldown is how long the breaker stays open after counted failures, after
	// a failed probe, and after a failure that opens it at once without telling
	// for how long; 0 means [DefaultCooldown].
	Cooldown time.Duration
	// MaxCooldown caps what a provider hints and what grows by itself, but not
	// Cooldown; 0 means [DefaultMaxCooldown].
	MaxCooldown time.Duration
	// Probes is how many calls are let through at once when the open time is
	// over, and how many of them must succeed in a row to close the breaker;
	// 0 means [DefaultProbes].
	Probes int
}

// withDefaults returns the configuration with every zero field replaced. Its
// error names every field that cannot be used.
func (c Config) withDefaults() (Config, error) {
	var problems []error
	complain := func(field string, value any, want string) {
		problems = append(problems, fmt.Errorf("breaker: %s is %v; %s", field, value, want))
	}
	const count = "use 0 for the default, or 1 to 2147483647" // gobreaker counts in 32 bits
	if c.Failures < 0 || c.Failures > math.MaxInt32 {
		complain("Failures", c.Failures, count)
	}
	if c.Probes < 0 || c.Probes > math.MaxInt32 {
		complain("Probes", c.Probes, count)
	}
	if c.Cooldown < 0 {
		complain("Cooldown", c.Cooldown, "use 0 for the default, or more")
	}
	if c.MaxCooldown < 0 {
		complain("MaxCooldown", c.MaxCooldown, "use 0 for the default, or more")
	}
	if c.Failures == 0 {
		c.Failures = DefaultFailures
	}
	if c.Cooldown == 0 {
		c.Cooldown = DefaultCooldown
	}
	if c.MaxCooldown == 0 {
		c.MaxCooldown = DefaultMaxCooldown
	}
	if c.Probes == 0 {
		c.Probes = DefaultProbes
	}
	return c, errors.Join(problems...)
}
