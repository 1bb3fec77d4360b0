package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// The colours of the terminal.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	reset  = "\x1b[0m"
)

// screen writes whole lines to stdout, in colours when that is a terminal.
type screen struct {
	mu    sync.Mutex // one line at a time
	color bool
	began time.Time
}

func newScreen() *screen {
	return &screen{color: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "", began: time.Now()}
}

// Write implements io.Writer: what a command prints.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.Stdout.Write(p)
}

func (s *screen) put(color, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.color {
		text = color + text + reset
	}
	fmt.Println(text)
}

// title starts a chapter.
func (s *screen) title(text string) { s.put(bold, "\n== "+text+"\n") }

// note says something about the stage.
func (s *screen) note(text string) { s.put(dim, "   "+text) }

// prompt shows a command before it runs.
func (s *screen) prompt(text string) { s.put(bold, "\n$ "+text) }

// print shows a line as it is.
func (s *screen) print(text string) { s.put("", text) }

// event shows what the worker tells, with the time since the start.
func (s *screen) event(color, text string) {
	s.put(color, fmt.Sprintf("   %5.1fs  %s", time.Since(s.began).Seconds(), text))
}
