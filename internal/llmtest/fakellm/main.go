// Command fakellm is an LLM provider for demos and tests: it speaks the OpenAI
// API, answers by echoing the prompt, and misbehaves as a script tells it.
//
// It serves any number of named providers on one address, each under its name:
// http://127.0.0.1:9090/openrouter/v1, http://127.0.0.1:9090/vllm/v1. The provider
// "default" is at /v1. GET /healthz says that it is up, GET /stats what it counted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"understudy/internal/llmtest"
)

// shutdownTimeout is how long running calls may go on after SIGTERM.
const shutdownTimeout = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code) //nolint:forbidigo // this is a main
}

// options are the flags.
type options struct {
	addr, script, providers, vector, key, log, mark string
	seed                                            uint64
}

// run serves until ctx is done. It returns the exit code: 0 after a clean stop,
// 1 when serving failed, 2 for wrong flags or a wrong script.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("fakellm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:9090", "`host:port` to listen on, port 0 for any")
	flags.StringVar(&o.script, "script", "", "JSON `file` that says how each provider misbehaves")
	flags.StringVar(&o.providers, "providers", "openrouter,vllm", "`names` of the providers, besides those in the script")
	flags.StringVar(&o.vector, "vector", "", "answer every call with the recorded answer of that `id`; \"list\" shows all ids")
	flags.StringVar(&o.key, "key", "", "API `key` every call must carry")
	flags.StringVar(&o.log, "log", "", "append one JSON line per call to `file`, without prompts")
	flags.StringVar(&o.mark, "mark", "X-Job-Id", "request `header` copied to the log as \"mark\"")
	flags.Uint64Var(&o.seed, "seed", 1, "`number` that starts the dice of the script")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		return fail(stderr, 2, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.vector == "list" {
		return list(stdout, stderr)
	}
	calls, err := openLog(o.log, o.mark)
	if err != nil {
		return fail(stderr, 2, err)
	}
	providers, err := o.build(calls)
	if err != nil {
		return fail(stderr, 2, errors.Join(err, calls.Close()))
	}
	err = errors.Join(serve(ctx, o.addr, providers, stdout), calls.Close())
	if err != nil {
		return fail(stderr, 1, err)
	}
	return 0
}

func fail(stderr io.Writer, code int, err error) int {
	_, _ = fmt.Fprintf(stderr, "fakellm: %v\n", err) // there is nowhere else to say it
	return code
}

// list prints the ids of the recorded answers and what they mean.
func list(stdout, stderr io.Writer) int {
	all, err := llmtest.Vectors()
	for _, v := range all {
		_, werr := fmt.Fprintf(stdout, "%-44s %d %s\n", v.ID, v.Status, v.Expect.Class)
		err = errors.Join(err, werr)
	}
	if err != nil {
		return fail(stderr, 1, err)
	}
	return 0
}

// build makes the providers by name. There is always a "default".
func (o options) build(calls *callLog) (map[string]*llmtest.Provider, error) {
	file := script{}
	if o.script != "" {
		raw, err := os.ReadFile(o.script)
		if err != nil {
			return nil, err
		}
		if file, err = parseScript(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", o.script, err)
		}
	}
	for name := range strings.SplitSeq(o.providers, ",") {
		if name = strings.TrimSpace(name); name != "" && file[name] == nil {
			file[name] = []*rule{}
		}
	}
	if file[defaultProvider] == nil {
		file[defaultProvider] = []*rule{}
	}
	players := newPlayer(o.seed, time.Now)
	var fixed llmtest.Script
	if o.vector != "" {
		v, err := llmtest.FindVector(o.vector)
		if err != nil {
			return nil, err
		}
		fixed = llmtest.Always(v.Reply())
	}
	providers := make(map[string]*llmtest.Provider, len(file))
	for name, rules := range file {
		if strings.ContainsAny(name, "/ ") || name == "v1" || name == "openai" {
			return nil, fmt.Errorf("%q is no name for a provider", name)
		}
		play := players.script(rules)
		if fixed != nil {
			play = fixed
		}
		providers[name] = llmtest.NewProvider(llmtest.Config{
			Name: name, Script: play, Key: o.key, ForgetCalls: true,
			OnEnd: func(c llmtest.Call) { calls.write(name, c) },
		})
	}
	return providers, nil
}

// serve prints the URLs and serves until ctx is done.
func serve(ctx context.Context, addr string, providers map[string]*llmtest.Provider, stdout io.Writer) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	mux, urls := http.NewServeMux(), make([]string, 0, len(providers))
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		if name == defaultProvider {
			continue
		}
		path := "/" + name
		mux.Handle(path+"/", http.StripPrefix(path, providers[name]))
		urls = append(urls, "http://"+ln.Addr().String()+path+"/v1")
	}
	mux.Handle("/", providers[defaultProvider])
	urls = append(urls, "http://"+ln.Addr().String()+"/v1")
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // the client may be gone
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		all := make(map[string]llmtest.Stats, len(providers))
		for name, p := range providers {
			all[name] = p.Stats()
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all) // the client may be gone
	})
	if _, err := fmt.Fprintln(stdout, "fakellm serves "+strings.Join(urls, " ")); err != nil {
		return errors.Join(err, ln.Close())
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ended by Shutdown below
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	for _, p := range providers {
		p.Close() //nolint:contextcheck // ends the calls that hang, and ctx is done
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err = srv.Shutdown(stopping)
	if err != nil {
		err = errors.Join(err, srv.Close())
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
