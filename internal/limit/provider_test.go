package limit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// quota is one limit of a simulated provider: a bucket when window is 0.
type quota struct {
	limit  float64 // as its headers tell it
	burst  float64 // what fits
	rate   float64 // per second, of a bucket
	window time.Duration
	level  float64
	at     time.Time
	next   time.Time // the next reset of a window
}

func bucketOf(perMinute, burst float64) *quota {
	return &quota{limit: perMinute, burst: burst, rate: perMinute / 60, level: burst, at: time.Now()}
}

// windowOf has its first reset after first.
func windowOf(limit float64, every, first time.Duration) *quota {
	return &quota{limit: limit, burst: limit, window: every, level: limit, at: time.Now(), next: time.Now().Add(first)}
}

func (q *quota) refill() {
	now := time.Now()
	if q.window > 0 {
		for !now.Before(q.next) {
			q.level, q.next = q.limit, q.next.Add(q.window)
		}
		return
	}
	q.level = min(q.burst, q.level+q.rate*now.Sub(q.at).Seconds())
	q.at = now
}

// missing is how long until n fit.
func (q *quota) missing(n float64) time.Duration {
	q.refill()
	short := min(n, q.burst) - q.level
	switch {
	case short <= 1e-9:
		return 0
	case q.window > 0:
		return time.Until(q.next)
	}
	return time.Duration(short / q.rate * 1e9)
}

func (q *quota) allowance() *backend.Allowance {
	q.refill()
	a := &backend.Allowance{Limit: int64(q.limit), Remaining: int64(math.Floor(max(q.level, 0) + 1e-9))}
	if q.window > 0 {
		a.Reset = time.Until(q.next)
	} else {
		a.Reset = time.Duration((q.burst - q.level) / q.rate * 1e9)
	}
	return a
}

// task is one job and what the provider will make of it.
type task struct {
	req           *backend.Request
	input, output int64
	allowed       int64 // what the provider reserves for the answer
	took          time.Duration
}

// provider is a simulated provider that keeps limits.
type provider struct {
	tasks    []task
	silent   bool // no headers
	late     bool // headers are of the moment of the answer
	kept     bool // what was reserved for an answer and not used is not given back
	coarse   bool // resets in whole seconds
	oracle   bool // callers wait for the provider's limits, which they know
	mu       sync.Mutex
	requests *quota
	tokens   *quota
	turn     chan struct{} // of an oracle: held by the first in line

	calls, refused, running, most int
	starts                        []time.Duration
	began                         time.Time
}

func (p *provider) Name() string { return "sim" }

func (p *provider) missing(t *task) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var wait time.Duration
	if p.requests != nil {
		wait = p.requests.missing(1)
	}
	if p.tokens != nil {
		wait = max(wait, p.tokens.missing(float64(t.input+t.allowed)))
	}
	return wait
}

func (p *provider) left() (a backend.Allowances) {
	if p.silent {
		return a
	}
	if p.requests != nil {
		a.Requests = p.requests.allowance()
	}
	if p.tokens != nil {
		a.Tokens = p.tokens.allowance()
	}
	for _, x := range []*backend.Allowance{a.Requests, a.Tokens} {
		if x != nil && p.coarse {
			x.Reset = (x.Reset + time.Second - 1).Truncate(time.Second)
		}
	}
	return a
}

// enter takes what a call needs, or returns how long until it could.
func (p *provider) enter(t *task) (backend.Allowances, time.Duration) {
	wait := p.missing(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if wait > 0 {
		p.refused++
		return p.left(), wait
	}
	p.running++
	p.most = max(p.most, p.running)
	p.starts = append(p.starts, time.Since(p.began))
	if p.requests != nil {
		p.requests.level--
	}
	if p.tokens != nil {
		p.tokens.level -= float64(t.input + t.allowed)
	}
	return p.left(), 0
}

func (p *provider) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	n, _ := strconv.Atoi(req.JobID)
	t := &p.tasks[n]
	if p.oracle {
		p.turn <- struct{}{}
		for p.missing(t) > 0 {
			time.Sleep(min(p.missing(t)+1, 20*time.Millisecond))
		}
	}
	if req.Started != nil {
		req.Started("m")
	}
	latency := time.Duration(5+n%7) * time.Millisecond
	if p.oracle {
		latency = 0
	}
	time.Sleep(latency)
	left, wait := p.enter(t)
	if p.oracle {
		<-p.turn
	}
	if wait > 0 {
		time.Sleep(10 * time.Millisecond)
		retry := wait
		if p.silent || p.coarse {
			retry = (wait + time.Second - 1).Truncate(time.Second)
		}
		return nil, &backend.Error{Class: backend.RateLimit, Backend: "sim", Status: 429, RetryAfter: retry, Left: left}
	}
	select {
	case <-time.After(t.took):
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	if p.tokens != nil && !p.kept {
		p.tokens.refill()
		p.tokens.level = min(p.tokens.burst, p.tokens.level+float64(t.allowed-t.output))
	}
	if p.late {
		left = p.left()
	}
	return &backend.Response{Status: 200, Left: left, Usage: &job.Usage{InputTokens: t.input, OutputTokens: t.output}}, nil
}

// tasks makes jobs that take between shortest and longest, with prompts of all
// sizes; one in four does not say how long its answer may be. The provider
// counts prompts differently from us.
func tasks(n int, shortest, longest time.Duration) []task {
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]task, n)
	for i := range all {
		words := 100 + random.Int64N(1400)
		most := 100 + random.Int64N(900)
		t := task{input: int64(float64(words) * (0.9 + 0.5*random.Float64())), output: 1 + random.Int64N(most), allowed: most}
		body := fmt.Sprintf(`{"messages":[{"role":"user","content":"%s"}],"max_tokens":%d}`, strings.Repeat("word", int(words)), most)
		if i%4 == 0 {
			t.allowed = 500
			t.output = min(t.output, 500)
			body = fmt.Sprintf(`{"messages":[{"role":"user","content":"%s"}]}`, strings.Repeat("word", int(words)))
		}
		t.took = shortest
		if longest > shortest {
			t.took += time.Duration(random.Int64N(int64(longest - shortest)))
		}
		t.req = &backend.Request{JobID: strconv.Itoa(i), Body: []byte(body)}
		all[i] = t
	}
	return all
}
