package limit

import "time"

// load is what calls need together.
type load struct {
	calls  int
	tokens float64
}

// add takes n calls more, of so many tokens together.
func (a *load) add(n int, tokens float64) {
	a.calls += n
	a.tokens += tokens
}

// away is the jobs that were deferred, by the second in which they come back.
// Afterwards nothing is known of them: they may have ended, or be elsewhere. The
// zero value holds none.
type away struct {
	epoch  time.Time
	second int // since the epoch; those before have come back, or are about to
	comes  [longest/time.Second + 2]load
	all    load
}

// advance forgets those that come back in this second or before.
func (a *away) advance(now time.Time) {
	if a.epoch.IsZero() {
		a.epoch = now
	}
	for to := a.index(now) + 1; a.second < to; a.second++ {
		if a.all.calls == 0 {
			a.second, a.all = to, load{}
			return
		}
		slot := &a.comes[a.second%len(a.comes)]
		a.all.add(-slot.calls, -slot.tokens)
		*slot = load{}
	}
}

// add takes one more, which comes back then: within the longest from the latest
// advance on.
func (a *away) add(then time.Time, tokens float64) {
	if s := a.index(then); s >= a.second {
		a.comes[s%len(a.comes)].add(1, tokens)
		a.all.add(1, tokens)
	}
}

// in is those that come back in that second.
func (a *away) in(s int) (calls int, tokens float64) {
	slot := &a.comes[s%len(a.comes)]
	return slot.calls, slot.tokens
}

// begin is the beginning of that second.
func (a *away) begin(s int) time.Time { return a.epoch.Add(time.Duration(s) * time.Second) }

// until is those that come back until then.
func (a *away) until(then time.Time) (sum load) {
	for s := a.second; s <= a.index(then) && s < a.second+len(a.comes); s++ {
		sum.add(a.in(s))
	}
	return sum
}

func (a *away) index(t time.Time) int { return int(t.Sub(a.epoch) / time.Second) }
