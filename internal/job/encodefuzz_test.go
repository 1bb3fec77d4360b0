package job_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// sample has a field of every type that a message has, and some more.
type sample struct {
	Text     string              `json:"text"`
	Status   job.Status          `json:"status,omitempty"`
	Note     *string             `json:"note"`
	Int      int64               `json:"int"`
	Count    int                 `json:"count,omitempty"`
	Uint     uint64              `json:"uint"`
	Flag     bool                `json:"flag"`
	Set      bool                `json:"set,omitempty"`
	Float    float64             `json:"float"`
	Cost     *float64            `json:"cost"`
	At       time.Time           `json:"at"`
	Raw      json.RawMessage     `json:"raw"`
	Metadata json.RawMessage     `json:"metadata,omitempty"`
	List     []string            `json:"list"`
	More     []string            `json:"more,omitempty"`
	Map      map[string][]string `json:"map"`
	Any      any                 `json:"any"`
	Inner    *sample             `json:"inner"`
}

// expected is the JSON of s, made of what encoding/json makes of its parts and
// of what the wire contract says about the others.
func expected(t *testing.T, s *sample) string {
	t.Helper()
	if s == nil {
		return "null"
	}
	var fields []string
	put := func(name, text string) { fields = append(fields, plainJSON(t, name)+":"+text) }
	put("text", textJSON(t, s.Text))
	if s.Status != "" {
		put("status", textJSON(t, string(s.Status)))
	}
	put("note", "null")
	if s.Note != nil {
		fields[len(fields)-1] = `"note":` + textJSON(t, *s.Note)
	}
	put("int", plainJSON(t, s.Int))
	if s.Count != 0 {
		put("count", plainJSON(t, s.Count))
	}
	put("uint", plainJSON(t, s.Uint))
	put("flag", plainJSON(t, s.Flag))
	if s.Set {
		put("set", "true")
	}
	put("float", plainJSON(t, finite(&s.Float)))
	put("cost", plainJSON(t, finite(s.Cost)))
	put("at", timeJSON(s.At))
	put("raw", rawJSON(s.Raw))
	if len(s.Metadata) > 0 {
		put("metadata", rawJSON(s.Metadata))
	}
	put("list", listJSON(t, s.List))
	if len(s.More) > 0 {
		put("more", listJSON(t, s.More))
	}
	headers := make(map[string]json.RawMessage)
	for key, values := range s.Map {
		headers[key] = json.RawMessage(listJSON(t, values))
	}
	put("map", plainJSON(t, headers))
	put("any", "null")
	if text, ok := s.Any.(string); ok {
		fields[len(fields)-1] = `"any":` + textJSON(t, text)
	}
	put("inner", expected(t, s.Inner))
	return "{" + strings.Join(fields, ",") + "}"
}

// plainJSON is what encoding/json makes of v without escapes for HTML.
func plainJSON(t *testing.T, v any) string {
	t.Helper()
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(v))
	return strings.TrimSuffix(text.String(), "\n")
}

func textJSON(t *testing.T, s string) string {
	t.Helper()
	return plainJSON(t, strings.ToValidUTF8(s, "\ufffd"))
}

func listJSON(t *testing.T, list []string) string {
	t.Helper()
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = textJSON(t, s)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

func rawJSON(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "null"
	}
	return string(job.RawBody(raw))
}

func finite(f *float64) *float64 {
	if f == nil || math.IsNaN(*f) || math.IsInf(*f, 0) {
		return nil
	}
	return f
}

func timeJSON(at time.Time) string {
	sec, ms := at.Unix(), at.Nanosecond()/1e6
	switch {
	case sec < -62135596800:
		return `"0001-01-01T00:00:00.000Z"`
	case sec > 253402300799:
		return `"9999-12-31T23:59:59.999Z"`
	}
	return fmt.Sprintf("%q", time.Unix(sec, 0).UTC().Format("2006-01-02T15:04:05")+fmt.Sprintf(".%03dZ", ms))
}

func FuzzEncode(f *testing.F) {
	texts := []string{
		"", "a plain text, with ~ and DEL\x7f", "\"\\/\b\f\n\r\t\x00\x1f ", "<a href='x'>&amp;</a>", "caf\u00e9 \u2028\u2029\ufeff\U0001f600",
		"\xff\xfe bad \xc3\x28 \xed\xa0\x80", `{"a" : "<&>\u2028", "b": 1e2}`, `{"cut":`, " null ",
	}
	floats := []float64{
		0, math.Copysign(0, -1), 0.1, 1, 1e20, 1e21, 1e-6, 1e-7, 123456789.125, -2.5e-300, math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.NaN(), math.Inf(1), math.Inf(-1), 1 << 53,
	}
	for i, text := range texts {
		for j, float := range floats {
			f.Add(text, texts[(i+j)%len(texts)], []byte(texts[(i+j+1)%len(texts)]), int64(i-j)<<(4*j), float,
				int64(j-8)*40_000_000_000, int64(999_999+i), (i-4)*3600+j, uint16(i*j*977))
		}
	}
	f.Add("", "", []byte(nil), int64(math.MinInt64), 0.0, int64(253402300799), int64(999_999_999), 0, uint16(0))
	f.Add("x", "", []byte(""), int64(math.MaxInt64), 0.0, int64(-62135596801), int64(999_999_999), 86399, uint16(math.MaxUint16))
	f.Fuzz(func(t *testing.T, text, key string, raw []byte, n int64, float float64, sec, nsec int64, zone int, bits uint16) {
		set := func(bit int) bool { return bits>>bit&1 == 1 }
		at := time.Unix(sec%(1<<60), nsec%1e9).In(time.FixedZone("", zone%86400))
		s := &sample{Text: text, Int: n, Uint: uint64(n), Flag: set(0), Set: set(1), Float: float, At: at, Raw: raw}
		if set(2) {
			s.Note, s.Cost, s.Any = &key, &float, key
		}
		if set(3) {
			s.Status, s.Count, s.Metadata = job.Status(key), int(n), raw
		}
		if set(4) {
			s.List, s.More = []string{key, "", text}, []string{text}
		}
		if set(5) {
			s.List, s.More, s.Map, s.Metadata = []string{}, []string{}, map[string][]string{}, []byte{}
		}
		if set(6) {
			s.Map = map[string][]string{key: {text, key}, "plain": nil, text + key: {}}
		}
		if set(7) {
			inner := *s
			s.Inner = &inner
		}
		want := expected(t, s)
		require.Equal(t, want, string(job.NewEvent("w", job.EventReceived, "a", at, s).Data))
		require.Equal(t, want, string(job.NewEvent("w", job.EventReceived, "a", at, *s).Data), "as a value that has no address")
	})
}

// BenchmarkEncodeResult writes the result of a job that needed two attempts.
func BenchmarkEncodeResult(b *testing.B) {
	r := results()["result-succeeded.json"]
	require.NotNil(b, r)
	b.ReportAllocs()
	for b.Loop() {
		r.Encode()
	}
}
