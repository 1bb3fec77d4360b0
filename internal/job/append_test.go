package job_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// requireSameAsByReflection requires each message that fill has filled to be
// written by hand as it is by reflection.
func requireSameAsByReflection(t *testing.T, fill func(reflect.Value)) {
	t.Helper()
	r := new(job.Result)
	fill(reflect.ValueOf(r).Elem())
	requireBytes(t, string(job.EncodeByReflection(r)), r.Encode())
	attempt, received, completed := new(job.Attempt), new(job.Received), new(job.Completed)
	for _, data := range []any{attempt, received, completed} {
		fill(reflect.ValueOf(data).Elem())
	}
	var head job.Report
	fill(reflect.ValueOf(&head).Elem())
	requireSameReport(t, head, attempt, head.Attempt(attempt))
	requireSameReport(t, head, received, head.Received(received))
	requireSameReport(t, head, completed, head.Completed(completed))
}

// requireSameReport requires got to be the event of the same words, but for its id.
func requireSameReport(t *testing.T, head job.Report, data any, got job.EncodedEvent) {
	t.Helper()
	require.Equal(t, head.Type, got.Type)
	e := job.NewEvent(head.Worker, head.Type, head.Subject, head.Time, data)
	var own struct{ ID string }
	require.NoError(t, json.Unmarshal(got.Text, &own))
	require.Len(t, own.ID, len(e.ID))
	require.NotEqual(t, own.ID, e.ID)
	e.ID = own.ID
	requireBytes(t, string(e.Encode()), got.Text)
}

// TestEveryFieldIsWrittenByHandToo finds a field that was added to a message but
// not to the append function of that message.
func TestEveryFieldIsWrittenByHandToo(t *testing.T) {
	t.Parallel()
	n := 0
	var fill func(reflect.Value)
	fill = func(v reflect.Value) {
		n++
		switch v.Interface().(type) {
		case json.RawMessage:
			v.SetBytes([]byte(`{"a":[1]}`))
			return
		case time.Time:
			v.Set(reflect.ValueOf(at(n, n)))
			return
		}
		switch kind := v.Kind(); {
		case kind == reflect.String:
			v.SetString("text " + string(rune('a'+n%26)))
		case kind == reflect.Bool:
			v.SetBool(true)
		case v.CanInt():
			v.SetInt(int64(n))
		case v.CanUint():
			v.SetUint(uint64(n))
		case v.CanFloat():
			v.SetFloat(float64(n) + 0.5)
		case kind == reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem())
		case kind == reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0))
			fill(v.Index(1))
		case kind == reflect.Struct:
			for field, value := range v.Fields() {
				if field.IsExported() {
					fill(value)
				}
			}
		default:
			require.FailNow(t, "this test must learn to fill a "+v.Type().String())
		}
		require.False(t, v.IsZero())
	}
	requireSameAsByReflection(t, fill)
	require.Greater(t, n, 80)
}

// odd fills a message with what the fuzzer has found and with what is known to
// need care.
type odd struct {
	*rand.Rand
	text  string
	raw   []byte
	float float64
	at    time.Time
}

// pick is one of list.
func pick[T any](o odd, list ...T) T { return list[o.IntN(len(list))] }

func (o odd) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case json.RawMessage:
		v.SetBytes(pick(o, nil, []byte{}, o.raw, []byte(o.text), []byte(hostileBody), []byte(`{"a":`), []byte("\xff")))
		return
	case time.Time:
		last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
		v.Set(reflect.ValueOf(pick(o, time.Time{}, o.at, o.at.UTC(), last, last.Add(1), last.In(time.FixedZone("", -1)), time.Time{}.Add(-1), time.Unix(math.MaxInt64, 0))))
		return
	}
	switch kind := v.Kind(); {
	case kind == reflect.String:
		v.SetString(pick(o, "", "plain", o.text, string(o.raw), "1234567\"", "12345678\n", "\x7f\x00\b\f\r\t\\/<>&", "a\xff\xfe\ufffd\xc3(\u2028\u2029é\U0001f600"))
	case kind == reflect.Bool:
		v.SetBool(pick(o, true, false))
	case v.CanInt():
		v.SetInt(pick(o, 0, 1, -1, 9, 1234567, math.MinInt64, math.MaxInt64, int64(o.Uint64())))
	case v.CanUint():
		v.SetUint(pick(o, 0, 1, math.MaxUint64, o.Uint64()))
	case v.CanFloat():
		v.SetFloat(pick(o, 0, math.Copysign(0, -1), 0.00031, 1e-6, 9.9e-7, 1e-10, -1e-300, 1e21, 9.9e20, math.NaN(), math.Inf(-1), o.float, math.Float64frombits(o.Uint64())))
	case kind == reflect.Pointer && pick(o, true, true, false):
		v.Set(reflect.New(v.Type().Elem()))
		o.fill(v.Elem())
	case kind == reflect.Slice && pick(o, true, true, false):
		n := o.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			o.fill(v.Index(i))
		}
	case kind == reflect.Struct:
		for field, value := range v.Fields() {
			if field.IsExported() {
				o.fill(value)
			}
		}
	}
}

func FuzzAppend(f *testing.F) {
	for i, text := range []string{"", "text", "\"\\\n", "\xff\xfe", "caf\u00e9 \u2028", `{"a" : "<&>"}`, `{"cut":`, "\xed\xa0\x80"} {
		for seed := range uint64(64) {
			f.Add(seed, text, []byte(text), 0.1*float64(i), int64(seed)*40_000_000_000-9e11, int64(999_999*i), 3600*i)
		}
	}
	f.Fuzz(func(t *testing.T, seed uint64, text string, raw []byte, float float64, sec, nsec int64, zone int) {
		moment := time.Unix(sec, nsec%1e9).In(time.FixedZone("", zone%86400))
		o := odd{rand.New(rand.NewPCG(seed, 0)), text, raw, float, moment}
		requireSameAsByReflection(t, o.fill)
		r := job.Result{Response: job.NewResponse(200, text, raw)}
		requireBytes(t, string(job.EncodeByReflection(r)), r.Encode())
	})
}

func TestAMessageThatIsNotThereIsNull(t *testing.T) {
	t.Parallel()
	requireBytes(t, "null", (*job.Result)(nil).Encode())
	requireBytes(t, "null", (*job.Event)(nil).Encode())
	for _, data := range []any{nil, (*job.Attempt)(nil), (*job.Received)(nil), (*job.Completed)(nil)} {
		requireBytes(t, "null", job.NewEvent("w", job.EventReceived, "a", time.Time{}, data).Data)
	}
}

// TestOnlyWhatWasCheckedIsTakenAsJSON changes what a constructor has checked, in
// every way that leaves the bytes themselves alone.
func TestOnlyWhatWasCheckedIsTakenAsJSON(t *testing.T) {
	t.Parallel()
	const answer, cut = `{"a":[1]}`, `{"a":[1]`
	for name, change := range map[string]func(*json.RawMessage){
		"another of the same length": func(raw *json.RawMessage) { *raw = append(json.RawMessage(cut), '<') },
		"a part of it":               func(raw *json.RawMessage) { *raw = (*raw)[:len(cut)] },
		"its end":                    func(raw *json.RawMessage) { *raw = (*raw)[1:] },
		"longer":                     func(raw *json.RawMessage) { *raw = append(*raw, '<') },
		"empty":                      func(raw *json.RawMessage) { *raw = (*raw)[:0] },
		"none":                       func(raw *json.RawMessage) { *raw = nil },
		"the same":                   func(*json.RawMessage) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &job.Result{Response: job.NewResponse(200, "", []byte(answer))}
			change(&r.Response.Body)
			requireBytes(t, string(job.EncodeByReflection(r)), r.Encode())
			require.True(t, json.Valid(r.Encode()))
			copied := *r.Response
			copied.Body = json.RawMessage("<html>")
			requireBytes(t, string(job.EncodeByReflection(&job.Result{Response: &copied})), (&job.Result{Response: &copied}).Encode())
		})
	}
	response := job.NewResponse(502, "x", []byte("<html>"))
	requireBytes(t, `"<html>"`, response.Body)
	require.Equal(t, 502, response.StatusCode)
	require.Equal(t, "x", response.RequestID)
}
