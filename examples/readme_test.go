package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheReadmesCommandsWork runs the README's marked command blocks, in order
// and as written, in a folder that looks like a clone after `make build`.
func TestTheReadmesCommandsWork(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)<!-- run -->\n```sh\n(.*?)```").FindAllSubmatch(readme, -1)
	require.Len(t, blocks, 3, "ask, batch, dead letters")

	f := start(t)
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bin", "submit"), "../cmd/submit")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(here, filepath.Join(dir, "examples")))

	for _, block := range blocks {
		cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", string(block[1]))
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NATS_URL=" + f.srv.URL}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s%s", block[1], out)
	}
	answers, err := os.ReadFile(filepath.Join(dir, "out.jsonl"))
	require.NoError(t, err)
	require.Len(t, regexp.MustCompile(`(?m)^\{.*"status":"succeeded".*\}$`).FindAll(answers, -1), 64)
}
