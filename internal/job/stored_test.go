package job_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

func TestADeadLetterGivesBackThePayload(t *testing.T) {
	t.Parallel()
	for payload, form := range map[string]string{
		`{"messages":[]}`:             `{"messages":[]}`,
		hostileBody:                   hostileBody,
		"{\"a\":1}\n":                 "{\"a\":1}\n",
		`null`:                        `null`,
		`"text"`:                      `"text"`,
		`[1, 2]`:                      `[1, 2]`,
		``:                            `{"base64":""}`,
		"\x00\xff":                    `{"base64":"AP8="}`,
		`{"cut":`:                     `{"base64":"eyJjdXQiOg=="}`,
		"{\"a\":\"\xff\"}":            `{"base64":"eyJhIjoi/yJ9"}`,
		`{"base64":"AP8="}`:           `{"base64":"eyJiYXNlNjQiOiJBUDg9In0="}`,
		` {"base\u00364":1}`:          `{"base64":"IHsiYmFzZVx1MDAzNjQiOjF9"}`,
		`{"base64":"a","x":1}`:        `{"base64":"a","x":1}`,
		`{"base64":"a","base64":"b"}`: `{"base64":"a","base64":"b"}`,
		`{"object":"x","bytes":1}`:    `{"base64":"eyJvYmplY3QiOiJ4IiwiYnl0ZXMiOjF9"}`,
		`{"object":"x"}`:              `{"object":"x"}`,
		`{}`:                          `{}`,
	} {
		raw := job.RawJob([]byte(payload))
		require.Equal(t, form, string(raw))
		d := &job.DeadLetter{ID: "a", Queue: "q", Job: raw}
		got, err := d.Payload()
		require.NoError(t, err)
		require.Equal(t, payload, string(got))
		read, err := job.DecodeDeadLetter(d.Encode())
		require.NoError(t, err)
		got, err = read.Payload()
		require.NoError(t, err)
		require.Equal(t, payload, string(got), "after the way over the wire")
	}
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	d := &job.DeadLetter{ID: "a", Queue: "q", Job: job.RawJob([]byte(deep))}
	require.Less(t, len(d.Job), 15000)
	read, err := job.DecodeDeadLetter(d.Encode())
	require.NoError(t, err, "what is too deep to be wrapped once more is wrapped in base64")
	got, err := read.Payload()
	require.NoError(t, err)
	require.Equal(t, deep, string(got))
}

func TestPayloadRefusesALetterItCannotRead(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		``:                             "job: is empty",
		`{`:                            "job: is not valid JSON: see byte 1 of 1",
		`{"base64":1}`:                 "job.base64: must be a string, not a number",
		`{"base64":"a"}`:               "job.base64: is not valid base64",
		`{"base64":"AB=="}`:            "job.base64: is not valid base64",
		`{"bytes":70000,"object":"x"}`: "job: is kept in the object store",
	} {
		_, err := (&job.DeadLetter{Job: json.RawMessage(raw)}).Payload()
		requireFieldError(t, err, want)
	}
}

func TestReadersIgnoreWhatTheyDoNotKnow(t *testing.T) {
	t.Parallel()
	r, err := job.DecodeResult([]byte(` { "id" : "a", "status":"failed", "new": {"x":[1]}, "attempts":[{"n":1,"novel":true}], "response":null }`))
	require.NoError(t, err)
	require.Equal(t, &job.Result{ID: "a", Status: job.Failed, Attempts: []job.Attempt{{N: 1}}}, r)
	e, err := job.DecodeEvent([]byte(`{"type":"understudy.moon.risen","new":1,"data":{"phase":3}}`))
	require.NoError(t, err)
	require.Equal(t, job.EventType("understudy.moon.risen"), e.Type)
	d, err := job.DecodeDeadLetter([]byte(`{"id":"a","queue":"q","new":1,"job":{"messages":[]}}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"messages":[]}`, string(d.Job))
}

func TestReadersRefuseWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	result := func(b []byte) error { _, err := job.DecodeResult(b); return err }
	event := func(b []byte) error { _, err := job.DecodeEvent(b); return err }
	letter := func(b []byte) error { _, err := job.DecodeDeadLetter(b); return err }
	waiting := func(b []byte) error { return (&job.Event{Data: b}).DataAs(new(job.Waiting)) }
	many := strings.Repeat(`{},`, 10000) + `{}`
	for name, tt := range map[string]struct {
		read       func([]byte) error
		data, want string
	}{
		"empty":                  {result, "", "result: is empty"},
		"no JSON":                {result, "{", "result: is not valid JSON: see byte 1 of 1"},
		"an array":               {event, "[]", "event: must be an object, not an array"},
		"a PubAck":               {result, `{"stream":"LLM_JOBS","seq":1}`, "result.status: must be succeeded, failed, expired, cancelled"},
		"an unknown status":      {result, `{"status":"done"}`, "result.status: must be succeeded, failed, expired, cancelled"},
		"a wrong type":           {result, `{"status":"failed","deliveries":"secret"}`, "result.deliveries: has the wrong type"},
		"a wrong type inside":    {result, `{"status":"failed","attempts":[{"n":"secret"}]}`, "result.attempts.n: has the wrong type"},
		"a wrong time":           {result, `{"status":"failed","finished_at":"secret"}`, "result: cannot be read: a field has the wrong form"},
		"too deep":               {letter, strings.Repeat("[", 2000), "dead letter: is nested deeper than 1010 levels"},
		"too many attempts":      {result, `{"attempts":[` + many + `]}`, "result.attempts: has more than 10000 entries"},
		"too many, in any case":  {result, `{"ATTEMPTS":[` + many + `]}`, "result.ATTEMPTS: has more than 10000 entries"},
		"too many, hidden":       {waiting, `{"attempts":[` + many + `],"attempts":[]}`, "data.attempts: has more than 10000 entries"},
		"too many headers":       {letter, `{"headers":{"a":[]` + strings.Repeat(`,"a":[]`, 10000) + `}}`, "dead letter.headers: has more than 10000 entries"},
		"too long":               {event, strings.Repeat(" ", 64<<20) + "{}", "event: has 67108866 bytes; at most 67108864"},
		"an event without type":  {event, `{"id":"a"}`, "event.type: is required"},
		"a letter without an id": {letter, `{"queue":"q"}`, "dead letter: has no id or no queue"},
		"no data":                {waiting, ``, "data: is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireFieldError(t, tt.read([]byte(tt.data)), tt.want)
		})
	}
}

func TestDataAsReadsTheDataOfAnEvent(t *testing.T) {
	t.Parallel()
	want := job.Waiting{
		Queue: "q", Why: "all breakers are open", Until: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Delivery: 2, JobSeq: 7,
		StartedAt: time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC), Attempts: []job.Attempt{skippedAttempt(1)},
	}
	want.Attempts[0].StartedAt = want.StartedAt
	e, err := job.DecodeEvent(job.NewEvent("w", job.EventWaiting, "a", want.Until, want).Encode())
	require.NoError(t, err)
	var got job.Waiting
	require.NoError(t, e.DataAs(&got))
	require.Equal(t, want, got)
}
