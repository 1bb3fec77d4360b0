package job

import "encoding/json"

// Refused returns as much of a job that [Decoder.Decode] refused as can be
// trusted, so that its result finds the one who asked: CustomID, ReplyTo,
// EventsTo and Metadata where they are right themselves, and the address.
func (d *Decoder) Refused(queue, id string, payload []byte, h Header) *Job {
	j := &Job{Queue: queue, ID: id, CustomID: id, URL: URLChat, TraceParent: traceParent(h)}
	fields := map[string]json.RawMessage{}
	if wellFormed(payload) && json.Unmarshal(payload, &fields) == nil && fields["body"] != nil {
		for _, name := range []string{"custom_id", "reply_to", "events_to", "metadata"} {
			trial := *j
			raw := fields[name]
			if raw == nil {
				continue
			}
			if v := (value{name, raw}); !v.null() && d.field(&trial, name, v) == nil {
				*j = trial
			}
		}
	}
	if to := h.fold(HeaderReplyTo); j.ReplyTo == "" && to != "" && d.checkReply(HeaderReplyTo, to) == nil {
		j.ReplyTo = to
	}
	return j
}
