package job

import "strings"

// The NATS headers a job message may carry.
const (
	// HeaderReplyTo names who gets the result; the payload's reply_to wins.
	HeaderReplyTo = "Nats-Reply-To"
	// HeaderTraceParent is the W3C trace context of the publisher.
	HeaderTraceParent = "traceparent"
	// HeaderRedrives counts how often a dead letter was put back.
	HeaderRedrives = "Understudy-Redrives"
	// HeaderPayload names the object that holds the payload of a job which is too
	// big for a message; the message itself is empty then.
	HeaderPayload = "Understudy-Payload"
	// HeaderOriginal names the object that holds the payload as it was published,
	// of a job that was edited as a dead letter since.
	HeaderOriginal = "Understudy-Original"
	// HeaderJobSeq on a result or dead letter is the stream sequence of the job
	// message it belongs to: it tells one life of an id from the next.
	HeaderJobSeq = "Understudy-Job-Seq"
	// HeaderAttempt on a chunk of a streamed answer is the number of the attempt
	// it belongs to: a higher one starts the answer anew.
	HeaderAttempt = "Understudy-Attempt"
)

// Header is the header of a message, keys as sent. nats.Header converts to it.
type Header map[string][]string

// Get returns the first value of key, or "".
func (h Header) Get(key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// PayloadObject names the object that holds the job's payload; empty when the
// message holds it.
func (h Header) PayloadObject() string { return h.fold(HeaderPayload) }

// fold is [Header.Get] for headers that clients write in any case.
func (h Header) fold(key string) string {
	if v := h.Get(key); v != "" {
		return v
	}
	found := ""
	for k := range h {
		if strings.EqualFold(k, key) && (found == "" || k < found) {
			found = k
		}
	}
	if found == "" {
		return ""
	}
	return h.Get(found)
}

// traceParent is the publisher's W3C trace context, or "" when there is none or
// it is malformed: a broken trace is started anew and never fails a job.
func traceParent(h Header) string {
	s := strings.TrimSpace(h.fold(HeaderTraceParent))
	const size = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(s) < size || len(s) > MaxSubject {
		return ""
	}
	version, rest := s[:2], s[size:]
	if version == "ff" || version == "00" && rest != "" || rest != "" && rest[0] != '-' {
		return ""
	}
	parts := strings.Split(s[:size], "-")
	if len(parts) != 4 || len(parts[1]) != 32 || len(parts[2]) != 16 || len(parts[3]) != 2 {
		return ""
	}
	if strings.Trim(strings.Join(parts, ""), "0123456789abcdef") != "" {
		return ""
	}
	if strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return ""
	}
	return s
}
