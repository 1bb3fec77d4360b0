package llmtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Refill is how a provider's limits fill again. The set is closed.
type Refill string

// The two ways in which providers do it.
const (
	// Steadily fills all the time, a minute's worth at the most: OpenAI,
	// Anthropic, Groq.
	Steadily Refill = ""
	// AtOnce makes everything free again at the end of each minute, counted from
	// the start: Mistral, gateways.
	AtOnce Refill = "at_once"
)

// Quota is what a provider lets its callers do in a minute, counted over all
// models.
type Quota struct {
	// Requests and Tokens are per minute; 0 means any number.
	Requests, Tokens int64
	// Refill is how they fill again. A quota is full at the start.
	Refill Refill
	// Silent leaves out the x-ratelimit headers, but not the Retry-After of a 429.
	Silent bool
}

// Limited is a script that answers calls over the quota with the 429 of OpenAI,
// and asks then about all others, whose replies get OpenAI's x-ratelimit headers,
// as of the arrival of the call. A call takes the tokens of its prompt and those
// that it allows its answer to have, or else those of the answer itself.
// The quota starts when Limited is called.
func Limited(q Quota, then Script) Script {
	l := &quotas{silent: q.Silent}
	now := time.Now()
	for _, one := range []struct {
		kind  string
		limit int64
	}{{"requests", q.Requests}, {"tokens", q.Tokens}} {
		if one.limit > 0 {
			l.all = append(l.all, &account{
				kind: one.kind, limit: float64(one.limit), level: float64(one.limit), at: now, refill: q.Refill,
			})
		}
	}
	return func(c Call) Reply {
		input, output := costOf(c)
		if r, ok := l.take(input + output); !ok {
			return r
		}
		headers := l.headers()
		r := then(c)
		if output == 0 && r.Status < http.StatusBadRequest && r.Body == nil {
			l.spend(float64(len(tokensOf(textFor(c, r)))))
		}
		r.Header = maps.Clone(r.Header)
		if r.Header == nil {
			r.Header = map[string]string{}
		}
		maps.Copy(r.Header, headers)
		return r
	}
}

// costOf is how many tokens a call has in its prompt and allows in its answer, 0
// when it does not say.
func costOf(c Call) (input, output float64) {
	var req struct {
		MaxTokens           int64 `json:"max_tokens"`
		MaxCompletionTokens int64 `json:"max_completion_tokens"`
	}
	_ = json.Unmarshal(c.Body, &req) // a field of a wrong type leaves the others
	return float64((requestOf(c).length() + 3) / 4), float64(max(req.MaxTokens, req.MaxCompletionTokens, 0))
}

// quotas are the accounts of one provider.
type quotas struct {
	silent bool

	mu  sync.Mutex // guards the accounts
	all []*account
}

// account is what is left of one limit.
type account struct {
	kind         string
	limit, level float64
	at           time.Time // when level was right; of AtOnce, when the minute began
	refill       Refill
}

// take takes a call of that many tokens, or refuses it and takes nothing.
func (l *quotas) take(tokens float64) (Reply, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, a := range l.all {
		need := a.need(tokens)
		if wait := a.missing(need, now); wait > 0 {
			return l.refuse(a, need, wait), false
		}
	}
	for _, a := range l.all {
		a.level -= a.need(tokens)
	}
	return Reply{}, true
}

// spend takes the tokens of an answer.
func (l *quotas) spend(tokens float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.all {
		if a.kind == "tokens" {
			a.level -= tokens
		}
	}
}

// refuse is the answer to a call that is over a limit. l.mu is held.
func (l *quotas) refuse(a *account, need float64, wait time.Duration) Reply {
	wait = (wait + time.Millisecond - 1).Truncate(time.Millisecond)
	r := Reply{
		Status: http.StatusTooManyRequests, Code: "rate_limit_exceeded", Type: a.kind,
		Text: fmt.Sprintf("Rate limit reached on %s per min: Limit %.0f, Used %.0f, Requested %.0f. Please try again in %s.",
			a.kind, a.limit, a.limit-a.level, need, wait),
		RetryAfter: strconv.Itoa(int(math.Ceil(wait.Seconds()))),
		Header:     map[string]string{"Retry-After-Ms": strconv.FormatInt(wait.Milliseconds(), 10)},
	}
	maps.Copy(r.Header, l.current())
	return r
}

// headers are those of a call that was taken.
func (l *quotas) headers() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current()
}

// current is what the headers say now. l.mu is held.
func (l *quotas) current() map[string]string {
	h := map[string]string{}
	if l.silent {
		return h
	}
	for _, a := range l.all {
		h["X-Ratelimit-Limit-"+a.kind] = strconv.FormatInt(int64(a.limit), 10)
		h["X-Ratelimit-Remaining-"+a.kind] = strconv.FormatInt(int64(max(a.level, 0)), 10)
		h["X-Ratelimit-Reset-"+a.kind] = a.whole(time.Now()).Round(time.Millisecond).String()
	}
	return h
}

// need is what a call of that many tokens takes of the account; what never fits
// takes all.
func (a *account) need(tokens float64) float64 {
	if a.kind == "requests" {
		return 1
	}
	return min(tokens, a.limit)
}

// fill brings the level up to now.
func (a *account) fill(now time.Time) {
	passed := now.Sub(a.at)
	switch {
	case a.refill == AtOnce && passed >= time.Minute:
		a.level, a.at = a.limit, a.at.Add(passed.Truncate(time.Minute))
	case a.refill == Steadily:
		a.level, a.at = min(a.limit, a.level+a.limit*passed.Minutes()), now
	}
}

// missing is how long until need is there.
func (a *account) missing(need float64, now time.Time) time.Duration {
	a.fill(now)
	short := need - a.level
	switch {
	case short <= 1e-6: // the rounding of sums
		return 0
	case a.refill == AtOnce:
		return a.at.Add(time.Minute).Sub(now)
	}
	return time.Duration(math.Ceil(short / a.limit * float64(time.Minute)))
}

// whole is how long until the account is full.
func (a *account) whole(now time.Time) time.Duration {
	if a.level >= a.limit {
		return 0
	}
	return a.missing(a.limit, now)
}
