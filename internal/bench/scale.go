package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// The names of the curves.
const (
	curveFlight   = "flight"
	curveQueued   = "queued"
	curveWorkers  = "workers"
	curvePayload  = "payload"
	curveBackends = "backends"
	curveRoutes   = "routes"
)

// curveNames are all curves, in the order they are drawn.
func curveNames() []string {
	return []string{curveFlight, curveQueued, curveWorkers, curvePayload, curveBackends, curveRoutes}
}

// curve is how the cost of a job follows one size.
type curve struct {
	Name   string  `json:"name"`
	Title  string  `json:"title"`
	Axis   string  `json:"axis"` // what grows from point to point
	Points []point `json:"points"`

	grows bool // with the axis the job itself
	alone bool // only the worker has what is varied
	loads []sized
}

// point is one size of a curve.
type point struct {
	X      int     `json:"x"`
	Ideal  float64 `json:"ideal_jobs_per_second,omitempty"` // slots by the provider's time; 0 where the machine is the limit
	Bare   *sample `json:"bare,omitempty"`
	Worker *sample `json:"worker"`
}

// sized is the load of a point.
type sized struct {
	x int
	load
}

// The sizes of the curves.
const (
	worked       = 20000 // of the queued jobs, so many are waited for
	widest       = 64    // slots of all workers together
	shareDelay   = 100 * time.Millisecond
	burstsAtMost = 1000 // so many queued jobs are published while the worker waits for them
)

// curves are the curves with their loads. The numbers of jobs are shares of those
// of a throughput run; what is on the axis stays.
func curves(o options) []curve {
	share := func(n, least int) int { return max(n*o.jobs/defaults().jobs, least) }
	powers := func(of func(x int) load, xs ...int) []sized {
		var all []sized
		for _, x := range xs {
			all = append(all, sized{x, of(x)})
		}
		return all
	}
	all := []curve{
		{Name: curveFlight, Title: "Jobs in flight, provider " + o.slow.String(), Axis: "jobs in flight", loads: powers(func(x int) load {
			return load{jobs: max(3*x, 60), slots: x, delay: o.slow}
		}, 10, 50, 100, 500, 1000, 2000, 5000)},
		{Name: curveQueued, Title: fmt.Sprintf("Jobs queued, %d of them worked off", worked), Axis: "jobs queued", loads: powers(func(x int) load {
			if x > burstsAtMost {
				return load{jobs: min(x, share(worked, 1000)), queued: x, slots: slots, size: tinySize}
			}
			bursts := share(max(5000/x, 5), 2) // one alone is too short to be measured
			if x == 1 {
				bursts = share(1000, 20)
			}
			return load{jobs: bursts * x, slots: slots, closed: true, burst: true, window: x, size: tinySize}
		}, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000)},
		{Name: curveWorkers, Title: fmt.Sprintf("Workers that share a queue and %d slots, provider %s", widest, shareDelay), Axis: "workers", loads: powers(func(x int) load {
			return load{jobs: share(3200, widest), slots: widest / x, workers: x, delay: shareDelay, closed: true}
		}, 1, 2, 4, 8)},
		{Name: curvePayload, Title: fmt.Sprintf("Payload, %d slots", promptSlots), Axis: "bytes of a job", grows: true, loads: powers(func(x int) load {
			return load{jobs: share(min(max(400<<20/x, 50), 4000), 20), slots: promptSlots, size: x}
		}, 1<<10, 10<<10, 100<<10, 1<<20, 8<<20)},
		{Name: curveBackends, Title: "Backends in the chain, the first of which answers", Axis: "backends", alone: true, loads: powers(func(x int) load {
			return load{jobs: share(10_000, 200), slots: slots, backends: x}
		}, 1, 3, 10, 30, 100)},
		{Name: curveRoutes, Title: "Routes, which the jobs name in turn", Axis: "routes", alone: true, loads: powers(func(x int) load {
			return load{jobs: share(10_000, 200), slots: slots, routes: x}
		}, 1, 10, 100, 1000)},
	}
	return slices.DeleteFunc(all, func(c curve) bool { return !slices.Contains(o.drawn(), c.Name) })
}

// ideal is how many jobs a second the slots allow; 0 where the provider answers
// at once.
func (l load) ideal() float64 {
	if l.delay == 0 {
		return 0
	}
	return float64(l.slots*max(l.workers, 1)) / l.delay.Seconds()
}

// measureScale draws the curves.
func (r *report) measureScale(ctx context.Context, s *stage, progress io.Writer) error {
	for _, c := range curves(s.o) {
		loads := c.loads
		if s.o.points > 0 {
			loads = loads[:min(s.o.points, len(loads))]
		}
		for _, l := range loads {
			p, err := s.point(ctx, c, l, progress)
			if err != nil {
				return fmt.Errorf("%s, %d %s: %w", c.Name, l.x, c.Axis, err)
			}
			c.Points = append(c.Points, p)
		}
		r.Curves = append(r.Curves, c)
	}
	return nil
}

// point measures the sides at one size.
func (s *stage) point(ctx context.Context, c curve, l sized, progress io.Writer) (point, error) {
	p := point{X: l.x, Ideal: l.ideal()}
	sides := []string{sideBare, sideWorker}
	if c.alone || l.size >= maxPayload { // the bare loop knows neither routes nor the object store
		sides = []string{sideWorker}
	}
	for _, side := range sides {
		got, err := s.run(ctx, side, l.load)
		if err != nil {
			return p, err
		}
		if side == sideBare {
			p.Bare = &got
		} else {
			p.Worker = &got
		}
		if _, err := fmt.Fprintf(progress, "%-10s %7d %-14s %-6s %s\n", c.Name, l.x, c.Axis, side, got.String()); err != nil {
			return p, err
		}
	}
	return p, nil
}
