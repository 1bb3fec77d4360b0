package job

import (
	"fmt"
	"strings"
)

// Limits of the two names a publisher chooses.
const (
	// MaxToken is the longest queue name, and the longest token of an id, in bytes.
	MaxToken = 64
	// MaxIDTokens is how many dot-joined tokens an id may have; the first of
	// several is by convention the batch.
	MaxIDTokens = 4
	// MaxID is the longest id, in bytes.
	MaxID = 128
)

// DefaultPrefix is the first token of every subject unless WORKER_SUBJECT_PREFIX says otherwise.
const DefaultPrefix = "llm"

// DefaultQueue is the queue of a job that names none.
const DefaultQueue = "default"

// Subjects names every subject and stream of one installation. The zero value
// is not valid: use [NewSubjects]. A Subjects is a small value, safe to copy
// and for concurrent use.
type Subjects struct{ prefix string }

// NewSubjects returns the names that start with prefix, one token of
// A-Z a-z 0-9 _ - and at most [MaxToken] bytes.
func NewSubjects(prefix string) (Subjects, error) {
	if err := checkToken(prefix); err != nil {
		return Subjects{}, fmt.Errorf("subject prefix %q: %w", prefix, err)
	}
	return Subjects{prefix: prefix}, nil
}

// Prefix is the first token of every subject.
func (s Subjects) Prefix() string { return s.prefix }

// Job is the subject on which job id is published to queue.
func (s Subjects) Job(queue, id string) string { return s.of("jobs", queue, id) }

// Result is the subject of the job's one final result.
func (s Subjects) Result(queue, id string) string { return s.of("results", queue, id) }

// Done is the core NATS subject on which a stored result is republished.
func (s Subjects) Done(queue, id string) string { return s.of("done", queue, id) }

// Event is the subject of every event of the job, in order.
func (s Subjects) Event(queue, id string) string { return s.of("events", queue, id) }

// Dead is the subject of the job's dead letter.
func (s Subjects) Dead(queue, id string) string { return s.of("dead", queue, id) }

// Chunks is the core NATS subject of a streamed answer.
func (s Subjects) Chunks(queue, id string) string { return s.of("chunks", queue, id) }

// Breaker is the subject of the breaker events of one backend.
func (s Subjects) Breaker(backend string) string { return s.prefix + ".breakers." + backend }

// Endpoint is the subject of a request/reply endpoint such as "complete".
func (s Subjects) Endpoint(name string) string { return s.prefix + "." + name }

// All is the wildcard subject of one kind: "jobs", "results", "events", "dead",
// "done", "chunks" or "breakers".
func (s Subjects) All(kind string) string { return s.prefix + "." + kind + ".>" }

// Queue is the wildcard subject of every job of one queue.
func (s Subjects) Queue(queue string) string { return s.of("jobs", queue, ">") }

// Own reports whether subject lies in this installation's own space.
func (s Subjects) Own(subject string) bool {
	return subject == s.prefix || strings.HasPrefix(subject, s.prefix+".")
}

// JobsStream names the work queue stream.
func (s Subjects) JobsStream() string { return s.stream("JOBS") }

// ResultsStream names the stream of final results.
func (s Subjects) ResultsStream() string { return s.stream("RESULTS") }

// EventsStream names the stream of job and breaker events.
func (s Subjects) EventsStream() string { return s.stream("EVENTS") }

// DeadStream names the stream of dead letters.
func (s Subjects) DeadStream() string { return s.stream("DEAD") }

// PayloadsBucket names the object store of payloads that are too big for a message.
func (s Subjects) PayloadsBucket() string { return s.stream("PAYLOADS") }

// AnswersBucket names the object store of answers that are too big for a message.
func (s Subjects) AnswersBucket() string { return s.stream("ANSWERS") }

// Parse splits a subject such as "llm.jobs.<queue>.<id>" into its kind, queue
// and id, and checks them. It returns a *[FieldError] that names what is wrong.
func (s Subjects) Parse(subject string) (kind, queue, id string, err error) {
	rest, ok := strings.CutPrefix(subject, s.prefix+".")
	if !ok {
		return "", "", "", invalid("subject", "does not start with %q", s.prefix+".")
	}
	kind, rest, _ = strings.Cut(rest, ".")
	queue, id, _ = strings.Cut(rest, ".")
	if err := CheckQueue(queue); err != nil {
		return kind, queue, id, err
	}
	if err := CheckID(id); err != nil {
		return kind, queue, id, err
	}
	return kind, queue, id, nil
}

// CheckQueue returns a *[FieldError] unless queue is one token of at most
// [MaxToken] bytes.
func CheckQueue(queue string) error {
	if err := checkToken(queue); err != nil {
		return invalid("queue", "%v", err)
	}
	return nil
}

// CheckID returns a *[FieldError] unless id is one to [MaxIDTokens] tokens
// joined by dots, [MaxID] bytes at most.
func CheckID(id string) error {
	if len(id) > MaxID {
		return invalid("id", "has %d bytes; at most %d", len(id), MaxID)
	}
	if n := strings.Count(id, ".") + 1; n > MaxIDTokens {
		return invalid("id", "has %d tokens; at most %d", n, MaxIDTokens)
	}
	for token := range strings.SplitSeq(id, ".") {
		if err := checkToken(token); err != nil {
			return invalid("id", "%v", err)
		}
	}
	return nil
}

func (s Subjects) of(kind, queue, id string) string {
	return s.prefix + "." + kind + "." + queue + "." + id
}

func (s Subjects) stream(kind string) string { return strings.ToUpper(s.prefix) + "_" + kind }

func checkToken(token string) error {
	if token == "" {
		return fmt.Errorf("an empty token; use A-Z a-z 0-9 _ -")
	}
	if len(token) > MaxToken {
		return fmt.Errorf("a token of %d bytes; at most %d", len(token), MaxToken)
	}
	for i := range len(token) {
		c := token[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return fmt.Errorf("%q is not allowed; use A-Z a-z 0-9 _ -", c)
		}
	}
	return nil
}
