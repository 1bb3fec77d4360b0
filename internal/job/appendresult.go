package job

import "strconv"

// attemptRoom is what an attempt takes without its strings, in bytes, and
// resultRoom a result without its attempts too; both with room to spare.
const (
	attemptRoom = 448
	resultRoom  = 768
)

// room is about how long r is as JSON. An answer is most of it, and is not to be
// copied twice because the buffer was too small.
func (r *Result) room() int {
	n := resultRoom + len(r.ID) + len(r.CustomID) + len(r.Route) + len(r.Model) + len(r.Metadata)
	if r.Response != nil {
		n += len(r.Response.Body)
	}
	if r.Error != nil {
		n += len(r.Error.Message)
		for _, f := range []*Failure{r.Error.First, r.Error.Last} {
			if f != nil {
				n += attemptRoom + len(f.Message)
			}
		}
	}
	for i := range r.Attempts {
		n += r.Attempts[i].room()
	}
	return n
}

func (a *Attempt) room() int {
	n := attemptRoom + len(a.Backend) + len(a.Model)
	if a.Error != nil {
		n += len(*a.Error)
	}
	return n
}

func appendResult(dst []byte, r *Result) []byte {
	dst = appendText(dst, `{"id":`, r.ID)
	dst = appendText(dst, `,"custom_id":`, r.CustomID)
	dst = appendResponse(dst, `,"response":`, r.Response)
	dst = appendError(dst, `,"error":`, r.Error)
	dst = appendText(dst, `,"status":`, r.Status)
	dst = appendText(dst, `,"queue":`, r.Queue)
	dst = appendText(dst, `,"route":`, r.Route)
	dst = appendText(dst, `,"backend":`, r.Backend)
	dst = appendText(dst, `,"model":`, r.Model)
	dst = strconv.AppendBool(append(dst, `,"degraded":`...), r.Degraded)
	dst = appendUsage(dst, `,"usage":`, r.Usage)
	dst = appendFloatOrNull(dst, `,"cost_usd":`, r.CostUSD)
	dst = appendAttempts(dst, `,"attempts":`, r.Attempts)
	dst = appendInt(dst, `,"queued_ms":`, r.QueuedMS)
	dst = appendInt(dst, `,"duration_ms":`, r.DurationMS)
	dst = appendInt(dst, `,"deliveries":`, r.Deliveries)
	if r.Redrives != 0 {
		dst = appendInt(dst, `,"redrives":`, r.Redrives)
	}
	dst = appendText(dst, `,"worker":`, r.Worker)
	dst = appendTime(dst, `,"finished_at":`, r.FinishedAt)
	if len(r.Metadata) > 0 {
		dst = appendRaw(dst, `,"metadata":`, r.Metadata)
	}
	return append(dst, '}')
}

func appendResponse(dst []byte, name string, r *Response) []byte {
	if r == nil {
		return appendNull(dst, name)
	}
	dst = append(dst, name...)
	dst = appendInt(dst, `{"status_code":`, r.StatusCode)
	dst = appendText(dst, `,"request_id":`, r.RequestID)
	if r.checked.is(r.Body) {
		dst = append(append(dst, `,"body":`...), r.Body...)
	} else {
		dst = appendRaw(dst, `,"body":`, r.Body)
	}
	if r.Object != "" {
		dst = appendText(dst, `,"object":`, r.Object)
	}
	if r.Bytes != 0 {
		dst = appendInt(dst, `,"bytes":`, r.Bytes)
	}
	return append(dst, '}')
}

func appendUsage(dst []byte, name string, u *Usage) []byte {
	if u == nil {
		return appendNull(dst, name)
	}
	dst = append(dst, name...)
	dst = appendInt(dst, `{"input_tokens":`, u.InputTokens)
	dst = appendInt(dst, `,"output_tokens":`, u.OutputTokens)
	return append(dst, '}')
}

func appendError(dst []byte, name string, e *Error) []byte {
	if e == nil {
		return appendNull(dst, name)
	}
	dst = append(dst, name...)
	dst = appendText(dst, `{"code":`, e.Code)
	dst = appendText(dst, `,"message":`, e.Message)
	dst = appendFailure(dst, `,"first":`, e.First)
	dst = appendFailure(dst, `,"last":`, e.Last)
	return append(dst, '}')
}

func appendFailure(dst []byte, name string, f *Failure) []byte {
	if f == nil {
		return appendNull(dst, name)
	}
	dst = append(dst, name...)
	dst = appendText(dst, `{"backend":`, f.Backend)
	dst = appendText(dst, `,"class":`, f.Class)
	dst = appendInt(dst, `,"status":`, f.Status)
	dst = appendText(dst, `,"message":`, f.Message)
	return append(dst, '}')
}

func appendAttempts(dst []byte, name string, attempts []Attempt) []byte {
	dst = append(append(dst, name...), '[')
	for i := range attempts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendAttempt(dst, &attempts[i])
	}
	return append(dst, ']')
}

func appendAttempt(dst []byte, a *Attempt) []byte {
	dst = appendInt(dst, `{"n":`, a.N)
	dst = appendText(dst, `,"backend":`, a.Backend)
	dst = appendText(dst, `,"model":`, a.Model)
	dst = appendText(dst, `,"outcome":`, a.Outcome)
	dst = appendTextOrNull(dst, `,"class":`, a.Class)
	dst = appendInt(dst, `,"status":`, a.Status)
	dst = appendTextOrNull(dst, `,"error":`, a.Error)
	if a.Code != "" {
		dst = appendText(dst, `,"code":`, a.Code)
	}
	if a.Type != "" {
		dst = appendText(dst, `,"type":`, a.Type)
	}
	dst = appendTime(dst, `,"started_at":`, a.StartedAt)
	dst = appendInt(dst, `,"duration_ms":`, a.DurationMS)
	dst = appendIntOrNull(dst, `,"first_token_ms":`, a.FirstTokenMS)
	dst = appendIntOrNull(dst, `,"retry_after_ms":`, a.RetryAfterMS)
	dst = appendInt(dst, `,"wait_ms":`, a.WaitMS)
	dst = appendIntOrNull(dst, `,"input_tokens":`, a.InputTokens)
	dst = appendIntOrNull(dst, `,"output_tokens":`, a.OutputTokens)
	dst = appendFloatOrNull(dst, `,"cost_usd":`, a.CostUSD)
	dst = appendTextOrNull(dst, `,"next":`, a.Next)
	return append(dst, '}')
}
