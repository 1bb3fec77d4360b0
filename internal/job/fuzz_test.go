package job_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// seedPayloads are payloads to start from: what the tables know.
func seedPayloads(f *testing.F) [][]byte {
	f.Helper()
	seeds := [][]byte{golden(f, "job-full.json"), golden(f, "job-minimal.json"), golden(f, "job-bare.json"), nil, []byte(hostileBody)}
	for _, tt := range invalidJobs() {
		if len(tt.payload) < 2000 {
			seeds = append(seeds, []byte(tt.payload))
		}
	}
	return seeds
}

func FuzzDecode(f *testing.F) {
	for _, payload := range seedPayloads(f) {
		f.Add(payload, "_INBOX.a", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	}
	d, compiled := decoder(f), schema(f, "job")
	longNumber := regexp.MustCompile(`[eE][+-]?[0-9]{4,}`) // takes the schema library for ever
	f.Fuzz(func(t *testing.T, payload []byte, reply, trace string) {
		before := bytes.Clone(payload)
		j, err := d.Decode("q", "id", payload, job.Header{job.HeaderReplyTo: {reply}, job.HeaderTraceParent: {trace}})
		require.Equal(t, before, payload, "the payload is left alone")
		if err != nil {
			wrong, ok := errors.AsType[*job.FieldError](err)
			require.True(t, ok)
			require.Nil(t, j)
			require.NotEmpty(t, wrong.Field)
			require.NotEmpty(t, wrong.Reason)
			require.Less(t, len(err.Error()), 700)
			require.True(t, utf8.ValidString(err.Error()))
			return
		}
		requireSound(t, j, payload)
		if !longNumber.Match(payload) {
			require.NoError(t, compiled.Validate(instance(t, string(payload))), "what the decoder takes, the schema takes")
		}
		again, err := d.Decode("q", "id", payload, nil)
		if err == nil { // the headers only add
			j.TraceParent = ""
			if again.ReplyTo == "" {
				j.ReplyTo = ""
			}
			require.Equal(t, j, again)
		}
	})
}

// requireSound requires of a decoded job what every worker relies on.
func requireSound(t *testing.T, j *job.Job, payload []byte) {
	t.Helper()
	require.True(t, json.Valid(j.Body))
	require.True(t, utf8.Valid(j.Body))
	require.True(t, bytes.Contains(payload, j.Body), "the body is a part of the payload")
	require.True(t, bytes.Contains(payload, j.Metadata))
	require.LessOrEqual(t, len(j.Metadata), job.MaxMetadata)
	require.Contains(t, []string{job.URLChat, job.URLCompletions, job.URLEmbeddings}, j.URL)
	require.LessOrEqual(t, len(j.CustomID), job.MaxCustomID)
	require.NotEmpty(t, j.CustomID)
	require.True(t, j.Timeout >= 0 && j.Timeout <= job.MaxTimeout)
	require.LessOrEqual(t, len(j.Chain), job.MaxChain)
	for _, subject := range []string{j.ReplyTo, j.EventsTo} {
		require.False(t, subject != "" && !strings.HasPrefix(subject, "_INBOX.") && !strings.HasPrefix(subject, "_R_."), subject)
		require.False(t, strings.ContainsAny(subject, "*>$ \t\r\n\x00"), subject)
	}
	// encoding/json, asked for the exact names, sees the same model and stream.
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(j.Body, &fields))
	var model string
	var stream bool
	if raw, ok := fields["model"]; ok {
		require.NoError(t, json.Unmarshal(raw, &model))
	}
	if raw, ok := fields["stream"]; ok {
		require.NoError(t, json.Unmarshal(raw, &stream))
	}
	require.Equal(t, model, j.Model)
	require.Equal(t, stream, j.Stream)
}

func FuzzTakeAddress(f *testing.F) {
	for _, payload := range seedPayloads(f) {
		f.Add(payload, 0, true)
		f.Add([]byte(strings.Replace(string(payload), "{", `{ "id" : "a" , "queue":"q",`, 1)), 1, false)
	}
	f.Fuzz(func(t *testing.T, payload []byte, where int, comma bool) {
		before := bytes.Clone(payload)
		queue, id, rest, err := job.TakeAddress(payload)
		require.Equal(t, before, payload, "the payload is left alone")
		if err != nil {
			_, ok := errors.AsType[*job.FieldError](err)
			require.True(t, ok)
			return
		}
		require.NoError(t, job.CheckQueue(queue))
		if id != "" {
			require.NoError(t, job.CheckID(id))
		}
		var was, is map[string]json.RawMessage
		if json.Unmarshal(payload, &was) != nil || was["body"] == nil || !utf8.Valid(payload) {
			require.Equal(t, payload, rest)
			return
		}
		require.NoError(t, json.Unmarshal(rest, &is))
		if id != "" || queue != job.DefaultQueue {
			delete(was, "id")
			delete(was, "queue")
		}
		if _, _, again, err := job.TakeAddress(rest); err == nil {
			require.Equal(t, rest, again, "there is nothing left to take")
		}
		for name, value := range was {
			if name != "id" && name != "queue" {
				require.Equal(t, string(value), string(is[name]))
			}
		}

		// What is put in anywhere is taken out again, to the byte.
		if bytes.ContainsAny(rest, `\`) || is["id"] != nil || is["queue"] != nil || len(is) == 0 {
			return
		}
		with := putIn(rest, where, comma)
		queue, id, out, err := job.TakeAddress(with)
		require.NoError(t, err)
		require.Equal(t, "a.b", id)
		require.Equal(t, "q", queue)
		require.Equal(t, string(rest), string(out))
	})
}

// putIn puts an id and a queue at the head of the object text, at its end, or one
// at each.
func putIn(text []byte, where int, spaces bool) []byte {
	first, last := `"id":"a.b"`, `"queue":"q"`
	if spaces {
		first, last = "\"\\u0069d\" : \"a.b\"", "\"queue\"\n:\t\"q\""
	}
	open := bytes.IndexByte(text, '{') + 1
	open += len(text[open:]) - len(bytes.TrimLeft(text[open:], " \t\r\n"))
	end := bytes.LastIndexByte(text, '}')
	end = len(bytes.TrimRight(text[:end], " \t\r\n"))
	head, tail := "", ""
	switch where % 3 {
	case 0:
		head = first + "," + last + ","
	case 1:
		tail = "," + first + "," + last
	default:
		head, tail = last+",", ","+first
	}
	return []byte(string(text[:open]) + head + string(text[open:end]) + tail + string(text[end:]))
}

func FuzzParseSubject(f *testing.F) {
	for _, subject := range []string{"llm.jobs.q.a", "llm.jobs.q.a.b.c.d", "llm..q.a", "llm.jobs", "llm.>", "llm.jobs.*.x", ""} {
		f.Add(subject, "q", "a.b")
	}
	s := subjects(f)
	f.Fuzz(func(t *testing.T, subject, queue, id string) {
		kind, q, i, err := s.Parse(subject)
		if err == nil {
			require.Equal(t, subject, "llm."+kind+"."+q+"."+i)
			require.NoError(t, job.CheckQueue(q))
			require.NoError(t, job.CheckID(i))
			require.False(t, strings.ContainsAny(q+i, "*>$ "))
			require.True(t, s.Own(subject))
		} else {
			_, ok := errors.AsType[*job.FieldError](err)
			require.True(t, ok)
		}
		if job.CheckQueue(queue) == nil && job.CheckID(id) == nil {
			kind, q, i, err := s.Parse(s.Job(queue, id))
			require.NoError(t, err)
			require.Equal(t, []string{"jobs", queue, id}, []string{kind, q, i})
		}
	})
}

func FuzzReplyRule(f *testing.F) {
	f.Add(job.DefaultReplyAllow, "_INBOX.a.b")
	f.Add("a.*.c,b.>", "a.b.c")
	f.Fuzz(func(t *testing.T, patterns, subject string) {
		rule, err := job.ParseReplyRule(patterns)
		if err != nil {
			return
		}
		want := false
		for pattern := range strings.SplitSeq(patterns, ",") {
			if pattern = strings.TrimSpace(pattern); pattern != "" {
				quoted := regexp.QuoteMeta(pattern)
				quoted = strings.ReplaceAll(quoted, `\*`, `[^.]+`)
				if prefix, ok := strings.CutSuffix(quoted, ">"); ok {
					quoted = prefix + `[^.]+(\.[^.]*)*`
				}
				want = want || regexp.MustCompile(`^(?s:`+quoted+`)$`).MatchString(subject)
			}
		}
		require.Equal(t, want, rule.Allows(subject))
	})
}

func FuzzResultRoundTrip(f *testing.F) {
	f.Add([]byte(hostileBody), []byte(`{"a":1}`), "message", 0.5, int64(1767225600))
	f.Add([]byte("<html>"), []byte(nil), "\xff\u2028<&>", math.NaN(), int64(math.MaxInt64))
	f.Add([]byte(`{"a":`), []byte(`[`), "", math.Inf(-1), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, body, metadata []byte, text string, cost float64, unix int64) {
		r := &job.Result{
			ID: text, Status: job.Failed, CostUSD: &cost, FinishedAt: time.Unix(unix, unix), Metadata: metadata,
			Response: &job.Response{StatusCode: 200, Body: job.RawBody(body)},
			Error:    &job.Error{Code: text, Message: text, First: &job.Failure{Message: text}},
			Attempts: []job.Attempt{{Backend: text, StartedAt: time.Unix(unix, 0), CostUSD: &cost, Error: &text}},
		}
		data := r.Encode()
		require.True(t, json.Valid(data))
		require.True(t, utf8.Valid(data))
		back, err := job.DecodeResult(data)
		require.NoError(t, err)
		require.Equal(t, string(data), string(back.Encode()))
		require.Equal(t, string(r.Response.Body), string(back.Response.Body))
		if json.Valid(body) && utf8.Valid(body) && len(body) < 1000 {
			require.Equal(t, string(body), string(back.Response.Body), "byte for byte")
		}
		if !math.IsNaN(cost) && !math.IsInf(cost, 0) {
			require.InDelta(t, cost, *back.CostUSD, 0)
		}
		if utf8.ValidString(text) {
			require.Equal(t, text, back.Error.Message)
		}
	})
}

func FuzzDeadLetterPayload(f *testing.F) {
	for _, payload := range seedPayloads(f) {
		f.Add(payload)
	}
	for _, payload := range []string{`{"base64":"AA=="}`, ` {"base64" : 1} `, `{"base64":"","base64":""}`, `{"object":"x","bytes":1}`} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		d := &job.DeadLetter{ID: "a", Queue: "q", Job: job.RawJob(payload)}
		back, err := job.DecodeDeadLetter(d.Encode())
		require.NoError(t, err)
		got, err := back.Payload()
		require.NoError(t, err)
		require.Equal(t, string(payload), string(got))
	})
}

func FuzzReaders(f *testing.F) {
	for name := range results() {
		f.Add(golden(f, name))
	}
	for name := range events() {
		f.Add(golden(f, name))
	}
	for name := range deadLetters() {
		f.Add(golden(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := job.DecodeResult(data); err == nil {
			requireStable(t, r.Encode(), func(b []byte) ([]byte, error) { r, err := job.DecodeResult(b); return r.Encode(), err })
		}
		if e, err := job.DecodeEvent(data); err == nil {
			requireStable(t, e.Encode(), func(b []byte) ([]byte, error) { e, err := job.DecodeEvent(b); return e.Encode(), err })
		}
		if d, err := job.DecodeDeadLetter(data); err == nil {
			_, _ = d.Payload()
			requireStable(t, d.Encode(), func(b []byte) ([]byte, error) { d, err := job.DecodeDeadLetter(b); return d.Encode(), err })
		}
	})
}

// requireStable requires that what was read and written once stays as it is.
func requireStable(t *testing.T, encoded []byte, again func([]byte) ([]byte, error)) {
	t.Helper()
	got, err := again(encoded)
	require.NoError(t, err)
	require.Equal(t, string(encoded), string(got))
}
