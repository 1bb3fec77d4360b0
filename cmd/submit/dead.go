package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"understudy/internal/backend"
	"understudy/internal/job"
	"understudy/internal/results"
)

// The numbers of looking for the letter of a job that has just failed. A worker
// stores the failed result, then the dead letter, then lets the job leave the
// queue: somebody who was quick waits this long.
const (
	// letterTimeout bounds the wait for the letter, settleTimeout that for all three.
	letterTimeout = 2 * time.Second
	settleTimeout = 5 * time.Second
	settlePause   = 50 * time.Millisecond
)

// selection says which dead letters a command is about. What it leaves empty
// does not matter.
type selection struct {
	ids          []string // ids, and patterns such as b.*
	batch        string
	queue        string
	class        string // of the error that the job died of
	backend      string // of any failed attempt
	older, newer time.Duration
	all          bool   // said to be all on purpose
	className    string // class, by the name that letters have
}

// check validates the flags and the patterns of ids.
func (s *selection) check(command string) error {
	if s.class != "" {
		class, err := backend.ParseClass(s.class)
		if err != nil {
			return usage(command, "-class: %v", err)
		}
		s.className = string(class)
	}
	switch {
	case s.older < 0:
		return usage(command, "-older %s: must be more than nothing", s.older)
	case s.newer < 0:
		return usage(command, "-newer %s: must be more than nothing", s.newer)
	case s.older > 0 && s.newer > 0 && s.older >= s.newer:
		return usage(command, "-older %s and -newer %s: nothing is both", s.older, s.newer)
	case s.batch != "" && len(s.ids) > 0:
		return usage(command, "give IDs or -batch, not both")
	}
	for _, id := range s.ids {
		if err := checkKey(key{s.queue, strings.TrimSuffix(id, ".*")}, command); err != nil {
			return err
		}
	}
	if s.batch != "" {
		return checkKey(key{s.queue, s.batch}, command)
	}
	return checkKey(key{s.queue, "any"}, command)
}

// explicit is check for commands that change something: they want to be told.
func (s *selection) explicit(command string) error {
	filtered := s.batch != "" || s.queue != "" || s.class != "" || s.backend != "" || s.older != 0 || s.newer != 0
	switch {
	case s.all && len(s.ids) > 0:
		return usage(command, "give IDs or -all, not both")
	case !s.all && !filtered && len(s.ids) == 0:
		return usage(command, "give IDs, a filter or -all")
	}
	return s.check(command)
}

// patterns are the patterns of ids to read.
func (s *selection) patterns() []string {
	switch {
	case len(s.ids) > 0:
		return s.ids
	case s.batch != "":
		return []string{s.batch + ".>"}
	}
	return []string{""}
}

// picks reports whether the filters let a letter pass.
func (s *selection) picks(l *results.Letter, now time.Time) bool {
	old := now.Sub(l.Time)
	return (s.class == "" || l.Reason == s.className) &&
		(s.backend == "" || failedAt(l.DeadLetter, s.backend)) &&
		(s.older == 0 || old >= s.older) &&
		(s.newer == 0 || old <= s.newer)
}

// failedAt reports whether an attempt at a backend failed, or ended nobody knows
// how. A letter whose trail was too long to keep has its first and last errors.
func failedAt(d *job.DeadLetter, name string) bool {
	there := func(a job.Attempt) bool {
		return strings.EqualFold(a.Backend, name) && (a.Outcome == job.OutcomeFailed || a.Outcome == job.OutcomeUnknown)
	}
	return slices.ContainsFunc(d.Attempts, there) ||
		strings.EqualFold(deref(d.FirstError).Backend, name) || strings.EqualFold(deref(d.LastError).Backend, name)
}

// picked is a dead letter that a command is about. It holds no prompt, so that
// many of them do not cost the memory of their jobs.
type picked struct {
	deadSummary
	seq uint64
}

// pick reads the dead letters that s chooses, oldest first for each pattern, and
// hands each to keep once.
func (a *app) pick(ctx context.Context, c *client, s *selection, keep func(picked)) error {
	seen := make(map[uint64]bool)
	for _, pattern := range s.patterns() {
		err := a.letters(ctx, c, s, pattern, func(l *results.Letter) {
			if !seen[l.Seq] {
				seen[l.Seq] = true
				keep(picked{summarize(l.DeadLetter), l.Seq})
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// letters reads the dead letters of one pattern that the filters of s let pass,
// oldest first, and hands each to keep.
func (a *app) letters(ctx context.Context, c *client, s *selection, pattern string, keep func(*results.Letter)) error {
	for l, err := range c.store.Letters(ctx, s.queue, pattern) {
		var bad *results.UnreadableError
		switch {
		case errors.As(err, &bad):
			a.note("submit: passed over: %v", err)
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case s.picks(l, a.now()):
			keep(l)
		}
	}
	return nil
}

// lettersNow is letters for one id of a job that may have failed this very
// moment: it waits a little for a letter that is still to be stored.
func (a *app) lettersNow(ctx context.Context, c *client, s *selection, id string) (found []*results.Letter, err error) {
	keep := func(l *results.Letter) { found = append(found, l) }
	deadline := time.Now().Add(letterTimeout)
	for last := false; ; {
		if err := a.letters(ctx, c, s, id, keep); len(found) > 0 || last || err != nil {
			return found, err
		}
		died, settled, err := c.death(ctx, s.queue, id)
		if !died || err != nil {
			return nil, err
		}
		if last = settled || time.Now().After(deadline); !last && !sleep(ctx, settlePause) {
			return nil, context.Cause(ctx)
		}
	}
}

// death reports whether the stored result of a job says that it failed, and
// whether it has left its queue since. An empty queue means every one.
func (c *client) death(ctx context.Context, queue, id string) (died, settled bool, err error) {
	queues := []string{queue}
	if queue == "" {
		if queues, err = c.queuesOf(ctx, id); err != nil {
			return false, false, err
		}
	}
	settled = true
	for _, queue := range queues {
		s, err := c.standing(ctx, key{queue, id}, 0)
		if err != nil {
			return false, false, err
		}
		if s.final && s.result != nil && (s.result.Status == job.Failed || s.result.Status == job.Expired) {
			died, settled = true, settled && s.seq == 0
		}
	}
	return died, settled, nil
}

// settle waits while a job that has failed has not left its queue.
func (c *client) settle(ctx context.Context, k key) error {
	deadline := time.Now().Add(settleTimeout)
	for {
		died, settled, err := c.death(ctx, k.queue, k.id)
		if err != nil || !died || settled || time.Now().After(deadline) {
			return err
		}
		if !sleep(ctx, settlePause) {
			return context.Cause(ctx)
		}
	}
}
