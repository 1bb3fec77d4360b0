package limit

import (
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// outcome is what became of a call, as far as limits are concerned.
type outcome struct {
	class    backend.Class // empty for an answer
	status   int
	retry    time.Duration
	usage    *job.Usage
	left     backend.Allowances
	panicked bool
}

// read takes what the call returned.
func (o *outcome) read(resp *backend.Response, err error, name string) {
	*o = outcome{}
	switch {
	case err != nil:
		failure := backend.AsError(err, name)
		o.class, o.status, o.retry = failure.Class, failure.Status, failure.RetryAfter
		o.usage, o.left = failure.Usage, failure.Left
	case resp != nil:
		o.status, o.usage, o.left = resp.Status, resp.Usage, resp.Left
	}
}

// settle takes the result of one call, once, whatever became of it.
func (l *Limiter) settle(t *turn, resp *backend.Response, err error, panicked bool) {
	out := outcome{panicked: panicked}
	if !panicked {
		out.read(resp, err, l.name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.inflight--
	switch {
	case out.class == backend.CircuitOpen:
		l.refund(t) // it never left
	case out.panicked: // it may have left: what was reserved is used
	default:
		defer l.requests.ended(t.start)
		defer l.tokens.ended(t.start)
		l.heard = l.heard || out.status != 0
		l.took.add(now.Sub(t.start).Seconds())
		l.correct(t, &out)
		l.learn(t, &out, now)
	}
	l.advance(now)
}

// correct replaces what was reserved for a call by what it used. The provider's
// own account is left to what its answers say. l.mu is held.
func (l *Limiter) correct(t *turn, out *outcome) {
	switch used := out.usage; {
	case out.status == 429 || out.class == backend.RateLimit: // the provider has counted nothing
		l.tokens.refund(t.cost, t.marks[1])
		l.requests.theirs.giveBack(1)
	case used != nil:
		tokens := float64(used.InputTokens + used.OutputTokens)
		l.tokens.correct(t.cost, tokens, t.marks[1])
		if t.cost > 0 && tokens > 0 {
			l.spent.add(min(tokens/t.cost, 1))
		}
		if t.Input > 0 && used.InputTokens > 0 {
			l.input.add(float64(used.InputTokens) / float64(t.Input))
		}
		if used.OutputTokens > 0 {
			l.output.add(float64(used.OutputTokens))
		}
	case out.class != "" && out.status == 0:
		l.tokens.refund(t.cost, t.marks[1])
	}
}

// learn takes what an answer says of the provider's limits. l.mu is held.
func (l *Limiter) learn(t *turn, out *outcome, now time.Time) {
	refused := out.class == backend.RateLimit
	r := report{start: t.start, others: max(l.running(), 0), refused: refused, retry: out.retry}
	if !t.marked {
		l.last = t.start
		r.others = max(r.others-1, 0) // itself
	}
	if a := out.left.Requests; a != nil {
		r.Allowance, r.mark, r.cost, r.ours = *a, t.marks[0], 1, l.requests.own.rate
		l.requests.theirs.learn(&r, now)
		l.active.Store(true)
	}
	if a := out.left.Tokens; a != nil {
		l.counting.Store(true)
		if t.cost == 0 && out.usage != nil {
			t.cost = float64(out.usage.InputTokens + out.usage.OutputTokens)
		}
		r.Allowance, r.mark, r.cost, r.ours = *a, t.marks[1], t.cost, l.tokens.own.rate
		l.tokens.theirs.learn(&r, now)
		l.active.Store(true)
	}
	if !refused {
		return
	}
	hold := min(max(out.retry, 0), longest)
	if hold > 0 {
		l.active.Store(true)
		if until := now.Add(hold); until.After(l.blocked) {
			l.blocked = until
		}
	}
	if out.left.Requests == nil {
		l.requests.drain(1, hold, now)
	}
	if out.left.Tokens == nil {
		l.tokens.drain(t.cost, hold, now)
	}
}
