package config

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaktest.Patient(m)) }

// environment is an environment of its own. Envconfig knows only the one of the
// process, which parallel tests cannot have for themselves; the tests of the
// command worker run the program and prove that both read alike.
func environment(vars map[string]string) *Environment {
	return &Environment{vars: vars, process: func(prefix string, spec any) error {
		list, err := fields(prefix, spec)
		if err != nil {
			return err
		}
		for _, f := range list {
			text, exists := vars[f.name]
			if !exists {
				text = f.tag.Get("default")
			}
			if exists || text != "" {
				if err := f.Set(text); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

// with is base and more in one map; more wins.
func with(base map[string]string, more ...string) map[string]string {
	vars := make(map[string]string, len(base)+len(more)/2)
	maps.Copy(vars, base)
	for i := 0; i+1 < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

// working is the smallest environment without a problem and without a warning,
// with one backend of each kind.
func working() map[string]string {
	return map[string]string{
		"BACKENDS":       "a,az,r",
		"A_API_KEY":      "key-of-a",
		"AZ_KIND":        "azure",
		"AZ_BASE_URL":    "https://acme.openai.azure.com",
		"AZ_API_KEY":     "key-of-az",
		"AZ_API_VERSION": "2024-10-21",
		"R_KIND":         "rules",
		"ROUTES":         "x-1",
	}
}

// findings are the lines of problems or warnings.
func findings(list []Finding) []string {
	lines := make([]string, len(list))
	for i, f := range list {
		lines[i] = f.String()
	}
	return lines
}

// file writes a temporary file and returns its name.
func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}
