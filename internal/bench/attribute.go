package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// The steps of a job, and what cannot be told apart by step.
const (
	stepPull      = "pull"
	stepLease     = "slot, lease"
	stepRecall    = "what is known of it"
	stepDecode    = "decode, validate"
	stepPlan      = "plan, deadline"
	stepCandidate = "candidate"
	stepBreaker   = "breaker, limits"
	stepCall      = "call, classify"
	stepEmit      = "record, emit"
	stepCommit    = "commit"
	stepAck       = "ack"
	stepCount     = "count, log"
	stepNATS      = "connection to NATS"
	stepCollector = "garbage collector"
	stepScheduler = "scheduler"
	stepRest      = "rest"
	stepNone      = "" // no part of a job: start, stop, the profiler
)

// stepNames are all steps, in the order of a job.
func stepNames() []string {
	return []string{
		stepPull, stepLease, stepRecall, stepDecode, stepPlan, stepCandidate, stepBreaker, stepCall, stepEmit,
		stepCommit, stepAck, stepCount, stepNATS, stepCollector, stepScheduler, stepRest,
	}
}

// rule says to which step a function belongs, by the beginning of its name.
type rule struct{ begin, step string }

// rules say to which step a stack belongs. The function nearest to the leaf that
// has a rule decides, by the first rule that fits it: so the encoding of an event
// within a call of the engine is part of "record, emit", and a request of the
// library within a commit is part of the commit.
func rules() []rule {
	const nats = "github.com/nats-io/nats.go."
	const worker, queue, results = "understudy/internal/worker.", "understudy/internal/queue.", "understudy/internal/results."
	const fallback = "understudy/internal/fallback."
	all := []rule{{"log/slog.", stepCount}, {"github.com/prometheus/", stepCount}}
	add := func(step, pkg string, names ...string) {
		for _, name := range names {
			all = append(all, rule{pkg + name, step})
		}
	}
	add(stepAck, queue, "(*Delivery).Ack", "(*Delivery).settle")
	add(stepAck, worker, "(*task).settle")
	add(stepAck, results, "(*Store).Reply")
	add(stepLease, queue, "(*Delivery).extend", "(*Delivery).Release", "(*Source).begin", "(*Source).done", "(*Source).release", "leases", "(*leases)", "(*handlers)")
	add(stepPull, queue, "")
	add(stepEmit, worker, "observer.", "(*task).emit", "(*task).event", "(*task).received", "(*task).completed")
	add(stepEmit, results, "(*Outbox)")
	add(stepEmit, "github.com/nats-io/nats.go/jetstream.", "(*jetStream).handleAsyncReply")
	add(stepDecode, worker, "(*task).understand", "(*task).accept")
	add(stepDecode, "understudy/internal/job.", "(*Decoder)")
	add(stepPlan, fallback, "(*Engine).Plan")
	add(stepPlan, worker, "(*task).call", "(*task).due", "(*task).admit")
	add(stepCandidate, fallback, "")
	add(stepBreaker, "understudy/internal/", "breaker.", "limit.")
	add(stepCall, "understudy/internal/", "backend/openai.", "backend.")
	add(stepCall, "net/http.", "")
	add(stepCommit, worker, "(*task).finish", "(*task).commit", "(*task).success", "(*task).result", "(*Worker).settling")
	add(stepCommit, results, "(*Store).Commit", "(*Store).store", "(*Store).publish", "(*Store).fits")
	add(stepCount, worker, "(*task).account")
	add(stepRecall, worker, "(*task).tryRecall", "(*task).read", "(*task).recall")
	add(stepRecall, results, "")
	add(stepLease, worker, "(*Worker).handle", "(*task)")
	add(stepNone, worker, "New", "(*Worker)", "(*backends)")
	add(stepNone, "runtime/", "pprof.")
	add(stepNone, "main.", "")
	add(stepNone, "runtime.", "doInit", "profileSignal", "(*cpuProfile)", "main")
	add(stepNATS, nats, "(*Conn).readLoop", "(*Conn).flusher", "(*Conn).waitForMsgs")
	add(stepCollector, "runtime.", "gcBgMarkWorker", "bgsweep", "bgscavenge", "runfinq", "runFinalizers", "runCleanups")
	add(stepScheduler, "runtime.", "mcall", "mstart", "schedule", "sysmon", "findRunnable", "goexit0", "park_m")
	return all
}

// trace is so much CPU time, in milliseconds, of one stack, the leaf first.
type trace struct {
	ms    float64
	stack []string
}

// stepOf is the step that a stack belongs to.
func stepOf(stack []string, all []rule) string {
	for _, name := range stack {
		for _, r := range all {
			if strings.HasPrefix(name, r.begin) {
				return r.step
			}
		}
	}
	return stepRest
}

// readTraces asks the Go tool for the stacks of a profile.
func readTraces(ctx context.Context, profile string) ([]trace, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", "-unit=ms", profile).Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w", err)
	}
	return parseTraces(string(out))
}

// parseTraces reads what `pprof -traces -unit=ms` prints: after a line of dashes
// the time and the leaf of a stack, then its callers, each on a line.
func parseTraces(text string) ([]trace, error) {
	var all []trace
	begins, inside := false, false
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(line, "-----"):
			begins, inside = true, true
			continue
		case !inside || line == "":
			continue
		}
		if begins {
			value, name, found := strings.Cut(line, " ")
			ms, err := strconv.ParseFloat(strings.TrimSuffix(value, "ms"), 64)
			if !found || err != nil {
				return nil, fmt.Errorf("a stack does not begin with a time in ms: %q", line)
			}
			all, line, begins = append(all, trace{ms: ms}), name, false
		}
		last := &all[len(all)-1]
		last.stack = append(last.stack, functionName(line))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the profile holds no stack (%d bytes)", len(text))
	}
	return all, lines.Err()
}

// functionName is the name of a function as Go writes it in code.
func functionName(line string) string {
	return strings.ReplaceAll(strings.TrimSpace(strings.TrimSuffix(line, "(inline)")), "%2e", ".")
}

// stepCost is what a step costs one job.
type stepCost struct {
	Step    string  `json:"step"`
	Micros  float64 `json:"cpu_us_per_job"`
	Samples int     `json:"samples"`
}

// attribute shares the CPU time of one job, in microseconds, among the steps as
// the traces show. period is the time between two samples, in milliseconds.
func attribute(all []trace, perJob, period float64) []stepCost {
	known, sum := rules(), 0.0
	shares := make(map[string]float64)
	for _, t := range all {
		step := stepOf(t.stack, known)
		if step == stepNone {
			continue
		}
		shares[step] += t.ms
		sum += t.ms
	}
	var costs []stepCost
	for _, step := range stepNames() {
		if ms := shares[step]; sum > 0 {
			costs = append(costs, stepCost{Step: step, Micros: perJob * ms / sum, Samples: int(ms/period + 0.5)})
		}
	}
	return costs
}
