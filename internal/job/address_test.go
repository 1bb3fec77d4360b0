package job_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

func TestTakeAddressCutsTheAddressOut(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ payload, queue, id, rest string }{
		"none":               {`{ "body" : {} }`, "default", "", `{ "body" : {} }`},
		"first":              {`{"id":"a.b","queue":"q", "body":{"id":"x"}}`, "q", "a.b", `{"body":{"id":"x"}}`},
		"last":               {`{"body":{} , "queue":"q" , "id":"a" }`, "q", "a", `{"body":{} }`},
		"around":             {"{ \"id\":\"a\",\n  \"body\":{},\n  \"queue\":\"q\"\n}\n", "q", "a", "{ \"body\":{}\n}\n"},
		"between":            {`{"body":{},"id":"a","route":"r","queue":"q","primary":"p"}`, "q", "a", `{"body":{},"route":"r","primary":"p"}`},
		"only an id":         {`{"id":"a","body":{}}`, "default", "a", `{"body":{}}`},
		"only a queue":       {`{"queue":"q","body":{}}`, "q", "", `{"body":{}}`},
		"nulls":              {`{"queue":null,"body":{},"id":null}`, "default", "", `{"body":{}}`},
		"names in escapes":   {`{"\u0069d":"a","body":{},"queu\u0065":"\u0071"}`, "q", "a", `{"body":{}}`},
		"brackets in values": {`{"x":"},\"id\":\"","id":"a","body":"]","y":[{"id":1}]}`, "default", "a", `{"x":"},\"id\":\"","body":"]","y":[{"id":1}]}`},
		"an unknown field":   {`{"nope":1,"nope":1,"id":"a","body":{}}`, "default", "a", `{"nope":1,"nope":1,"body":{}}`},

		"a bare body":            {`{"messages":[],"id":"a","queue":7}`, "default", "", `{"messages":[],"id":"a","queue":7}`},
		"neither":                {`{"id":"a","queue":"q"}`, "default", "", `{"id":"a","queue":"q"}`},
		"an empty object":        {`{}`, "default", "", `{}`},
		"an empty payload":       {``, "default", "", ``},
		"no object":              {`["id"]`, "default", "", `["id"]`},
		"no JSON":                {`{"id":"a","body":{}`, "default", "", `{"id":"a","body":{}`},
		"not UTF-8":              {"{\"id\":\"a\",\"body\":\"\xff\"}", "default", "", "{\"id\":\"a\",\"body\":\"\xff\"}"},
		"deeper than is allowed": {`{"id":"a","body":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "default", "", `{"id":"a","body":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := strings.Clone(tt.payload)
			payload := []byte(tt.payload)
			queue, id, rest, err := job.TakeAddress(payload)
			require.NoError(t, err)
			require.Equal(t, tt.queue, queue)
			require.Equal(t, tt.id, id)
			require.Equal(t, tt.rest, string(rest))
			require.Equal(t, before, string(payload), "the payload is left alone")
		})
	}
}

func TestTakeAddressRefusesABadAddress(t *testing.T) {
	t.Parallel()
	for fields, want := range map[string]string{
		`"id":1`:           "id: must be a string, not a number",
		`"id":""`:          "id: an empty token; use A-Z a-z 0-9 _ -",
		`"id":"a..b"`:      "id: an empty token; use A-Z a-z 0-9 _ -",
		`"id":"a.*"`:       "id: '*' is not allowed; use A-Z a-z 0-9 _ -",
		`"id":"a.b.c.d.e"`: "id: has 5 tokens; at most 4",
		`"id":"` + strings.Repeat("x", 300) + `"`: "id: has 300 bytes; at most 255",
		`"id":"a","id":"b"`:                       "id: is given twice",
		`"id":null,"id":"b"`:                      "id: is given twice",
		`"queue":["q"]`:                           "queue: must be a string, not an array",
		`"queue":"a.b"`:                           "queue: '.' is not allowed; use A-Z a-z 0-9 _ -",
		`"queue":">"`:                             "queue: '>' is not allowed; use A-Z a-z 0-9 _ -",
		`"queue":"q","queue":"q"`:                 "queue: is given twice",
	} {
		queue, id, rest, err := job.TakeAddress([]byte(envelope(fields)))
		requireFieldError(t, err, want)
		require.Empty(t, queue+id)
		require.Nil(t, rest)
	}
}

func TestNewIDIsUniqueAndValid(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[A-Za-z0-9]{22,}$`)
	seen := make(map[string]bool)
	for range 1000 {
		id := job.NewID()
		require.Regexp(t, form, id)
		require.NoError(t, job.CheckID(id))
		require.False(t, seen[id])
		seen[id] = true
	}
}
