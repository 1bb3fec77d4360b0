package fallback

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/backend"
)

const (
	// fitAge is how long a backend's word on what it can never take holds: models
	// and limits are exchanged by the day.
	fitAge = time.Hour
	// maxFit caps what is remembered: the models are of the publishers' choice.
	maxFit = 4096
)

// fit remembers what backends said they can never take, so that a bigger job of
// the same kind is not sent there. It is safe for concurrent use.
type fit struct {
	any atomic.Bool // something is remembered: most fleets never need the rest

	mu    sync.Mutex                 // guards everything below
	said  map[kind]map[string]tooBig // by the backend's name
	words int                        // in all of it
}

// kind is what jobs have in common that a backend can take or not.
type kind struct{ url, model string }

// kindOf is the kind of a request.
func kindOf(req *backend.Request) kind { return kind{req.URL, req.Model} }

// tooBig is a backend's word on a job that it cannot take.
type tooBig struct {
	size  int64 // the job's, estimated
	err   *backend.Error
	until time.Time
}

func newFit() *fit { return &fit{said: make(map[kind]map[string]tooBig)} }

// isUnfit reports whether a failure of a class says that the backend can never
// take this request, however often it is asked.
func isUnfit(class backend.Class) bool {
	switch class { //nolint:exhaustive // the other classes may pass
	case backend.ContextLength, backend.TooLarge, backend.Unsupported, backend.ModelNotFound:
		return true
	}
	return false
}

// size is how much a request is, in estimated tokens.
func size(req *backend.Request) int64 {
	e := req.Estimate()
	return e.Input + e.Output
}

// learn remembers that a call failed because its job is too big.
func (r *run) learn(c *call) {
	if c.err.Class != backend.ContextLength && c.err.Class != backend.TooLarge {
		return
	}
	req := &r.task.Request
	guess := req.Estimate()
	if guess.Media {
		return // what is too big in it says nothing about text
	}
	word := tooBig{size: guess.Input + guess.Output, until: c.ended.Add(fitAge)}
	why := "the backend cannot take a job of this size"
	if c.err.Limit > 0 && c.err.Requested > 0 {
		why = fmt.Sprintf("the backend takes %d tokens, and was asked for %d by a job that was not bigger", c.err.Limit, c.err.Requested)
	}
	word.err = &backend.Error{Class: c.err.Class, Message: why}
	r.engine.fit.add(kindOf(req), c.name, word, c.ended)
}

// add remembers a word, unless a stricter one holds.
func (f *fit) add(k kind, name string, word tooBig, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.said[k][name]
	if ok && known.size < word.size && now.Before(known.until) {
		return
	}
	if !ok {
		if f.words >= maxFit {
			clear(f.said)
			f.words = 0
		}
		f.words++
	}
	if f.said[k] == nil {
		f.said[k] = make(map[string]tooBig)
	}
	f.said[k][name] = word
	f.any.Store(true)
}

// fits takes note that a backend has answered a job: what it said of jobs that
// are not bigger is not true any more.
func (f *fit) fits(req *backend.Request, name string) {
	k := kindOf(req)
	f.mu.Lock()
	known, ok := f.said[k][name]
	f.mu.Unlock()
	if !ok {
		return
	}
	answered := size(req) // which reads the body
	if answered < known.size {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok = f.said[k][name]; ok && answered >= known.size {
		f.words--
		if delete(f.said[k], name); len(f.said[k]) == 0 {
			delete(f.said, k)
		}
	}
}

// refusals are what backends said of jobs like this that were not bigger; nil
// when none said anything.
func (f *fit) refusals(req *backend.Request) map[string]*backend.Error {
	f.mu.Lock()
	said := maps.Clone(f.said[kindOf(req)])
	f.mu.Unlock()
	var refusals map[string]*backend.Error
	now := time.Now()
	for name, word := range said {
		if !now.Before(word.until) || size(req) < word.size {
			continue
		}
		if refusals == nil {
			refusals = make(map[string]*backend.Error, len(said))
		}
		refusals[name] = word.err
	}
	return refusals
}

// recallFit marks the backends that are known to be too small for the job, as
// long as another one of the chain is left: sizes are estimates.
func (r *run) recallFit() {
	refusals := r.engine.fit.refusals(&r.task.Request)
	if len(refusals) == 0 {
		return
	}
	others := slices.ContainsFunc(r.next().Order, func(i int) bool {
		c := &r.sit.Chain[i]
		return !c.Degraded && refusals[c.Name] == nil
	})
	if !others {
		return
	}
	for i := range r.sit.Chain {
		if c := &r.sit.Chain[i]; !c.Degraded && refusals[c.Name] != nil {
			r.change(i).unfit = refusals[c.Name]
		}
	}
}
