package job

import "strconv"

// eventRoom is what an event takes without its strings and data, in bytes, and
// dataRoom what the data of one does that is not about an attempt.
const (
	eventRoom = 160
	dataRoom  = 256
)

func (e *Event) room() int {
	return eventRoom + len(e.SpecVersion) + len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.DataContentType) + len(e.Data)
}

func appendEvent(dst []byte, e *Event) []byte {
	dst = appendText(dst, `{"specversion":`, e.SpecVersion)
	dst = appendText(dst, `,"id":`, e.ID)
	dst = appendText(dst, `,"source":`, e.Source)
	dst = appendText(dst, `,"type":`, e.Type)
	dst = appendText(dst, `,"subject":`, e.Subject)
	dst = appendTime(dst, `,"time":`, e.Time)
	dst = appendText(dst, `,"datacontenttype":`, e.DataContentType)
	if e.checked.is(e.Data) {
		dst = append(append(dst, `,"data":`...), e.Data...)
	} else {
		dst = appendRaw(dst, `,"data":`, e.Data)
	}
	return append(dst, '}')
}

// encodeData returns the data of an event as JSON, or nil when that is left to
// [encode]: it is of a kind that no job has in its normal course.
func encodeData(data any) []byte {
	switch data := data.(type) {
	case Attempt:
		return appendAttempt(make([]byte, 0, data.room()), &data)
	case *Attempt:
		if data != nil {
			return appendAttempt(make([]byte, 0, data.room()), data)
		}
	case Received:
		return appendReceived(make([]byte, 0, dataRoom), &data)
	case *Received:
		if data != nil {
			return appendReceived(make([]byte, 0, dataRoom), data)
		}
	case Completed:
		return appendCompleted(make([]byte, 0, dataRoom), &data)
	case *Completed:
		if data != nil {
			return appendCompleted(make([]byte, 0, dataRoom), data)
		}
	}
	return nil
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
