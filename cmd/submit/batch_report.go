package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"understudy/internal/job"
)

// tally counts the results of a batch. It is used by one goroutine.
type tally struct {
	start      time.Time
	jobs       int
	lost       int
	statuses   map[job.Status]int
	unreadable int
	backends   map[string]*backendTally
}

// backendTally is what one backend did for a batch.
type backendTally struct {
	Backend      string  `json:"backend"`
	Jobs         int     `json:"jobs"`
	Succeeded    int     `json:"succeeded"`
	Degraded     int     `json:"degraded"`
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	CostUSD      float64 `json:"cost_usd"`
}

func newTally(now time.Time) *tally {
	return &tally{start: now, statuses: make(map[job.Status]int), backends: make(map[string]*backendTally)}
}

// ended is how many jobs have ended.
func (t *tally) ended() int { return t.jobs }

// add counts one result; nil is one that cannot be read.
func (t *tally) add(r *job.Result) {
	t.jobs++
	if r == nil {
		t.unreadable++
		return
	}
	t.statuses[r.Status]++
	b := t.backends[r.Backend]
	if b == nil {
		b = &backendTally{Backend: r.Backend}
		t.backends[r.Backend] = b
	}
	b.Jobs++
	if r.Status == job.Succeeded {
		b.Succeeded++
	}
	if r.Degraded {
		b.Degraded++
	}
	usage := deref(r.Usage)
	b.InputTokens += usage.InputTokens
	b.OutputTokens += usage.OutputTokens
	b.CostUSD += deref(r.CostUSD)
}

// batchSummary is how a batch went, as -json prints it.
type batchSummary struct {
	Batch     string          `json:"batch"`
	Queue     string          `json:"queue"`
	Output    string          `json:"output"`
	Lines     int             `json:"lines"`
	Succeeded int             `json:"succeeded"`
	Failed    int             `json:"failed"`
	Expired   int             `json:"expired"`
	Cancelled int             `json:"cancelled"`
	Degraded  int             `json:"degraded"`
	CostUSD   float64         `json:"cost_usd"`
	Duration  int64           `json:"duration_ms"`
	Backends  []*backendTally `json:"backends"`
}

func (t *tally) summary(batch string, o *batchOptions, now time.Time) *batchSummary {
	s := &batchSummary{
		Batch: batch, Queue: o.queue, Output: o.out, Lines: t.jobs, Succeeded: t.statuses[job.Succeeded],
		Failed: t.statuses[job.Failed] + t.unreadable, Expired: t.statuses[job.Expired], Cancelled: t.statuses[job.Cancelled],
		Duration: now.Sub(t.start).Milliseconds(), Backends: []*backendTally{},
	}
	for _, name := range slices.Sorted(maps.Keys(t.backends)) {
		b := t.backends[name]
		s.Degraded += b.Degraded
		s.CostUSD += b.CostUSD
		s.Backends = append(s.Backends, b)
	}
	return s
}

// line is the summary on one line.
func (s *batchSummary) line() string {
	return fmt.Sprintf("batch %s: %s: %d succeeded (%d degraded), %d failed, %d expired, %d cancelled; %s in %s",
		s.Batch, times(s.Lines, "line"), s.Succeeded, s.Degraded, s.Failed, s.Expired, s.Cancelled,
		dollars(s.CostUSD), milliseconds(s.Duration))
}

// table is what each backend did. Jobs that no backend answered have the one
// that was asked last, or none.
func (s *batchSummary) table() string {
	rows := [][]string{{"BACKEND", "JOBS", "SUCCEEDED", "DEGRADED", "TOKENS IN", "TOKENS OUT", "COST"}}
	for _, b := range s.Backends {
		rows = append(rows, []string{
			dash(b.Backend), strconv.Itoa(b.Jobs), strconv.Itoa(b.Succeeded), strconv.Itoa(b.Degraded),
			strconv.FormatInt(b.InputTokens, 10), strconv.FormatInt(b.OutputTokens, 10), dollars(b.CostUSD),
		})
	}
	return table(rows)
}
