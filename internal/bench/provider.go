package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The sizes of a job and of its answer, in bytes, about.
const (
	promptSize = 1024
	answerSize = 600
	tinySize   = 80 // of a job where there are very many
)

// prompt is the body of a job, of about so many bytes and 80 at least.
func prompt(size int) []byte {
	text := strings.Repeat("Why is the sky blue? ", size/21+1)[:max(size-64, 16)]
	return []byte(`{"model":"bench","messages":[{"role":"user","content":"` + text + `"}]}`)
}

// The provider says in its answer how long it had the call, in microseconds, so
// that whoever sees the result can tell what the worker added.
const (
	tookKey    = `"provider_us":"`
	tookDigits = 12
)

// answer is the provider's answer after it had the call for so long.
func answer(took time.Duration) []byte {
	const head = `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",` + tookKey
	const tail = `","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":240,"completion_tokens":75,"total_tokens":315}}`
	text := strings.Repeat("Because of how air scatters light. ", answerSize/35+1)[:answerSize-len(head)-len(tail)+len("%s")-tookDigits]
	return fmt.Appendf(nil, head+"%0*d"+tail, tookDigits, took.Microseconds(), text)
}

// tookOf reads how long the provider had the call from a result.
func tookOf(result []byte) (time.Duration, error) {
	_, rest, found := bytes.Cut(result, []byte(tookKey))
	if !found || len(rest) < tookDigits {
		return 0, errors.New("a result does not hold the provider's answer")
	}
	us, err := strconv.ParseInt(string(rest[:tookDigits]), 10, 64)
	return time.Duration(us) * time.Microsecond, err
}

// runProvider serves the answer at /after/<duration>/v1/chat/completions, after
// that long. It prints where.
func runProvider(ctx context.Context, _ []string, stdout io.Writer) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /after/{delay}/v1/chat/completions", func(rw http.ResponseWriter, r *http.Request) { respond(rw, r) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(untilOrphan(ctx), func() { _ = srv.Close() }) // nothing is left to answer
	defer stop()
	if _, err := fmt.Fprintln(stdout, "http://"+l.Addr().String()); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// respond answers a call after its delay. It reports false when there was nobody
// to answer.
func respond(rw http.ResponseWriter, r *http.Request) bool {
	start := time.Now()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return false // the client has gone away
	}
	delay, err := time.ParseDuration(r.PathValue("delay"))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return false
	}
	if delay > 0 && !sleep(r.Context(), delay) {
		return false
	}
	rw.Header().Set("Content-Type", "application/json")
	_, err = rw.Write(answer(time.Since(start))) // kept until the handler returns
	return err == nil
}

// after is the base URL of the provider that answers after a delay.
func after(provider string, delay time.Duration) string {
	return provider + "/after/" + delay.String() + "/v1"
}

// sleep pauses for d; it reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
