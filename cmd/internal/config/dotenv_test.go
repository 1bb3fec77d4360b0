package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDotenvIsParsed(t *testing.T) {
	t.Parallel()
	vars, line := parseDotenv("# a comment\nA=1 # another\nexport B='x # $y'\nC=\"two\nlines\"\n\nD=\r\nE=a=b\n")
	require.Zero(t, line)
	require.Equal(t, map[string]string{"A": "1", "B": "x # $y", "C": "two\nlines", "D": "", "E": "a=b"}, vars)
}

func TestDotenvProblemsNameTheLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"A B=1":                        0, // the parser takes spaces in names
		"just words":                   1,
		"A=1\nB=2\njust words\nC=3\n":  3,
		"A=1\n\n# c\nKEY='never ends":  4,
		"A='two\nlines'\n-B=1\n":       3,
		"A=1\nKEY=\"" + planted + "\n": 2,
		"A=1\r\n?=1\r\nB=1\r\n":        2,
	} {
		_, line := parseDotenv(text)
		require.Equal(t, want, line, "%q", text)
	}
}

func TestDotenvProblemsDoNotShowWhatIsInTheFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, os.WriteFile(name, []byte("A=1\nKEY='"+planted+"\n"), 0o600))
	require.Equal(t, []string{name + ":2: cannot be understood; use NAME=value, or NAME='value' for a value with spaces, # or $"},
		findings(loadDotenv(name)))
}

func TestDotenvThatIsNoFileIsAProblem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.Equal(t, []string{dir + ": is a directory, not a file; make it a readable file, or remove it"}, findings(loadDotenv(dir)))
	require.Empty(t, loadDotenv(filepath.Join(dir, "none")))

	large := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(large, []byte(strings.Repeat("#", maxDotenv+1)), 0o600))
	require.Equal(t, []string{large + ": is larger than 65536 bytes; make it a readable file, or remove it"}, findings(loadDotenv(large)))
}

func TestProblemsOfTheFileAreInBothReports(t *testing.T) {
	t.Parallel()
	env := environment(working())
	env.problems = []Finding{{Variable: ".env:1", Wrong: "cannot be understood"}}
	require.Equal(t, []string{".env:1: cannot be understood"}, findings(ForWorker(env).Report.Problems))
	require.Equal(t, []string{".env:1: cannot be understood"}, findings(ForSubmit(env).Report.Problems))
}

func TestTheExampleFileIsWithoutProblems(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../.env.example")
	require.NoError(t, err)
	vars, line := parseDotenv(string(text))
	require.Zero(t, line)
	w := ForWorker(environment(vars))
	require.Empty(t, w.Report.Problems)
	require.Empty(t, w.Report.Warnings)
	require.Equal(t, []string{"openrouter", "vllm"}, w.Config.Routes[0].Chain)

	// What is commented out is right too, one at a time, and known.
	for line := range strings.Lines(string(text)) {
		name, value, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "=")
		if !strings.HasPrefix(line, "#") || strings.HasPrefix(line, "# ") || !found {
			continue
		}
		parsed, bad := parseDotenv(name + "=" + value)
		require.Zero(t, bad, line)
		vars := with(vars, "BACKENDS", "openrouter,vllm,mistral,azure,rules", "ROUTES", "simple_qa",
			"MISTRAL_API_KEY", "k", "AZURE_KIND", "azure", "AZURE_BASE_URL", "https://a.example", "AZURE_API_KEY", "k", "AZURE_API_VERSION", "1",
			name, parsed[name])
		for _, problem := range ForWorker(environment(vars)).Report.Problems {
			require.Fail(t, "a problem with "+strings.TrimSpace(line), problem.String())
		}
		for _, warning := range ForWorker(environment(vars)).Report.Warnings {
			require.NotContains(t, warning.Wrong, "is not a variable", warning.String())
			require.NotContains(t, warning.Wrong, "this version", warning.String())
		}
	}
}
