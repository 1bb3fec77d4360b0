package fallback

import (
	"math"
	"math/rand/v2"
	"time"
)

// minSpread is the least part of a pause that jitter leaves.
const minSpread = 0.5

// delay is the pause before a backend that had already so many turns is called
// again: base x exponential^(turns-1), at most max, and of that the part that
// spread says.
func (p *Policy) delay(turns int, spread float64) time.Duration {
	if turns <= 0 || p.BaseDelay <= 0 {
		return 0
	}
	d := float64(p.BaseDelay) * math.Pow(max(p.ExponentialBase, 1), float64(turns-1))
	if limit := float64(p.MaxDelay); limit > 0 && d > limit {
		d = limit
	}
	return time.Duration(min(d, float64(24*time.Hour)) * spread)
}

// seed is a number drawn from a job's id: its FNV-1a hash, which package
// hash/fnv computes too, but on the heap.
func seed(jobID string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(jobID) {
		h = (h ^ uint64(jobID[i])) * prime
	}
	return h
}

// spread draws the part of a pause that jitter leaves, from [0.5, 1), or 1
// without jitter. The draw is a function of the job and the call that failed:
// who takes up the job elsewhere pauses for as long as was told.
func (p *Policy) spread(seed uint64, started time.Time) float64 {
	if !p.Jitter {
		return 1
	}
	draw := rand.New(rand.NewPCG(seed, uint64(started.UnixMilli())))
	return minSpread + draw.Float64()*(1-minSpread)
}

// leastSpread is the least that spread can draw.
func (p *Policy) leastSpread() float64 {
	if !p.Jitter {
		return 1
	}
	return minSpread
}
