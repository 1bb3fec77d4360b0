package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// The names of the parts.
const (
	partThroughput = "throughput"
	partLatency    = "latency"
	partSlot       = "slot"
	partFlight     = "flight"
	partPrompt     = "prompt"
	partStart      = "start"
	partIdle       = "idle"
	partSteps      = "steps"
	partScale      = "scale"
)

// partNames are the parts of a run without -only, in the order they run.
func partNames() []string {
	return []string{partThroughput, partLatency, partSlot, partFlight, partPrompt, partStart, partIdle, partSteps}
}

// allParts are all parts, in the order they run.
func allParts() []string { return append(partNames(), partScale) }

// The numbers of the parts.
const (
	slots = 64 // the worker's default
	// latencyDelay keeps 64 slots below what two cores can do, so that what is
	// added is work and no queue.
	latencyDelay = 100 * time.Millisecond
	slotDelay    = 2 * time.Millisecond
	// promptSlots and bigPrompt are those of the part with big prompts.
	promptSlots = 16
	bigPrompt   = 1 << 20
)

// loads are the loads of the parts that compare. The sizes are shares of the
// jobs of a throughput run.
func loads(o options) map[string]load {
	return map[string]load{
		partThroughput: {jobs: o.jobs, slots: slots},
		partLatency:    {jobs: o.jobs / 8, slots: min(slots, o.jobs/8), delay: latencyDelay, closed: true},
		partSlot:       {jobs: o.jobs / 20, slots: 1, delay: slotDelay, closed: true},
		partFlight:     {jobs: o.jobs / 4, slots: o.jobs / 4, delay: o.hold},
		partPrompt:     {jobs: o.jobs * 3 / 200, slots: promptSlots, size: bigPrompt},
	}
}

// round is one run of both sides, one after the other, and of the third side
// where that is asked for.
type round struct {
	Bare   sample  `json:"bare"`
	Plus   *sample `json:"bare_plus,omitempty"`
	Worker sample  `json:"worker"`
}

// put keeps what a run of a side came to.
func (r *round) put(side string, got sample) {
	switch side {
	case sideBare:
		r.Bare = got
	case sideBarePlus:
		r.Plus = &got
	default:
		r.Worker = got
	}
}

// report is the whole outcome.
type report struct {
	Cores  int                `json:"cores"`
	Go     string             `json:"go"`
	OS     string             `json:"os"`
	Jobs   int                `json:"jobs"`
	Rounds map[string][]round `json:"rounds"`
	Starts []float64          `json:"starts_ms,omitempty"` // to the first result, every cold start
	Idle   *idleSample        `json:"idle,omitempty"`
	Lines  []line             `json:"lines"`
	Steps  *steps             `json:"steps,omitempty"`
	Curves []curve            `json:"curves,omitempty"`
}

// measure runs the parts. What is under way is told on progress.
func measure(ctx context.Context, o options, progress io.Writer) (_ *report, err error) {
	r := &report{
		Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Jobs: o.jobs, Rounds: make(map[string][]round),
	}
	s, err := newStage(ctx, o)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return nil, err
	}
	for _, part := range allParts() {
		if !slices.Contains(o.parts(), part) {
			continue
		}
		if err := r.part(ctx, s, part, progress); err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
	}
	r.Lines = judge(r)
	return r, nil
}

// part runs one part.
func (r *report) part(ctx context.Context, s *stage, part string, progress io.Writer) error {
	switch part {
	case partStart:
		return r.measureStarts(ctx, s, progress)
	case partIdle:
		return r.measureIdle(ctx, s, progress)
	case partSteps:
		return r.measureSteps(ctx, s, progress)
	case partScale:
		return r.measureScale(ctx, s, progress)
	default:
		return r.measureRounds(ctx, s, part, progress)
	}
}

// sides are the sides of a part, in the order of its first round.
func (o *options) sides(part string) []string {
	if o.side == sideBarePlus && (part == partThroughput || part == partSlot) {
		return []string{sideBare, sideBarePlus, sideWorker}
	}
	return []string{sideBare, sideWorker}
}

// measureRounds runs the sides in turn. The side that begins changes with every
// round, so that a machine that becomes slower harms all alike.
func (r *report) measureRounds(ctx context.Context, s *stage, part string, progress io.Writer) error {
	l := loads(s.o)[part]
	for n := range s.o.rounds {
		var all round
		order := s.o.sides(part)
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, side := range order {
			got, err := s.run(ctx, side, l)
			if err != nil {
				return err
			}
			all.put(side, got)
			_, err = fmt.Fprintf(progress, "%-10s round %d/%d %-6s %s\n", part, n+1, s.o.rounds, side, got.String())
			if err != nil {
				return err
			}
		}
		r.Rounds[part] = append(r.Rounds[part], all)
	}
	return nil
}

// title is what a part does, for people.
func (r *report) title(part string) string {
	l := loads(options{jobs: r.Jobs, hold: defaults().hold})[part]
	switch part {
	case partThroughput:
		return fmt.Sprintf("%d slots, %d jobs in the queue", l.slots, l.jobs)
	case partLatency:
		return fmt.Sprintf("%d slots, %d jobs at once, provider %s", l.slots, l.slots, l.delay)
	case partSlot:
		return fmt.Sprintf("1 slot, one job at a time, provider %s", l.delay)
	case partFlight:
		return fmt.Sprintf("%d jobs in flight, provider %s", l.jobs, l.delay)
	case partPrompt:
		return fmt.Sprintf("%d slots, %d jobs with prompts of 1 MB", l.slots, l.jobs)
	case partStart:
		return fmt.Sprintf("%d cold starts with the embedded server", len(r.Starts))
	default:
		return "Idle worker with the embedded server"
	}
}
