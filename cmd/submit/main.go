// Command submit publishes LLM jobs, awaits their results, watches them, and
// looks after the dead letters. Data goes to standard output, everything else to
// standard error; the exit code tells how it went.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"understudy/cmd/internal/config"
)

// dotenv is the file whose variables are added to the environment.
const dotenv = ".env"

func main() { os.Exit(realMain()) }

func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: &syncWriter{w: os.Stderr},
		terminals: terminals{
			in: term.IsTerminal(int(os.Stdin.Fd())), out: term.IsTerminal(int(os.Stdout.Fd())),
			err: term.IsTerminal(int(os.Stderr.Fd())),
		},
		now:        time.Now,
		load:       load,
		loadWorker: loadWorker,
	}
	return a.run(ctx, os.Args[1:])
}

// load reads the environment.
func load() environment {
	cfg := config.ForSubmit(config.Process(dotenv))
	env := environment{subjects: cfg.Subjects, connect: cfg.NATS.Connect}
	for _, p := range cfg.Report.Problems {
		env.problems = append(env.problems, p.String())
	}
	for _, w := range cfg.Report.Warnings {
		env.warnings = append(env.warnings, w.String())
	}
	return env
}

// loadWorker reads what a worker would read.
func loadWorker() workerSettings {
	w := config.ForWorker(config.Process(dotenv))
	s := workerSettings{config: w.Config}
	for _, p := range w.Report.Problems {
		s.problems = append(s.problems, p.String())
	}
	return s
}
