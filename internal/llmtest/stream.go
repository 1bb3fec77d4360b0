package llmtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// stream writes an answer as server-sent events.
func (x *exchange) stream(r Reply) {
	x.header(r, "text/event-stream; charset=utf-8", -1)
	x.check(x.rc.Flush())
	if r.Fault == Silence {
		x.hang()
	}
	x.wait(r.BodyDelay)
	x.firstDelay(r.Stream)

	text := textFor(x.call, r)
	tokens := tokensOf(text + strings.Repeat("a", max(0, r.Size-len(text))))
	all := len(tokens)
	if r.Stream.End != EndDone && r.Stream.After > 0 {
		tokens = tokens[:min(all, r.Stream.After)]
	}
	half := r.Fault == ResetBody || r.Fault == CutLength || r.Fault == CutChunked
	if half {
		tokens = tokens[:all/2]
	}
	for i, token := range tokens {
		if i > 0 {
			x.wait(r.Stream.TokenDelay)
		}
		x.event("", x.chunk(token, i == 0, nil))
	}
	switch {
	case r.Fault == ResetBody:
		x.reset()
	case half:
		x.cut()
	}
	x.end(r, text)
	if r.Fault == CutAfter {
		x.cut()
	}
}

// firstDelay waits for the first token, with keep-alive comments on the way.
func (x *exchange) firstDelay(s Stream) {
	for range s.Comments {
		_, err := x.w.Write([]byte(": PROCESSING\n\n"))
		x.check(err)
		x.check(x.rc.Flush())
		x.wait(s.FirstDelay / time.Duration(s.Comments))
	}
	if s.Comments == 0 {
		x.wait(s.FirstDelay)
	}
}

// end ends the stream as the reply says.
func (x *exchange) end(r Reply, text string) {
	broken := Reply{Code: cmp.Or(r.Code, "502"), Type: r.Type}
	switch r.Stream.End {
	case EndDone, EndNoDone:
		x.event("", x.chunk("", false, cmp.Or(r.Finish, "stop")))
		if requestOf(x.call).StreamOptions.IncludeUsage {
			usage := x.frame()
			usage["choices"], usage["usage"] = []object{}, usageOf(x.call, text)
			x.event("", usage)
		}
		if r.Stream.End == EndDone {
			_, err := x.w.Write([]byte("data: [DONE]\n\n"))
			x.check(err)
		}
	case EndClose:
	case EndCut:
		x.cut()
	case EndReset:
		x.reset()
	case EndSilence:
		x.hang()
	case EndErrorChunk:
		chunk := x.chunk("", false, "error")
		chunk["error"] = errorDocument(broken, "Provider disconnected unexpectedly")["error"]
		x.event("", chunk)
	case EndErrorEvent:
		doc := errorDocument(broken, "Overloaded")
		doc["type"] = "error"
		x.event("error", doc)
	default:
		x.event("error", errorDocument(broken, fmt.Sprintf("the script names an unknown stream end %q", r.Stream.End)))
	}
}

// frame is what every chunk of the stream has.
func (x *exchange) frame() object {
	kind, id := "chat.completion.chunk", "chatcmpl"
	if x.call.Endpoint == Completions {
		kind, id = "text_completion", "cmpl"
	}
	return object{"id": fmt.Sprintf("%s-%d", id, x.call.N), "object": kind, "created": created, "model": x.call.Model}
}

// chunk is one chunk with a token; finish is nil on all but the last.
func (x *exchange) chunk(token string, first bool, finish any) object {
	choice := object{"index": 0, "finish_reason": finish}
	delta := object{}
	if first {
		delta["role"] = "assistant"
	}
	if token != "" || first {
		delta["content"] = token
	}
	if x.call.Endpoint == Completions {
		choice["text"] = token
	} else {
		choice["delta"] = delta
	}
	frame := x.frame()
	frame["choices"] = []object{choice}
	return frame
}

// event sends one server-sent event at once.
func (x *exchange) event(name string, data object) {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(http.ErrAbortHandler) // strings and numbers always encode
	}
	if name != "" {
		name = "event: " + name + "\n"
	}
	_, err = fmt.Fprintf(x.w, "%sdata: %s\n\n", name, raw)
	x.check(err)
	x.check(x.rc.Flush())
}
