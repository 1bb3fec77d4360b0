package llmtest

import (
	"net/http"
	"time"
)

// Fault is what goes wrong with the transport of a reply. The set is closed.
type Fault string

// The faults. Where one waits, it waits until the client goes or the provider
// closes, one minute at most.
const (
	// NoFault sends the reply as it is.
	NoFault Fault = ""
	// Hang sends nothing at all and waits.
	Hang Fault = "hang"
	// Silence sends the header, then nothing, and waits.
	Silence Fault = "silence"
	// Reset resets the connection (RST) before the header.
	Reset Fault = "reset"
	// ResetBody sends half the body and resets the connection.
	ResetBody Fault = "reset_body"
	// CutLength sends half the body under a Content-Length of the whole.
	CutLength Fault = "cut_length"
	// CutChunked sends half the body in chunks and closes without the last chunk.
	CutChunked Fault = "cut_chunked"
	// CutAfter sends the whole body in chunks and closes without the last chunk.
	CutAfter Fault = "cut_after"
	// Garbage sends bytes that are no HTTP.
	Garbage Fault = "garbage"
)

// Reply is what a call gets. The zero Reply is a correct 200 answer that echoes
// the prompt, streamed if the call asks for that.
type Reply struct {
	// Status is the HTTP status, 0 means 200. From 400 on the body is an error
	// in the form of the OpenAI API.
	Status int
	// Header is added to the header; Content-Type replaces the provider's own.
	Header map[string]string
	// RetryAfter is sent as it is: seconds, also with a fraction, or a date.
	RetryAfter string
	// RetryAfterDate, if not zero, is sent as the HTTP date that far from now. A
	// date has whole seconds: it may be up to one second early.
	RetryAfterDate time.Duration

	// Delay is the time before the header, BodyDelay between header and body.
	Delay, BodyDelay time.Duration
	// Until holds the header back until it is closed; nil means no wait.
	Until <-chan struct{}
	// Fault is what goes wrong on the way.
	Fault Fault

	// Text is the answer's content, or the message of an error. Empty means an
	// echo of the prompt, or the status in words.
	Text string
	// Code and Type are those of an error; empty means null.
	Code, Type string
	// Finish is the answer's finish_reason; empty means "stop".
	Finish string
	// Body, if not nil, is sent instead of an answer or error, byte for byte.
	Body []byte
	// Size pads the body to that many bytes, an answer or error inside its text
	// and a given Body with spaces at its end; 0 means no padding.
	Size int
	// Stream says how a streamed answer goes. A Reply with a Status from 400 on
	// or a Body is never streamed.
	Stream Stream
}

// StreamEnd is how a stream ends. The set is closed.
type StreamEnd string

// The ends of a stream.
const (
	// EndDone is the correct one: finish_reason, usage if asked for, [DONE].
	EndDone StreamEnd = ""
	// EndNoDone leaves out only the [DONE].
	EndNoDone StreamEnd = "no_done"
	// EndClose closes cleanly without finish_reason and [DONE].
	EndClose StreamEnd = "close"
	// EndCut closes the connection without the last chunk of HTTP.
	EndCut StreamEnd = "cut"
	// EndReset resets the connection.
	EndReset StreamEnd = "reset"
	// EndSilence sends nothing more and waits until the client goes.
	EndSilence StreamEnd = "silence"
	// EndErrorChunk sends an error as a data chunk, as OpenRouter does.
	EndErrorChunk StreamEnd = "error_chunk"
	// EndErrorEvent sends an error as an "error" event, as Anthropic does.
	EndErrorEvent StreamEnd = "error_event"
)

// Stream says how a streamed answer goes. The zero value is a correct stream
// without pauses, one token per word.
type Stream struct {
	// FirstDelay is the time between the header and the first token, TokenDelay
	// between two tokens.
	FirstDelay, TokenDelay time.Duration
	// Comments is how many keep-alive comments are spread over FirstDelay.
	Comments int
	// After is how many tokens are sent before End; 0 means all. It has no
	// effect on [EndDone].
	After int
	// End is how the stream ends.
	End StreamEnd
}

// Answer replies with that content.
func Answer(text string) Reply { return Reply{Text: text} }

// Fail replies with that status and an error of that message.
func Fail(status int, message string) Reply { return Reply{Status: status, Text: message} }

// Raw replies with those bytes, whatever they are.
func Raw(status int, contentType, body string) Reply {
	return Reply{Status: status, Body: []byte(body), Header: map[string]string{"Content-Type": contentType}}
}

// HTML replies with the error page of a proxy.
func HTML(status int) Reply {
	title := http.StatusText(status)
	return Raw(status, "text/html; charset=utf-8",
		"<html>\r\n<head><title>"+title+"</title></head>\r\n<body><center><h1>"+title+"</h1></center><hr><center>nginx</center></body>\r\n</html>\r\n")
}

// Broken replies with that fault.
func Broken(f Fault) Reply { return Reply{Fault: f} }

// Streamed replies with a stream like that when the call asks for one.
func Streamed(s Stream) Reply { return Reply{Stream: s} }
