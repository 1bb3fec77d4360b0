package llmtest

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxRequest is the default of [Config.MaxRequest].
	maxRequest = 64 << 20
	// maxWait bounds every fault that waits for the client to go.
	maxWait = time.Minute
	// stopTimeout bounds how long [Provider.Close] waits for running calls.
	stopTimeout = 10 * time.Second
)

// Config describes a provider. The zero value is one that echoes.
type Config struct {
	// Name is for the user's own bookkeeping.
	Name string
	// Script decides what a call gets; nil means [Echo].
	Script Script
	// Key, if not empty, is the key every call must carry; without it the call
	// gets a 401 and the script is not asked.
	Key string
	// MaxRequest is the largest request body in bytes, 0 means 64 MiB. A larger
	// one gets a 413 and is no call.
	MaxRequest int64
	// ForgetCalls keeps counts but no calls, for a provider that runs for long.
	ForgetCalls bool
	// OnEnd, if not nil, is called with every call when it has ended. It is
	// called from many goroutines at once.
	OnEnd func(Call)
}

// Provider is a scripted provider. It is an [http.Handler] and safe for
// concurrent use.
type Provider struct {
	cfg Config

	mu      sync.Mutex // guards all below
	script  Script
	calls   []Call
	byModel map[string]int
	stats   Stats
	changed chan struct{} // closed and replaced at every change of stats
	closing chan struct{} // closed to end the replies that wait
	addr    string
	server  *http.Server
	conns   *sync.WaitGroup // server's accept loop and its connections
}

// Stats counts a provider's calls.
type Stats struct {
	// Calls is how many arrived, Ended how many of them the provider is done with.
	Calls int `json:"calls"`
	Ended int `json:"ended"`
	// InFlight is how many run now, MaxInFlight the most that ever ran at once.
	InFlight    int `json:"in_flight"`
	MaxInFlight int `json:"max_in_flight"`
	// Aborted is how many of the ended the client left early.
	Aborted int `json:"aborted"`
}

// TB is the part of testing.TB that [New] needs; so this package can be linked
// into a program without the testing package.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// New starts a provider on a random port of 127.0.0.1 with that script, or with
// [Echo] if none is given. The test's cleanup closes it.
func New(tb TB, script ...Script) *Provider {
	tb.Helper()
	cfg := Config{}
	if len(script) > 0 {
		cfg.Script = script[0]
	}
	return NewWith(tb, cfg)
}

// NewWith is [New] with a whole [Config].
func NewWith(tb TB, cfg Config) *Provider {
	tb.Helper()
	p := NewProvider(cfg)
	if err := p.Listen("127.0.0.1:0"); err != nil {
		tb.Fatalf("start a provider: %v", err)
	}
	tb.Cleanup(p.Close)
	return p
}

// NewProvider makes a provider that is only a handler until [Provider.Listen].
func NewProvider(cfg Config) *Provider {
	if cfg.Script == nil {
		cfg.Script = Echo()
	}
	cfg.MaxRequest = cmp.Or(cfg.MaxRequest, maxRequest)
	return &Provider{
		cfg: cfg, script: cfg.Script, byModel: map[string]int{},
		changed: make(chan struct{}), closing: make(chan struct{}),
	}
}

// Listen serves the provider at addr, a host:port whose port may be 0, until
// [Provider.Close]. After that it may listen again, also at the same address.
func (p *Provider) Listen(addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := &sync.WaitGroup{}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: maxWait, ConnState: func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		case http.StateActive, http.StateIdle:
		}
	}}
	p.closing = make(chan struct{})
	p.addr, p.server, p.conns = ln.Addr().String(), srv, conns
	conns.Go(func() { // ended by Close, which waits for it
		_ = srv.Serve(ln) // always ErrServerClosed: Close is the only way out
	})
	return nil
}

// Close stops listening, breaks every connection and returns when no call runs
// any more, or after 10 seconds when a script blocks. New connections are
// refused from then on. The records stay. Closing twice does nothing.
func (p *Provider) Close() {
	p.mu.Lock()
	srv, conns := p.server, p.conns
	p.server = nil
	select {
	case <-p.closing:
	default:
		close(p.closing)
	}
	p.mu.Unlock()
	if srv != nil {
		_ = srv.Close() // the listener's error; there is nothing left to do about it
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if p.Wait(ctx, func(s Stats) bool { return s.InFlight == 0 }) != nil {
		return // a script blocks: its connection would not end either
	}
	if srv != nil {
		conns.Wait()
	}
}

// Addr is the host:port the provider listens or listened on.
func (p *Provider) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// URL is the base URL of the OpenAI API, which ends in /v1.
func (p *Provider) URL() string { return p.RootURL() + "/v1" }

// RootURL is the URL without a path: the endpoint of an Azure resource.
func (p *Provider) RootURL() string { return "http://" + p.Addr() }

// SetScript replaces the script for the calls to come.
func (p *Provider) SetScript(s Script) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = s
}

// Calls returns the calls so far, in the order of their arrival.
func (p *Provider) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Count is how many calls arrived for model.
func (p *Provider) Count(model string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byModel[model]
}

// Stats returns the counts.
func (p *Provider) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Wait blocks until cond is true of the counts, or returns the cause for which
// ctx ended. cond is called at once and after every change.
func (p *Provider) Wait(ctx context.Context, cond func(Stats) bool) error {
	for {
		p.mu.Lock()
		stats, changed := p.stats, p.changed
		p.mu.Unlock()
		if cond(stats) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ServeHTTP implements [http.Handler].
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, p.cfg.MaxRequest))
	if err != nil {
		http.Error(w, "the request body could not be read", http.StatusRequestEntityTooLarge)
		return
	}
	call, script, closing := p.begin(newCall(r, body))
	x := &exchange{w: w, r: r, rc: http.NewResponseController(w), call: call, closing: closing}
	// Deferred, because a broken reply ends in a panic that net/http expects.
	defer func() { p.end(call, x) }()
	x.send(p.decide(call, script))
}

// begin records a call that has arrived.
func (p *Provider) begin(c Call) (Call, Script, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Calls++
	p.stats.InFlight++
	p.stats.MaxInFlight = max(p.stats.MaxInFlight, p.stats.InFlight)
	p.byModel[c.Model]++
	c.N, c.NModel = p.stats.Calls, p.byModel[c.Model]
	if !p.cfg.ForgetCalls {
		p.calls = append(p.calls, c)
	}
	p.notify()
	return c, p.script, p.closing
}

// end records what became of it.
func (p *Provider) end(c Call, x *exchange) {
	c.Done, c.Status, c.Aborted, c.Duration = true, x.status, x.aborted, time.Since(c.Time)
	if p.cfg.OnEnd != nil {
		p.cfg.OnEnd(c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Ended++
	p.stats.InFlight--
	if c.Aborted {
		p.stats.Aborted++
	}
	if !p.cfg.ForgetCalls {
		p.calls[c.N-1] = c
	}
	p.notify()
}

// notify wakes every Wait. The caller holds mu.
func (p *Provider) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// decide answers what no script is asked about, and asks the script.
func (p *Provider) decide(c Call, script Script) Reply {
	const kind = "invalid_request_error"
	switch {
	case p.cfg.Key != "" && !c.HasKey(p.cfg.Key):
		return Reply{Status: http.StatusUnauthorized, Type: kind, Code: "invalid_api_key", Text: "Incorrect API key provided."}
	case c.Endpoint == "":
		return Reply{Status: http.StatusNotFound, Type: kind, Text: "Invalid URL (" + c.Method + " " + c.Path + ")"}
	case c.Method != http.MethodPost:
		return Reply{Status: http.StatusMethodNotAllowed, Type: kind, Text: "Not allowed to " + c.Method + " on " + c.Path}
	case !bytes.HasPrefix(bytes.TrimSpace(c.Body), []byte("{")):
		return Reply{Status: http.StatusBadRequest, Type: kind, Text: "We could not parse the JSON body of your request."}
	}
	r := script(c)
	r.Status = cmp.Or(r.Status, http.StatusOK)
	return r
}
