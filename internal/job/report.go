package job

import (
	"strconv"
	"time"
)

// reportRoom is what a report takes without its strings and data, in bytes, and
// dataRoom what the data of one does that is not about an attempt, without its names.
const (
	reportRoom = 208
	dataRoom   = 256
)

// sourcePrefix stands before a worker's name in the source of its events.
const sourcePrefix = "understudy/"

// Source is the CloudEvents source of the events that worker sends.
func Source(worker string) string { return sourcePrefix + worker }

// Report is an event that is only to be sent: what [NewEvent] is told, but for the
// data. Its methods return what [Event.Encode] would of it, with an id of its own, and
// take memory once for that: a job has four of them.
type Report struct {
	// Worker is the name of who sends it.
	Worker string
	Type   EventType
	// Subject is a job's id.
	Subject string
	Time    time.Time
}

// EncodedEvent is an event as it is sent.
type EncodedEvent struct {
	Type EventType
	// Text is the event as JSON.
	Text []byte
}

// Encoded returns e as it is sent.
func (e *Event) Encoded() EncodedEvent { return EncodedEvent{Type: e.Type, Text: e.Encode()} }

// Attempt returns the report of an attempt.
func (r Report) Attempt(a *Attempt) EncodedEvent {
	return EncodedEvent{r.Type, append(appendAttempt(r.head(a.room()), a), '}')}
}

// Received returns the report that a worker has taken a job.
func (r Report) Received(d *Received) EncodedEvent {
	return EncodedEvent{r.Type, append(appendReceived(r.head(dataRoom+len(d.Queue)), d), '}')}
}

// Completed returns the report that a job has its result.
func (r Report) Completed(c *Completed) EncodedEvent {
	return EncodedEvent{r.Type, append(appendCompleted(r.head(dataRoom+len(c.Queue)+len(c.Route)+len(c.Backend)), c), '}')}
}

// Data returns the report of anything that an [Event] holds.
func (r Report) Data(data any) EncodedEvent {
	return NewEvent(r.Worker, r.Type, r.Subject, r.Time, data).Encoded()
}

// head returns the event up to its data, with room for that.
func (r Report) head(room int) []byte {
	dst := make([]byte, 0, reportRoom+len(r.Worker)+len(r.Type)+len(r.Subject)+room)
	dst = appendID(append(dst, `{"specversion":"1.0","id":"`...))
	dst = appendRest(append(dst, `","source":"`+sourcePrefix...), r.Worker)
	dst = appendText(dst, `,"type":`, r.Type)
	dst = appendText(dst, `,"subject":`, r.Subject)
	dst = appendTime(dst, `,"time":`, r.Time)
	return append(dst, `,"datacontenttype":"application/json","data":`...)
}

func appendReceived(dst []byte, r *Received) []byte {
	dst = appendText(dst, `{"queue":`, r.Queue)
	dst = appendInt(dst, `,"delivery":`, r.Delivery)
	dst = appendInt(dst, `,"redrives":`, r.Redrives)
	dst = strconv.AppendUint(append(dst, `,"job_seq":`...), r.JobSeq, 10)
	return append(dst, '}')
}

func appendCompleted(dst []byte, c *Completed) []byte {
	dst = appendText(dst, `{"queue":`, c.Queue)
	dst = appendText(dst, `,"status":`, c.Status)
	dst = appendText(dst, `,"route":`, c.Route)
	dst = appendText(dst, `,"backend":`, c.Backend)
	dst = appendTextOrNull(dst, `,"class":`, c.Class)
	dst = strconv.AppendBool(append(dst, `,"degraded":`...), c.Degraded)
	dst = appendInt(dst, `,"attempts":`, c.Attempts)
	dst = appendInt(dst, `,"duration_ms":`, c.DurationMS)
	dst = appendFloatOrNull(dst, `,"cost_usd":`, c.CostUSD)
	return append(dst, '}')
}
