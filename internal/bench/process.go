package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The limits of a child process.
const (
	stopTimeout = 30 * time.Second // then it is killed
	tailSize    = 2000             // of its log, in an error
)

// process is a child process, with its log in a file.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	stdin io.Closer
	out   *bufio.Reader
	ended chan struct{} // closed when it has ended, with err
	err   error
}

// start starts a program. It must be stopped.
func start(ctx context.Context, dir, name, path string, args, env []string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = childOut.Close() }() // the child has its own
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), path, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, childOut, log
	p.cmd.Env = append([]string{"HOME=" + dir}, env...) // nothing of the user's configuration
	p.out = bufio.NewReader(out)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), out.Close())
	}
	go func() { // ends with the process, which stop ends
		p.err = p.cmd.Wait()
		_ = out.Close() // nothing more is read
		close(p.ended)
	}()
	return p, nil
}

// line waits for the first line of the process's output.
func (p *process) line() (string, error) {
	text, err := p.out.ReadString('\n')
	if err != nil {
		return "", p.failure(fmt.Errorf("%s does not start: %w", p.name, err))
	}
	return strings.TrimSpace(text), nil
}

// stop ends the process in order and waits for that.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return p.failure(fmt.Errorf("%s ended by itself: %w", p.name, p.err))
	default:
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.ended:
	case <-timeout.C:
		_ = p.cmd.Process.Kill() // it may have ended just now
		<-p.ended
		return p.failure(fmt.Errorf("%s did not stop in %s", p.name, stopTimeout))
	}
	if p.err != nil {
		return p.failure(fmt.Errorf("%s: %w", p.name, p.err))
	}
	return nil
}

// kill ends the process at once; it does nothing when it has ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
	_ = p.stdin.Close() // the pipe is gone with the process
}

// failure is err with the end of the process's log.
func (p *process) failure(err error) error {
	text, readErr := os.ReadFile(p.log)
	text = bytes.TrimSpace(text)
	if len(text) > tailSize {
		text = text[len(text)-tailSize:]
	}
	return errors.Join(err, readErr, fmt.Errorf("its log ends:\n%s", text))
}

// cpu is the CPU time of a process from its start until now. Where that is not
// known before it has ended, it is that of its whole life.
func (p *process) cpu() time.Duration {
	if p.hasEnded() {
		return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	}
	used, _ := cpuTime(p.cmd.Process.Pid) // not known is 0
	return used
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}
