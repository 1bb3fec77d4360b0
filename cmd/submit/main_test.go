package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

var (
	update = flag.Bool("update", false, "rewrite the golden files")
	binary string // the command, built
)

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "submit")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "submit")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the command: %v\n%s", err, out))
	}
	known := leaktest.ObjectStores()
	goleak.VerifyTestMain(leaktest.Patient(m, known...), append(known, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))...)
}

// requireGolden requires text to be what a golden file holds.
func requireGolden(tb testing.TB, name, text string) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(tb, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(tb, os.WriteFile(path, []byte(text), 0o600))
	}
	require.Equal(tb, read(tb, path), text, "%s; -update rewrites it", path)
}
