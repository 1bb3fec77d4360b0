package job_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"understudy/internal/job"
)

const asyncAPI = "../../docs/asyncapi.yaml"

type document = map[string]any

func load(tb testing.TB, path string) (doc document) {
	tb.Helper()
	data, err := os.ReadFile(path)
	require.NoError(tb, err)
	if strings.HasSuffix(path, ".json") {
		require.NoError(tb, json.Unmarshal(data, &doc))
	} else {
		require.NoError(tb, yaml.Unmarshal(data, &doc))
	}
	return doc
}

// refs calls each for every $ref below node.
func refs(node any, each func(ref string)) {
	switch node := node.(type) {
	case document:
		for key, value := range node {
			if ref, ok := value.(string); ok && key == "$ref" {
				each(ref)
			}
			refs(value, each)
		}
	case []any:
		for _, value := range node {
			refs(value, each)
		}
	}
}

// resolves follows ref from the file path and reports whether there is something.
func resolves(tb testing.TB, path, ref string) bool {
	tb.Helper()
	file, pointer, _ := strings.Cut(ref, "#")
	if file != "" {
		path = filepath.Join(filepath.Dir(path), file)
	}
	if _, err := os.Stat(path); err != nil {
		return false
	}
	var node any = load(tb, path)
	for token := range strings.SplitSeq(strings.Trim(pointer, "/"), "/") {
		if token == "" {
			continue
		}
		object, ok := node.(document)
		if !ok {
			return false
		}
		if node, ok = object[token]; !ok {
			return false
		}
	}
	return true
}

func TestEveryReferenceOfTheDocumentsResolves(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(schemaDir + "/*.json")
	require.NoError(t, err)
	require.Len(t, paths, 4)
	n := 0
	for _, path := range append(paths, asyncAPI) {
		refs(load(t, path), func(ref string) {
			n++
			require.True(t, resolves(t, path, ref), "%s: %s leads nowhere", path, ref)
		})
	}
	require.Greater(t, n, 80, "the references were found")
	require.False(t, resolves(t, asyncAPI, "#/components/messages/nothing"))
	require.False(t, resolves(t, asyncAPI, "./schema/nothing.json"))
}

// TestAsyncAPIDescribesEverySubject compares the channels with the subjects that
// the code can name.
func TestAsyncAPIDescribesEverySubject(t *testing.T) {
	t.Parallel()
	s := subjects(t)
	want := map[string]bool{s.Breaker("{backend}"): true}
	typ := reflect.TypeFor[job.Subjects]()
	for method := range typ.Methods() {
		// The subjects of a job are the methods that take a queue and an id.
		if method.Type.NumIn() != 3 || method.Type.NumOut() != 1 || method.Type.Out(0).Kind() != reflect.String {
			continue
		}
		out := method.Func.Call([]reflect.Value{reflect.ValueOf(s), reflect.ValueOf("{queue}"), reflect.ValueOf("{id}")})
		want[out[0].String()] = true
	}
	require.Len(t, want, 7, "jobs, results, done, events, dead, chunks, breakers")
	for _, endpoint := range []string{"complete", "submit", "cancel", "status", "stats", "sessions", "breakers"} {
		want[s.Endpoint(endpoint)] = true
	}
	doc := load(t, asyncAPI)
	require.Equal(t, "3.0.0", doc["asyncapi"])
	channels, ok := doc["channels"].(document)
	require.True(t, ok)
	have := make(map[string]bool)
	for name, channel := range channels {
		c, ok := channel.(document)
		require.True(t, ok, name)
		address, ok := c["address"].(string)
		if !ok {
			continue // a reply goes wherever the other side says
		}
		have[address] = true
		planned, _ := c["x-planned"].(bool)
		require.NotEqual(t, planned, c["messages"] != nil, "%s says what is sent there, or that it is planned", name)
		for token := range strings.SplitSeq(address, ".") {
			if parameter, ok := strings.CutPrefix(token, "{"); ok {
				require.Contains(t, c["parameters"], strings.TrimSuffix(parameter, "}"), name)
			}
		}
	}
	require.Equal(t, want, have)
}

func TestAsyncAPIDescribesTheReceipt(t *testing.T) {
	t.Parallel()
	node := any(load(t, asyncAPI))
	for _, key := range []string{"components", "schemas", "receipt"} {
		node = node.(document)[key]
	}
	properties := node.(document)["properties"].(document)
	var receipt document
	require.NoError(t, json.Unmarshal(golden(t, "receipt.json"), &receipt))
	require.Len(t, properties, len(receipt))
	for name := range receipt {
		require.Contains(t, properties, name)
		require.Contains(t, node.(document)["required"], name)
	}
}

func TestAsyncAPIOperationsUseTheirChannels(t *testing.T) {
	t.Parallel()
	doc := load(t, asyncAPI)
	used := make(map[string]bool)
	refs(doc["operations"], func(ref string) { used[strings.TrimPrefix(ref, "#/channels/")] = true })
	for name, channel := range doc["channels"].(document) {
		planned, _ := channel.(document)["x-planned"].(bool)
		require.NotEqual(t, planned, used[name], "channel %s is either planned or used", name)
	}
}
