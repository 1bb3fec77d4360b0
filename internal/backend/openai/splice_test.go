package openai

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// spliced applies edits to a body that must be an object.
func spliced(t *testing.T, body string, e edits) string {
	t.Helper()
	members, err := topLevel(nil, []byte(body))
	require.NoError(t, err)
	return string(splice([]byte(body), members, e))
}

func TestSpliceChangesNothingButWhatItIsTold(t *testing.T) {
	t.Parallel()
	model := map[string][]byte{"model": []byte(`"new"`)}
	for _, row := range []struct {
		name, body string
		set        map[string][]byte
		drop       []string
		want       string
	}{
		{"in its place", `{"a":1,"model":"old","b":2}`, model, nil, `{"a":1,"model":"new","b":2}`},
		{"absent", `{"a":1}`, model, nil, `{"a":1,"model":"new"}`},
		{"empty object", `{}`, model, nil, `{"model":"new"}`},
		{"empty object with space", " { \n} ", model, nil, " {\"model\":\"new\" \n} "},
		{"twice", `{"model":"x","a":1,"model":"y"}`, model, nil, `{"model":"new","a":1}`},
		{"three times in a row", `{ "model":"x" , "model":"y" , "model":"z" }`, model, nil, `{ "model":"new" }`},
		{"escaped", `{"mo\u0064el":"x","a":1,"\u006dodel":"y"}`, model, nil, `{"mo\u0064el":"new","a":1}`},
		{"not a string", `{"model":{"model":"x"},"a":[{"model":1}]}`, model, nil, `{"model":"new","a":[{"model":1}]}`},
		{"the same, spelled otherwise", `{"model":"\u006eew"}`, model, nil, `{"model":"\u006eew"}`},
		{"nested untouched", `{"a":{"model":"x"},"model":1}`, model, nil, `{"a":{"model":"x"},"model":"new"}`},
		{"another key", `{"models":"x","Model":"y","model ":"z"}`, model, nil, `{"models":"x","Model":"y","model ":"z","model":"new"}`},
		{"brackets in strings", `{"a":"}],\"model\":1","model":"x"}`, model, nil, `{"a":"}],\"model\":1","model":"new"}`},
		{"drop first", `{"a":1, "b":2}`, nil, []string{"a"}, `{"b":2}`},
		{"drop last", `{"a":1, "b":2 }`, nil, []string{"b"}, `{"a":1 }`},
		{"drop middle", `{"a":1, "b":2,  "c":3}`, nil, []string{"b"}, `{"a":1,  "c":3}`},
		{"drop all", `{ "a":1, "b":2 }`, nil, []string{"a", "b"}, `{  }`},
		{"drop all, add one", `{ "a":1 }`, model, []string{"a"}, `{ "model":"new" }`},
		{"drop beats set", `{"model":"x","a":1}`, model, []string{"model"}, `{"a":1}`},
		{"drop escaped", `{"\u0061":1,"a":2,"b":3}`, nil, []string{"a"}, `{"b":3}`},
		{"several added in order", `{"m":1}`, map[string][]byte{"z": []byte("1"), "b": []byte("[2]")}, nil, `{"m":1,"b":[2],"z":1}`},
		{"numbers and white space", "{\n\t\"seed\": 12345678901234567890,\r\n \"t\": 0.0e-0, \"model\" : \"x\" }", model, nil, "{\n\t\"seed\": 12345678901234567890,\r\n \"t\": 0.0e-0, \"model\" : \"new\" }"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, row.want, spliced(t, row.body, newEdits(row.set, row.drop)))
		})
	}
}

func TestOnlyAnObjectCanBeSpliced(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		"", " ", "null", "1", `"s"`, "[]", `{"a":1`, `{"a"}`, `{"a":1}{}`, `{a:1}`, "{\"a\":\"\x01\"}", `{"a":01}`,
		"\xef\xbb\xbf{}", strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000),
	} {
		_, err := topLevel(nil, []byte(body))
		require.ErrorIs(t, err, errNotObject)
	}
	deep := `{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `,"model":"x"}`
	require.Equal(t, strings.Replace(deep, `"x"`, `"new"`, 1), spliced(t, deep, newEdits(map[string][]byte{"model": []byte(`"new"`)}, nil)))
	large := `{"messages":"` + strings.Repeat("ä", 4<<20) + `","model":"x"}`
	require.Len(t, spliced(t, large, newEdits(map[string][]byte{"model": []byte(`"y"`)}, nil)), len(large))
}

func FuzzSplice(f *testing.F) {
	for _, seed := range []string{
		`{"model":"x","model":"y"}`, `{"mo\u0064el":1 , "a":[{"model":2}]}`, "{ }", `{"a":"\"}{","b":-0.0e1,"model":null}`,
		`{"stream":false,"stream":true,"a":{"":[]}}`, `{"\ud800":1,"model":"x"}`, "{\"\xff\":1}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := topLevel(nil, body)
		trusted, trustedErr := trustedTopLevel(nil, body) // ends, whatever it is given
		var decoded map[string]json.RawMessage
		if isObject := json.Unmarshal(body, &decoded) == nil && decoded != nil; !isObject {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.NoError(t, trustedErr)
		require.Equal(t, members, trusted)
		e := newEdits(map[string][]byte{"model": []byte(`"new"`), "stream": []byte("true")}, []string{"gone"})
		out := splice(body, members, e)
		require.True(t, json.Valid(out), "%q", out)
		after, err := topLevel(nil, out)
		require.NoError(t, err)
		// The members that nobody touched are the same, in text and order.
		rest := func(body []byte, members []member) []string {
			var texts []string
			for _, m := range members {
				if key := string(m.key); key != "model" && key != "stream" && key != "gone" {
					texts = append(texts, string(body[m.start:m.finish]))
				}
			}
			return texts
		}
		require.Equal(t, rest(body, members), rest(out, after))
		count := map[string]int{}
		for _, m := range after {
			count[string(m.key)]++
		}
		require.Equal(t, 1, count["model"])
		require.Equal(t, 1, count["stream"])
		require.Zero(t, count["gone"])
		require.NoError(t, json.Unmarshal(out, &decoded))
		require.Equal(t, "new", str(decoded["model"]))
		require.Equal(t, "true", string(decoded["stream"]))
		// What encoding/json sees is what the scanner sees.
		clear(decoded)
		require.NoError(t, json.Unmarshal(body, &decoded))
		keys := map[string]bool{}
		for _, m := range members {
			keys[string(m.key)] = true
		}
		require.Equal(t, slices.Sorted(maps.Keys(decoded)), slices.Sorted(maps.Keys(keys)))
		// A second time changes nothing.
		require.True(t, bytes.Equal(out, splice(out, after, e)))
	})
}
