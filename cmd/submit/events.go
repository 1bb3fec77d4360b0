package main

import (
	"fmt"
	"strings"

	"understudy/internal/job"
)

// eventLine is an event on one line: time, job, what happened, and what follows.
func eventLine(e *job.Event) string {
	at := e.Time.Local().Format("15:04:05.000")
	return oneLine(fmt.Sprintf("%s  %s  %s", at, e.Subject, happened(e)), 0)
}

// happened is what an event says. The types are a closed set, but a newer worker
// may send others.
func happened(e *job.Event) string {
	name := strings.TrimPrefix(string(e.Type), "understudy.")
	switch e.Type {
	case job.EventReceived:
		return phrase(e, name, func(r job.Received) string {
			return fmt.Sprintf("taken by %s%s%s", strings.TrimPrefix(e.Source, "understudy/"),
				unless(r.Delivery <= 1, ", delivery %d", r.Delivery), unless(r.Redrives == 0, ", redrive %d", r.Redrives))
		})
	case job.EventWaiting:
		return phrase(e, name, func(w job.Waiting) string {
			return fmt.Sprintf("waits until %s: %s", w.Until.Local().Format("15:04:05"), w.Why)
		})
	case job.EventCompleted:
		return phrase(e, name, completed)
	case job.EventDeadLettered:
		return phrase(e, name, func(d job.DeadLettered) string {
			return "dead letter: " + d.Reason + unless(d.Redrives == 0, ", after redrive %d", d.Redrives)
		})
	case job.EventAttemptStarted, job.EventAttemptSucceeded, job.EventAttemptFailed,
		job.EventAttemptSkipped, job.EventAttemptUnknown:
		return phrase(e, name, func(a job.Attempt) string { return attempted(e.Type, &a) })
	case job.EventBreakerChanged:
		return phrase(e, name, func(b job.BreakerChanged) string {
			return fmt.Sprintf("breaker %s -> %s%s%s", b.From, b.To, unless(b.Class == "", " (%s)", b.Class),
				unless(b.ForMS == 0, " for %s", milliseconds(b.ForMS)))
		})
	case job.EventLetterRedriven, job.EventLetterEdited, job.EventLetterPurged:
		return phrase(e, name, func(l job.LetterHandled) string {
			_, did, _ := strings.Cut(name, ".")
			return fmt.Sprintf("dead letter %s by %s%s", did, l.By, unless(l.Redrives == 0, ", after redrive %d", l.Redrives))
		})
	}
	return name
}

// phrase reads the data of an event and puts them into words.
func phrase[T any](e *job.Event, name string, words func(T) string) string {
	var data T
	if err := e.DataAs(&data); err != nil {
		return name
	}
	return words(data)
}

// unless is nothing when usual, and the words otherwise.
func unless(usual bool, format string, args ...any) string {
	if usual {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

func completed(c job.Completed) string {
	words := fmt.Sprintf("%s in %s, %s", c.Status, milliseconds(c.DurationMS), times(c.Attempts, "attempt"))
	return words + unless(c.Backend == "", ", %s", c.Backend) + unless(c.Class == nil, ", %s", deref(c.Class)) +
		unless(!c.Degraded, ", degraded") + unless(c.CostUSD == nil, ", %s", dollars(deref(c.CostUSD)))
}

func attempted(kind job.EventType, a *job.Attempt) string {
	words := fmt.Sprintf("attempt %d %s", a.N, a.Backend) + unless(a.Model == "", " (%s)", a.Model)
	switch kind { //nolint:exhaustive // called for attempts only
	case job.EventAttemptStarted:
		return words + ": called"
	case job.EventAttemptSucceeded:
		return words + ": answered in " + milliseconds(a.DurationMS)
	case job.EventAttemptUnknown:
		return words + ": outcome unknown, its worker died"
	case job.EventAttemptSkipped:
		words += ": skipped"
	default:
		words += ": failed after " + milliseconds(a.DurationMS)
	}
	return words + unless(a.Class == nil, ", %s", deref(a.Class)) + unless(a.Status == 0, " %d", a.Status) +
		unless(a.Next == nil, ", next: %s", deref(a.Next))
}
