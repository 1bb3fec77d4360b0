package doctor

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
	"understudy/internal/queue"
)

// The numbers of a reconciliation.
const (
	// leases is how many leases may pass before a job that nobody took again counts
	// as stuck.
	leases = 3
	// manyDeliveries is how often a job may be handed out before that is worth a
	// word.
	manyDeliveries = 10
	// reportEvery is after how many jobs the progress is told.
	reportEvery = 1000
)

// ReconcileConfig is what [Reconcile] goes through.
type ReconcileConfig struct {
	// Conn is the connection. Its error handler is replaced meanwhile.
	Conn *nats.Conn
	// Layout names the streams and says how long a lease is.
	Layout queue.Layout
	// Queue and Batch choose jobs; empty means all.
	Queue, Batch string
	// Progress is told now and then how many jobs were gone through; it may be nil.
	Progress func(jobs int)
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Reconcile goes through every job that the server knows, in the order of queue
// and id, and yields those without an end and those whose end does not add up.
// It lists the four streams side by side, page by page, and reads messages only
// of jobs about which the lists alone do not tell:
//
//	jobs     ─┐                 in the queue alone ────────────────────────┐
//	results  ─┼─ merge by key ─ in the queue, with events or a result ─┐   ├─ Standing
//	events   ─┤                 a result, but no dead letter ──────────┼─ read
//	dead     ─┘                 events alone ──────────────────────────┘
//
// What it then takes for lost, unburied or stuck it looks up once more, one by
// one, because jobs move while it reads. It holds at most four pages of 100,000
// subjects. After an error it ends; a *[DeniedError] names what this user may
// not read. It changes nothing.
func Reconcile(ctx context.Context, cfg ReconcileConfig) iter.Seq2[Standing, error] {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return func(yield func(Standing, error) bool) {
		d := openDoor(cfg.Conn)
		defer d.close()
		r := &reconciliation{ReconcileConfig: cfg, door: d, queues: make(map[string]service)}
		if err := r.prepare(ctx); err != nil {
			yield(Standing{}, err)
			return
		}
		r.run(ctx, yield)
	}
}

// run goes through all jobs, chunk by chunk.
func (r *reconciliation) run(ctx context.Context, yield func(Standing, error) bool) {
	var chunk []located
	seen := 0
	for l, err := range merge(r.sources(ctx)) {
		if err != nil {
			yield(Standing{}, err)
			return
		}
		seen++
		r.report(seen)
		if !r.settled(l) {
			chunk = append(chunk, l)
		}
		if len(chunk) < readSubjects {
			continue
		}
		if !r.examine(ctx, chunk, yield) {
			return
		}
		chunk = chunk[:0]
	}
	r.examine(ctx, chunk, yield)
}

// reconciliation is one run of [Reconcile].
type reconciliation struct {
	ReconcileConfig
	door *door
	// fleet are the workers; answered tells that they could be asked.
	fleet    []member
	answered bool
	queues   map[string]service // by queue, as far as asked
	keep     time.Duration      // how long results are kept; 0 is for ever
}

// service is what is known of a queue's consumer.
type service struct {
	// known is false where it may not be read.
	known, missing, paused bool
}

// prepare reads what is needed of every job.
func (r *reconciliation) prepare(ctx context.Context) error {
	var info jetstream.StreamInfo
	if err := r.door.api(ctx, "STREAM.INFO."+r.Layout.Subjects.ResultsStream(), nil, &info); err != nil {
		return err
	}
	r.keep = info.Config.MaxAge
	fleet, err := r.door.callRoll(ctx, r.Now)
	for _, m := range fleet {
		if m.prefix == r.Layout.Subjects.Prefix() {
			r.fleet = append(r.fleet, m)
		}
	}
	r.answered = err == nil
	return nil // who may not ask the workers goes by the events alone
}

func (r *reconciliation) report(seen int) {
	if r.Progress != nil && seen%reportEvery == 0 {
		r.Progress(seen)
	}
}

// sources are the four lists.
func (r *reconciliation) sources(ctx context.Context) []source {
	s := r.Layout.Subjects
	var sources []source
	for _, kind := range []struct {
		place        places
		stream, name string
	}{{inJobs, s.JobsStream(), "jobs"}, {inResults, s.ResultsStream(), "results"}, {inEvents, s.EventsStream(), "events"}, {inDead, s.DeadStream(), "dead"}} {
		prefix := s.Prefix() + "." + kind.name + "."
		pattern := prefix + cmp.Or(r.Queue, "*") + "."
		if r.Batch != "" {
			pattern += r.Batch + "."
		}
		sources = append(sources, source{kind.place, prefix, sorted(ctx, r.door.list(kind.stream, pattern+">"))})
	}
	return sources
}

// settled reports whether the places alone say that the job has its end: a dead
// letter outlives the result.
func (r *reconciliation) settled(l located) bool { return l.in&inDead != 0 && l.in&inJobs == 0 }

// service asks for the consumer of a queue, once.
func (r *reconciliation) service(ctx context.Context, name string) (service, error) {
	if s, ok := r.queues[name]; ok {
		return s, nil
	}
	var c jetstream.ConsumerInfo
	err := r.door.api(ctx, "CONSUMER.INFO."+r.Layout.Subjects.JobsStream()+"."+queue.ConsumerName(name), nil, &c)
	s := service{known: true, paused: c.Paused}
	_, denied := asDenied(err)
	switch {
	case isAPI(err, jetstream.JSErrCodeConsumerNotFound):
		s.missing = true
	case denied:
		s.known = false
	case err != nil:
		return s, err
	}
	if len(r.queues) < 10000 { // anybody can invent queues
		r.queues[name] = s
	}
	return s, nil
}

// alive reports whether the worker that did something at a time still runs. A
// worker of its name that started later is another one.
func (r *reconciliation) alive(name string, at time.Time) bool {
	for _, m := range r.fleet {
		if m.name == name && !m.started.After(at.Add(clockSkew)) {
			return true
		}
	}
	return false
}

// overdue reports whether at is so long ago that a lease must be over.
func (r *reconciliation) overdue(at time.Time) bool {
	return r.Now().Sub(at) > leases*r.lease()
}

// lease is the time for which a dead worker keeps a job.
func (r *reconciliation) lease() time.Duration { return r.Layout.Consumer("").AckWait }

// facts are what the messages say of one job.
type facts struct {
	located
	queue, id string
	job       *queuedJob
	result    *ending
	last      *happening
}

// examine reads what is needed of a chunk and yields the standings. It reports
// whether to go on.
func (r *reconciliation) examine(ctx context.Context, chunk []located, yield func(Standing, error) bool) bool {
	all, err := r.read(ctx, chunk)
	if err != nil {
		yield(Standing{}, err)
		return false
	}
	for _, f := range all {
		s, err := r.judge(ctx, f)
		if err != nil {
			yield(Standing{}, err)
			return false
		}
		if s == nil {
			continue
		}
		s.Queue, s.ID = f.queue, f.id
		if s.Deliveries > manyDeliveries {
			s.What += fmt.Sprintf("; handed out %d times", s.Deliveries)
			if s.Level == OK {
				s.Level = Note
			}
		}
		if !yield(*s, nil) {
			return false
		}
	}
	return true
}

// read gets the messages of a chunk, as few as will do.
func (r *reconciliation) read(ctx context.Context, chunk []located) ([]*facts, error) {
	s := r.Layout.Subjects
	all, byKey := make([]*facts, len(chunk)), make(map[string]*facts, len(chunk))
	for i, l := range chunk {
		f := &facts{located: l}
		_, f.queue, f.id, _ = s.Parse(s.Prefix() + ".jobs." + l.key) // judged later
		all[i], byKey[l.key] = f, f
	}
	for _, step := range []struct {
		stream, kind string
		wanted       func(*facts) bool
		take         func(*facts, *stored)
	}{
		{
			s.EventsStream(), "events",
			func(f *facts) bool { return f.in&inEvents != 0 },
			func(f *facts, m *stored) { f.last = happened(m) },
		},
		{
			s.JobsStream(), "jobs",
			func(f *facts) bool { return f.in&inJobs != 0 && f.in != inJobs },
			func(f *facts, m *stored) { f.job = queued(m) },
		},
		{
			s.ResultsStream(), "results",
			func(f *facts) bool { return f.in&inResults != 0 && (f.in&inJobs != 0 || !f.succeeded()) },
			func(f *facts, m *stored) { f.result = ended(m) },
		},
	} {
		prefix := s.Prefix() + "." + step.kind + "."
		var subjects []string
		for _, f := range all {
			if step.wanted(f) {
				subjects = append(subjects, prefix+f.key)
			}
		}
		err := r.door.lastOf(ctx, step.stream, subjects, func(m *stored) {
			if f := byKey[m.subject[min(len(prefix), len(m.subject)):]]; f != nil {
				step.take(f, m)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// succeeded reports whether the last event says that the job ended without a
// dead letter, so that its result need not be read: a result that succeeded is
// never replaced.
func (f *facts) succeeded() bool {
	return f.last != nil && f.last.kind == job.EventCompleted && (f.last.status == job.Succeeded || f.last.status == job.Cancelled)
}
