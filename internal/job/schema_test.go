package job_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

const schemaDir = "../../docs/schema"

// loader reads schemas from docs/schema and from nowhere else.
type loader struct{}

func (loader) Load(url string) (any, error) {
	name, ok := strings.CutPrefix(url, "file:///")
	if !ok {
		return nil, fmt.Errorf("%s is not in %s", url, schemaDir)
	}
	file, err := os.Open(filepath.Join(schemaDir, filepath.Base(name)))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return jsonschema.UnmarshalJSON(file)
}

// schema compiles docs/schema/<name>.schema.json, or a part of it: "result#/$defs/usage".
func schema(tb testing.TB, name string) *jsonschema.Schema {
	tb.Helper()
	name, part, _ := strings.Cut(name, "#")
	c := jsonschema.NewCompiler()
	c.UseLoader(loader{})
	c.AssertFormat()
	s, err := c.Compile("file:///" + name + ".schema.json#" + part)
	require.NoError(tb, err)
	return s
}

// instance is text as the schema library wants it.
func instance(tb testing.TB, text string) any {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	require.NoError(tb, err)
	return v
}

func TestSchemasAcceptTheGoldenFiles(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(goldenDir)
	require.NoError(t, err)
	seen := make(map[string]int)
	for _, file := range files {
		kind, _, _ := strings.Cut(strings.TrimSuffix(file.Name(), ".json"), "-")
		switch kind {
		case "dead":
			kind = "dead-letter"
		case "receipt":
			continue // it has no schema of its own
		}
		seen[kind]++
		require.NoError(t, schema(t, kind).Validate(instance(t, string(golden(t, file.Name())))), file.Name())
	}
	require.Equal(t, map[string]int{"job": 3, "result": 7, "event": 13, "dead-letter": 2}, seen)
}

// attemptWith is a golden attempt with one field set.
func attemptWith(tb testing.TB, name string, v any) map[string]any {
	tb.Helper()
	var event struct{ Data map[string]any }
	require.NoError(tb, json.Unmarshal(golden(tb, "event-attempt-failed.json"), &event))
	require.Contains(tb, event.Data, name)
	event.Data[name] = v
	return event.Data
}

func TestSchemasRefuseBrokenMessages(t *testing.T) {
	t.Parallel()
	for name, changes := range map[string][]map[string]any{
		"result-succeeded.json": {
			{"status": "done"},
			{"attempts": nil},
			{"response": nil},
			{"error": map[string]any{}},
			{"finished_at": "2026-11-02T09:30:07Z"},
			{"finished_at": "2026-11-02T10:30:07.025+01:00"},
			{"id": 1},
			{"metadata": []any{}},
			{"redrives": 0},
			{"usage": map[string]any{}},
			{"attempts": []any{map[string]any{"n": 1}}},
		},
		"result-failed.json":            {{"error": nil}, {"error": map[string]any{"code": "nope", "message": "", "first": nil, "last": nil}}},
		"event-job-waiting.json":        {{"specversion": "1"}, {"type": "understudy.job.lost"}, {"data": map[string]any{}}, {"source": "w-1"}},
		"event-attempt-failed.json":     {{"data": map[string]any{"n": 1}}, {"data": nil}, {"data": attemptWith(t, "code", "")}, {"data": attemptWith(t, "type", nil)}},
		"event-breaker-changed.json":    {{"data": map[string]any{"backend": "a", "from": "shut", "to": "open"}}},
		"event-job-completed.json":      {{"data": map[string]any{"status": "succeeded"}}},
		"event-job-received.json":       {{"data": map[string]any{"queue": "q", "delivery": 0, "redrives": 0, "job_seq": 1}}},
		"event-dead-letter-edited.json": {{"data": map[string]any{"queue": "q", "by": "a@b", "seq": 1, "reason": "timeout", "redrives": 0}}},
		"event-dead-letter-purged.json": {{"data": map[string]any{"queue": "q", "by": "", "seq": 1, "reason": "timeout", "redrives": 0}}, {"type": "understudy.dead_letter.read"}},
		"event-job-dead-lettered.json":  {{"data": map[string]any{"queue": "q", "reason": "bored", "redrives": 0}}},
		"dead-letter.json":              {{"reason": "bored"}, {"headers": nil}, {"headers": map[string]any{"a": "b"}}, {"attempts": nil}, {"time": ""}},
	} {
		kind, _, _ := strings.Cut(name, "-")
		if kind == "dead" {
			kind = "dead-letter"
		}
		for _, change := range changes {
			var message map[string]any
			require.NoError(t, json.Unmarshal(golden(t, name), &message))
			maps.Copy(message, change)
			require.Error(t, schema(t, kind).Validate(message), "%s with %v", name, change)
		}
	}
}

// TestSchemasAndTypesAgree compares the fields of every message, and which of
// them are always there.
func TestSchemasAndTypesAgree(t *testing.T) {
	t.Parallel()
	for part, typ := range map[string]reflect.Type{
		"result#/$defs/result":         reflect.TypeFor[job.Result](),
		"result#/$defs/response":       reflect.TypeFor[job.Response](),
		"result#/$defs/usage":          reflect.TypeFor[job.Usage](),
		"result#/$defs/error":          reflect.TypeFor[job.Error](),
		"result#/$defs/failure":        reflect.TypeFor[job.Failure](),
		"result#/$defs/attempt":        reflect.TypeFor[job.Attempt](),
		"event#/$defs/event":           reflect.TypeFor[job.Event](),
		"event#/$defs/received":        reflect.TypeFor[job.Received](),
		"event#/$defs/waiting":         reflect.TypeFor[job.Waiting](),
		"event#/$defs/completed":       reflect.TypeFor[job.Completed](),
		"event#/$defs/dead_lettered":   reflect.TypeFor[job.DeadLettered](),
		"event#/$defs/letter_handled":  reflect.TypeFor[job.LetterHandled](),
		"event#/$defs/breaker_changed": reflect.TypeFor[job.BreakerChanged](),
		"dead-letter":                  reflect.TypeFor[job.DeadLetter](),
		"job#/$defs/policy":            reflect.TypeFor[job.Policy](),
	} {
		s := schema(t, part)
		var all, always []string
		for field := range typ.Fields() {
			if !field.IsExported() {
				continue // it is not written
			}
			name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
			all = append(all, name)
			if option != "omitempty" {
				always = append(always, name)
			}
		}
		require.ElementsMatch(t, all, slices.Collect(maps.Keys(s.Properties)), part)
		require.ElementsMatch(t, always, s.Required, part)
	}
}

func TestTheSchemaAndTheDecoderKnowTheSameFields(t *testing.T) {
	t.Parallel()
	for part, wrap := range map[string]func(string) string{"job#/$defs/envelope": envelope, "job#/$defs/policy": policy} {
		names := slices.Sorted(maps.Keys(schema(t, part).Properties))
		require.NotEmpty(t, names)
		for _, name := range names {
			if name == "body" {
				continue
			}
			// No field may be an array of null: a field that the decoder takes in
			// without looking at it would pass.
			_, err := decoder(t).Decode("q", "id", []byte(wrap(`"`+name+`":[null]`)), nil)
			require.ErrorContains(t, err, name)
			require.NotContains(t, err.Error(), "is no field")
		}
		_, err := decoder(t).Decode("q", "id", []byte(wrap(`"nope":1`)), nil)
		_, list, _ := strings.Cut(err.Error(), "there are: ")
		require.ElementsMatch(t, names, strings.Split(list, ", "), part)
	}
}

func TestTheSchemaKnowsEveryClassAndEventType(t *testing.T) {
	t.Parallel()
	var classes []any
	for _, class := range backend.Classes() {
		classes = append(classes, string(class))
	}
	require.ElementsMatch(t, classes, schema(t, "result#/$defs/class").Enum.Values)
	var types []any
	for _, e := range events() {
		types = append(types, string(e.Type))
	}
	require.ElementsMatch(t, types, schema(t, "event#/$defs/event").Properties["type"].Enum.Values)
}
