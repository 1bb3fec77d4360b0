package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// demo is the stage: the processes and where they are.
type demo struct {
	*screen

	bin, dir string
	lines    int // of the batch
	nats     string
	provider string
	running  []*exec.Cmd // in order of their start
	story    story
}

// exit is the exit codes a command may end with.
type exit []int

// prepare writes the batch file and returns its name and its number of lines.
func (d *demo) prepare(prompts []string) (input string, lines int, err error) {
	var data []byte
	for _, name := range prompts {
		file, err := os.ReadFile(name)
		if err != nil {
			return "", 0, err
		}
		data = append(append(data, bytes.TrimSpace(file)...), '\n')
	}
	data = append(data, legacy+"\n"...)
	d.lines = bytes.Count(data, []byte{'\n'})
	if err := os.WriteFile(filepath.Join(d.dir, "script.json"), script, 0o600); err != nil {
		return "", 0, err
	}
	input = filepath.Join(d.dir, "prompts.jsonl")
	return input, d.lines, os.WriteFile(input, data, 0o600)
}

// startProvider starts fakellm and waits until it listens.
func (d *demo) startProvider(ctx context.Context) error {
	addr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	cmd := d.command(ctx, "fakellm", "-addr", addr, "-script", filepath.Join(d.dir, "script.json"))
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	if err := d.start(cmd); err != nil {
		return err
	}
	d.provider = "http://" + addr
	d.note("fakellm plays openrouter and vllm at " + d.provider)
	return waitFor(ctx, addr)
}

// startWorker starts the worker and tells its story from its log.
func (d *demo) startWorker(ctx context.Context) error {
	nats, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	d.nats = "nats://" + nats
	settings := []string{
		"OPENROUTER_API_KEY=demo", "OPENROUTER_BASE_URL=" + d.provider + "/openrouter/v1", "OPENROUTER_TIMEOUT=0.8",
		"VLLM_BASE_URL=" + d.provider + "/vllm/v1", "VLLM_TIMEOUT=5.0",
		"OPENROUTER_PRICE_INPUT=0.15", "OPENROUTER_PRICE_OUTPUT=0.60", "VLLM_PRICE_HOUR=1.20",
		"BREAKER_FAILURES=3", "BREAKER_COOLDOWN=2",
		"ROUTES=simple_qa,complex_reasoning",
		"ROUTE_SIMPLE_QA_CHAIN=openrouter,vllm", "ROUTE_COMPLEX_REASONING_CHAIN=vllm,openrouter",
		"WORKER_CONCURRENCY=4", "WORKER_HTTP_ADDR=",
	}
	for _, s := range settings {
		d.note(s)
	}
	cmd := d.command(ctx, "worker")
	cmd.Env = append(cmd.Env, settings...)
	cmd.Env = append(cmd.Env, "WORKER_EMBEDDED_ADDR="+nats, "WORKER_DATA_DIR="+filepath.Join(d.dir, "data"), "WORKER_LOG_FORMAT=json")
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := d.start(cmd); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go d.tell(log, ready) // ends with the worker
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// line is what the demo shows of a line of the worker's log.
type line struct {
	Msg      string `json:"msg"`
	JobID    string `json:"job_id"`
	Backend  string `json:"backend"`
	Class    string `json:"class"`
	Next     string `json:"next"`
	From     string `json:"from"`
	To       string `json:"to"`
	Status   any    `json:"status"`
	Duration int64  `json:"duration_ms"`
}

// story counts what the worker's log told.
type story struct {
	mu             sync.Mutex // guards the rest
	opened, closed bool
	ended          int
}

// tell shows the worker's log in short until it ends.
func (d *demo) tell(log io.Reader, ready chan<- error) {
	scanner := bufio.NewScanner(log)
	for scanner.Scan() {
		var l line
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			fmt.Fprintln(os.Stderr, scanner.Text())
			continue
		}
		switch l.Msg {
		case "worker takes jobs":
			d.note("the worker takes jobs at " + d.nats)
			ready <- nil
		case "attempt failed":
			d.event(yellow, fmt.Sprintf("%-12s %s after %d ms at %s: %s", l.JobID, l.Class, l.Duration, l.Backend, next(l.Next)))
		case "breaker changed":
			d.breaker(l)
		case "job ended":
			d.ended(l)
		}
	}
	ready <- errors.New("the worker ended")
}

// next says what followed a failed attempt.
func next(next string) string {
	switch next {
	case "fallback":
		return "the next backend is asked"
	case "retry":
		return "it is asked again"
	case "wait":
		return "the job waits"
	default:
		return "the job ends"
	}
}

func (d *demo) breaker(l line) {
	d.story.mu.Lock()
	defer d.story.mu.Unlock()
	d.story.opened = d.story.opened || l.To == "open"
	d.story.closed = d.story.closed || d.story.opened && l.To == "closed"
	d.event(cyan, fmt.Sprintf("breaker of %s: %s -> %s %s", l.Backend, l.From, l.To, l.Class))
}

// ended shows every tenth success and every failure.
func (d *demo) ended(l line) {
	d.story.mu.Lock()
	defer d.story.mu.Unlock()
	d.story.ended++
	switch {
	case l.Status != "succeeded":
		d.event(red, fmt.Sprintf("%-12s %v: %s", l.JobID, l.Status, l.Class))
	case d.story.ended%10 == 0:
		d.event(green, fmt.Sprintf("%d jobs done, the latest by %s in %d ms", d.story.ended, l.Backend, l.Duration))
	}
}

// expectBreaker fails the demo when it did not show what it promises.
func (d *demo) expectBreaker() error {
	d.story.mu.Lock()
	defer d.story.mu.Unlock()
	if !d.story.opened || !d.story.closed {
		return fmt.Errorf("the breaker was to open and to close (opened %t, closed %t)", d.story.opened, d.story.closed)
	}
	return nil
}

// submit runs the command submit on the stage.
func (d *demo) submit(ctx context.Context, want exit, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = strings.TrimPrefix(a, d.dir+string(filepath.Separator))
	}
	d.prompt("submit " + strings.Join(shown, " "))
	cmd := d.command(ctx, "submit", args...)
	cmd.Env = append(cmd.Env, "NATS_URL="+d.nats)
	cmd.Stdout, cmd.Stderr = d.screen, d.screen
	err := cmd.Run()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed) && slices.Contains(want, failed.ExitCode()):
		return nil
	case err == nil && !slices.Contains(want, 0):
		return fmt.Errorf("submit %s was to fail", args[0])
	}
	return err
}

// command is a binary of ours with a clean environment, in the demo's folder.
func (d *demo) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, name), args...)
	cmd.Dir = d.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "TERM=" + os.Getenv("TERM")}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (d *demo) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s (did `make build` run?): %w", filepath.Base(cmd.Path), err)
	}
	d.running = append(d.running, cmd)
	return nil
}

// stop ends what was started, the last first.
func (d *demo) stop() {
	for _, cmd := range slices.Backward(d.running) {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = cmd.Wait()
	}
}

// freeAddr is an address of this machine that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// waitFor waits until somebody listens on addr.
func waitFor(ctx context.Context, addr string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", addr, err)
		}
	}
}
