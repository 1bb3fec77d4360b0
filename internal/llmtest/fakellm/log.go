package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"understudy/internal/llmtest"
)

// callLog appends one JSON line per call to a file. It holds no prompt: the body
// is there as its hash. It is safe for concurrent use.
type callLog struct {
	mark string

	mu   sync.Mutex // guards all below
	file *os.File   // nil: no log
	err  error      // the first that happened
}

// entry is one line of the log.
type entry struct {
	Time       time.Time `json:"time"`
	Provider   string    `json:"provider"`
	N          int       `json:"n"`
	Endpoint   string    `json:"endpoint"`
	Model      string    `json:"model"`
	Stream     bool      `json:"stream"`
	BodySHA256 string    `json:"body_sha256"`
	BodyBytes  int       `json:"body_bytes"`
	Status     int       `json:"status"`
	Aborted    bool      `json:"aborted"`
	DurationMS int64     `json:"duration_ms"`
	Mark       string    `json:"mark,omitempty"`
}

// openLog opens the log at path for appending; an empty path means no log.
func openLog(path, mark string) (*callLog, error) {
	if path == "" {
		return &callLog{}, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &callLog{mark: mark, file: f}, nil
}

// write appends the call. An error is kept for Close.
func (l *callLog) write(provider string, c llmtest.Call) {
	if l.file == nil {
		return
	}
	sum := sha256.Sum256(c.Body)
	line, err := json.Marshal(entry{
		Time: c.Time, Provider: provider, N: c.N, Endpoint: c.Endpoint, Model: c.Model, Stream: c.Stream,
		BodySHA256: hex.EncodeToString(sum[:]), BodyBytes: len(c.Body), Status: c.Status, Aborted: c.Aborted,
		DurationMS: c.Duration.Milliseconds(), Mark: c.Header.Get(l.mark),
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if l.err == nil {
		l.err = err
	}
}

// Close returns the first error of the log's life.
func (l *callLog) Close() error {
	if l.file == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.file.Close())
}
