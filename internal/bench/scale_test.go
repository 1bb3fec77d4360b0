package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// costs is a curve whose worker costs so much at 1, 10, 100 and so on.
func costs(all ...float64) curve {
	c := curve{Name: "jobs", Title: "Jobs", Axis: "jobs"}
	for i, cost := range all {
		x := 1
		for range i {
			x *= 10
		}
		c.Points = append(c.Points, point{X: x, Worker: &sample{CPUMicros: cost, JobsPerSec: 10, RSSBytes: 1e6}, Bare: &sample{CPUMicros: 100, JobsPerSec: 10}})
	}
	return c
}

func TestStepIsFoundAgainstTheBestSmallerPoint(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		curve curve
		want  int
	}{
		"flat":                  {costs(100, 100, 100), 0},
		"cheaper":               {costs(1000, 200, 100), 0},
		"as much as it may be":  {costs(100, 150), 0},
		"more":                  {costs(100, 151), 1},
		"slowly, but above all": {costs(100, 140, 151), 1},
		"once more":             {costs(300, 100, 200, 200), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Len(t, tt.curve.violations(), tt.want)
		})
	}
}

func TestStepOfJobsThatGrowIsFoundInProportion(t *testing.T) {
	t.Parallel()
	alone := func(all ...float64) *curve {
		c := costs(all...)
		c.grows = true
		for i := range c.Points {
			c.Points[i].Bare = nil
		}
		return &c
	}
	require.Empty(t, alone(100, 1500, 15000).violations())
	require.Equal(t, []string{"A step: a job costs 1501 us at 10 jobs, more than 1500 us, which is 1.5 times what a smaller point suggests."},
		alone(100, 1501).violations())
}

func TestWhatTheBareLoopPaysTooIsNoStep(t *testing.T) {
	t.Parallel()
	c := costs(100, 290)
	c.Points[1].Bare.CPUMicros = 200
	require.Empty(t, c.violations())
	c.Points[1].Bare.CPUMicros = 190
	require.Len(t, c.violations(), 1)
	c = costs(100, 140)
	c.Points[1].Bare.CPUMicros = 50 // a cheaper bare loop is no reason to be cheaper
	require.Empty(t, c.violations())
	c.grows = true // but where jobs grow it is the measure
	require.Len(t, c.violations(), 1)
}

func TestCurveIsTold(t *testing.T) {
	t.Parallel()
	c := costs(100, 120)
	c.Points[1].Bare = nil
	c.Points[0].Ideal, c.Points[1].Ideal = 5, 50
	dir := t.TempDir()

	text, err := c.markdown(pictures{dir: dir, begin: "performance"})

	require.NoError(t, err)
	require.Equal(t, `**Jobs**

| jobs | jobs/s | CPU per job, us | RSS max, MB | ideal jobs/s | bare loop: jobs/s | CPU per job, us | RSS max, MB |
|---|---:|---:|---:|---:|---:|---:|---:|
| 1 | 10.0 | 100 | 1.00 | 5.00 | 10.0 | 100 | 0 |
| 10 | 10.0 | 120 | 1.00 | 50.0 | - | - | - |

No step: nowhere does a job cost more than 1.5 times what a smaller point suggests.

![Jobs](performance-jobs.svg)
`, text)
	svg, err := os.ReadFile(filepath.Join(dir, "performance-jobs.svg"))
	require.NoError(t, err)
	wellFormed(t, string(svg))
	require.Contains(t, string(svg), ">ideal<")
}

func TestRedeliveriesOfAPointAreTold(t *testing.T) {
	t.Parallel()
	c := costs(100, 100)
	c.Points[1].Worker.Redelivered, c.Points[1].Worker.Jobs = 3, 2000
	require.Equal(t, []string{"Redeliveries: 3 of 2,000 jobs of the worker at 10 jobs."}, c.again())
	require.Len(t, c.table().notes, 2)
}

func TestCurvesHaveTheirPoints(t *testing.T) {
	t.Parallel()
	points := map[string]int{curveFlight: 7, curveQueued: 7, curveWorkers: 4, curvePayload: 5, curveBackends: 5, curveRoutes: 4}
	for _, c := range curves(defaults()) {
		require.Len(t, c.loads, points[c.Name], c.Name)
		for _, l := range c.loads {
			require.Positive(t, l.jobs, c.Name)
			require.LessOrEqual(t, l.jobs, worked, c.Name)
			require.LessOrEqual(t, float64(l.jobs)*float64(max(l.size, tinySize)), 1e9, "%s: it must fit a disk", c.Name)
		}
	}
	o := defaults()
	o.curves = curveRoutes
	require.Len(t, curves(o), 1)
}

func TestIdealRate(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 640, load{slots: 8, workers: 8, delay: shareDelay}.ideal(), 1e-9)
	require.Zero(t, load{slots: 8}.ideal())
}
