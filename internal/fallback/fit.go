package fallback

import (
	"fmt"
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

	mu   sync.Mutex // guards said
	said map[kind]tooBig
}

// kind is what jobs have in common that a backend can take or not.
type kind struct{ backend, url, model string }

// tooBig is a backend's word on a job that it cannot take.
type tooBig struct {
	size  int64 // the job's, estimated
	err   *backend.Error
	until time.Time
}

func newFit() *fit { return &fit{said: make(map[kind]tooBig)} }

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
	f := r.engine.fit
	k, word := kind{r.sit.Chain[c.at].Name, req.URL, req.Model}, tooBig{size: guess.Input + guess.Output, until: c.ended.Add(fitAge)}
	why := "the backend cannot take a job of this size"
	if c.err.Limit > 0 && c.err.Requested > 0 {
		why = fmt.Sprintf("the backend takes %d tokens, and was asked for %d by a job that was not bigger", c.err.Limit, c.err.Requested)
	}
	word.err = &backend.Error{Class: c.err.Class, Message: why}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.said[k]; ok && known.size < word.size && c.ended.Before(known.until) {
		return
	}
	if _, ok := f.said[k]; !ok && len(f.said) >= maxFit {
		clear(f.said)
	}
	f.said[k] = word
	f.any.Store(true)
}

// fits takes note that a backend has answered a job: what it said of jobs that
// are not bigger is not true any more.
func (f *fit) fits(t *Task, name string) {
	if !f.any.Load() {
		return
	}
	k := kind{name, t.Request.URL, t.Request.Model}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.said[k]; ok && size(&t.Request) >= known.size {
		delete(f.said, k)
	}
}

// refusal is what a backend said of a job like this that was not bigger; nil when
// it said nothing.
func (f *fit) refusal(k kind, req *backend.Request) *backend.Error {
	f.mu.Lock()
	known, ok := f.said[k]
	f.mu.Unlock()
	if !ok || !time.Now().Before(known.until) || size(req) < known.size {
		return nil
	}
	return known.err
}

// recallFit marks the backends that are known to be too small for the job, as
// long as another one of the chain is left: sizes are estimates.
func (r *run) recallFit() {
	f := r.engine.fit
	if !f.any.Load() {
		return
	}
	refusals, others := make([]*backend.Error, len(r.sit.Chain)), 0
	for i, c := range r.sit.Chain {
		if c.Degraded {
			continue
		}
		refusals[i] = f.refusal(kind{c.Name, r.task.Request.URL, r.task.Request.Model}, &r.task.Request)
		if refusals[i] == nil && slices.Contains(r.next().Order, i) {
			others++
		}
	}
	if others == 0 {
		return
	}
	for i, err := range refusals {
		r.sit.Chain[i].unfit = err
	}
}
