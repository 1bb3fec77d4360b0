package soak

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Message is a stored message of a stream.
type Message struct {
	// Subject is llm.<kind>.<queue>.<id>.
	Subject string
	// Seq is its sequence in the stream, Time when the stream stored it.
	Seq  uint64
	Time time.Time
	// JobSeq is the sequence of the job message a result or a dead letter belongs
	// to; 0 when it does not say.
	JobSeq uint64
	// Data is the payload.
	Data []byte
}

// Evidence is what a run left behind.
type Evidence struct {
	// Accepted is the last sequence of the jobs stream: that many jobs were
	// accepted, numbered from 1. Their ids must all differ.
	Accepted uint64
	// Jobs are the messages still in the jobs stream.
	Jobs []Message
	// Results, Events and Dead are the other streams, oldest first.
	Results, Events, Dead []Message
	// ResultsEnd is the last sequence of the results stream.
	ResultsEnd uint64
	// Calls are the provider's calls.
	Calls []Call
	// Amnesia are the times in which the server may have forgotten what it had
	// handed out: its consumer was deleted, or it was killed before it had written
	// down whom it gave a job. Such a job is handed out anew, as if for the first
	// time, while the first worker runs it.
	Amnesia []Span
}

// Span is a stretch of time.
type Span struct{ From, To time.Time }

// Call is a line of a provider's log.
type Call struct {
	// Time is when the request had arrived.
	Time time.Time `json:"time"`
	// Job is the id the request carried.
	Job string `json:"job"`
	// Provider is the provider's name.
	Provider string `json:"provider"`
	// Status is the HTTP status sent, 0 for none.
	Status int `json:"status"`
	// Aborted tells that the client went before it had everything.
	Aborted bool `json:"aborted"`
	// Whole tells that a 200 was meant to be a good answer.
	Whole bool `json:"whole"`
}

// answered tells that the provider gave what it is paid for.
func (c *Call) answered() bool { return c.Whole && c.Status == 200 && !c.Aborted }

// maxLine bounds a line of a call log, in bytes.
const maxLine = 1 << 20

// ReadCalls reads a log of one JSON object on each line.
func ReadCalls(r io.Reader) ([]Call, error) {
	var calls []Call
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		var c Call
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return nil, fmt.Errorf("call log, line %d: %w", n, err)
		}
		calls = append(calls, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("call log: %w", err)
	}
	return calls, nil
}
