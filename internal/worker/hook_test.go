package worker

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheNormalBuildHasNothingOfTheHooks(t *testing.T) {
	t.Parallel()
	for tags, want := range map[string]bool{"": false, "faults": true} {
		t.Run("tags "+tags, func(t *testing.T) {
			t.Parallel()
			bin := filepath.Join(t.TempDir(), "worker")
			out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", bin, "understudy/cmd/worker").CombinedOutput()
			require.NoError(t, err, "%s", out)
			program, err := os.ReadFile(bin)
			require.NoError(t, err)
			for _, trace := range []string{"UNDERSTUDY_FAULTS", "UNDERSTUDY_LEASE", "after dead letter", "before ack", "(*Worker).at"} {
				require.Equal(t, want, bytes.Contains(program, []byte(trace)), trace)
			}
		})
	}
}
