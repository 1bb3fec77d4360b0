package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"understudy/internal/job"
)

func TestABatchOnATerminalShowsABarAndATable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("default", func(tk *taken) job.Status {
		if strings.HasSuffix(tk.id, "3") {
			return job.Failed
		}
		return job.Succeeded
	})
	in, out := b.file("in.jsonl", rows(20)), filepath.Join(t.TempDir(), "out.jsonl")
	first := newProcess(t, b.env(), "batch", in, "-o", out, "-id", "b") // no terminal: no bar
	require.NoError(t, first.Start())
	require.Equal(t, exitFailed, first.code(t))
	require.Equal(t, 2, strings.Count(first.err.String(), "\n"), first.err)

	terminal, slave := pseudoTerminal(t)
	p := newProcess(t, b.env(), "batch", in, "-o", out, "-id", "b")
	p.Stderr = slave
	require.NoError(t, p.Start())
	require.NoError(t, slave.Close())
	screen := newBuffer()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		piece := make([]byte, 4096)
		for {
			n, err := terminal.Read(piece)
			_, _ = screen.Write(piece[:n])
			if err != nil {
				return
			}
		}
	}()
	require.Equal(t, exitFailed, p.code(t))
	<-ended
	text := screen.String()
	require.Contains(t, text, "submit: batch b: 20 of 20 lines were done before; they are not run again")
	require.Contains(t, text, "b 20/20")
	require.Contains(t, text, "2 failed")
	require.Contains(t, text, "ETA")
	require.Contains(t, text, "BACKEND  JOBS  SUCCEEDED")
	require.Contains(t, text, "submit: not succeeded: b.000003, b.000013. To see why: submit dead ls 'b.*'")
	requireRows(t, read(t, out), 20)
}

// pseudoTerminal returns both ends of a terminal of 160 columns.
func pseudoTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 160}))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, slave
}
