package job

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Limits of a job's own policy.
const (
	// MaxAttempts is the highest max_attempts.
	MaxAttempts = 1000
	// MaxDelay is the longest of the delays of a policy.
	MaxDelay = 24 * time.Hour
	// MaxExponentialBase is the highest exponential_base.
	MaxExponentialBase = 100
	// MaxPolicyEntries is how many entries on_errors, error_mappings and weights
	// may have.
	MaxPolicyEntries = 100
	// MaxConditions is how many conditions there may be.
	MaxConditions = 32
	// MaxCondition is the longest condition, in bytes.
	MaxCondition = 1024
	// MaxStatusCodes is how many on_status_codes there may be.
	MaxStatusCodes = 500
	// MaxWeight is the highest weight.
	MaxWeight = 1e9
)

// strategies names the strategies that a policy may ask for.
func strategies() []string {
	return []string{"sequential", "priority", "error_type", "random", "parallel", "conditional"}
}

func readPolicy(v value) (*Policy, error) {
	p, known := new(Policy), policyFields()
	err := v.object(len(known), known, func(name string, field value) error {
		switch {
		case !slices.Contains(known, name):
			return invalid(field.path, "is no field of a policy; there are: %s", strings.Join(known, ", "))
		case field.null():
			return nil
		}
		return p.field(name, field)
	})
	return p, err
}

func policyFields() []string {
	return []string{
		"enabled", "strategy", "max_attempts", "base_delay_ms", "max_delay_ms", "exponential_base", "jitter",
		"on_status_codes", "on_errors", "error_mappings", "conditions", "weights", "hedge_delay_ms",
		"timeout_ms", "max_cost_usd", "on_limit",
	}
}

// field reads one field of the policy.
func (p *Policy) field(name string, v value) (err error) {
	switch name {
	case "enabled":
		p.Enabled, err = given(v.boolean())
	case "strategy":
		p.Strategy, err = given(v.oneOf(strategies()...))
	case "max_attempts":
		var n int64
		n, err = v.integer(1, MaxAttempts)
		p.MaxAttempts = new(int(n))
	case "base_delay_ms":
		p.BaseDelayMS, err = given(v.integer(0, MaxDelay.Milliseconds()))
	case "max_delay_ms":
		p.MaxDelayMS, err = given(v.integer(0, MaxDelay.Milliseconds()))
	case "hedge_delay_ms":
		p.HedgeDelayMS, err = given(v.integer(0, MaxDelay.Milliseconds()))
	case "exponential_base":
		p.ExponentialBase, err = given(v.number(1, MaxExponentialBase))
	case "jitter":
		p.Jitter, err = given(v.boolean())
	case "timeout_ms":
		p.TimeoutMS, err = given(v.integer(1, MaxTimeout.Milliseconds()))
	case "max_cost_usd":
		p.MaxCostUSD, err = given(v.number(0, math.MaxFloat64))
	case "on_limit":
		p.OnLimit, err = given(v.oneOf("wait", "fallback"))
	default:
		err = p.group(name, v)
	}
	return err
}

// group reads one field of the policy that holds several values. An empty one is
// not nil: it overrides the route.
func (p *Policy) group(name string, v value) (err error) {
	switch name {
	case "on_status_codes":
		p.OnStatusCodes = []int{}
		err = v.list(MaxStatusCodes, func(code value) error {
			n, err := code.integer(100, 599)
			p.OnStatusCodes = append(p.OnStatusCodes, int(n))
			return err
		})
	case "on_errors":
		p.OnErrors, err = v.strings(MaxPolicyEntries, MaxToken)
	case "conditions":
		p.Conditions, err = v.strings(MaxConditions, MaxCondition)
	case "error_mappings":
		p.ErrorMappings = make(map[string][]string)
		err = v.object(MaxPolicyEntries, nil, func(class string, backends value) (err error) {
			if class == "" || len(class) > MaxToken {
				return invalid(backends.path, "has a name of %d bytes; 1 to %d", len(class), MaxToken)
			}
			p.ErrorMappings[class], err = backends.names(MaxChain)
			return err
		})
	case "weights":
		p.Weights = make(map[string]float64)
		err = v.object(MaxPolicyEntries, nil, func(backend string, weight value) (err error) {
			if err := checkToken(backend); err != nil {
				return invalid(weight.path, "%v", err)
			}
			p.Weights[backend], err = weight.number(0, MaxWeight)
			return err
		})
	}
	return err
}

// given is a pointer to what a reader read.
func given[T any](read T, err error) (*T, error) { return &read, err }
