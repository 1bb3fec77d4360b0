package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/user"
	"strconv"
	"time"

	"understudy/internal/job"
	"understudy/internal/results"
)

const (
	// auditSource stands for this command where events name their worker.
	auditSource = "submit"
	// auditTimeout is how long the stream has to take an event.
	auditTimeout = 2 * time.Second
	// maxWho is how much of a user's and of a host's name is told, in characters.
	maxWho = 64
)

// who is who runs this command, as user@host.
func who() string {
	name := "uid-" + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	return oneLine(name, maxWho) + "@" + oneLine(host, maxWho)
}

// handling is what an event tells of a letter that this command has done
// something with.
func handling(l *results.Letter) job.LetterHandled {
	return job.LetterHandled{Queue: l.Queue, By: who(), Seq: l.Seq, Reason: l.Reason, Redrives: l.Redrives}
}

// tell stores an event about a job. What is done is done: that there is no event
// of it is said, and no more.
func (a *app) tell(ctx context.Context, c *client, t job.EventType, k key, data any) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if err := c.store.Record(ctx, k.queue, job.NewEvent(auditSource, t, k.id, a.now(), data)); err != nil {
		a.note("submit: %v", err)
	}
}

// digest is the SHA-256 of a payload in hex.
func digest(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}
