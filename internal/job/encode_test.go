package job_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// hostileBody is JSON whose bytes encoding/json would not leave alone.
const hostileBody = " {\"html\" : \"<b>&\u2028</b>\",\t\"big\": 12345678901234567890, \"n\": 1.0,\n \"n\": 1.00 }\r\n"

func TestAResultHoldsTheAnswerByteForByte(t *testing.T) {
	t.Parallel()
	r := &job.Result{
		ID: "a", CustomID: "<a&b>", Status: job.Succeeded, Metadata: json.RawMessage(`{"m" : "<&>", "b": 1e2}`),
		Response: &job.Response{StatusCode: 200, Body: job.RawBody([]byte(hostileBody))},
	}
	const want = `{"id":"a","custom_id":"<a&b>","response":{"status_code":200,"request_id":"","body":` + hostileBody + `},` +
		`"error":null,"status":"succeeded","queue":"","route":"","backend":"","model":"","degraded":false,"usage":null,"cost_usd":null,` +
		`"attempts":[],"queued_ms":0,"duration_ms":0,"deliveries":0,"worker":"","finished_at":"0001-01-01T00:00:00.000Z",` +
		`"metadata":{"m" : "<&>", "b": 1e2}}`
	requireBytes(t, want, r.Encode())
	back, err := job.DecodeResult(r.Encode())
	require.NoError(t, err)
	requireBytes(t, hostileBody, back.Response.Body)
	requireBytes(t, want, back.Encode())
}

func TestRawBodyIsAlwaysJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		hostileBody:          hostileBody,
		`null`:               `null`,
		`"text"`:             `"text"`,
		``:                   `""`,
		` `:                  `" "`,
		`<html>&"`:           `"<html>&\""`,
		`{"cut":`:            `"{\"cut\":"`,
		"bad \xff byte":      `"bad \ufffd byte"`,
		"{\"bad\":\"\xff\"}": `"{\"bad\":\"\ufffd\"}"`,
		"a\x00b\n":           `"a\u0000b\n"`,
		`{} {}`:              `"{} {}"`,
		strings.Repeat("[", 1001) + strings.Repeat("]", 1001): `"` + strings.Repeat("[", 1001) + strings.Repeat("]", 1001) + `"`,
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000): strings.Repeat("[", 1000) + strings.Repeat("]", 1000),
	} {
		got := job.RawBody([]byte(in))
		require.Equal(t, want, string(got))
		require.True(t, json.Valid(got))
	}
}

func TestEncodeAlwaysMakesAMessageThatCanBeReadBack(t *testing.T) {
	t.Parallel()
	deep := []byte(strings.Repeat("[", 1000) + strings.Repeat("]", 1000))
	for name, r := range map[string]*job.Result{
		"zero":                   {},
		"cost that is no number": {CostUSD: new(math.NaN()), Attempts: []job.Attempt{{CostUSD: new(math.Inf(1))}}},
		"broken raw bytes":       {Metadata: json.RawMessage(`{"a":`), Response: &job.Response{Body: json.RawMessage("<html>\xff")}},
		"no body":                {Response: &job.Response{}},
		"the deepest body":       {Response: &job.Response{Body: deep}, Metadata: deep},
		"a body too deep":        {Response: &job.Response{Body: []byte("[" + string(deep) + "]")}},
		"text that is not UTF-8": {ID: "\xff", Error: &job.Error{Message: "a\xc3\x28\x00\u2028<"}},
		"years beyond RFC 3339":  {FinishedAt: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), Attempts: []job.Attempt{{StartedAt: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.Status = job.Failed
			data := r.Encode()
			require.True(t, json.Valid(data), string(data))
			back, err := job.DecodeResult(data)
			require.NoError(t, err)
			require.Equal(t, string(data), string(back.Encode()))
			d := job.DeadLetter{ID: "a", Queue: "q", Job: job.RawJob(deep), Error: r.Error, Attempts: r.Attempts, Time: r.FinishedAt}
			letter, err := job.DecodeDeadLetter(d.Encode())
			require.NoError(t, err)
			require.Equal(t, string(d.Encode()), string(letter.Encode()))
		})
	}
}

func TestEncodeWritesNullsListsAndTimesAsTheContractSays(t *testing.T) {
	t.Parallel()
	e := job.NewEvent("w-1", job.EventWaiting, "a", time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.FixedZone("", -3600)), &job.Waiting{})
	e.ID = "1"
	requireBytes(t, `{"specversion":"1.0","id":"1","source":"understudy/w-1","type":"understudy.job.waiting","subject":"a",`+
		`"time":"2026-01-02T04:04:05.060Z","datacontenttype":"application/json","data":{"queue":"","why":"","until":"0001-01-01T00:00:00.000Z",`+
		`"delivery":0,"job_seq":0,"started_at":"0001-01-01T00:00:00.000Z","attempts":[]}}`, e.Encode())
	requireBytes(t, `{"backend":"b","from":"","to":""}`, job.NewEvent("w", job.EventBreakerChanged, "b", time.Time{}, job.BreakerChanged{Backend: "b"}).Data)
	requireBytes(t, `null`, job.NewEvent("w", job.EventReceived, "b", time.Time{}, nil).Data)
	require.Contains(t, string((&job.DeadLetter{}).Encode()), `"job":{"base64":""},"headers":{},"attempts":[],`)
}

func TestEveryEventHasItsOwnID(t *testing.T) {
	t.Parallel()
	a := job.NewEvent("w", job.EventReceived, "x", time.Time{}, job.Received{})
	b := job.NewEvent("w", job.EventReceived, "x", time.Time{}, job.Received{})
	require.NotEmpty(t, a.ID)
	require.NotEqual(t, a.ID, b.ID)
}
