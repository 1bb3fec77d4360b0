package job

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// roomAhead is what a message without a long body takes, in bytes.
const roomAhead = 1 << 10

// timeLayout is RFC 3339 in UTC with milliseconds, always three digits.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Encode returns r as JSON without any space of its own. The body of the response
// and the metadata are in it byte for byte, with the spaces and newlines they have.
func (r *Result) Encode() []byte {
	if r == nil {
		return []byte("null")
	}
	return appendResult(make([]byte, 0, r.room()), r)
}

// Encode returns e as JSON.
func (e *Event) Encode() []byte { return encode(e) }

// Encode returns d as JSON with Job in it byte for byte; a Job that
// is no JSON is wrapped as [RawJob] does.
func (d *DeadLetter) Encode() []byte {
	if wellFormed(d.Job) {
		return encode(d)
	}
	wrapped := *d
	wrapped.Job = RawJob(d.Job)
	return encode(&wrapped)
}

// Encode returns r as JSON.
func (r Receipt) Encode() []byte { return encode(r) }

// encode writes v as encoding/json would, but for what the wire contract asks
// beyond that: raw JSON stays byte for byte where encoding/json compacts it and
// escapes its < > &; times have milliseconds; a nil slice is [] and a nil map
// {}; and it cannot fail, because a result that cannot be stored would be lost.
// So raw bytes that are no JSON become a string of it, and a number that JSON
// cannot hold becomes null. Types of this package only: no cycles, no embedding.
//
// It is for messages that are rare. What every job has is written by the append
// functions, which know each field and must write what encode would.
func encode(v any) []byte {
	e := new(encoder)
	e.buf.Grow(roomAhead)
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	e.value(reflect.ValueOf(v))
	return e.buf.Bytes()
}

type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder // writes to buf
}

func (e *encoder) value(v reflect.Value) {
	switch kind := v.Kind(); {
	case kind == reflect.Invalid, (kind == reflect.Pointer || kind == reflect.Interface) && v.IsNil():
		e.buf.WriteString("null")
	case kind == reflect.Pointer, kind == reflect.Interface:
		e.value(v.Elem())
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		e.raw(v.Bytes())
	case v.Type() == reflect.TypeFor[time.Time]():
		t, _ := reflect.TypeAssert[time.Time](v) // unlike Interface, without an allocation
		e.time(t)
	case kind == reflect.String:
		e.text(v.String())
	case kind == reflect.Bool:
		e.buf.Write(strconv.AppendBool(e.buf.AvailableBuffer(), v.Bool()))
	case v.CanInt():
		e.buf.Write(strconv.AppendInt(e.buf.AvailableBuffer(), v.Int(), 10))
	case v.CanUint():
		e.buf.Write(strconv.AppendUint(e.buf.AvailableBuffer(), v.Uint(), 10))
	case kind == reflect.Struct:
		e.object(v)
	case kind == reflect.Map:
		e.mapping(v)
	case kind == reflect.Slice:
		e.list(v)
	default:
		e.plain(v.Interface())
	}
}

// text writes a string. Most are printable ASCII and need no escape.
func (e *encoder) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			e.plain(strings.ToValidUTF8(s, "\ufffd"))
			return
		}
	}
	e.buf.WriteByte('"')
	e.buf.WriteString(s)
	e.buf.WriteByte('"')
}

// plain writes a string or a floating point number as encoding/json does.
func (e *encoder) plain(v any) {
	if err := e.json.Encode(v); err != nil { // NaN or infinite; then nothing was written
		e.buf.WriteString("null")
		return
	}
	e.buf.Truncate(e.buf.Len() - 1) // the newline
}

func (e *encoder) raw(text []byte) {
	if len(text) == 0 {
		e.buf.WriteString("null")
		return
	}
	e.buf.Write(RawBody(text))
}

func (e *encoder) time(t time.Time) {
	quoted := writable(t).UTC().AppendFormat(append(e.buf.AvailableBuffer(), '"'), timeLayout)
	e.buf.Write(append(quoted, '"'))
}

// writable is t, or the nearest time to it that RFC 3339 can hold.
func writable(t time.Time) time.Time {
	const endOf9999 = 253402300799
	if first := (time.Time{}); t.Before(first) {
		return first
	}
	if last := time.Unix(endOf9999, 999e6); t.After(last) {
		return last
	}
	return t
}

func (e *encoder) object(v reflect.Value) {
	e.buf.WriteByte('{')
	comma := false
	for field, value := range v.Fields() {
		if !field.IsExported() {
			continue
		}
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if option == "omitempty" && empty(value) {
			continue
		}
		if comma {
			e.buf.WriteByte(',')
		}
		comma = true
		e.buf.WriteByte('"')
		e.buf.WriteString(name) // ours: nothing in it needs an escape
		e.buf.WriteString(`":`)
		e.value(value)
	}
	e.buf.WriteByte('}')
}

func (e *encoder) mapping(v reflect.Value) {
	e.buf.WriteByte('{')
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for i, key := range keys {
		if i > 0 {
			e.buf.WriteByte(',')
		}
		e.plain(key.String())
		e.buf.WriteByte(':')
		e.value(v.MapIndex(key))
	}
	e.buf.WriteByte('}')
}

func (e *encoder) list(v reflect.Value) {
	e.buf.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			e.buf.WriteByte(',')
		}
		e.value(v.Index(i))
	}
	e.buf.WriteByte(']')
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	if kind := v.Kind(); kind == reflect.Slice || kind == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}
