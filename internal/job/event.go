package job

import (
	"encoding/json"
	"time"
)

// EventType is the CloudEvents type of an event. The set is closed.
type EventType string

// The events of a job, of its attempts and of the breakers.
const (
	EventReceived         EventType = "understudy.job.received"
	EventWaiting          EventType = "understudy.job.waiting"
	EventCompleted        EventType = "understudy.job.completed"
	EventDeadLettered     EventType = "understudy.job.dead_lettered"
	EventAttemptStarted   EventType = "understudy.attempt.started"
	EventAttemptSucceeded EventType = "understudy.attempt.succeeded"
	EventAttemptFailed    EventType = "understudy.attempt.failed"
	EventAttemptSkipped   EventType = "understudy.attempt.skipped"
	EventAttemptUnknown   EventType = "understudy.attempt.unknown"
	EventBreakerChanged   EventType = "understudy.breaker.changed"

	// What somebody did with a dead letter.
	EventLetterRedriven EventType = "understudy.dead_letter.redriven"
	EventLetterEdited   EventType = "understudy.dead_letter.edited"
	EventLetterPurged   EventType = "understudy.dead_letter.purged"
)

// Event is a CloudEvents 1.0 event in the structured JSON form. Data is one of
// [Received], [Waiting], [Completed], [DeadLettered], [Attempt], [LetterHandled]
// or [BreakerChanged], by Type.
type Event struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            EventType       `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// NewEvent returns the event of type t that worker reports at the moment at
// about subject, a job's id or, for [EventBreakerChanged], a backend's name. data
// is the struct that belongs to t.
func NewEvent(worker string, t EventType, subject string, at time.Time, data any) *Event {
	return &Event{
		SpecVersion:     "1.0",
		ID:              string(appendID(nil)),
		Source:          Source(worker),
		Type:            t,
		Subject:         subject,
		Time:            at,
		DataContentType: "application/json",
		Data:            encode(data),
	}
}

// Received says that a worker has taken the job.
type Received struct {
	Queue string `json:"queue"`
	// Delivery counts from 1; more than 1 means the job was handed out before.
	Delivery int `json:"delivery"`
	Redrives int `json:"redrives"`
	// JobSeq is the job's sequence in the jobs stream: it tells one life of an
	// id from the next.
	JobSeq uint64 `json:"job_seq"`
}

// Waiting says that the job left its worker and comes back by itself. Its
// trail travels with it, so that whoever takes it next goes on from there.
type Waiting struct {
	Queue string `json:"queue"`
	// Why is in words; Until is the earliest moment at which the job goes on.
	Why      string    `json:"why"`
	Until    time.Time `json:"until"`
	Delivery int       `json:"delivery"`
	JobSeq   uint64    `json:"job_seq"`
	// StartedAt is when the job was first taken: its time budget runs from there.
	StartedAt time.Time `json:"started_at"`
	Attempts  []Attempt `json:"attempts"`
	// Crashes counts the workers that died with the job or lost it until now.
	Crashes int `json:"crashes,omitempty"`
}

// Completed says that the result is stored.
type Completed struct {
	Queue      string   `json:"queue"`
	Status     Status   `json:"status"`
	Route      string   `json:"route"`
	Backend    string   `json:"backend"`
	Class      *string  `json:"class"`
	Degraded   bool     `json:"degraded"`
	Attempts   int      `json:"attempts"`
	DurationMS int64    `json:"duration_ms"`
	CostUSD    *float64 `json:"cost_usd"`
}

// DeadLettered says that the dead letter is stored.
type DeadLettered struct {
	Queue    string `json:"queue"`
	Reason   string `json:"reason"`
	Redrives int    `json:"redrives"`
}

// LetterHandled says what somebody did with a dead letter, and which one it was
// before. It holds no payload.
type LetterHandled struct {
	Queue string `json:"queue"`
	// By is who did it, as user@host of the machine it was done on.
	By string `json:"by"`
	// Seq is the letter's sequence in the stream of dead letters.
	Seq      uint64 `json:"seq"`
	Reason   string `json:"reason"`
	Redrives int    `json:"redrives"`
	// OldSHA256 and NewSHA256 are the payloads before and after an edit, hashed
	// and in hex; empty otherwise.
	OldSHA256 string `json:"old_sha256,omitempty"`
	NewSHA256 string `json:"new_sha256,omitempty"`
}

// BreakerChanged says that one worker's breaker changed its state.
type BreakerChanged struct {
	Backend string `json:"backend"`
	From    string `json:"from"`
	To      string `json:"to"`
	// Class is the class of the failure that opened it; empty otherwise.
	Class string `json:"class,omitempty"`
	// ForMS is how long it stays open, as a duration because clocks differ.
	ForMS int64 `json:"for_ms,omitempty"`
}

// DeadLetter is a job that failed everywhere, with all that is needed to
// understand it and to run it again.
type DeadLetter struct {
	ID     string `json:"id"`
	Queue  string `json:"queue"`
	Reason string `json:"reason"`
	Error  *Error `json:"error"`
	// Job is the payload as published: raw JSON, or {"base64": "…"} when it is none.
	Job        json.RawMessage     `json:"job"`
	Headers    map[string][]string `json:"headers"`
	Attempts   []Attempt           `json:"attempts"`
	FirstError *Failure            `json:"first_error"`
	LastError  *Failure            `json:"last_error"`
	Deliveries int                 `json:"deliveries"`
	Redrives   int                 `json:"redrives"`
	Worker     string              `json:"worker"`
	Time       time.Time           `json:"time"`
}
