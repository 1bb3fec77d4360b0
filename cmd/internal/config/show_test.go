package config

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestPrintShowsWhatIsInEffect(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"check-everything", "check-nothing", "check-wrong", "check-lists"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join("testdata", name+".env"))
			require.NoError(t, err)
			vars, line := parseDotenv(string(text))
			require.Zero(t, line)
			var out bytes.Buffer
			require.NoError(t, ForWorker(environment(vars)).Print(&out))
			golden(t, name+".txt", out.Bytes())
		})
	}
}

func TestTheManualIsUpToDate(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, Markdown(&out))
	want, err := os.ReadFile("../../../docs/configuration.md")
	require.NoError(t, err)
	require.Equal(t, string(want), out.String(), "run: go generate ./cmd/internal/config")
}

func TestReferenceTellsAllVariables(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	require.NoError(t, Reference(&text))
	golden(t, "env.txt", text.Bytes())
	require.NoError(t, eachGroup(func(g group, list []field) {
		for _, f := range list {
			require.NotEmpty(t, f.tag.Get("desc"), f.name)
			for _, name := range g.names(f) {
				require.Contains(t, text.String(), "\n  "+name+"\n")
			}
		}
	}))
}

func TestTheLoggerIsAsTheEnvironmentSays(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := ForWorker(environment(map[string]string{"WORKER_LOG_FORMAT": "json", "WORKER_LOG_LEVEL": "warn"})).Logger(&out)
	require.False(t, logger.Enabled(t.Context(), slog.LevelInfo))
	logger.Warn("message", "key", "value")
	require.Contains(t, out.String(), `"msg":"message","key":"value"}`)

	out.Reset()
	logger = ForWorker(environment(nil)).Logger(&out)
	require.True(t, logger.Enabled(t.Context(), slog.LevelInfo))
	require.False(t, logger.Enabled(t.Context(), slog.LevelDebug))
	logger.Info("message")
	require.Contains(t, out.String(), "level=INFO msg=message\n")
}
