package examples_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// prompts returns the lines of both batch files, decoded and as they are.
func prompts(t *testing.T) (jobs []*job.Job, lines [][]byte) {
	t.Helper()
	var raw []byte
	for _, name := range []string{"prompts.jsonl", "routes.jsonl"} {
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		require.True(t, bytes.HasSuffix(file, []byte("\n")))
		raw = append(raw, file...)
	}
	subjects, err := job.NewSubjects(job.DefaultPrefix)
	require.NoError(t, err)
	decoder := job.NewDecoder(subjects, job.ReplyRule{})
	for i, line := range bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n")) {
		var address struct {
			CustomID string `json:"custom_id"`
		}
		require.NoError(t, json.Unmarshal(line, &address), "line %d", i+1)
		j, err := decoder.Decode(job.DefaultQueue, "prompts."+address.CustomID, line, nil)
		require.NoError(t, err, "line %d", i+1)
		require.Equal(t, address.CustomID, j.CustomID)
		jobs, lines = append(jobs, j), append(lines, line)
	}
	return jobs, lines
}

func TestEveryPromptIsAValidJobWithAnIDOfItsOwn(t *testing.T) {
	t.Parallel()
	jobs, _ := prompts(t)
	seen := map[string]bool{}
	for _, j := range jobs {
		require.False(t, seen[j.CustomID], j.CustomID)
		seen[j.CustomID] = true
		require.Equal(t, "auto", j.Model, j.CustomID)
		require.False(t, j.Stream, "a batch is not streamed")
	}
	plain := 0
	for _, j := range jobs {
		if j.Route == "" && j.Chain == nil && j.Primary == "" {
			plain++
		}
	}
	require.GreaterOrEqual(t, plain, 60)
}

func TestTheFirstBatchNeedsNothingConfigured(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("prompts.jsonl")
	require.NoError(t, err)
	for _, word := range []string{`"route":`, `"chain":`, `"primary":`} {
		require.NotContains(t, string(raw), word, "routes.jsonl is for those")
	}
}

func TestEveryPromptIsALineOfAnOpenAIBatch(t *testing.T) {
	t.Parallel()
	_, lines := prompts(t)
	for _, line := range lines {
		var l struct {
			CustomID, Method, URL string
			Body                  map[string]json.RawMessage
		}
		require.NoError(t, json.Unmarshal(bytes.Replace(line, []byte("custom_id"), []byte("CustomID"), 1), &l))
		require.NotEmpty(t, l.CustomID)
		require.Equal(t, "POST", l.Method, l.CustomID)
		require.NotEmpty(t, l.URL, l.CustomID)
		require.NotEmpty(t, l.Body, l.CustomID)
	}
}

func TestThePromptsCoverWhatPublishersSend(t *testing.T) {
	t.Parallel()
	jobs, lines := prompts(t)
	urls, routes, scripts := map[string]int{}, map[string]int{}, map[string]bool{}
	foreign := map[string]*unicode.RangeTable{
		"Arabic": unicode.Arabic, "Cyrillic": unicode.Cyrillic, "Devanagari": unicode.Devanagari,
		"Greek": unicode.Greek, "Han": unicode.Han, "Hangul": unicode.Hangul, "Hebrew": unicode.Hebrew,
		"Hiragana": unicode.Hiragana, "Thai": unicode.Thai,
	}
	longest, metadata := 0, 0
	for _, j := range jobs {
		urls[j.URL]++
		if j.Route != "" {
			routes[j.Route]++
		}
		if j.Metadata != nil {
			metadata++
		}
		longest = max(longest, len(j.Body))
		for _, r := range string(j.Body) {
			for name, table := range foreign {
				if r > unicode.MaxLatin1 && unicode.Is(table, r) {
					scripts[name] = true
				}
			}
		}
	}
	require.Greater(t, urls[job.URLChat], 50)
	require.GreaterOrEqual(t, urls[job.URLCompletions], 3)
	require.GreaterOrEqual(t, urls[job.URLEmbeddings], 3)
	require.Len(t, routes, 2)
	require.Contains(t, routes, "simple_qa")
	require.Contains(t, routes, "complex_reasoning")
	require.GreaterOrEqual(t, metadata, 5)
	require.Greater(t, longest, 10_000, "a long prompt")
	require.Len(t, scripts, len(foreign), "%v", scripts)

	all := string(bytes.Join(lines, []byte("\n")))
	for _, part := range []string{
		`"temperature":0,`, `"stop":"`, `"stop":[`, `"seed":9007199254740993`, `"seed":9223372036854775807`,
		`"tools":[`, `"tool_choice":{`, `"role":"tool"`, `"type":"json_schema"`, `"top_k":`, `"provider":{`,
		`"reasoning":{`, `"structured_outputs":{`, `"type":"image_url"`, `"role":"system"`, `"role":"assistant"`,
		`"policy":{`, `"chain":[`, `"timeout_ms":`,
	} {
		require.Contains(t, all, part)
	}
}
