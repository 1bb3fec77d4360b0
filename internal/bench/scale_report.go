package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// step is how much more a job may cost at a point than the best smaller point
// suggests. Less is what a busy machine does from run to run.
const step = 1.5

// suggested is what a job may cost at the point i, by the best of the smaller
// points: what it costs there, times what the work itself grew by.
func (c *curve) suggested(i int) float64 {
	best := math.Inf(1)
	for j := range i {
		best = min(best, c.Points[j].Worker.CPUMicros*c.growth(j, i))
	}
	return best
}

// growth is what the work of a job grew by from the point i to j: as much as the
// bare loop's, which has the same server, machine and neighbours; never less than
// not at all, but for jobs that grow. Without the bare loop it is as much as the
// size of a job.
func (c *curve) growth(i, j int) float64 {
	from, to := c.Points[i], c.Points[j]
	growth := 1.0
	switch {
	case from.Bare != nil && to.Bare != nil && from.Bare.CPUMicros > 0:
		growth = to.Bare.CPUMicros / from.Bare.CPUMicros
	case c.grows:
		return float64(to.X) / float64(from.X)
	}
	if c.grows {
		return growth
	}
	return max(growth, 1)
}

// violations names every point at which a job suddenly costs more.
func (c *curve) violations() []string {
	var all []string
	for i := 1; i < len(c.Points); i++ {
		cost, most := c.Points[i].Worker.CPUMicros, step*c.suggested(i)
		if cost > most {
			all = append(all, fmt.Sprintf("A step: a job costs %s us at %s %s, more than %s us, which is %g times what a smaller point suggests.",
				figure(cost), thousands(c.Points[i].X), c.Axis, figure(most), step))
		}
	}
	return all
}

// table is the curve in numbers.
func (c *curve) table() table {
	t := table{title: c.Title, head: []string{c.Axis, "jobs/s", "CPU per job, us", "RSS max, MB"}}
	ideal := len(c.Points) > 0 && c.Points[0].Ideal > 0
	if ideal {
		t.head = append(t.head, "ideal jobs/s")
	}
	if !c.alone {
		t.head = append(t.head, "bare loop: jobs/s", "CPU per job, us", "RSS max, MB")
	}
	for _, p := range c.Points {
		row := append([]string{thousands(p.X)}, p.Worker.figures()...)
		if ideal {
			row = append(row, figure(p.Ideal))
		}
		if !c.alone {
			row = append(row, p.Bare.figures()...)
		}
		t.rows = append(t.rows, row)
	}
	t.notes = c.violations()
	if len(t.notes) == 0 {
		t.notes = []string{fmt.Sprintf("No step: nowhere does a job cost more than %g times what a smaller point suggests.", step)}
	}
	t.notes = append(t.notes, c.again()...)
	return t
}

// again names every point at which jobs were delivered more than once.
func (c *curve) again() []string {
	var all []string
	for _, p := range c.Points {
		for side, s := range map[string]*sample{sideWorker: p.Worker, "bare loop": p.Bare} {
			if s != nil && s.Redelivered > 0 {
				all = append(all, fmt.Sprintf("Redeliveries: %s of %s jobs of the %s at %s %s.",
					thousands(int(s.Redelivered)), thousands(s.Jobs), side, thousands(p.X), c.Axis))
			}
		}
	}
	slices.Sort(all)
	return all
}

// figures are the numbers of a sample in a table; dashes where there is none.
func (s *sample) figures() []string {
	if s == nil {
		return []string{"-", "-", "-"}
	}
	return []string{figure(s.JobsPerSec), figure(s.CPUMicros), figure(s.RSSBytes / 1e6)}
}

// markdown is the curve for the document, with its picture.
func (c *curve) markdown(p pictures) (string, error) {
	picture, err := p.put(c.Name, c.Title, c.picture())
	if err != nil {
		return "", err
	}
	return c.table().markdown() + "\n" + picture, nil
}

// picture draws the curve: the rate, the cost and the memory.
func (c *curve) picture() string {
	panels := []panel{
		{title: "jobs per second", axis: c.Axis},
		{title: "CPU per job, us", axis: c.Axis},
		{title: "RSS max, MB", axis: c.Axis},
	}
	of := []func(*sample) float64{
		func(s *sample) float64 { return s.JobsPerSec },
		func(s *sample) float64 { return s.CPUMicros },
		func(s *sample) float64 { return s.RSSBytes / 1e6 },
	}
	for i := range panels {
		worker, bare := series{name: sideWorker, class: "worker"}, series{name: "bare loop", class: "bare"}
		for _, p := range c.Points {
			worker.add(float64(p.X), of[i](p.Worker))
			if p.Bare != nil {
				bare.add(float64(p.X), of[i](p.Bare))
			}
		}
		panels[i].series = []series{bare, worker}
	}
	ideal := series{name: "ideal", class: "ideal"}
	for _, p := range c.Points {
		if p.Ideal > 0 {
			ideal.add(float64(p.X), p.Ideal)
		}
	}
	panels[0].series = append([]series{ideal}, panels[0].series...)
	return chart(c.Title, panels)
}

// thousands is a number with its thousands apart.
func thousands(n int) string {
	text := strconv.Itoa(n)
	var groups []string
	for len(text) > 3 {
		groups = append([]string{text[len(text)-3:]}, groups...)
		text = text[:len(text)-3]
	}
	return strings.Join(append([]string{text}, groups...), ",")
}
