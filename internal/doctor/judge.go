package doctor

import (
	"context"
	"fmt"
	"time"

	"understudy/internal/job"
)

// judge says where a job is; nil for one that has its end.
func (r *reconciliation) judge(ctx context.Context, f *facts) (*Standing, error) {
	s := r.Layout.Subjects
	if _, _, _, err := s.Parse(s.Prefix() + ".jobs." + f.key); err != nil {
		if f.in&inJobs == 0 {
			return nil, nil
		}
		f.id = f.key
		return &Standing{
			State: Invalid, Level: Problem, What: "it is at an address that cannot be one: " + err.Error(),
			Mend: fmt.Sprintf("nats stream purge %s --subject='%s.jobs.%s'", s.JobsStream(), s.Prefix(), f.key),
		}, nil
	}
	switch {
	case f.in == inJobs:
		return r.notTaken(ctx, f, Queued, "never taken")
	case f.in&inJobs != 0 && f.job == nil: // it has left meanwhile
		return nil, nil
	case f.in&inJobs != 0:
		return r.inQueue(ctx, f)
	case f.in&inResults != 0:
		return r.withResult(ctx, f)
	}
	return r.eventsAlone(ctx, f)
}

// notTaken is a job that no worker has, for which its queue must care.
func (r *reconciliation) notTaken(ctx context.Context, f *facts, state State, what string) (*Standing, error) {
	s := &Standing{State: state, Level: OK, What: what}
	if f.job != nil {
		s.Since = &f.job.at
	}
	service, err := r.service(ctx, f.queue)
	switch {
	case err != nil:
		return nil, err
	case service.missing:
		s.State, s.Level = Stuck, Problem
		s.What += ", and its queue has no consumer"
		s.Mend = "add " + f.queue + " to WORKER_QUEUES of a worker"
	case service.paused:
		s.State, s.Level = Stuck, Problem
		s.What += ", and the consumer of its queue is paused"
		s.Mend = fmt.Sprintf("nats consumer resume %s q-%s", r.Layout.Subjects.JobsStream(), f.queue)
	}
	return s, nil
}

// inQueue judges a job that is in the queue and has more than that.
func (r *reconciliation) inQueue(ctx context.Context, f *facts) (*Standing, error) {
	if f.result != nil && f.result.jobSeq >= f.job.seq {
		return r.settling(ctx, f)
	}
	var st story
	if f.last != nil {
		var err error
		if st, err = r.story(ctx, f); err != nil {
			return nil, err
		}
	}
	if st.taken == nil && st.last != nil && st.last.at.After(f.job.at) { // the event that says so is missing
		st.taken = &happening{kind: st.last.kind, worker: st.last.worker, at: st.last.at, jobSeq: f.job.seq}
	}
	switch {
	case st.taken == nil || st.taken.jobSeq != f.job.seq: // the events are of an earlier life
		return r.again(ctx, f)
	case st.last.kind == job.EventWaiting:
		return r.handedBack(ctx, f, st)
	case st.last.ends():
		return &Standing{
			State: Unknown, Level: Warning, Since: &st.last.at, Worker: st.last.worker, Deliveries: st.taken.delivery,
			What: "its events say that it ended, and there is no result: the next worker runs it again",
		}, nil
	}
	return r.atWork(ctx, f, st)
}

// story reads the events of a job; one that was handed back says everything in
// the last.
func (r *reconciliation) story(ctx context.Context, f *facts) (story, error) {
	var st story
	if f.last != nil && f.last.kind == job.EventWaiting {
		st.add(f.last)
		return st, nil
	}
	s := r.Layout.Subjects
	for next := uint64(1); ; {
		n, err := r.door.direct(ctx, s.EventsStream(), question{Seq: next, NextFor: s.Event(f.queue, f.id), Batch: readSubjects}, func(m *stored) {
			next = m.seq + 1
			st.add(happened(m))
		})
		if err != nil || n == 0 {
			return st, err
		}
		if n < readSubjects && st.last != nil && f.last != nil && !st.last.at.Before(f.last.at) {
			return st, nil
		}
	}
}

// again judges a job that has a past and was not taken since it was published.
func (r *reconciliation) again(ctx context.Context, f *facts) (*Standing, error) {
	switch {
	case f.job.redriven && f.in&inDead != 0:
		return r.notTaken(ctx, f, Redriven, "queued again, and its dead letter is still there: a redrive is under way, or was cut off")
	case f.job.redriven:
		return r.notTaken(ctx, f, Redriven, "queued again after it was dead-lettered")
	case f.result != nil:
		return r.notTaken(ctx, f, Queued, "published again: the stored result will be sent, without a call")
	}
	return r.notTaken(ctx, f, Queued, "never taken")
}

// settling judges a job whose result is there.
func (r *reconciliation) settling(ctx context.Context, f *facts) (*Standing, error) {
	s := &Standing{State: Settling, Level: OK, Since: &f.result.at, What: "its result is stored; it is about to leave the queue"}
	if !r.overdue(f.result.at) {
		return s, nil
	}
	there, err := r.stillQueued(ctx, f)
	if err != nil || !there {
		return nil, err
	}
	s.State, s.Level = Stuck, Problem
	s.What = "its result is stored for " + r.since(f.result.at) + ", and it does not leave the queue"
	s.Mend = r.callWorker(f)
	return s, nil
}

// handedBack judges a job that waits.
func (r *reconciliation) handedBack(ctx context.Context, f *facts, st story) (*Standing, error) {
	w := st.last
	what := "handed back"
	if w.why != "" {
		what = w.why
	}
	s, err := r.notTaken(ctx, f, Waiting, what)
	if err != nil {
		return nil, err
	}
	s.Worker, s.Since, s.Deliveries = w.worker, &w.at, w.delivery
	if !w.until.IsZero() {
		s.Until = &w.until
	}
	if s.State == Waiting && r.overdue(later(w.at, w.until)) {
		return r.stuck(ctx, f, s, "its wait was over "+r.since(later(w.at, w.until))+" ago, and nobody took it again")
	}
	return s, nil
}

// atWork judges a job that a worker has begun.
func (r *reconciliation) atWork(ctx context.Context, f *facts, st story) (*Standing, error) {
	s := &Standing{
		State: Running, Level: OK, Worker: st.taken.worker, Since: &st.taken.at, Deliveries: st.taken.delivery,
		What: "on worker " + st.taken.worker + " for " + r.since(st.taken.at),
	}
	if st.last.backend != "" {
		s.What += ", last at backend " + st.last.backend
	}
	switch {
	case !r.answered, r.alive(st.taken.worker, st.taken.at):
		return s, nil
	case !r.overdue(st.last.at):
		s.State, s.Level = Returning, Note
		s.What = fmt.Sprintf("worker %s does not answer; the job comes back when its lease of %s ends", st.taken.worker, r.lease())
		return s, nil
	}
	return r.stuck(ctx, f, s, fmt.Sprintf("worker %s is gone, its lease is long over, and nobody took the job again", st.taken.worker))
}

// stuck notes that nobody takes a job, if nothing has happened to it meanwhile.
func (r *reconciliation) stuck(ctx context.Context, f *facts, s *Standing, what string) (*Standing, error) {
	there, err := r.stillQueued(ctx, f)
	if err != nil || !there {
		return nil, err
	}
	now, err := r.door.get(ctx, r.Layout.Subjects.EventsStream(), question{LastFor: r.Layout.Subjects.Event(f.queue, f.id)})
	if err != nil {
		return nil, err
	}
	if now != nil && f.last != nil {
		if h := happened(now); h != nil && !h.ofLetter() && h.at.After(f.last.at) {
			return &Standing{State: Running, Level: OK, Worker: h.worker, Since: &h.at, Deliveries: h.delivery, What: "on worker " + h.worker + " since a moment ago"}, nil
		}
	}
	s.State, s.Level, s.What, s.Mend, s.Until = Stuck, Problem, what, r.callWorker(f), nil
	return s, nil
}

// callWorker says who would take a job.
func (r *reconciliation) callWorker(f *facts) string {
	return "start a worker whose WORKER_QUEUES names " + f.queue + "; submit doctor tells why the others do not take it"
}

// stillQueued reports whether the job message is still there.
func (r *reconciliation) stillQueued(ctx context.Context, f *facts) (bool, error) {
	s := r.Layout.Subjects
	m, err := r.door.get(ctx, s.JobsStream(), question{LastFor: s.Job(f.queue, f.id)})
	return m != nil && (f.job == nil || m.seq == f.job.seq), err
}

// withResult judges a job that has a result and no dead letter.
func (r *reconciliation) withResult(ctx context.Context, f *facts) (*Standing, error) {
	switch {
	case f.result == nil: // it succeeded, or the result was removed meanwhile
		return nil, nil
	case f.result.unreadable:
		return &Standing{
			State: Unknown, Level: Warning, Since: &f.result.at, What: "its result cannot be read: another program wrote it",
			Mend: "submit result " + f.id + " -queue " + f.queue + " tells more",
		}, nil
	case !f.result.fails():
		return nil, nil
	}
	st, err := r.story(ctx, f)
	again := st.redriven != nil || st.taken != nil && st.taken.jobSeq > f.result.jobSeq && !st.last.ends() // it ran, or should have, once more
	if err != nil || !again && (st.buried || st.purged) {
		return nil, err
	}
	if elsewhere, err := r.elsewhere(ctx, f); err != nil || elsewhere {
		return nil, err
	}
	if again {
		return r.lost(st), nil
	}
	s := &Standing{
		State: Unburied, Level: Problem, Since: &f.result.at,
		What: fmt.Sprintf("it %s (%s) and has no dead letter: it cannot be redriven", f.result.status, f.result.class),
		Mend: "publish it again from its source, under a new id",
	}
	if st.taken != nil {
		s.Worker, s.Deliveries = st.taken.worker, st.taken.delivery
	}
	return s, nil
}

// place is where a message may be.
type place struct{ stream, subject string }

// elsewhere looks up whether a job is in the queue, has a dead letter or is in
// one of the other places. The queue is asked twice: a redrive goes from the
// letter to the queue.
func (r *reconciliation) elsewhere(ctx context.Context, f *facts, others ...place) (bool, error) {
	s := r.Layout.Subjects
	inQueue := place{s.JobsStream(), s.Job(f.queue, f.id)}
	for _, p := range append([]place{inQueue, {s.DeadStream(), s.Dead(f.queue, f.id)}, inQueue}, others...) {
		m, err := r.door.get(ctx, p.stream, question{LastFor: p.subject})
		if err != nil || m != nil {
			return m != nil, err
		}
	}
	return false, nil
}

// eventsAlone judges a job that only its events know.
func (r *reconciliation) eventsAlone(ctx context.Context, f *facts) (*Standing, error) {
	if f.last == nil { // not ours, or aged out meanwhile
		return nil, nil
	}
	subjects := r.Layout.Subjects
	st, err := r.story(ctx, f)
	if err != nil || st.purged {
		return nil, err
	}
	last := f.last
	if last.ofLetter() && st.last != nil && st.redriven == nil {
		last = st.last
	}
	aged := r.keep > 0 && r.Now().Sub(last.at) >= r.keep-leases*r.lease()
	if aged && last.ends() {
		return nil, nil
	}
	if elsewhere, err := r.elsewhere(ctx, f, place{subjects.ResultsStream(), subjects.Result(f.queue, f.id)}); err != nil || elsewhere {
		return nil, err
	}
	s := &Standing{Worker: last.worker, Since: &last.at, Deliveries: last.delivery}
	switch {
	case last.ends():
		s.State, s.Level = Removed, Warning
		s.What = "it ended, and its result is gone before its time: somebody removed it"
	case aged:
		s.State, s.Level = Unknown, Note
		s.What = fmt.Sprintf("it was taken, and results of that time are no longer kept (%s)", r.keep)
	default:
		return r.lost(st), nil
	}
	return s, nil
}

// lost is the standing of a job that must not be.
func (r *reconciliation) lost(st story) *Standing {
	s := &Standing{
		State: Lost, Level: Problem,
		Mend: "publish it again under the same id, and report this: it must never happen, unless somebody purged the queue",
	}
	switch {
	case st.redriven != nil:
		s.Since, s.What = &st.redriven.at, "it was redriven, and is neither queued nor ended"
	case st.last != nil:
		s.Worker, s.Since = st.last.worker, &st.last.at
		s.What = "it was taken by worker " + st.last.worker + ", and is neither queued nor ended"
	default:
		s.What = "it has events, and is neither queued nor ended"
	}
	if st.taken != nil {
		s.Deliveries = st.taken.delivery
	}
	return s
}

// since is how long ago t was, for people.
func (r *reconciliation) since(t time.Time) string { return lasting(r.Now().Sub(t)) }

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
