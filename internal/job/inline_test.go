package job_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// TestAnAnswerIsPutBackIntoItsPlace pins that nothing else of a result changes.
func TestAnAnswerIsPutBackIntoItsPlace(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ data, body, want string }{
		"a result of ours": {
			string(results()["result-object.json"].Encode()), `{"a": 1}`,
			strings.Replace(string(results()["result-object.json"].Encode()),
				`"body":null,"object":"llm.results.default.row-23@4711.GQ7V2QKXH3YD5ZB6MTP4NRJWLE","bytes":1843201`, `"body":{"a": 1}`, 1),
		},
		"a newer version's": {
			`{ "new": [1 ], "response" : {"object":"o", "x": 1, "body" : null , "bytes": 8 , "y":2 }, "status":"succeeded"}`, `"text"`,
			`{ "new": [1 ], "response" : {"x": 1, "body" : "text" , "y":2 }, "status":"succeeded"}`,
		},
		"the reference last": {
			`{"status":"failed","response":{"body":null,"object":"o","bytes":2}}`, `[]`,
			`{"status":"failed","response":{"body":[]}}`,
		},
		"none":                {`{"status":"failed","response":null}`, `[]`, `{"status":"failed","response":null}`},
		"no response":         {`{"status":"failed"}`, `[]`, `{"status":"failed"}`},
		"its own body":        {`{"response":{"body":{"object":"o","bytes":2}},"status":"failed"}`, `[]`, `{"response":{"body":{"object":"o","bytes":2}},"status":"failed"}`},
		"an object that is 1": {`{"response":{"body":null,"object":1,"bytes":2},"status":"failed"}`, `[]`, `{"response":{"body":null,"object":1,"bytes":2},"status":"failed"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.want, string(job.Inline([]byte(tc.data), []byte(tc.body))))
			require.True(t, json.Valid([]byte(tc.want)))
		})
	}
}

func TestAJobIsPutOffForAYearAtMost(t *testing.T) {
	t.Parallel()
	published := at(0, 0)
	const year = 366 * 24 * time.Hour
	j := &job.Job{}
	require.NoError(t, j.CheckAhead(published))
	j.NotBefore = published.Add(-year)
	require.NoError(t, j.CheckAhead(published))
	j.NotBefore = published.Add(year)
	require.NoError(t, j.CheckAhead(published))
	j.NotBefore = published.Add(year + 1)
	require.EqualError(t, j.CheckAhead(published), "not_before: is more than 366 days ahead")
}

func TestThePayloadsObjectIsReadInAnyCase(t *testing.T) {
	t.Parallel()
	require.Equal(t, "o", job.Header{"understudy-payload": {"o"}}.PayloadObject())
	require.Empty(t, job.Header{}.PayloadObject())
}
