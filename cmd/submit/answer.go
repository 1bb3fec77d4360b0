package main

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"understudy/internal/job"
)

// completion is the part of an answer, or of a chunk of one, that people read.
type completion struct {
	Choices []struct {
		Message said `json:"message"`
		Delta   said `json:"delta"`
	} `json:"choices"`
}

// said is what a model said. Content may be a string, a list of parts or null.
type said struct {
	Content   json.RawMessage `json:"content"`
	Refusal   string          `json:"refusal"`
	ToolCalls json.RawMessage `json:"tool_calls"`
}

// text is what was said in words; tool calls are their JSON. It is empty when
// nothing was.
func (s said) text() string {
	var words string
	if json.Unmarshal(s.Content, &words) == nil && words != "" {
		return words
	}
	switch {
	case s.Refusal != "":
		return s.Refusal
	case present(s.ToolCalls):
		return string(s.ToolCalls)
	case present(s.Content) && words == "" && s.Content[0] != '"':
		return string(s.Content)
	}
	return ""
}

func present(raw json.RawMessage) bool {
	text := strings.TrimSpace(string(raw))
	return text != "" && text != "null" && text != "[]"
}

// answerText is the text of an answer; the whole body when that is no chat
// completion.
func answerText(r *job.Response) string {
	if r == nil {
		return ""
	}
	var c completion
	if json.Unmarshal(r.Body, &c) != nil || len(c.Choices) == 0 {
		return string(r.Body)
	}
	return c.Choices[0].Message.text()
}

// printText prints text, with control characters only where no terminal obeys
// them. last tells that the line is to be ended.
func (a *app) printText(text string, last bool) error {
	if a.terminals.out {
		text = plain(text)
	}
	if last && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return a.print([]byte(text))
}

// live prints an answer while it comes. It is used by one goroutine.
type live struct {
	app     *app
	json    bool
	attempt int
	text    strings.Builder // of the attempt, as printed
	err     error           // the first that occurred
}

func newLive(a *app, asJSON bool) *live { return &live{app: a, json: asJSON} }

// liveChunk is a chunk of an answer as -json prints it.
type liveChunk struct {
	Attempt int             `json:"attempt"`
	Chunk   json.RawMessage `json:"chunk"`
}

// chunk prints a chunk of a streamed answer. One of an earlier attempt than the
// last is late and dropped; one of a later attempt starts the answer anew.
func (l *live) chunk(msg *nats.Msg) {
	n, err := strconv.Atoi(msg.Header.Get(job.HeaderAttempt))
	if err != nil || n < l.attempt || l.err != nil || !json.Valid(msg.Data) {
		return
	}
	if n > l.attempt {
		l.anew(n)
	}
	if l.json {
		line, err := jsonLine(liveChunk{n, msg.Data})
		if err == nil {
			err = l.app.print(line)
		}
		l.err = err
		return
	}
	var c completion
	if json.Unmarshal(msg.Data, &c) != nil || len(c.Choices) == 0 {
		return
	}
	var words string
	if json.Unmarshal(c.Choices[0].Delta.Content, &words) != nil || words == "" {
		return
	}
	l.text.WriteString(words)
	l.err = l.app.printText(words, false)
}

// anew starts the answer of attempt n.
func (l *live) anew(n int) {
	if l.attempt > 0 {
		l.endLine()
		l.app.note("submit: attempt %d failed; the answer starts anew with attempt %d", l.attempt, n)
	}
	l.attempt = n
	l.text.Reset()
}

// endLine ends a line that was begun.
func (l *live) endLine() {
	if text := l.text.String(); text != "" && !strings.HasSuffix(text, "\n") && l.err == nil {
		l.err = l.app.print([]byte("\n"))
	}
}

// finish prints what has not been printed of the whole answer.
func (l *live) finish(whole string) error {
	seen := l.text.String()
	rest, ok := strings.CutPrefix(whole, seen)
	switch {
	case l.err != nil:
		return l.err
	case ok && rest == "":
		return l.end()
	case ok:
		return l.app.printText(rest, true)
	}
	l.endLine()
	l.app.note("submit: parts of the stream were missed; this is the whole answer:")
	if l.err != nil {
		return l.err
	}
	return l.app.printText(whole, true)
}

// end ends an answer that is complete, or that never will be.
func (l *live) end() error {
	l.endLine()
	return l.err
}
