package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/backend"
	"understudy/internal/backend/openai/recorded"
	"understudy/internal/job"
	"understudy/internal/worker"
)

// maxWaitsShown is how many hand-backs are listed.
const maxWaitsShown = 3

// explainOptions are the flags of explain.
type explainOptions struct {
	file string
	as   []string
	list bool
	json bool
}

// workerSettings is the configuration of a worker in this environment.
type workerSettings struct {
	config   worker.Config
	problems []string
}

// explainPath prints the path a job would take.
func (a *app) explainPath(ctx context.Context, o *explainOptions, args []string) error {
	const command = "submit explain"
	if o.list {
		return a.listAnswers(o.json)
	}
	payload, err := a.readJob(ctx, o.file, args, command)
	if err != nil {
		return err
	}
	settings := a.loadWorker()
	if len(settings.problems) > 0 {
		return usage("", "the worker's configuration has problems:\n  %s", strings.Join(settings.problems, "\n  "))
	}
	as, err := assumptions(o.as, settings.config.Backends)
	if err != nil {
		return usage(command, "-as %v", err)
	}
	queue, id, payload, err := job.TakeAddress(payload)
	if err != nil {
		return usage(command, "%v", err)
	}
	x, err := worker.Explain(ctx, settings.config, queue, cmp.Or(id, "explained"), payload, as)
	if err != nil {
		return usage(command, "the job would be dead-lettered as %s: %v", backend.InvalidJob, err)
	}
	path := newJourney(x)
	if o.json {
		line, err := jsonLine(path)
		if err != nil {
			return err
		}
		return a.print(line)
	}
	if len(o.as) == 0 {
		a.note("Assumed that every call times out; -as says otherwise.")
	}
	return a.print([]byte(path.text(x)))
}

// listAnswers prints the ids of the recorded answers.
func (a *app) listAnswers(asJSON bool) error {
	answers, err := recorded.Answers()
	if err != nil {
		return err
	}
	rows := [][]string{{"ID", "STATUS", "CLASS", "PROVIDER"}}
	for _, one := range answers {
		if asJSON {
			line, err := jsonLine(map[string]any{"id": one.ID, "status": one.Status, "class": one.Expect.Class, "provider": one.Provider})
			if err == nil {
				err = a.print(line)
			}
			if err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{one.ID, strconv.Itoa(one.Status), one.Expect.Class, one.Provider})
	}
	if asJSON {
		return nil
	}
	return a.print([]byte(table(rows)))
}

// assumptions reads the values of -as. Without one, every call times out.
func assumptions(values []string, backends []worker.Backend) (worker.Assumptions, error) {
	as := worker.Assumptions{Of: make(map[string][]worker.Assumption)}
	if len(values) == 0 {
		as.Rest = worker.Assumption{Class: backend.Timeout}
	}
	for _, value := range values {
		name, what, named := strings.Cut(value, "=")
		if !named {
			name, what = "", value
		}
		known := func(b worker.Backend) bool { return b.Name == name }
		if named && !slices.ContainsFunc(backends, known) {
			names := make([]string, len(backends))
			for i, b := range backends {
				names[i] = b.Name
			}
			return as, fmt.Errorf("%s: no backend is called %q; there are: %s", value, name, strings.Join(names, ", "))
		}
		one, err := assumption(what)
		if err != nil {
			return as, fmt.Errorf("%s: %w", value, err)
		}
		if named {
			as.Of[name] = append(as.Of[name], one)
		} else {
			as.Calls = append(as.Calls, one)
		}
	}
	return as, nil
}

// assumption reads one end of a call: ok, a class, a status or the id of a
// recorded answer, and after an @ how long the call takes.
func assumption(text string) (a worker.Assumption, err error) {
	what, takes, timed := strings.Cut(text, "@")
	if timed {
		if a.Takes, err = time.ParseDuration(takes); err != nil || a.Takes < 0 {
			return a, fmt.Errorf("%q is not a duration such as 7s or 300ms", takes)
		}
	}
	if what == "ok" {
		return a, nil
	}
	if status, err := strconv.Atoi(what); err == nil {
		if status < 200 || status > 599 {
			return a, fmt.Errorf("%d is not a status from 200 to 599", status)
		}
		a.Answer = plainAnswer(status)
		return a, nil
	}
	if class, err := backend.ParseClass(what); err == nil {
		switch class { //nolint:exhaustive // the others are how calls end
		case backend.Expired, backend.InvalidJob, backend.Poison, backend.CircuitOpen, backend.Canceled:
			return a, fmt.Errorf("%s is not how a call ends", string(class))
		}
		a.Class = class
		return a, nil
	}
	answer, err := recorded.Find(what)
	if err != nil {
		return a, fmt.Errorf("%q is neither ok, nor a status, nor a class of error, nor a recorded answer (submit explain -list)", what)
	}
	a.Answer = &answer
	return a, nil
}

// plainAnswer is an answer that says nothing but its status.
func plainAnswer(status int) *recorded.Answer {
	text, _ := json.Marshal(http.StatusText(status)) //nolint:errchkjson // a string
	answer := &recorded.Answer{Status: status, Body: `{"error":{"message":` + string(text) + `}}`}
	if status/100 == 2 {
		answer.Body = `{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}]}`
	}
	return answer
}

// journey is what explain prints as JSON.
type journey struct {
	Route       string        `json:"route"`
	Because     string        `json:"because"`
	Strategy    string        `json:"strategy"`
	Chain       []string      `json:"chain"`
	MaxAttempts int           `json:"max_attempts"`
	BudgetMS    int64         `json:"budget_ms"`
	Status      job.Status    `json:"status"`
	Backend     string        `json:"backend"`
	Degraded    bool          `json:"degraded"`
	Class       string        `json:"class,omitempty"`
	DurationMS  int64         `json:"duration_ms"`
	Attempts    []job.Attempt `json:"attempts"`
	Waits       []routeWait   `json:"waits"`
}

// routeWait is a time in which the job would have no slot.
type routeWait struct {
	UntilMS int64  `json:"until_ms"`
	Why     string `json:"why"`
}

func newJourney(x *worker.Explained) *journey {
	p := &journey{
		Route: x.Plan.Route, Strategy: x.Plan.Policy.Strategy, Chain: x.Plan.Chain(), MaxAttempts: x.Plan.MaxAttempts(),
		BudgetMS: x.Plan.Budget.Milliseconds(), Attempts: x.Outcome.Trail, Waits: []routeWait{},
	}
	switch {
	case x.Job.Route != "":
		p.Because = "the job names it"
	case x.Job.Model == x.Plan.Route:
		p.Because = "its model has that name"
	default:
		p.Because = "the job names none"
	}
	for _, w := range x.Waits {
		p.Waits = append(p.Waits, routeWait{w.Until.Sub(x.Start).Milliseconds(), w.Why})
	}
	for _, a := range x.Outcome.Trail {
		p.DurationMS = max(p.DurationMS, a.StartedAt.Sub(x.Start).Milliseconds()+a.DurationMS)
	}
	switch {
	case x.Outcome.Response != nil:
		p.Status, p.Backend, p.Degraded = job.Succeeded, x.Outcome.Backend, x.Outcome.Response.Degraded
	case x.Outcome.Err != nil:
		p.Status, p.Class, p.Backend = job.Failed, string(x.Outcome.Err.Class), x.Outcome.Err.Backend
		if x.Outcome.Err.Class == backend.Expired {
			p.Status = job.Expired
		}
	}
	return p
}

// text is a journey for people.
func (p *journey) text(x *worker.Explained) string {
	limit := "no time limit"
	if p.BudgetMS > 0 {
		limit = milliseconds(p.BudgetMS) + " in all"
	}
	rows := [][]string{
		{"route", fmt.Sprintf("%s (%s)", oneLine(p.Route, 0), p.Because)},
		{"policy", fmt.Sprintf("%s over %s; %s at most; %s", p.Strategy, strings.Join(p.Chain, ", "), times(p.MaxAttempts, "call"), limit)},
	}
	if at := x.Job.NotBefore; !at.IsZero() {
		rows = append(rows, []string{"start", "not before " + at.Format(time.RFC3339) + "; the times below count from then"})
	}
	var b strings.Builder
	b.WriteString(table(rows) + "\n")
	rows = [][]string{{"AT", "BACKEND", "MODEL", "ENDS AS", "STATUS", "TOOK", "NEXT", "WHY"}}
	for i := range p.Attempts {
		a := &p.Attempts[i]
		status, ends := "-", cmp.Or(deref(a.Class), "answer")
		if a.Status != 0 {
			status = strconv.Itoa(a.Status)
		}
		if a.Outcome == job.OutcomeSkipped {
			ends = "skipped: " + ends
		}
		rows = append(rows, []string{
			lasting(a.StartedAt.Sub(x.Start)), a.Backend, dash(oneLine(a.Model, 40)), ends, status,
			milliseconds(a.DurationMS), dash(string(deref(a.Next))), dash(oneLine(deref(a.Error), 120)),
		})
	}
	b.WriteString(table(rows) + "\n")
	for i, w := range p.Waits {
		if left := len(p.Waits) - i; i >= maxWaitsShown && left > 1 {
			fmt.Fprintf(&b, "and so on, %s in all, the last until %s\n", times(len(p.Waits), "time"), milliseconds(p.Waits[len(p.Waits)-1].UntilMS))
			break
		}
		fmt.Fprintf(&b, "hands its slot back until %s: %s\n", milliseconds(w.UntilMS), w.Why)
	}
	b.WriteString(p.verdict() + "\n")
	b.WriteString("Before the first call every breaker is taken to be closed; limits and max_cost_usd are taken not to be reached.\n")
	return b.String()
}

// verdict is how the job would end.
func (p *journey) verdict() string {
	after := fmt.Sprintf(" after %s and %s", milliseconds(p.DurationMS), times(calls(p.Attempts), "call"))
	switch {
	case p.Status == "":
		return "still waits" + after
	case p.Degraded:
		return "succeeds, degraded: answered by " + p.Backend + " without a model" + after
	case p.Status == job.Succeeded:
		return "succeeds: answered by " + p.Backend + after
	case p.Status == job.Expired:
		return "expires" + after
	}
	return "fails as " + p.Class + ", and is dead-lettered," + after
}
