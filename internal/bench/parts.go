package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The names of the parts.
const (
	partThroughput = "throughput"
	partLatency    = "latency"
	partSlot       = "slot"
	partFlight     = "flight"
	partIdle       = "idle"
)

// partNames are all parts, in the order they run.
func partNames() []string {
	return []string{partThroughput, partLatency, partSlot, partFlight, partIdle}
}

// The numbers of the parts.
const (
	slots = 64 // the worker's default
	// latencyDelay keeps 64 slots below what two cores can do, so that what is
	// added is work and no queue.
	latencyDelay = 100 * time.Millisecond
	slotDelay    = 2 * time.Millisecond
)

// loads are the loads of the parts that compare. The sizes are shares of the
// jobs of a throughput run.
func loads(o options) map[string]load {
	return map[string]load{
		partThroughput: {jobs: o.jobs, slots: slots},
		partLatency:    {jobs: o.jobs / 8, slots: min(slots, o.jobs/8), delay: latencyDelay, closed: true},
		partSlot:       {jobs: o.jobs / 20, slots: 1, delay: slotDelay, closed: true},
		partFlight:     {jobs: o.jobs / 4, slots: o.jobs / 4, delay: o.hold},
	}
}

// round is one run of both sides, one after the other.
type round struct {
	Bare   sample `json:"bare"`
	Worker sample `json:"worker"`
}

// idleSample is what the worker costs that has nothing to do.
type idleSample struct {
	CPUPercent float64 `json:"cpu_percent_of_a_core"`
	RSSBytes   float64 `json:"rss_bytes"`
}

// report is the whole outcome.
type report struct {
	Cores  int                `json:"cores"`
	Go     string             `json:"go"`
	OS     string             `json:"os"`
	Jobs   int                `json:"jobs"`
	Rounds map[string][]round `json:"rounds"`
	Idle   *idleSample        `json:"idle,omitempty"`
	Lines  []line             `json:"lines"`
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
	for _, part := range partNames() {
		switch {
		case !slices.Contains(o.parts(), part):
		case part == partIdle:
			if err := r.measureIdle(ctx, s, progress); err != nil {
				return nil, fmt.Errorf("%s: %w", part, err)
			}
		default:
			if err := r.measureRounds(ctx, s, part, progress); err != nil {
				return nil, fmt.Errorf("%s: %w", part, err)
			}
		}
	}
	r.Lines = judge(r)
	return r, nil
}

// measureRounds runs both sides in turn. The side that begins changes with every
// round, so that a machine that becomes slower harms both alike.
func (r *report) measureRounds(ctx context.Context, s *stage, part string, progress io.Writer) error {
	l := loads(s.o)[part]
	for n := range s.o.rounds {
		var both round
		order := []string{sideBare, sideWorker}
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, side := range order {
			got, err := s.run(ctx, side, l)
			if err != nil {
				return err
			}
			if side == sideBare {
				both.Bare = got
			} else {
				both.Worker = got
			}
			_, err = fmt.Fprintf(progress, "%-10s round %d/%d %-6s %6d jobs in %5.2f s, %6.0f/s, %4.0f us of CPU each\n",
				part, n+1, s.o.rounds, side, l.jobs, got.Seconds, got.JobsPerSec, got.CPUMicros)
			if err != nil {
				return err
			}
		}
		r.Rounds[part] = append(r.Rounds[part], both)
	}
	return nil
}

// measureIdle watches a worker with its embedded server and nothing to do.
func (r *report) measureIdle(ctx context.Context, s *stage, progress io.Writer) error {
	if _, err := fmt.Fprintf(progress, "%-10s for %s\n", partIdle, s.o.idle); err != nil {
		return err
	}
	httpAddr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "idle")
	path, args, env := s.self, []string{"child-worker", "-data", data, "-http", httpAddr, "-provider", after(s.base, 0)}, []string(nil)
	if s.o.worker != "" {
		path, args, env = s.o.worker, nil, []string{
			"VLLM_BASE_URL=" + after(s.base, 0), "WORKER_HTTP_ADDR=" + httpAddr,
			"WORKER_EMBEDDED_ADDR=127.0.0.1:0", "WORKER_DATA_DIR=" + data,
		}
	}
	p, err := start(ctx, s.dir, partIdle, path, args, env)
	if err != nil {
		return err
	}
	defer p.kill()
	if err := ready(ctx, p, httpAddr); err != nil {
		return err
	}
	sleep(ctx, s.o.idle/10) // what a start leaves behind is over
	cpu, begin := p.cpu(), time.Now()
	if !sleep(ctx, s.o.idle) {
		return context.Cause(ctx)
	}
	used, took := p.cpu()-cpu, time.Since(begin)
	now, _, err := memory(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.Idle = &idleSample{CPUPercent: 100 * used.Seconds() / took.Seconds(), RSSBytes: float64(now)}
	return p.stop()
}

// ready waits until the worker at addr says that jobs reach it.
func ready(ctx context.Context, p *process, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			if resp.Body.Close() == nil && resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/readyz says %s", resp.Status)
		}
		if p.hasEnded() {
			return p.failure(fmt.Errorf("%s ended by itself: %w", p.name, p.err))
		}
		if !sleep(ctx, readyPoll) {
			return p.failure(err)
		}
	}
}

// freeAddr is an address that nobody listens at.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	return addr, l.Close()
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
	default:
		return strings.ToUpper(part[:1]) + part[1:] + " worker with the embedded server"
	}
}
