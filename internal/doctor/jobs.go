package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// How old the oldest job of a queue may be.
const (
	oldJob     = 10 * time.Minute // a note
	veryOldJob = time.Hour        // a warning
)

// maxQueues is how many queues are looked at one by one: anybody who publishes
// can invent one.
const maxQueues = 200

// lookAtJobs looks at the addresses and the age of the queued jobs.
func (e *examination) lookAtJobs(ctx context.Context) {
	if e.waiting() == 0 {
		return
	}
	s := e.Layout.Subjects
	bad, sample := 0, ""
	for subject, err := range sorted(ctx, e.door.list(s.JobsStream(), s.All("jobs"))) {
		if err != nil {
			e.unseen("the jobs' addresses", s.JobsStream(), err)
			break
		}
		_, name, _, err := s.Parse(subject)
		switch {
		case err == nil:
			e.counts[name]++
		case bad == 0:
			sample = fmt.Sprintf("%q: %v", strings.TrimPrefix(subject, s.All("jobs")[:len(s.All("jobs"))-1]), err)
			fallthrough
		default:
			bad++
		}
	}
	if bad > 0 {
		e.add(Finding{
			Level: Problem, Check: "queue.address", Where: s.JobsStream(),
			What: fmt.Sprintf("%s at an address that cannot be one, such as %s", several(bad, "job"), sample),
			Mend: "publish under a valid queue and id; nats stream purge " + s.JobsStream() + " --subject=… removes it",
		})
	}
	names := slices.Sorted(maps.Keys(e.counts))
	if more := len(names) - maxQueues; more > 0 {
		names = names[:maxQueues]
		e.add(Finding{Level: Warning, Check: "queue.unserved", Where: "queues", What: fmt.Sprintf("jobs are in %d queues; %d of them were not looked at", maxQueues+more, more)})
	}
	for _, name := range names {
		e.lookAtQueue(ctx, name)
	}
}

// lookAtQueue looks at the jobs of one queue.
func (e *examination) lookAtQueue(ctx context.Context, name string) {
	s := e.Layout.Subjects
	var since time.Time
	oldest, err := e.door.get(ctx, s.JobsStream(), question{Seq: 1, NextFor: s.Queue(name)})
	switch {
	case err != nil:
		e.unseen("the age of the oldest job", "queue "+name, err)
	case oldest != nil:
		since = oldest.time
	}
	n := several(e.counts[name], "job")
	if e.listed && !e.consumed(name) {
		f := Finding{
			Level: Problem, Check: "queue.unserved", Where: "queue " + name, What: n + " that no consumer takes",
			Mend: "start a worker with " + name + " in its WORKER_QUEUES; one that serves it already makes the consumer by itself; submit reconcile lists the jobs",
		}
		if !since.IsZero() {
			f.What += ", the oldest since " + e.ago(since)
		}
		e.add(f)
		return
	}
	if since.IsZero() {
		return
	}
	f := Finding{Level: OK, Check: "queue.age", Where: "queue " + name, What: fmt.Sprintf("%s, the oldest since %s", n, e.ago(since))}
	switch age := e.Now().Sub(since); {
	case age >= veryOldJob:
		f.Level, f.Mend = Warning, "submit reconcile -queue "+name+" tells what it waits for"
	case age >= oldJob:
		f.Level, f.Mend = Note, "submit reconcile -queue "+name+" tells what it waits for"
	}
	e.add(f)
}

// eventsBehind is how much older than the newest result the newest event may be.
const eventsBehind = time.Minute

// lookAtEvents compares the events with the results.
func (e *examination) lookAtEvents(context.Context) {
	s := e.Layout.Subjects
	results, events := e.streams[s.ResultsStream()], e.streams[s.EventsStream()]
	if results == nil || events == nil {
		return
	}
	if keep := events.Config.MaxAge; keep > 0 && (results.Config.MaxAge == 0 || keep < results.Config.MaxAge) {
		e.add(Finding{
			Level: Note, Check: "events.shorter", Where: s.EventsStream(),
			What: fmt.Sprintf("events are kept for %s, results for %s: the story of older results is gone", keep, kept(results.Config.MaxAge.String())),
			Mend: fmt.Sprintf("nats stream edit %s --max-age=%s, and WORKER_EVENTS_MAX_AGE", s.EventsStream(), results.Config.MaxAge),
		})
	}
	if results.State.Msgs > 0 && results.State.LastTime.Sub(events.State.LastTime) > eventsBehind {
		e.add(Finding{
			Level: Warning, Check: "events.missing", Where: s.EventsStream(),
			What: "results are stored and events are not: the newest event is older than the newest result",
			Mend: "see the metric understudy_events_dropped_total and the workers' permission to publish " + s.All("events"),
		})
	}
}

// noSuchStream is the name that no stream has: a message that expects it is
// refused by every stream.
const noSuchStream = "understudy-doctor"

// notMatching is the server's code for a message that expects another stream.
const notMatching jetstream.ErrorCode = 10060

// tryToPublish finds out whether this user may publish jobs, by a message that
// the stream must refuse.
func (e *examination) tryToPublish(ctx context.Context) {
	s := e.Layout.Subjects
	if e.jobs() == nil {
		return
	}
	msg := nats.NewMsg(s.Job(job.DefaultQueue, noSuchStream))
	msg.Header.Set(jetstream.ExpectedStreamHeader, noSuchStream)
	answer, err := e.door.request(ctx, msg)
	if err != nil {
		if denied, ok := asDenied(err); ok {
			e.add(Finding{
				Level: Note, Check: "permission.denied", Where: "jobs",
				What: fmt.Sprintf("%v: it cannot submit jobs", denied), Mend: fmt.Sprintf("allow this user to publish %q", s.All("jobs")),
			})
			return
		}
		e.unseen("the permission to publish jobs", "jobs", err)
		return
	}
	var ack struct {
		Error *jetstream.APIError `json:"error"`
	}
	if json.Unmarshal(answer.Data, &ack) == nil && ack.Error != nil && ack.Error.ErrorCode == notMatching {
		e.fine("permission.publish", "jobs", "this user may publish jobs")
	}
}
