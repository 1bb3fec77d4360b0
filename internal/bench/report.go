package main

import (
	"fmt"
	"math"
	"slices"
)

// A goal that is met is ok.
const (
	verdictOK     = "ok"
	verdictMissed = "missed"
)

// line is one line of the table: a number of one part.
type line struct {
	Part string `json:"part"`
	What string `json:"what"`
	Unit string `json:"unit"`
	// Bare and Worker are the medians; 0 where there is none.
	Bare   float64 `json:"bare"`
	Plus   float64 `json:"bare_plus,omitempty"` // the third side's median
	Worker float64 `json:"worker"`
	// Min, Median and Max are the ratios of the worker to the bare loop over the
	// rounds, or the worker's own numbers where Absolute is true.
	Min      float64 `json:"min"`
	Median   float64 `json:"median"`
	Max      float64 `json:"max"`
	Absolute bool    `json:"absolute"`
	Only     bool    `json:"worker_only,omitempty"` // there is no bare side
	Goal     string  `json:"goal,omitempty"`
	Verdict  string  `json:"verdict,omitempty"`
}

// goal is a limit on the ratio, or on the number itself.
type goal struct {
	sign     string // one of >=, <=, <
	limit    float64
	absolute bool // on the worst of the worker's own numbers; else on the median ratio
}

// met reports whether x keeps the goal.
func (g goal) met(x float64) bool {
	switch g.sign {
	case ">=":
		return x >= g.limit
	case "<=":
		return x <= g.limit
	default:
		return x < g.limit
	}
}

// number is one number of the samples of a part.
type number struct {
	what, unit string
	of         func(sample) float64
	over       float64 // the ratio is told over this one; 0 means it is told as it is
	goal       *goal
}

// redpanda is how much of a bare loop's jobs per second Redpanda Connect made, with
// nats_jetstream and openai_chat_completion: 2,000 to 2,200 where the loop made
// 5,700 to 6,200, on one machine. The figures were given to us; this program does
// not measure them.
const redpanda = 0.355

// The goals on a cold start, in milliseconds.
const startGoal = 300

// numbers are what is told of a part, with its goals.
func numbers(part string) []number {
	rate := number{what: "jobs/s", of: func(s sample) float64 { return s.JobsPerSec }}
	cpu := number{what: "CPU per job", unit: "us", of: func(s sample) float64 { return s.CPUMicros }}
	server := number{what: "CPU of the server per job", unit: "us", of: func(s sample) float64 { return s.ServerCPU }}
	rss := number{what: "RSS max", unit: "MB", of: func(s sample) float64 { return s.RSSBytes / 1e6 }}
	p50 := number{what: "added latency p50", unit: "ms", of: func(s sample) float64 { return s.AddedP50 }}
	p99 := number{what: "added latency p99", unit: "ms", of: func(s sample) float64 { return s.AddedP99 }}
	again := number{what: "redeliveries", of: func(s sample) float64 { return s.Redelivered }, goal: &goal{"<=", 0, true}}
	switch part {
	case partThroughput:
		rate.goal, cpu.goal = &goal{">=", 0.90, false}, &goal{"<=", 1.15, false}
		against := number{
			what: "jobs/s against Redpanda Connect (derived)", unit: "times", of: rate.of, over: redpanda, goal: &goal{">=", 2.3, false},
		}
		return []number{rate, against, cpu, server, rss, again}
	case partLatency:
		return []number{rate, cpu, p50, p99, again}
	case partPrompt:
		cpu.goal = &goal{"<=", 1.5, false}
		return []number{rate, cpu, server, rss, again}
	case partSlot:
		p50.goal = &goal{"<=", 1.20, false}
		return []number{rate, cpu, rss, p50, p99, again}
	default:
		took := number{what: "all done in", unit: "s", of: func(s sample) float64 { return s.Seconds }, goal: &goal{"<", 7, true}}
		rss.goal = &goal{"<=", 1.15, false}
		return []number{took, cpu, rss, again}
	}
}

// judge makes the lines of the table.
func judge(r *report) []line {
	var lines []line
	for _, part := range partNames() {
		if rounds := r.Rounds[part]; len(rounds) > 0 {
			for _, n := range numbers(part) {
				lines = append(lines, n.judge(part, rounds))
			}
		}
	}
	return append(lines, r.judgeAlone()...)
}

// judgeAlone makes the lines of the parts that only the worker has.
func (r *report) judgeAlone() []line {
	type alone struct {
		part, what, unit string
		value            float64
		goal             goal
	}
	var all []alone
	if len(r.Starts) > 0 {
		limit := goal{"<", startGoal, true}
		all = append(all,
			alone{partStart, "to the first result, median", "ms", median(r.Starts), limit},
			alone{partStart, "to the first result, worst", "ms", slices.Max(r.Starts), limit})
	}
	if r.Idle != nil {
		all = append(all,
			alone{partIdle, "CPU of a core", "%", r.Idle.CPUPercent, goal{"<", 0.5, true}},
			alone{partIdle, "RSS", "MB", r.Idle.RSSBytes / 1e6, goal{"<", 40, true}})
	}
	var lines []line
	for _, n := range all {
		l := line{Part: n.part, What: n.what, Unit: n.unit, Worker: n.value, Min: n.value, Median: n.value, Max: n.value, Only: true}
		lines = append(lines, l.against(&n.goal))
	}
	return lines
}

func (n number) judge(part string, rounds []round) line {
	var bare, plus, worker, ratios []float64
	for _, r := range rounds {
		b, w := n.of(r.Bare), n.of(r.Worker)
		bare, worker = append(bare, b), append(worker, w)
		if b != 0 {
			ratios = append(ratios, w/b)
		}
		if r.Plus != nil {
			plus = append(plus, n.of(*r.Plus))
		}
	}
	l := line{Part: part, What: n.what, Unit: n.unit, Bare: median(bare), Plus: median(plus), Worker: median(worker)}
	if n.goal != nil && n.goal.absolute {
		ratios = worker
	}
	if n.over != 0 {
		for i := range ratios {
			ratios[i] /= n.over
		}
		l.Bare, l.Plus, l.Worker, l.Only = 0, 0, median(ratios), true
	}
	if len(ratios) == 0 { // not known on this system
		return l
	}
	l.Min, l.Median, l.Max = slices.Min(ratios), median(ratios), slices.Max(ratios)
	return l.against(n.goal)
}

// against is the line with its goal and the verdict.
func (l line) against(g *goal) line {
	if g == nil {
		return l
	}
	value := l.Median
	if g.absolute {
		value = l.Max
	}
	l.Absolute, l.Goal, l.Verdict = g.absolute, fmt.Sprintf("%s %g", g.sign, g.limit), verdictMissed
	if g.met(value) {
		l.Verdict = verdictOK
	}
	return l
}

// median of no numbers is 0.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// figure is a number with as many digits as mean something.
func figure(x float64) string {
	switch a := math.Abs(x); {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

// row are the cells of the line, without its part.
func (r *report) row(l line) []string {
	what := l.What
	if l.Unit != "" {
		what += ", " + l.Unit
	}
	bare, plus, spread := figure(l.Bare), figure(l.Plus), figure(l.Min)+" / "+figure(l.Median)+" / "+figure(l.Max)
	if l.Only {
		bare, plus = "", ""
	}
	if l.Absolute {
		spread = "" // the goal is on the number itself
	}
	row := []string{what, bare, figure(l.Worker), spread, l.Goal, l.Verdict}
	if r.third(l.Part) {
		row = slices.Insert(row, 2, plus)
	}
	return row
}

// head is the head of the table of a part.
func (r *report) head(part string) []string {
	head := []string{"bare loop", "worker", "ratio min / median / max", "goal", ""}
	if r.third(part) {
		head = slices.Insert(head, 1, sideBarePlus)
	}
	return head
}

// third reports whether the third side was measured in a part.
func (r *report) third(part string) bool {
	rounds := r.Rounds[part]
	return len(rounds) > 0 && rounds[0].Plus != nil
}

// machine says what the numbers were taken on.
func (r *report) machine() string {
	rounds := 0
	for _, all := range r.Rounds {
		rounds = max(rounds, len(all))
	}
	host := fmt.Sprintf("%d cores, %s, %s", r.Cores, r.OS, r.Go)
	if rounds == 0 {
		return host + "."
	}
	return fmt.Sprintf("%s; %d rounds, medians.", host, rounds)
}
