package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// section is the part of the manual behind one heading, up to the next.
func section(t *testing.T, heading string) string {
	t.Helper()
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(manual), "\n"+heading+"\n")
	require.True(t, found, heading)
	text, _, _ = strings.Cut(text, "\n## ")
	text, _, _ = strings.Cut(text, "\n### ")
	return text
}

func TestTheManualHasEveryCheck(t *testing.T) {
	t.Parallel()
	group := `(?:server|account|stream|consumer|queue|dead|events|worker|clock|permission|check)\.[a-z]+`
	written := []string{ // put together from parts
		"account.storage", "account.memory", "account.streams", "account.consumers",
		"stream.leader", "stream.replica", "consumer.leader", "consumer.replica",
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`"(`+group+`)"`).FindAllStringSubmatch(string(source), -1) {
			written = append(written, m[1])
		}
	}
	slices.Sort(written)
	var described []string
	for _, m := range regexp.MustCompile("`("+group+")`").FindAllStringSubmatch(section(t, "## doctor"), -1) {
		described = append(described, m[1])
	}
	slices.Sort(described)
	require.Equal(t, slices.Compact(written), slices.Compact(described))
}

func TestTheManualHasEveryState(t *testing.T) {
	t.Parallel()
	text := section(t, "### reconcile")
	for _, s := range []State{Queued, Redriven, Running, Waiting, Settling, Returning, Stuck, Lost, Unburied, Removed, Unknown, Invalid} {
		require.Contains(t, text, "| `"+string(s)+"` |")
	}
}
