package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFieldIsSetAndEveryOtherByteStays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		before string
		set    string
		want   string
	}{
		{`{ "body" : {"model":"a",  "n": 12345678901234567890}}`, `body.model="b"`, `{ "body" : {"model":"b",  "n": 12345678901234567890}}`},
		{"{\n \"body\": {\"messages\": []}\n}", `route="simple_qa"`, "{\n \"body\": {\"messages\": []},\"route\":\"simple_qa\"\n}"},
		{`{"body":{}}`, `body.temperature=0`, `{"body":{"temperature":0}}`},
		{`{"body":{ }}`, `body.temperature=0`, `{"body":{"temperature":0 }}`},
		{`{"body":{"a":1 , "model" : null }}`, `body.model="b"`, `{"body":{"a":1 , "model" : "b" }}`},
		{`{"body":{"model":"a","x":[1],"model":"b"}}`, `body.model="c"`, `{"body":{"model":"c","x":[1],"model":"c"}}`},
		{`{"body":{"m\u006fdel":"a"}}`, `body.model="c"`, `{"body":{"m\u006fdel":"c"}}`},
		{`{"body":{"messages":[{"role":"user","content":"<a>"}, {"role":"user","content":"b"} ]}}`, `body.messages.1.content="c"`, `{"body":{"messages":[{"role":"user","content":"<a>"}, {"role":"user","content":"c"} ]}}`},
		{`{"body":{},"policy":null}`, `policy.max_attempts=3`, `{"body":{},"policy":{"max_attempts":3}}`},
		{`{"body":{}}`, `metadata.a.b={"c": [1, 2]}`, `{"body":{},"metadata":{"a":{"b":{"c": [1, 2]}}}}`},
		{`{"body":{},"route":"x"}`, `route=null`, `{"body":{},"route":null}`},
		{`{"body":{},"timeout_ms":5}`, `timeout_ms=60000`, `{"body":{},"timeout_ms":60000}`},
		// a bare request body
		{`{"model": "a", "messages": []}`, `model="b"`, `{"model": "b", "messages": []}`},
		{`{"model": "a", "messages": []}`, `route="r"`, `{"body":{"model": "a", "messages": []},"route":"r"}`},
		{`{"model": "a", "messages": []}`, `body.model="b"`, `{"body":{"model": "b", "messages": []}}`},
		{` {"prompt": "a"} `, `body.model="b"`, `{"url":"/v1/completions","body": {"prompt": "a","model":"b"} }`},
		{`{"input": "a"}`, `chain=["x"]`, `{"url":"/v1/embeddings","body":{"input": "a"},"chain":["x"]}`},
	} {
		got, err := setFields([]byte(tc.before), []string{tc.set})
		require.NoError(t, err, tc.set)
		requireBytes(t, tc.want, got)
		require.True(t, json.Valid(got))
	}
	got, err := setFields([]byte(`{"messages":[]}`), []string{`route="r"`, `body.model="m"`, `route="s"`})
	require.NoError(t, err)
	requireBytes(t, `{"body":{"messages":[],"model":"m"},"route":"s"}`, got)
}

func TestAWrongAssignmentSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const object = `{"body":{"messages":[1],"model":"a"}}`
	for _, tc := range []struct{ before, set, want string }{
		{object, `route`, `-set route: write name=json, such as body.model="x"`},
		{object, `=1`, `-set =1: write name=json, such as body.model="x"`},
		{object, `body..model=1`, `-set body..model=1: write name=json, such as body.model="x"`},
		{object, `route=simple_qa`, `-set route: the value is no JSON; a text needs quotes: -set 'route="…"'`},
		{object, `route=`, `-set route: the value is no JSON; a text needs quotes: -set 'route="…"'`},
		{object, `body.model.x=1`, `-set body.model.x: there is no field "x" in what is no object`},
		{object, `body.messages.1=1`, `-set body.messages.1: there is no place "1" in that list`},
		{object, `body.messages.x=1`, `-set body.messages.x: there is no place "x" in that list`},
		{`{"body":{`, `route="x"`, `-set route: the job is no JSON; give the whole with -f`},
		{`{"body":{},}`, `route="x"`, `-set route: the job is no JSON; give the whole with -f`},
		{`{"body" {}}`, `route="x"`, `-set route: the job is no JSON; give the whole with -f`},
		{`not JSON`, `route="x"`, `-set route: the job is no JSON; give the whole with -f`},
		{``, `route="x"`, `-set route: the job is no JSON; give the whole with -f`},
		{`7`, `route="x"`, `-set route: there is no field "route" in what is no object`},
	} {
		_, err := setFields([]byte(tc.before), []string{tc.set})
		require.EqualError(t, err, tc.want, tc.before)
	}
}

func FuzzSettingAField(f *testing.F) {
	f.Add([]byte(`{"body":{"messages":[1]}}`), "body.model", "1")
	f.Add([]byte(`[1,[2]]`), "1.0", `{"a":1}`)
	f.Fuzz(func(t *testing.T, payload []byte, name, value string) {
		got, err := setFields(payload, []string{name + "=" + value})
		if err != nil || !json.Valid(payload) {
			return
		}
		require.True(t, json.Valid(got), "%s", got)
		again, err := setFields(got, []string{name + "=" + value})
		require.NoError(t, err)
		if !strings.Contains(name, "=") {
			require.Equal(t, string(got), string(again), "the same again changes nothing")
		}
	})
}
