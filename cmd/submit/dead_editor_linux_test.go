package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// atTerminal runs the command for a person whose editor is a script.
func (b *bench) atTerminal(editor string, args ...string) (*process, string) {
	b.t.Helper()
	terminal, slave := pseudoTerminal(b.t)
	temp := b.t.TempDir()
	p := newProcess(b.t, append(b.env(), "PATH="+os.Getenv("PATH"), "TMPDIR="+temp, "VISUAL=", "EDITOR="+editor), args...)
	p.Stdin, p.Stdout, p.Stderr = slave, slave, p.err
	require.NoError(b.t, p.Start())
	require.NoError(b.t, slave.Close())
	go func() { _, _ = io.Copy(io.Discard, terminal) }() // ends with the terminal
	return p, temp
}

func TestAPersonEditsTheJobInAnEditor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p","n":12345678901234567890}`)
	p, temp := b.atTerminal(`sed -i s/"p"$/"q"/;true`, "dead", "edit", "x")
	require.Equal(t, exitOK, p.code(t), p.err)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "it held a prompt")

	p, _ = b.atTerminal(`sed -i 's/"p"/"q"/'`, "dead", "edit", "x")
	require.Equal(t, exitOK, p.code(t), p.err)
	_, out, _ := b.submit("dead", "show", "x", "-payload", "-json")
	require.Contains(t, out, `"job":{"prompt":"q","n":12345678901234567890}`)

	p, temp = b.atTerminal(`sed -i 's/"prompt"/"question"/'`, "dead", "edit", "x")
	require.Equal(t, exitUsage, p.code(t))
	require.Contains(t, p.err.String(), "submit: what you wrote is in "+temp)
	drafts, err := filepath.Glob(temp + "/*")
	require.NoError(t, err)
	require.Len(t, drafts, 1)
	require.Contains(t, read(t, drafts[0]), `"question": "q"`)
	info, err := os.Stat(drafts[0])
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	p, _ = b.atTerminal(`false`, "dead", "edit", "x")
	require.Equal(t, exitFailed, p.code(t))
	require.Contains(t, p.err.String(), `submit: the editor "false" failed, nothing was changed: exit status 1`)
	_, out, _ = b.submit("dead", "show", "x", "-json")
	require.Equal(t, 1, strings.Count(out, "dead_letter.edited"))
}
