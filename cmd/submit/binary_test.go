package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// process is the built command, as a shell runs it.
type process struct {
	*exec.Cmd
	out, err *buffer
}

// newProcess returns the command, not yet started, in an empty directory with
// nothing in its environment but what is given.
func newProcess(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	p := &process{Cmd: exec.CommandContext(ctx, binary, args...), out: newBuffer(), err: newBuffer()}
	p.Dir, p.Env = t.TempDir(), append([]string{"HOME=" + t.TempDir()}, env...)
	p.Stdout, p.Stderr = p.out, p.err
	return p
}

// code waits for the end and returns the exit code.
func (p *process) code(tb testing.TB) int {
	tb.Helper()
	err := p.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	require.NoError(tb, err)
	return 0
}

func (b *bench) env() []string { return []string{"NATS_URL=" + b.srv.URL} }

func TestTheExitCodeTellsWhatHappened(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Steps(llmtest.Answer("yes"), llmtest.Fail(400, "no")))
	for _, tc := range []struct {
		args []string
		want int
	}{
		{[]string{"Hi"}, exitOK},
		{[]string{"-id", "bad", "Hi"}, exitFailed},
		{[]string{"result", "bad"}, exitFailed},
		{[]string{"watch", "bad"}, exitFailed},
		{[]string{"dead", "show", "nothing"}, exitFailed},
		{[]string{"dead", "ls"}, exitOK},
		{[]string{"-h"}, exitOK},
		{[]string{"dead", "ls", "--help"}, exitOK},
		{nil, exitUsage},
		{[]string{"batch"}, exitUsage},
	} {
		p := newProcess(t, b.env(), tc.args...)
		require.NoError(t, p.Start())
		require.Equal(t, tc.want, p.code(t), "%v: %s", tc.args, p.err)
	}
}

func TestAnUnreachableServerIsOneLineAndExitCodeThree(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.1:1" // nobody listens there, nor ever gets that port by chance
	for _, args := range [][]string{
		{"Hi"}, {"result", "x"}, {"dead", "ls"}, {"dead", "redrive", "-all"}, {"watch"},
	} {
		p := newProcess(t, []string{"NATS_URL=nats://me:hunter2@" + address}, args...)
		require.NoError(t, p.Start())
		require.Equal(t, exitUnreachable, p.code(t), "%v", args)
		require.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err)
		require.Contains(t, p.err.String(), "submit: cannot reach NATS at nats://")
		require.Contains(t, p.err.String(), address)
		require.NotContains(t, p.err.String(), "hunter2")
		require.Empty(t, p.out.String())
	}
}

func TestAServerWithoutOurStreamsIsAMatterOfConfiguration(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	p := newProcess(t, b.env(), "Hi")
	require.NoError(t, p.Start())
	require.Equal(t, exitUsage, p.code(t))
	require.Regexp(t, `^submit: NATS at nats://127\.0\.0\.1:\d+ has no stream LLM_[A-Z]+: start a worker first, it makes the streams\n$`, p.err.String())

	p = newProcess(t, []string{"NATS_URL=nats://x:y:z", "WORKER_SUBJECT_PREFIX=a.b"}, "Hi")
	require.NoError(t, p.Start())
	require.Equal(t, exitUsage, p.code(t))
	require.Contains(t, p.err.String(), "NATS_URL: ")
	require.Contains(t, p.err.String(), "WORKER_SUBJECT_PREFIX: ")
}

func TestAServerWithoutJetStreamSaysSo(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Username: "me", Password: "hunter2"})
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	require.True(t, srv.ReadyForConnections(patience))
	p := newProcess(t, []string{"NATS_URL=" + strings.Replace(srv.ClientURL(), "://", "://me:hunter2@", 1)}, "Hi")
	require.NoError(t, p.Start())
	require.Equal(t, exitUsage, p.code(t), p.err)
	require.Regexp(t, `^submit: NATS at nats://me:xxxxx@127\.0\.0\.1:\d+ has no JetStream: start the server with -js\n$`, p.err.String())

	p = newProcess(t, []string{"NATS_URL=" + srv.ClientURL(), "NATS_USER=me", "NATS_PASSWORD=hunter3"}, "Hi")
	require.NoError(t, p.Start())
	require.Equal(t, exitUnreachable, p.code(t))
	require.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err)
	require.Contains(t, p.err.String(), "refused the credentials; check NATS_USER")
	require.NotContains(t, p.err.String(), "hunter")
}

func TestTheEnvironmentMayComeFromAFile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("default", always(job.Succeeded))
	p := newProcess(t, nil, "-id", "x", "Hi")
	require.NoError(t, os.WriteFile(filepath.Join(p.Dir, ".env"), []byte(b.env()[0]+"\n"), 0o600))
	require.NoError(t, p.Start())
	require.Equal(t, exitOK, p.code(t), p.err)
	require.Equal(t, "answer to x\n", p.out.String())
}

func TestASignalEndsTheCommandAndNotTheJob(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		b := newBench(t)
		in := b.file("in.jsonl", rows(3))
		ask := newProcess(t, b.env(), "-id", "x", "Hi")
		require.NoError(t, ask.Start())
		b.take("default")
		batch := newProcess(t, b.env(), "batch", in, "-o", filepath.Join(t.TempDir(), "out.jsonl"), "-id", "b")
		require.NoError(t, batch.Start())
		b.awaitQueued(4)
		for p, want := range map[*process]string{
			ask:   "submit: job x is queued or running; it goes on without this command. To await it: submit result x -wait 10m\n",
			batch: "submit: batch b: 0 of 3 lines done, 3 still queued or running, 0 not queued. The same command goes on from there (-id b)\n",
		} {
			require.NoError(t, p.Process.Signal(sig))
			require.Equal(t, exitInterrupted, p.code(t))
			require.Contains(t, p.err.String(), want) // on a slow machine it was told before that no worker is there
		}
		require.Equal(t, 4, b.queued())
	}
}

func TestAClosedPipeEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	p := newProcess(t, b.env(), "watch")
	p.Stdout = w
	require.NoError(t, p.Start())
	require.NoError(t, w.Close())
	require.NoError(t, r.Close())
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	eventually(t, func() bool {
		_ = b.tryEmit("default", "x", job.EventReceived, job.Received{}) // the next one will do
		return len(done) > 0
	})
	require.Error(t, <-done)
}
