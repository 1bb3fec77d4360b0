package job

import (
	"bytes"
	"crypto/rand"
	"slices"
)

// NewID returns a new unique id for a job that was given none: 26 characters of
// A-Z 2-7 that hold 130 random bits. It is safe for concurrent use.
func NewID() string { return string(appendID(make([]byte, 0, idLen))) }

// idLen is how many characters of 5 bits make an id that nobody can guess.
const idLen = 26

func appendID(dst []byte) []byte {
	var random [idLen]byte
	_, _ = rand.Read(random[:]) // ends the program where there is no randomness
	for _, b := range random {
		dst = append(dst, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[b%32])
	}
	return dst
}

// Receipt is what the endpoint "submit" answers: where the job's id is and where
// to look for what becomes of it.
type Receipt struct {
	ID            string `json:"id"`
	Queue         string `json:"queue"`
	ResultSubject string `json:"result_subject"`
	DoneSubject   string `json:"done_subject"`
	EventsSubject string `json:"events_subject"`
}

// Receipt returns the receipt for job id of queue.
func (s Subjects) Receipt(queue, id string) Receipt {
	return Receipt{
		ID: id, Queue: queue,
		ResultSubject: s.Result(queue, id), DoneSubject: s.Done(queue, id), EventsSubject: s.Event(queue, id),
	}
}

// TakeAddress cuts the top-level `id` and `queue`, which only a request to an
// endpoint may carry, out of an envelope. What is left in rest is the job as it
// goes into the stream, byte for byte; payload itself is not changed. The queue
// is [DefaultQueue] and the id empty when the envelope names none.
//
// A bare body may have fields of these names of its own: it is returned as it
// is, and so is what is no job at all, for the worker to refuse like any other.
// The error is a *[FieldError] about "id" or "queue".
func TakeAddress(payload []byte) (queue, id string, rest []byte, err error) {
	queue = DefaultQueue
	if !wellFormed(payload) || !isEnvelope(payload) {
		return queue, "", payload, nil
	}
	var cut address
	for m := range members(payload) {
		v := value{string(m.name), payload[m.value:m.end]}
		switch v.path {
		case "queue":
			err = cut.take(v, &queue, CheckQueue)
		case "id":
			err = cut.take(v, &id, CheckID)
		default:
			cut.keep(payload, m)
			continue
		}
		if err != nil {
			return "", "", nil, err
		}
		cut.drop(payload, m)
	}
	if len(cut.taken) == 0 {
		return queue, "", payload, nil
	}
	return queue, id, cut.finish(payload), nil
}

// isEnvelope reports whether the object text has a member `body`.
func isEnvelope(text []byte) bool {
	for w := walk(text); w.next(); w.skip() {
		if w.is("body") {
			return true
		}
	}
	return false
}

// address copies an object without some of its members. A member that is
// dropped takes the text up to the next one with it, and one at the end the
// text behind the last that was kept.
type address struct {
	taken []string
	rest  bytes.Buffer
	// copied is up to where the text is in rest or dropped; keptLen is where
	// the last kept value ends in rest.
	copied, keptLen int
	dropping        bool
}

func (a *address) take(v value, into *string, check func(string) error) error {
	if slices.Contains(a.taken, v.path) {
		return invalid(v.path, "is given twice")
	}
	a.taken = append(a.taken, v.path)
	if v.null() {
		return nil
	}
	s, err := v.text(MaxSubject)
	if err != nil {
		return err
	}
	*into = s
	return check(s)
}

// upTo copies the text before member m, unless a dropped member owns it.
func (a *address) upTo(payload []byte, m member) {
	if !a.dropping {
		a.rest.Write(payload[a.copied:m.start])
	}
	a.copied = m.start
}

func (a *address) keep(payload []byte, m member) {
	a.upTo(payload, m)
	a.rest.Write(payload[m.start:m.end])
	a.copied, a.keptLen, a.dropping = m.end, a.rest.Len(), false
}

func (a *address) drop(payload []byte, m member) {
	a.upTo(payload, m)
	a.copied, a.dropping = m.end, true
}

func (a *address) finish(payload []byte) []byte {
	if a.dropping { // the last members were dropped: so is the comma before them
		a.rest.Truncate(a.keptLen)
	}
	a.rest.Write(payload[a.copied:])
	return a.rest.Bytes()
}
