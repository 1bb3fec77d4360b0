package job

import (
	"encoding/json"
	"time"
)

// Status is how a job ended. The set is closed.
type Status string

// The four ends of a job.
const (
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Expired   Status = "expired"
	Cancelled Status = "cancelled"
)

// Outcome is how one attempt ended. The set is closed.
type Outcome string

// The outcomes of an attempt. A skipped attempt made no call and costs none; an
// unknown one was started by a worker that died before it could tell.
const (
	OutcomeSucceeded Outcome = "succeeded"
	OutcomeFailed    Outcome = "failed"
	OutcomeSkipped   Outcome = "skipped"
	OutcomeUnknown   Outcome = "unknown"
)

// Next is what the worker did after an attempt. The set is closed.
type Next string

// What can follow an attempt that did not succeed.
const (
	NextFallback Next = "fallback" // another backend
	NextRetry    Next = "retry"    // the same backend again
	NextWait     Next = "wait"     // nothing can be called now: the job waits
	NextStop     Next = "stop"     // the job ends here
)

// Result is the one final result of a job: a line of an OpenAI Batch output
// file, with more fields.
type Result struct {
	ID         string          `json:"id"`
	CustomID   string          `json:"custom_id"`
	Response   *Response       `json:"response"`
	Error      *Error          `json:"error"`
	Status     Status          `json:"status"`
	Queue      string          `json:"queue"`
	Route      string          `json:"route"`
	Backend    string          `json:"backend"`
	Model      string          `json:"model"`
	Degraded   bool            `json:"degraded"`
	Usage      *Usage          `json:"usage"`
	CostUSD    *float64        `json:"cost_usd"`
	Attempts   []Attempt       `json:"attempts"`
	QueuedMS   int64           `json:"queued_ms"`
	DurationMS int64           `json:"duration_ms"`
	Deliveries int             `json:"deliveries"`
	Redrives   int             `json:"redrives,omitempty"`
	Worker     string          `json:"worker"`
	FinishedAt time.Time       `json:"finished_at"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
}

// Response is the provider's answer. Body is exactly what the provider sent
// when that was JSON, otherwise a JSON string of it.
type Response struct {
	StatusCode int             `json:"status_code"`
	RequestID  string          `json:"request_id"`
	Body       json.RawMessage `json:"body"`
	// Object names the object that holds the body where it is too big for a
	// message, and Bytes says how long it is; then Body is null. See [Inline].
	Object string `json:"object,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`

	checked checked // that Body is JSON
}

// NewResponse returns the provider's answer as it stands in a result: with the
// Body that [RawBody] makes of answer. Unlike a Response that is put together by
// hand it is known to be JSON, so that [Result.Encode] need not go over it again;
// answer must not be changed until then.
func NewResponse(statusCode int, requestID string, answer []byte) *Response {
	r := &Response{StatusCode: statusCode, RequestID: requestID, Body: RawBody(answer)}
	r.checked.set(r.Body)
	return r
}

// Usage is what the provider counted, in tokens.
type Usage struct {
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
}

// Error is why a job did not succeed. Code is the class of the failure that
// decided the job; First and Last are its first and last failed attempts, nil
// when no call was made.
type Error struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	First   *Failure `json:"first"`
	Last    *Failure `json:"last"`
}

// Failure is one failed attempt in short.
type Failure struct {
	Backend string `json:"backend"`
	Class   string `json:"class"`
	Status  int    `json:"status"`
	Message string `json:"message"`
}

// Attempt is one call of one backend, or one skip of it. A null field means
// that the worker does not know or that it does not apply.
type Attempt struct {
	// N counts the entries of a job's trail from 1.
	N       int     `json:"n"`
	Backend string  `json:"backend"`
	Model   string  `json:"model"`
	Outcome Outcome `json:"outcome"`
	// Class is the class of the failure; null when the attempt succeeded.
	Class *string `json:"class"`
	// Status is the HTTP status, 0 when there was no answer.
	Status int `json:"status"`
	// Error says what happened in words; null when the attempt succeeded.
	Error *string `json:"error"`
	// Code and Type are the provider's own words for the failure; absent where it
	// gave none.
	Code      string    `json:"code,omitempty"`
	Type      string    `json:"type,omitempty"`
	StartedAt time.Time `json:"started_at"`
	// DurationMS is the time of the call itself, without WaitMS.
	DurationMS   int64  `json:"duration_ms"`
	FirstTokenMS *int64 `json:"first_token_ms"`
	// RetryAfterMS is the provider's hint, as given.
	RetryAfterMS *int64 `json:"retry_after_ms"`
	// WaitMS is the time spent before the call on delays and limits.
	WaitMS       int64    `json:"wait_ms"`
	InputTokens  *int64   `json:"input_tokens"`
	OutputTokens *int64   `json:"output_tokens"`
	CostUSD      *float64 `json:"cost_usd"`
	// Next is what followed; null after a success and while the call runs.
	Next *Next `json:"next"`
}
