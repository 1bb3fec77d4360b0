package results

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Kind is what cannot be stored. The set is closed, see [Kinds].
type Kind string

// What a job needs to have stored before it may leave its queue.
const (
	KindResults Kind = "results"
	KindDead    Kind = "dead_letters"
	KindAnswers Kind = "answers"
)

// Kinds are all of them, the most telling one first.
func Kinds() []Kind { return []Kind{KindResults, KindDead, KindAnswers} }

// words is the kind for people.
func (k Kind) words() string {
	if k == KindDead {
		return "dead letters"
	}
	return string(k)
}

// Blockage is what is known of one kind that cannot be stored.
type Blockage struct {
	Kind Kind
	// Jobs is how many jobs are held because of it; 0: it has passed.
	Jobs int
	// Why is the server's last word on it, such as "maximum bytes exceeded".
	Why string
}

// String says it for people.
func (b Blockage) String() string { return b.Kind.words() + " cannot be stored: " + b.Why }

// blockages counts who is trying in vain to store something at the moment. There
// is a blockage only while somebody tries: so it ends with the last try, whatever
// that comes to.
type blockages struct {
	mu      sync.Mutex // guards the rest
	now     map[Kind]Blockage
	changed func(Blockage) // may be nil; called in order, under mu
	free    chan struct{}  // closed when nothing is blocked
}

func newBlockages() *blockages {
	b := &blockages{now: make(map[Kind]Blockage), free: make(chan struct{})}
	close(b.free)
	return b
}

// trial is one thing that is to be stored. Its zero value is not valid.
type trial struct {
	all     *blockages
	kind    Kind
	blocked bool
}

func (b *blockages) trial(kind Kind) *trial { return &trial{all: b, kind: kind} }

// failed notes a try that failed.
func (t *trial) failed(err error) {
	b := t.all
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.now) == 0 {
		b.free = make(chan struct{})
	}
	state := b.now[t.kind]
	state.Kind, state.Why = t.kind, reason(err)
	if !t.blocked {
		t.blocked = true
		state.Jobs++
		defer b.tell(state)
	}
	b.now[t.kind] = state
}

// over notes the end of the trial, whatever it came to.
func (t *trial) over() {
	b := t.all
	b.mu.Lock()
	defer b.mu.Unlock()
	if !t.blocked {
		return
	}
	t.blocked = false
	state := b.now[t.kind]
	state.Jobs--
	b.now[t.kind] = state
	if state.Jobs == 0 {
		delete(b.now, t.kind)
		if len(b.now) == 0 {
			close(b.free)
		}
	}
	b.tell(state)
}

// tell runs with mu held.
func (b *blockages) tell(state Blockage) {
	if b.changed != nil {
		b.changed(state)
	}
}

// reason is what the server said, or what is known instead.
func reason(err error) string {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.Description
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		return "the server does not answer"
	}
	return err.Error()
}

// OnBlocked has changed called whenever a job begins or ceases to be held because
// something cannot be stored. It must be called before the Store is used; changed
// must not block and not call the Store.
func (s *Store) OnBlocked(changed func(Blockage)) { s.blocked.changed = changed }

// Blocked returns what cannot be stored at the moment; ok is false when nothing
// is known to be in the way.
func (s *Store) Blocked() (state Blockage, ok bool) {
	s.blocked.mu.Lock()
	defer s.blocked.mu.Unlock()
	for _, kind := range Kinds() {
		if state, ok := s.blocked.now[kind]; ok {
			return state, true
		}
	}
	return Blockage{}, false
}

// Unblocked is closed while nothing is known to be in the way. Ask for it anew
// each time.
func (s *Store) Unblocked() <-chan struct{} {
	s.blocked.mu.Lock()
	defer s.blocked.mu.Unlock()
	return s.blocked.free
}
