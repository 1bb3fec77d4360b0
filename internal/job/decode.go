package job

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Limits of what a job may say.
const (
	// MaxCustomID is the longest custom_id, in bytes.
	MaxCustomID = 512
	// MaxChain is how many backends a chain may name.
	MaxChain = 100
	// MaxMetadata is the longest metadata as written, in bytes.
	MaxMetadata = 16 << 10
	// MaxTimeout is the longest timeout_ms.
	MaxTimeout = 7 * 24 * time.Hour
	// MaxAhead is how far not_before may lie after the job was published.
	MaxAhead = 366 * 24 * time.Hour
)

// Decoder turns job messages into jobs. It is safe for concurrent use. The zero
// value is not valid: use [NewDecoder].
type Decoder struct {
	subjects Subjects
	allow    ReplyRule
}

// NewDecoder returns a decoder for the installation that subjects names. allow
// says to which subjects a job may have its result and events sent.
func NewDecoder(subjects Subjects, allow ReplyRule) *Decoder {
	return &Decoder{subjects: subjects, allow: allow}
}

// Decode checks the job that was published as id to queue and returns it. The
// payload is an envelope, an object with a member `body`, or a bare request
// body, an object with `messages`, `prompt` or `input`. Every error is a
// *[FieldError]. The time it takes is linear in the payload, whatever that holds.
//
// The job's Body and Metadata are parts of payload, not copies: payload must not
// be changed while the job is in use. Whether the routes, backends and classes
// that the job names exist is for the caller to check.
func (d *Decoder) Decode(queue, id string, payload []byte, h Header) (*Job, error) {
	if err := CheckQueue(queue); err != nil {
		return nil, err
	}
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := checkText("payload", payload); err != nil {
		return nil, err
	}
	whole := value{"payload", payload[skipSpace(payload, 0):]}
	if err := whole.mustBe("an object"); err != nil {
		return nil, err
	}
	j := &Job{Queue: queue, ID: id, CustomID: id, URL: URLChat, TraceParent: traceParent(h)}
	if isEnvelope(payload) {
		if err := d.envelope(j, value{"", whole.raw}); err != nil {
			return nil, err
		}
	} else {
		if err := j.bare(payload, value{"", whole.raw}); err != nil {
			return nil, err
		}
	}
	if to := h.fold(HeaderReplyTo); to != "" && j.ReplyTo == "" {
		if err := d.checkReply(HeaderReplyTo, to); err != nil {
			return nil, err
		}
		j.ReplyTo = to
	}
	return j, nil
}

// envelopeFields are the top-level fields of the envelope, in the order of the
// documentation.
func envelopeFields() []string {
	return []string{
		"custom_id", "method", "url", "body", "route", "chain", "primary", "policy",
		"timeout_ms", "not_before", "deadline", "reply_to", "events_to", "metadata",
	}
}

func (d *Decoder) envelope(j *Job, v value) error {
	var body value
	known := envelopeFields()
	err := v.object(len(known), known, func(name string, field value) error {
		switch {
		case !slices.Contains(known, name):
			return unknownField(name, field)
		case field.null():
			return nil
		case name == "body":
			body = field
			return nil
		}
		return d.field(j, name, field)
	})
	switch {
	case err != nil:
		return err
	case body.raw == nil:
		return invalid("body", "is required")
	}
	return j.readBody(body)
}

func unknownField(name string, field value) error {
	if name == "id" || name == "queue" {
		return invalid(field.path, "belongs into a request to an endpoint; a job in a stream has it in its subject")
	}
	return invalid(field.path, "is no field of a job; there are: %s", strings.Join(envelopeFields(), ", "))
}

// field reads one field of the envelope, body excepted.
func (d *Decoder) field(j *Job, name string, v value) (err error) {
	switch name {
	case "custom_id":
		var s string
		if s, err = v.text(MaxCustomID); s != "" {
			j.CustomID = s
		}
	case "method":
		_, err = v.oneOf("POST")
	case "url":
		j.URL, err = v.oneOf(URLChat, URLCompletions, URLEmbeddings)
	case "route":
		j.Route, err = v.name()
	case "chain":
		j.Chain, err = v.names(MaxChain)
		if err == nil && len(j.Chain) == 0 {
			err = invalid(v.path, "is empty")
		}
	case "primary":
		j.Primary, err = v.name()
	case "policy":
		j.Policy, err = readPolicy(v)
	case "timeout_ms":
		var ms int64
		ms, err = v.integer(1, MaxTimeout.Milliseconds())
		j.Timeout = time.Duration(ms) * time.Millisecond
	case "not_before":
		j.NotBefore, err = v.time()
	case "deadline":
		j.Deadline, err = v.time()
	case "reply_to":
		j.ReplyTo, err = d.subject(v)
	case "events_to":
		j.EventsTo, err = d.subject(v)
	case "metadata":
		if err = v.mustBe("an object"); err == nil && len(v.raw) > MaxMetadata {
			err = invalid(v.path, "has %d bytes; at most %d", len(v.raw), MaxMetadata)
		}
		j.Metadata = json.RawMessage(v.raw)
	}
	return err
}

// CheckAhead returns a *[FieldError] when a job that is published at a moment is
// put off for longer than [MaxAhead].
func (j *Job) CheckAhead(published time.Time) error {
	if j.NotBefore.Sub(published) > MaxAhead {
		return invalid("not_before", "is more than %d days ahead", int(MaxAhead/(24*time.Hour)))
	}
	return nil
}

// subject reads a subject that the job may have something sent to.
func (d *Decoder) subject(v value) (string, error) {
	s, err := v.text(MaxSubject)
	if err != nil {
		return "", err
	}
	return s, d.checkReply(v.path, s)
}

// CheckReply returns a *[FieldError] unless a job may have its result sent to
// subject.
func (d *Decoder) CheckReply(subject string) error { return d.checkReply("reply subject", subject) }

func (d *Decoder) checkReply(field, subject string) error {
	if err := checkSubject(subject); err != nil {
		return invalid(field, "%v", err)
	}
	if d.subjects.Own(subject) {
		return invalid(field, "lies in the subjects of this installation, %s", d.subjects.Prefix()+".>")
	}
	if !d.allow.Allows(subject) {
		return invalid(field, "is not among the subjects that the workers may reply to")
	}
	return nil
}
