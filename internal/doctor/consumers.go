package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/queue"
)

// lookAtConsumers looks at the consumers of the jobs stream.
func (e *examination) lookAtConsumers(ctx context.Context) {
	if e.jobs() == nil {
		return
	}
	if !e.listConsumers(ctx) {
		return
	}
	stream := e.Layout.Subjects.JobsStream()
	var still []*jetstream.ConsumerInfo
	for _, c := range e.consumers {
		name, ours := queueOf(c)
		if !ours {
			e.foreign(stream, c)
			continue
		}
		e.lookAtConsumer(stream, name, c)
		if c.NumPending > 0 && c.NumWaiting == 0 && !c.Paused {
			still = append(still, c)
		}
	}
	e.overlaps(stream)
	e.missing(stream)
	if len(still) > 0 {
		e.lookAgain(ctx, stream, still)
	}
}

// queueOf is the queue whose consumer c is by its name.
func queueOf(c *jetstream.ConsumerInfo) (name string, ours bool) {
	name, ours = strings.CutPrefix(c.Name, queue.ConsumerName(""))
	return name, ours && job.CheckQueue(name) == nil
}

// listConsumers reads the consumers of the jobs stream; where they may not be
// listed, those of the queues that the workers name. It reports whether there is
// anything to look at.
func (e *examination) listConsumers(ctx context.Context) bool {
	stream := e.Layout.Subjects.JobsStream()
	var err error
	for {
		var answer struct {
			Total     int                       `json:"total"`
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
		}
		ask := map[string]int{"offset": len(e.consumers)}
		if err = e.door.api(ctx, "CONSUMER.LIST."+stream, ask, &answer); err != nil {
			break
		}
		e.consumers = append(e.consumers, answer.Consumers...)
		if len(answer.Consumers) == 0 || len(e.consumers) >= answer.Total {
			e.listed = true
			break
		}
	}
	if err != nil {
		e.unseen("the list of consumers", stream, err)
		e.consumers = nil
		for _, name := range e.queues() {
			if c := e.consumer(ctx, name); c != nil {
				e.consumers = append(e.consumers, c)
			}
		}
	}
	slices.SortFunc(e.consumers, func(a, b *jetstream.ConsumerInfo) int { return strings.Compare(a.Name, b.Name) })
	return e.listed || len(e.consumers) > 0
}

// queues are the queues that the workers name.
func (e *examination) queues() []string {
	var names []string
	for _, m := range e.fleet {
		names = append(names, m.queues...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// consumer reads one consumer; nil when it is missing or may not be read.
func (e *examination) consumer(ctx context.Context, name string) *jetstream.ConsumerInfo {
	stream := e.Layout.Subjects.JobsStream()
	var c jetstream.ConsumerInfo
	err := e.door.api(ctx, "CONSUMER.INFO."+stream+"."+queue.ConsumerName(name), nil, &c)
	switch {
	case isAPI(err, jetstream.JSErrCodeConsumerNotFound):
		return nil
	case err != nil:
		e.unseen("the consumer", stream+"/"+queue.ConsumerName(name), err)
		return nil
	}
	return &c
}

// lookAtConsumer looks at the consumer of a queue.
func (e *examination) lookAtConsumer(stream, name string, c *jetstream.ConsumerInfo) {
	where := stream + "/" + c.Name
	before := len(e.findings)
	for _, d := range e.Layout.CheckConsumer(name, c.Config) {
		e.add(e.consumerDifference(d, c))
	}
	if e.Conn.ConnectedClusterName() != "" {
		for _, f := range clusterHealth("consumer", where, c.Cluster) {
			e.add(f)
		}
	}
	if c.Paused {
		e.add(Finding{
			Level: Problem, Check: "consumer.paused", Where: where,
			What: fmt.Sprintf("is paused for another %s: its jobs do not run", lasting(c.PauseRemaining)),
			Mend: "nats consumer resume " + stream + " " + c.Name,
		})
	}
	workers, _, known := e.serving(name)
	if known && workers == 0 && len(e.fleet) > 0 {
		f := Finding{
			Level: Note, Check: "consumer.unserved", Where: where,
			What: "no worker serves queue " + name, Mend: "WORKER_QUEUES of a worker must name " + name,
		}
		if c.NumPending > 0 || c.NumAckPending > 0 {
			f.Level, f.What = Problem, fmt.Sprintf("%s, where %s wait", f.What, several(c.NumPending+uint64(max(c.NumAckPending, 0)), "job"))
		}
		e.add(f)
	}
	if c.NumRedelivered > 0 {
		e.add(Finding{
			Level: Note, Check: "consumer.redelivered", Where: where,
			What: fmt.Sprintf("%s came again: after a wait, or after a worker lost it", several(c.NumRedelivered, "job")),
			Mend: "submit reconcile -queue " + name + " tells which, and why",
		})
	}
	if len(e.findings) == before {
		e.fine("consumer.settings", where, "as it should be: %d pending, %d taken", c.NumPending, c.NumAckPending)
	}
}

// consumerDifference judges a setting of a consumer that differs.
func (e *examination) consumerDifference(d queue.Difference, c *jetstream.ConsumerInfo) Finding {
	f := Finding{
		Level: Problem, Check: "consumer.settings", Where: d.Object,
		What: fmt.Sprintf("%s is %s, wants %s", d.Setting, d.Have, d.Want),
	}
	edit := "nats consumer edit " + strings.ReplaceAll(d.Object, "/", " ") + " "
	switch d.Setting {
	case "filter_subject":
		f.What += ": jobs of the queue are not seen"
		f.Mend = edit + "--filter='" + d.Want + "'"
	case "ack_wait":
		f.Level, f.Mend = Warning, edit+"--wait="+d.Want
		f.What += ": a dead worker's jobs come back after that time"
		if least := 3 * e.Layout.Heartbeat(); c.Config.AckWait < least {
			f.Level = Problem
			f.What = fmt.Sprintf("ack_wait is %s, shorter than three heartbeats (%s): jobs are handed out while they run", d.Have, least)
		}
	case "max_deliver":
		f.What += ": a job that was handed out so often stays in the stream for ever"
		f.Mend = edit + "--max-deliver=-1"
	case "max_ack_pending":
		f.Level, f.Mend = Warning, edit+"--max-pending=-1"
		f.What += ": jobs that wait keep others from running"
		if limit := c.Config.MaxAckPending; limit > 0 && float64(c.NumAckPending) >= full*float64(limit) {
			f.Level = Problem
			f.What += fmt.Sprintf("; %d are taken now", c.NumAckPending)
		}
	case "backoff":
		f.What = fmt.Sprintf("backoff has %s: it replaces ack_wait, and jobs are handed out while they run", several(len(c.Config.BackOff), "step"))
		f.Mend = edit + "--backoff=none"
	default: // the server does not change it
		f.Mend = "nats consumer rm " + strings.ReplaceAll(d.Object, "/", " ") + ": the workers make it anew, and what runs is handed out again"
	}
	return f
}

// foreign notes a consumer that no worker made.
func (e *examination) foreign(stream string, c *jetstream.ConsumerInfo) {
	e.add(Finding{
		Level: Problem, Check: "consumer.foreign", Where: stream + "/" + c.Name,
		What: "no worker made this consumer: jobs on " + strings.Join(filters(c), ", ") + " go to it, and keep a worker from serving them",
		Mend: "nats consumer rm " + stream + " " + c.Name,
	})
}

// filters are the subjects that a consumer takes.
func filters(c *jetstream.ConsumerInfo) []string {
	switch {
	case len(c.Config.FilterSubjects) > 0:
		return c.Config.FilterSubjects
	case c.Config.FilterSubject != "":
		return []string{c.Config.FilterSubject}
	}
	return []string{">"}
}

// overlaps notes consumers that get the same jobs, which a stream with another
// retention allows.
func (e *examination) overlaps(stream string) {
	for i, a := range e.consumers {
		for _, b := range e.consumers[i+1:] {
			for _, f := range filters(a) {
				if slices.ContainsFunc(filters(b), func(g string) bool { return overlapping(f, g) }) {
					e.add(Finding{
						Level: Problem, Check: "consumer.overlap", Where: stream + "/" + a.Name,
						What: "gets jobs that " + b.Name + " gets too: they run twice",
						Mend: "nats consumer rm the one that no worker made; mend the retention of " + stream,
					})
					break
				}
			}
		}
	}
}

// overlapping reports whether a subject can match both patterns.
func overlapping(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		switch {
		case x == ">" || y == ">":
			return true
		case x != y && x != "*" && y != "*":
			return false
		case !moreA || !moreB:
			return moreA == moreB
		}
		a, b = restA, restB
	}
}

// missing notes queues that workers serve and that have no consumer.
func (e *examination) missing(stream string) {
	if !e.listed {
		return
	}
	for _, name := range e.queues() {
		if e.consumed(name) {
			continue
		}
		e.add(Finding{
			Level: Problem, Check: "consumer.missing", Where: stream + "/" + queue.ConsumerName(name),
			What: "the consumer of queue " + name + " does not exist, though a worker serves the queue",
			Mend: "the worker makes it within half a minute; if not, look at its log and restart it",
		})
	}
}

// consumed reports whether a queue has its consumer.
func (e *examination) consumed(name string) bool {
	return slices.ContainsFunc(e.consumers, func(c *jetstream.ConsumerInfo) bool { return c.Name == queue.ConsumerName(name) })
}

// lookAgain looks a second time at queues where nobody seems to ask for the jobs
// that are there.
func (e *examination) lookAgain(ctx context.Context, stream string, still []*jetstream.ConsumerInfo) {
	timer := time.NewTimer(e.Pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	for _, before := range still {
		name, _ := queueOf(before)
		now := e.consumer(ctx, name)
		if now == nil || now.NumPending == 0 || now.NumWaiting > 0 || now.Paused || now.Delivered.Consumer != before.Delivered.Consumer {
			continue
		}
		e.add(e.standstill(stream, name, now))
	}
}

// standstill judges a queue where jobs are and nobody takes them.
func (e *examination) standstill(stream, name string, c *jetstream.ConsumerInfo) Finding {
	workers, slots, known := e.serving(name)
	f := Finding{Level: Problem, Check: "consumer.stalled", Where: stream + "/" + c.Name}
	what := several(c.NumPending, "job") + " wait and nobody asks for them"
	switch {
	case workers > 0 && slots > 0 && c.NumAckPending >= slots:
		f.Level, f.Check = Note, "consumer.busy"
		f.What = fmt.Sprintf("%s wait while all %s of the workers are taken", several(c.NumPending, "job"), several(slots, "slot"))
		f.Mend = "raise WORKER_CONCURRENCY, or start more workers"
	case workers > 0:
		f.What = fmt.Sprintf("%s, though %s of the workers' %s are taken", what, several(c.NumAckPending, "slot"), several(slots, "slot"))
		f.Mend = "look at /readyz and the log of the workers, and restart the one that is not ready"
	case c.NumAckPending > 0 && !known:
		f.Level = Warning
		f.What = fmt.Sprintf("%s; %s are taken: the workers are full, or gone", what, several(c.NumAckPending, "job"))
		f.Mend = "look at /readyz of the workers"
	default:
		f.What = what
		f.Mend = "start a worker whose WORKER_QUEUES names " + name
	}
	return f
}
