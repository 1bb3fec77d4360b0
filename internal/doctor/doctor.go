package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/queue"
)

// defaultPause is the time between two looks at a queue that seems to stand still.
const defaultPause = 3 * time.Second

// Config is what [Examine] looks at.
type Config struct {
	// Conn is the connection. Its error handler is replaced while Examine runs.
	Conn *nats.Conn
	// Layout says how the streams and consumers should be.
	Layout queue.Layout
	// Pause is the time between two looks at a queue that seems to stand still; 0
	// means 3 s. Nothing is waited for where nothing seems to.
	Pause time.Duration
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Examine looks at the server, the streams, the consumers, the jobs, the dead
// letters and the workers, and returns what it found in the order in which it
// looked. What this user may not see is itself a finding. It changes nothing. It
// takes as long as the server takes to answer about thirty requests, one more for
// every 100,000 jobs, and [Config.Pause] where a queue stands still.
//
// It returns an error, with what it has until then, only when ctx ends or the
// connection is lost.
func Examine(ctx context.Context, cfg Config) ([]Finding, error) {
	cfg.Pause = cmp.Or(cfg.Pause, defaultPause)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &examination{
		Config: cfg, door: openDoor(cfg.Conn), streams: make(map[string]*jetstream.StreamInfo),
		denied: make(map[DeniedError]bool), counts: make(map[string]int),
	}
	defer e.door.close()
	for _, look := range []func(context.Context){
		e.lookAtServer, e.lookAtAccount, e.lookAtStreams, e.lookAtWorkers, e.lookAtConsumers, e.lookAtJobs,
		e.lookAtEvents, e.lookAtLetters, e.lookAtPayloads, e.tryToPublish,
	} {
		look(ctx)
		if err := e.lost(ctx); err != nil {
			return e.findings, err
		}
	}
	return e.findings, nil
}

// examination is one run of [Examine].
type examination struct {
	Config
	door     *door
	findings []Finding
	denied   map[DeniedError]bool // told already
	off      bool                 // there is no JetStream

	streams   map[string]*jetstream.StreamInfo // by name; those that could be read
	consumers []*jetstream.ConsumerInfo
	// listed tells that consumers holds all of them.
	listed bool
	fleet  []member
	// heard tells that the workers could be asked.
	heard bool
	// counts are the jobs in the stream by queue.
	counts map[string]int
	// asides are the objects that dead letters name.
	asides map[string]bool
}

// lost is why the examination cannot go on.
func (e *examination) lost(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !e.Conn.IsConnected():
		return fmt.Errorf("the connection to NATS is lost: %w", cmp.Or(e.Conn.LastError(), nats.ErrConnectionClosed))
	}
	return nil
}

func (e *examination) add(f Finding) { e.findings = append(e.findings, f) }

// fine notes that something is as it should be.
func (e *examination) fine(check, where, format string, args ...any) {
	e.add(Finding{Level: OK, Check: check, Where: where, What: fmt.Sprintf(format, args...)})
}

// unseen notes that something could not be looked at.
func (e *examination) unseen(check, where string, err error) {
	denied, ok := errors.AsType[*DeniedError](err)
	if !ok {
		e.add(Finding{Level: Warning, Check: "check.failed", Where: where, What: fmt.Sprintf("%s could not be looked at: %s", check, plain(err))})
		return
	}
	if e.denied[*denied] {
		return
	}
	e.denied[*denied] = true
	e.add(Finding{
		Level: Warning, Check: "permission.denied", Where: where,
		What: fmt.Sprintf("%v: %s was not looked at", denied, check),
		Mend: fmt.Sprintf("allow this user to %s %q", denied.Verb, denied.Subject),
	})
}

// plain is an error in one line.
func plain(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// jobs is what is known of the jobs stream; nil when it is missing or unread.
func (e *examination) jobs() *jetstream.StreamInfo {
	return e.streams[e.Layout.Subjects.JobsStream()]
}

// waiting is how many jobs are in the stream.
func (e *examination) waiting() uint64 {
	if info := e.jobs(); info != nil {
		return info.State.Msgs
	}
	return 0
}

// ago is how long before now t was, for people.
func (e *examination) ago(t time.Time) string { return lasting(e.Now().Sub(t)) }

// lasting is a duration for people, in its largest unit: 12s, 5m, 3h, 9d.
func lasting(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// several is "1 job", "2 jobs".
func several[N int | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
