package job_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// wrongWith is what the standard library finds wrong with text, in our words; ""
// when that is JSON that can be carried as it is.
func wrongWith(text []byte) string {
	deepest, level, inText, escaped := 0, 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inText:
			escaped, inText = c == '\\', c != '"'
		case c == '"':
			inText = true
		case c == '{', c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}', c == ']':
			level--
		}
	}
	var raw json.RawMessage
	err := json.Unmarshal(text, &raw)
	syntax, _ := errors.AsType[*json.SyntaxError](err)
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return "is empty"
	case deepest > job.MaxDepth:
		return "is nested deeper than 1000 levels"
	case !utf8.Valid(text):
		return "is not valid UTF-8"
	case syntax != nil:
		return fmt.Sprintf("is not valid JSON: see byte %d of %d", syntax.Offset, len(text))
	case err != nil:
		return "is not valid JSON"
	}
	return ""
}

// oddTexts are JSON and what is nearly JSON: each form of each value, at each
// place in eight bytes.
func oddTexts() []string {
	var texts []string
	for _, value := range []string{
		"0", "-0", "-", "01", "-01", "1.", ".1", "1.0", "1.e1", "1e", "1e+", "1E-07", "1e1.5", "+1", "0x1", "1 1", "Infinity",
		"true", "tru", "trueX", "false", "falsE", "null", "nul", "nulll", "[]", "[ ]", "[,]", "[1,]", "[1 ,2]", "[1 2]", "[", "]", "{}", "{ }", "{,}", "}",
		`{"a"}`, `{"a":}`, `{"a":1,}`, `{"a" : 1 , "b":2}`, `{"a":1 "b":2}`, `{a:1}`, `{"a":1]`, `[1}`, `{1:1}`, `{"a"::1}`, "{\"a\":1,\x00}", "[1,\x00]", "\x00",
		`""`, `"`, `"\"`, `"\\"`, `"\\\"`, `"\\\\"`, `"\/\b\f\n\r\t\""`, `"\a"`, `"\u00e9"`, `"\uD83D\uDE00"`, `"\ud800"`, `"\u00g0"`, `"\u00"`, `"\u"`, `"\u123`, `"\u1234`, `"\`,
		"\"\x00\"", "\"\x1f\"", "\"\n\"", "\"\x7f\"", "\"é\u2028\ufffd\U0001f600\"", "\"\xff\"", "\"\xc3\"", "\"\xc3(\"", "\"\xe2\x80\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"",
		"\"\xed\x9f\xbf\"", "\"\xf4\x8f\xbf\xbf\"", "\"\xf4\x90\x80\x80\"", "\"\xf0\x80\x80\x80\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xf5\x80\x80\x80\"", "\"\x80\"", "\"\xe2\x28\xa1\"", "\"\xe2\x82(\"", "é", "\ufeff{}", "\u00a0",
	} {
		texts = append(texts, value, " \t\r\n"+value+"\n", value+"x", "\v"+value, `{"a":`+value+`}`, `[`+value+`,`+value+`]`)
		for n := range 9 {
			pad := strings.Repeat("x", n)
			texts = append(texts, `["`+pad+strings.Trim(value, `"`)+pad+`"]`)
		}
	}
	for _, levels := range []int{999, 1000, 1001} {
		texts = append(texts, strings.Repeat("[", levels)+strings.Repeat("]", levels), strings.Repeat(`{"a":`, levels)+"1"+strings.Repeat("}", levels),
			strings.Repeat("[", levels), "["+strings.Repeat("[],", levels)+"0]", `["`+strings.Repeat("[", levels)+`"]`)
	}
	return texts
}

// requireSameVerdict requires text to be taken or refused as the standard library
// takes or refuses it, and with which words.
func requireSameVerdict(t *testing.T, d *job.Decoder, text []byte) {
	t.Helper()
	wrong := wrongWith(text)
	require.Equal(t, wrong == "", string(text) == string(job.RawBody(text)), "of %q", text)
	_, err := d.Decode("q", "id", text, nil)
	if wrong != "" {
		requireFieldError(t, err, "payload: "+wrong)
	} else if err != nil {
		require.NotContains(t, err.Error(), "payload: is n")
	}
}

func TestTextIsCheckedAsTheStandardLibraryChecksIt(t *testing.T) {
	t.Parallel()
	d := decoder(t)
	for _, text := range oddTexts() {
		requireSameVerdict(t, d, []byte(text))
	}
}

func FuzzValid(f *testing.F) {
	for _, text := range oddTexts() {
		f.Add([]byte(text))
	}
	for _, payload := range seedPayloads(f) {
		f.Add(payload)
	}
	d := decoder(f)
	f.Fuzz(func(t *testing.T, text []byte) { requireSameVerdict(t, d, text) })
}

// FuzzMembers compares what is found in a body with what encoding/json finds.
func FuzzMembers(f *testing.F) {
	for _, text := range oddTexts() {
		f.Add([]byte(text), []byte(text))
	}
	d := decoder(f)
	f.Fuzz(func(t *testing.T, name, value []byte) {
		payload := `{ "body" : {"messages":[` + string(value) + `,"]}"],` + string(name) + `: ` + string(value) + ` ,"model":"m"}, "metadata" :{"a":` + string(value) + `} }`
		var want struct {
			Body     json.RawMessage
			Metadata json.RawMessage
		}
		if wrongWith([]byte(payload)) != "" || json.Unmarshal([]byte(payload), &want) != nil {
			return
		}
		j, err := d.Decode("q", "id", []byte(payload), nil)
		if err != nil {
			return
		}
		requireBytes(t, string(want.Body), j.Body)
		requireBytes(t, string(want.Metadata), j.Metadata)
	})
}
