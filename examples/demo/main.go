// Command demo shows understudy to a person in under 25 seconds, without a key
// and without a server: it starts the real worker (with its embedded JetStream)
// and a provider that only plays two, runs a batch of real prompts through a
// provider that stops answering and comes back, and redrives a dead letter.
//
// It uses nothing but the three binaries, so everything it does can be typed.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// limit ends a demo that hangs.
const limit = 60 * time.Second

// script says how the two providers behave.
//
//go:embed script.json
var script []byte

// legacy is a job whose one backend does not know its model, until somebody
// mends that: the dead letter of the demo.
const legacy = `{"custom_id":"legacy-model","method":"POST","url":"/v1/chat/completions","chain":["vllm"],` +
	`"body":{"model":"legacy-model","messages":[{"role":"user","content":"Is anybody there?"}]}}`

func main() {
	bin := flag.String("bin", "bin", "`folder` with the binaries worker, submit and fakellm")
	prompts := flag.String("prompts", "examples/prompts.jsonl,examples/routes.jsonl", "the batch `files` to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, *bin, strings.Split(*prompts, ","))
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run plays the whole demo.
func run(ctx context.Context, bin string, prompts []string) (err error) {
	began := time.Now()
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "understudy-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{bin: bin, dir: dir, screen: newScreen()}
	input, lines, err := d.prepare(prompts)
	if err != nil {
		return err
	}
	defer d.stop()

	d.title("1. A provider that only plays one, and a worker with its own JetStream. No key, no server.")
	if err := d.startProvider(ctx); err != nil {
		return err
	}
	if err := d.startWorker(ctx); err != nil {
		return err
	}

	d.title(fmt.Sprintf("2. %d prompts. In the middle openrouter stops answering; vllm takes over; openrouter comes back.", lines))
	if err := d.batch(ctx, input); err != nil {
		return err
	}

	d.title("3. One job failed everywhere: nothing is lost, it is a dead letter.")
	id, err := d.letter(ctx)
	if err != nil {
		return err
	}

	d.title("4. Its model was made available meanwhile: put it back.")
	if err := d.redrive(ctx, id); err != nil {
		return err
	}
	d.title(fmt.Sprintf("Done in %.1f s. Next: README.md, or `bin/worker --help`.", time.Since(began).Seconds()))
	return nil
}

// batch runs the prompts and shows what became of them.
func (d *demo) batch(ctx context.Context, input string) error {
	out := filepath.Join(d.dir, "out.jsonl")
	// One job is meant to fail, which is exit code 1.
	if err := d.submit(ctx, exit{0, 1}, "batch", input, "-o", out, "-id", "demo", "-v"); err != nil {
		return err
	}
	result, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(result)), "\n")
	d.note(fmt.Sprintf("out.jsonl has %d lines; the first of them:", len(lines)))
	d.print(clip(lines[0], 480))
	return d.expectBreaker()
}

// letter lists and shows the dead letter, and returns its id.
func (d *demo) letter(ctx context.Context) (string, error) {
	id := fmt.Sprintf("demo.%06d", d.lines)
	if err := d.submit(ctx, exit{0}, "dead", "ls"); err != nil {
		return "", err
	}
	return id, d.submit(ctx, exit{0}, "dead", "show", id)
}

// redrive puts the dead letter back and shows its result.
func (d *demo) redrive(ctx context.Context, id string) error {
	if err := d.submit(ctx, exit{0}, "dead", "redrive", "-wait", id); err != nil {
		return err
	}
	return d.submit(ctx, exit{0}, "result", id)
}

// clip shortens a long line for the screen.
func clip(line string, n int) string {
	if len(line) <= n {
		return line
	}
	return strings.ToValidUTF8(line[:n], "") + " …"
}
