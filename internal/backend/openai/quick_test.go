package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// answers are bodies with which a reader of answers can go wrong.
func answers(tb testing.TB) []string {
	tb.Helper()
	list := []string{
		goodAnswer, usualAnswer().answer, "", " ", "null", "[]", "{}", `{"choices":[]}`, `{"choices":null}`, `{"choices":{}}`,
		"\ufeff" + goodAnswer, "\u00a0" + goodAnswer, goodAnswer + "\n\n", goodAnswer + "x", goodAnswer[:len(goodAnswer)-1],
		`{"choices":[{"message":{"content":"a"}}],"choices":[]}`,
		`{"choices":[],"choices":[{"message":{"content":"a"}}]}`,
		`{"choices":[1],"choices":[{"message":{"content":"a"}}]}`,
		`{"choices":[{"message":{"content":"a"}},null]}`, `{"choices":[{"message":{"content":"a"}},1]}`,
		`{"choices":[{"message":{"content":""}},{"message":{"content":"a"}}]}`,
		`{"choices":[{"message":{"content":"a","content":""}}]}`, `{"choices":[{"message":{"content":"","content":"a"}}]}`,
		`{"choices":[{"message":{"content":"a"},"message":null}]}`, `{"choices":[{"message":{"content":"a"},"message":{}}]}`,
		`{"choices":[{"message":null,"text":"a"}]}`, `{"choices":[{"text":null}]}`, `{"choices":[{"text":" "}]}`,
		`{"choices":[{"text":"","finish_reason":"length"}]}`, `{"choices":[{"finish_reason":"length"}]}`,
		`{"choices":[{"message":{"content":" \n\t\r"}}]}`, `{"choices":[{"message":{"content":"\u00a0\f"}}]}`,
		`{"choices":[{"message":{"content":"\u0020\/"}}]}`, `{"choices":[{"message":{"content":"\u0041"}}]}`,
		`{"choices":[{"message":{"content":" ä"}}]}`, "{\"choices\":[{\"message\":{\"content\":\"\u2003\"}}]}",
		`{"choices":[{"message":{"content":[{"type":"text","text":" "}]}}]}`, `{"choices":[{"message":{"content":[{"type":"image"}]}}]}`,
		`{"choices":[{"message":{"content":null,"tool_calls":[ ]}}]}`, `{"choices":[{"message":{"content":null,"tool_calls":[]}}]}`,
		`{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x"}]},"finish_reason":"tool_calls"}]}`,
		`{"choices":[{"message":{"refusal":"no"},"finish_reason":"STOP"}]}`, `{"choices":[{"message":{"content":"a"},"finish_reason":"Safety"}]}`,
		`{"choices":[{"message":{"content":"a"},"finish_reason":"error"}]}`, `{"choices":[{"message":{"content":"a"},"finish_reason":7}]}`,
		`{"choices":[{"message":{"content":""},"native_finish_reason":"SAFETY"}]}`, `{"choices":[{"message":{"content":"a"},"error":{}}]}`,
		`{"choices":[{"message":{"content":"a"},"error":{"code":429}}]}`, `{"choices":[{"message":{"content":"a"},"type":"error"}]}`,
		`{"choices":[{"mess\u0061ge":{"content":"a"}}]}`, `{"\u0063hoices":[{"message":{"content":"a"}}]}`,
		`{"choices":[{"message":{"content":"a"}}],"error":{"message":"overloaded"}}`, `{"choices":[{"message":{"content":"a"}}],"error":null}`,
		`{"choices":[{"message":{"content":"a"}}],"err\u006fr":{"message":"overloaded"}}`,
		`{"choices":[{"message":{"content":"a"}}],"error":{"a":1},"error":null}`, `{"choices":[{"message":{"content":"a"}}],"object":"error"}`,
		`{"choices":[{"message":{"content":"a"}}],"promptFeedback":{"blockreason":"SAFETY"}}`,
		`{"id":"a\nb","model":7,"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":1e3,"output_tokens":-1,"cost":"1"}}`,
		"{\"id\":\"\xff\",\"model\":\"m\u00e4\",\"choices\":[{\"message\":{\"content\":\"a\"}}],\"usage\":[1]}",
		`{"choices":[{"message":{"content":"a"}}],"usage":{"cost":0.5},"usage":{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":null}}`,
		`{"choices":[{"message":{"content":"a"}}],"usage":{"cost":1e999,"estimated_cost":0.25,"prompt_tokens":1e16,"input_tokens":3}}`,
		`{"choices":[{"message":{"content":"a"}}],"deep":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`,
		`{"choices":[{"message":{"content":"a"}}],"deep":` + strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64) + `}`,
		`{"data":[{"embedding":[1]}]}`, `{"data":[{"embedding":[]}]}`, `{"data":[{"embedding":[1]},{"embedding":null}]}`, `{"data":[]}`,
		`{"data":[{"Embedding":[1]}]}`, `{"data":[{"embedding":[1],"EMBEDDING":[]}]}`, `{"data":[{"embedding":"AAAA"},null]}`,
		`{"data":[{"embedding":[],"embedding":[1]}],"usage":{"prompt_tokens":3}}`, `{"data":[{"embedding":[1]}],"data":null}`,
	}
	for _, r := range recordedAnswers(tb) {
		list = append(list, r.Body)
	}
	return list
}

// sameVerdict compares the two readers, and reports whether the quick one accepted.
func sameVerdict(tb testing.TB, url string, header http.Header, body []byte) bool {
	tb.Helper()
	var a answer
	accepted := a.quick(url, header, body)
	if want := careful(url, http.StatusOK, header, body); accepted {
		require.Equal(tb, want, a, "%s %q", url, body)
	} else {
		require.Zero(tb, a)
	}
	return accepted
}

func TestTheQuickReaderComesToTheSameVerdict(t *testing.T) {
	t.Parallel()
	for _, header := range []http.Header{nil, {"X-Litellm-Response-Cost": {"0.125"}}, {"X-Litellm-Response-Cost": {"x"}}} {
		for _, body := range answers(t) {
			sameVerdict(t, job.URLChat, header, []byte(body))
			sameVerdict(t, job.URLEmbeddings, header, []byte(body))
		}
	}
	require.True(t, sameVerdict(t, job.URLChat, nil, []byte(goodAnswer)))
	require.True(t, sameVerdict(t, job.URLChat, nil, []byte(usualAnswer().answer)))
	require.True(t, sameVerdict(t, job.URLEmbeddings, nil, []byte(`{"data":[{"embedding":[1]}]}`)))
}

// mutated returns a text that is nearly one of texts: a few of its tokens are
// removed, repeated, or replaced by others, or it has a few more members.
func mutated(random *rand.Rand, texts []string) []byte {
	others := []string{
		`"`, `\`, `\u0061`, `\"`, "{", "}", "[", "]", ",", ":", "null", "true", "0", "01", "-", "-1.5e+3", ".", "e", " ", "\n", "\x01", "\xff", "ä",
		`""`, `"error"`, `"content"`, `"text"`, `"message"`, `"choices"`, `"finish_reason"`, `"usage"`, `"cost":1`, `"model":"x",`, `"embedding"`, `"length"`,
	}
	members := []string{
		`"content":"",`, `"content":" a",`, `"text":null,`, `"finish_reason":"length",`, `"native_finish_reason":"SAFETY",`, `"error":null,`, `"error":{"code":1},`,
		`"message":{},`, `"message":null,`, `"choices":[],`, `"usage":{"cost":1,"prompt_tokens":2},`, `"id":"\u0061",`, `"type":"error",`, `"tool_calls":[1],`, `"a":[{"b":{}}],`,
		`"embedding":[0],`, `"Embedding":[0],`, `"data":[],`, `null,`, `{},`, "\n",
	}
	text := []byte(texts[random.IntN(len(texts))])
	for range 1 + random.IntN(3) {
		at := random.IntN(len(text) + 1)
		end := min(len(text), at+random.IntN(12))
		switch random.IntN(8) {
		case 0:
			text = slices.Delete(text, at, end)
		case 1:
			text = slices.Insert(text, at, text[at:end]...)
		case 2:
			text = slices.Replace(text, at, end, []byte(others[random.IntN(len(others))])...)
		case 3:
			text = slices.Insert(text, at, []byte(others[random.IntN(len(others))])...)
		default:
			if i := bytes.IndexAny(text[at:], "{["); i >= 0 {
				text = slices.Insert(text, at+i+1, []byte(members[random.IntN(len(members))])...)
			}
		}
	}
	return text
}

func TestTheQuickReaderComesToTheSameVerdictOnWhatIsNearlyAnAnswer(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	texts := slices.DeleteFunc(answers(t), func(s string) bool { return len(s) > 2<<10 })
	accepted := 0
	for range 6_000 {
		body := mutated(random, texts)
		for _, url := range []string{job.URLChat, job.URLEmbeddings} {
			if sameVerdict(t, url, nil, body) {
				accepted++
			}
		}
	}
	require.Greater(t, accepted, 150, "the quick reader was not tried")
}

func FuzzQuick(f *testing.F) {
	for _, body := range answers(f) {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sameVerdict(t, job.URLChat, nil, body)
		sameVerdict(t, job.URLEmbeddings, nil, body)
	})
}

// scanned checks that a scan takes what encoding/json takes, and nothing else but
// what is deep.
func scanned(tb testing.TB, text []byte) {
	tb.Helper()
	s := scan{text: text}
	value := s.value()
	if valid := json.Valid(text); s.end() {
		require.True(tb, valid, "%q", text)
		require.Equal(tb, bytes.Trim(text, " \t\r\n"), value)
	} else if valid {
		size, _ := measure(string(text))
		require.Greater(tb, size.depth, maxNesting, "%q", text)
	}
}

func TestAScanTakesWhatIsJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"0", "-0", "-", "00", "01", "1.", ".1", "1.0", "1e", "1e5", "1E+5", "1e-", "-1.25e-7", "+1", "0x1", "Infinity", "1 2",
		"true", "tru", "truex", "nul", "null ", " \t\r\nfalse", "\v1", "\x001", "\x00",
		`""`, `"`, `"a`, `"\"`, `"\\"`, `"\u12G4"`, `"\u12"`, `"\uaBc9"`, `"\x"`, "\"\x1f\"", "\"\x7f\"", "\"\xff\"", `"1234567"`, `"12345678"`, `"1234567\n"`,
		`"12345678\n12345678"`, "\"12345678\x00\"", "\"123456789012345\t\"", `"12345678901234567890`, `"1234567\`, `"12345678\`, `"123456\u00`,
		"[]", "[ ]", "[,]", "[1,]", "[1 2]", "[1", "]", "{}", "{ }", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a" : 1 , "b":[{}]}`, `{a:1}`, `{"a":1]`, "[1}", "[{}]}",
		strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat(`{"a":[`, 32) + strings.Repeat("]}", 32),
		strings.Repeat(`{"a":[`, 32) + strings.Repeat("}]", 32),
	} {
		scanned(t, []byte(text))
	}
	random := rand.New(rand.NewPCG(3, 4))
	texts := answers(t)
	for range 5_000 {
		scanned(t, mutated(random, texts))
	}
}

func FuzzScan(f *testing.F) {
	for _, body := range answers(f) {
		f.Add([]byte(body))
	}
	f.Add([]byte(`["12345678\u00e4\"", -1.5e+7, {"a" : [true, null]}]`))
	f.Fuzz(func(t *testing.T, text []byte) { scanned(t, text) })
}

func TestAStringSaysWhatEncodingJSONSaysItDoes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`""`, `"a"`, `"ä"`, `"\u00e4"`, "\"\xff\"", `"a\nb"`, `"\ud800"`, "7", "null", "true", "[]", `{"a":"b"}`, "", `"\\"`, `"\""`, "\"\x7f\"",
	} {
		var want string
		if json.Unmarshal([]byte(text), &want) != nil {
			want = ""
		}
		require.Equal(t, want, str(json.RawMessage(text)), "%q", text)
		if want != "" {
			require.Equal(t, strings.TrimSpace(want) != "", hasText(json.RawMessage(text)))
		}
	}
	for i := range 0x300 {
		for _, text := range []string{string(rune(i)), "a" + string(rune(i)), string([]byte{byte(i)})} {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			require.NoError(t, enc.Encode(text))
			require.Equal(t, strings.TrimSpace(buf.String()), string(quote(text)))
			require.Equal(t, strings.TrimSpace(text) != "", hasText(quote(text)), "%q", text)
		}
	}
}

// plainSplice is [splice] in so many words.
func plainSplice(body []byte, members []member, set map[string][]byte, drop []string) []byte {
	out := slices.Clone(body[:bytes.IndexByte(body, '{')+1])
	if len(members) > 0 {
		out = slices.Clone(body[:members[0].start])
	}
	seen := make(map[string]bool)
	first := true
	for i, m := range members {
		value, isSet := set[string(m.key)]
		if slices.Contains(drop, string(m.key)) || isSet && seen[string(m.key)] {
			continue
		}
		seen[string(m.key)] = true
		if !first {
			out = append(out, body[members[i-1].finish:m.start]...)
		}
		first = false
		out = append(out, body[m.start:m.value]...)
		if old := body[m.value:m.finish]; !isSet || sameString(old, value) {
			value = old
		}
		out = append(out, value...)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if seen[name] || slices.Contains(drop, name) {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = fmt.Appendf(out, "%s:%s", quote(name), set[name])
	}
	tail := bytes.IndexByte(body, '{') + 1
	if len(members) > 0 {
		tail = members[len(members)-1].finish
	}
	return append(out, body[tail:]...)
}

func TestSpliceIsTheSameInSoManyWords(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	texts := append(answers(t),
		`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}],"model":"n"}`,
		` { "stream" : false , "model":"\u006d" , "a":1, "text":{} } `, `{"choices":1,"text":2,"model":3,"usage":4}`)
	spliced := 0
	for range 5_000 {
		body := mutated(random, texts)
		members, err := topLevel(nil, body)
		deep, deepErr := deepTopLevel(nil, body)
		require.Equal(t, deepErr, err)
		require.Equal(t, deep, members)
		trusted, trustedErr := trustedTopLevel(nil, body)
		if err != nil {
			continue
		}
		require.NoError(t, trustedErr)
		require.Equal(t, deep, trusted)
		set := make(map[string][]byte)
		var drop []string
		for _, name := range []string{"model", "stream", "usage", "id", "text", "ä"} {
			switch random.IntN(3) {
			case 0:
				set[name] = []byte([]string{`"m"`, "true", ` {"a": 1} `, "1"}[random.IntN(4)])
			case 1:
				drop = append(drop, name)
			}
		}
		require.Equal(t, string(plainSplice(body, members, set, drop)), string(splice(body, members, newEdits(set, drop))), "%q", body)
		spliced++
	}
	require.Greater(t, spliced, 150)
}
