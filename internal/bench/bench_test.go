package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// small is a whole run of some seconds, with the worker as a library.
func small() options {
	o := defaults()
	o.worker, o.rounds, o.jobs, o.starts, o.points = "", 1, 200, 1, 1
	o.hold, o.slow, o.idle = 100*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	return o
}

func TestRunMeasuresBothSidesInEveryPart(t *testing.T) {
	t.Parallel()
	o := small()
	o.dir, o.side = t.TempDir(), sideBarePlus

	r, err := measure(t.Context(), o, t.Output())

	require.NoError(t, err)
	jobs := map[string]int{partThroughput: 200, partLatency: 25, partSlot: 10, partFlight: 50, partPrompt: 3}
	require.Len(t, r.Rounds, len(jobs))
	for part, n := range jobs {
		require.Len(t, r.Rounds[part], 1, part)
		for _, both := range r.Rounds[part] {
			samples := []sample{both.Bare, both.Worker}
			if part == partThroughput || part == partSlot {
				samples = append(samples, *both.Plus)
			}
			for _, s := range samples {
				require.Equal(t, n, s.Jobs, part)
				require.Positive(t, s.JobsPerSec, part)
				require.Positive(t, s.CPUMicros, part)
				require.Zero(t, s.Redelivered, part)
			}
		}
	}
	require.NotNil(t, r.Idle)
	require.Len(t, r.Starts, 1)
	require.Positive(t, r.Starts[0])
	require.Len(t, r.Lines, 6+5+6+4+5+2+2)
	for _, l := range r.Lines {
		require.Equal(t, l.Goal == "", l.Verdict == "", l.What)
	}
	for _, name := range []string{"bare-cpu.prof", "bare-allocs.prof", "worker-cpu.prof", "worker-allocs.prof"} {
		info, err := os.Stat(filepath.Join(o.dir, name))
		require.NoError(t, err)
		require.Positive(t, info.Size(), name)
	}
}

func TestRunTakesTheStepsApart(t *testing.T) {
	t.Parallel()
	o := small()
	o.only, o.jobs = partSteps, 400

	r, err := measure(t.Context(), o, t.Output())

	require.NoError(t, err)
	require.Equal(t, 1200, r.Steps.Jobs)
	sum := 0.0
	for _, c := range r.Steps.CPU {
		sum += c.Micros
	}
	require.InEpsilon(t, r.Steps.Micros, sum, 1e-6)
	require.Len(t, r.Steps.Walls, 2)
	for _, w := range r.Steps.Walls {
		require.Greater(t, w.sum(), 2000.0, "the provider takes 2 ms")
		for _, s := range w.Spans {
			if s.At == atServer && s.Name != "answer what is known of it" {
				require.Positive(t, s.P50, "%s: %s", w.Side, s.Name)
			}
		}
	}
}

func TestRunDrawsCurves(t *testing.T) {
	t.Parallel()
	o := small()
	o.only, o.doc = partScale, filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, os.WriteFile(o.doc, []byte("# Before\n\n<!-- bench-scale:begin -->\n<!-- bench-scale:end -->\n"), 0o640))

	r, err := measure(t.Context(), o, t.Output())

	require.NoError(t, err)
	require.Len(t, r.Curves, len(curveNames()))
	for _, c := range r.Curves {
		require.Len(t, c.Points, 1, c.Name)
		require.Positive(t, c.Points[0].Worker.CPUMicros, c.Name)
		require.Equal(t, c.alone, c.Points[0].Bare == nil, c.Name)
	}
	require.NoError(t, r.document(o.doc))
	text, err := os.ReadFile(o.doc)
	require.NoError(t, err)
	for _, name := range curveNames() {
		require.Contains(t, string(text), "(performance-"+name+".svg)")
		require.FileExists(t, filepath.Join(filepath.Dir(o.doc), "performance-"+name+".svg"))
	}
}

func TestPayloadsOverTheServersLimitGoByObjectStore(t *testing.T) {
	t.Parallel()
	s, err := newStage(t.Context(), small())
	defer func() { require.NoError(t, s.close()) }()
	require.NoError(t, err)
	got, err := s.run(t.Context(), sideWorker, load{jobs: 2, slots: 2, size: maxPayload})
	require.NoError(t, err)
	require.Equal(t, 2, got.Jobs)
}

func TestQueuedJobsAreNotAllWaitedFor(t *testing.T) {
	t.Parallel()
	s, err := newStage(t.Context(), small())
	defer func() { require.NoError(t, s.close()) }()
	require.NoError(t, err)
	got, err := s.run(t.Context(), sideBare, load{jobs: 20, queued: 300, slots: 4, size: tinySize})
	require.NoError(t, err)
	require.Equal(t, 20, got.Jobs)
	require.Zero(t, got.Redelivered)
}

func TestWorkersShareAQueueAndBurstsFollowEachOther(t *testing.T) {
	t.Parallel()
	s, err := newStage(t.Context(), small())
	defer func() { require.NoError(t, s.close()) }()
	require.NoError(t, err)
	got, err := s.run(t.Context(), sideWorker, load{jobs: 35, slots: 2, workers: 2, closed: true, burst: true, window: 10, backends: 3, routes: 5})
	require.NoError(t, err)
	require.Equal(t, 35, got.Jobs)
	require.Zero(t, got.Redelivered)
}

func TestWorkerThatCannotStartIsTold(t *testing.T) {
	t.Parallel()
	o := small()
	o.only, o.worker = partThroughput, filepath.Join(t.TempDir(), "worker")
	_, err := measure(t.Context(), o, io.Discard)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "make build")

	require.NoError(t, os.WriteFile(o.worker, []byte("#!/bin/sh\necho out of order >&2\nexit 1\n"), 0o700))
	_, err = measure(t.Context(), o, io.Discard)
	require.ErrorContains(t, err, "worker ended by itself")
	require.ErrorContains(t, err, "out of order")
}

func TestProviderTellsHowLongItHadACall(t *testing.T) {
	t.Parallel()
	text := answer(1234567 * time.Microsecond)
	require.True(t, json.Valid(text))
	require.Len(t, text, answerSize)

	took, err := tookOf(append([]byte(`{"response":{"body":`), text...))
	require.NoError(t, err)
	require.Equal(t, 1234567*time.Microsecond, took)

	for _, wrong := range []string{"", `{"status":"failed"}`, tookKey + "12"} {
		_, err = tookOf([]byte(wrong))
		require.Error(t, err, wrong)
	}
}

func TestPromptsAreAboutAsBigAsAsked(t *testing.T) {
	t.Parallel()
	for _, size := range []int{tinySize, promptSize, 10 << 10, bigPrompt} {
		require.True(t, json.Valid(prompt(size)))
		require.InDelta(t, size, len(prompt(size)), 32)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want string // of the error; empty for none
	}{
		"none":           {nil, ""},
		"two parts":      {[]string{"-only", "slot,idle"}, ""},
		"unknown part":   {[]string{"-only", "slots"}, `-only: "slots" is not one of throughput, latency, slot, flight, prompt, start, idle, steps, scale`},
		"unknown curve":  {[]string{"-curves", "jobs"}, `-curves: "jobs" is not one of flight, queued, workers, payload, backends, routes`},
		"curves":         {[]string{"-only", "scale", "-curves", "queued,routes", "-points", "2"}, ""},
		"third side":     {[]string{"-side", "bare+"}, ""},
		"unknown side":   {[]string{"-side", "bare"}, `-side: "bare" is not bare+`},
		"no points":      {[]string{"-points", "-1"}, "-points: -1 is below 0"},
		"no round":       {[]string{"-rounds", "0"}, "-rounds: 0 is below 1"},
		"too few jobs":   {[]string{"-jobs", "99"}, "-jobs: 99 is below 100"},
		"more arguments": {[]string{"now"}, `unexpected argument "now"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := defaults()
			err := o.parse(tt.args, io.Discard)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestProfilesNeedTheWorkerAsALibrary(t *testing.T) {
	t.Parallel()
	o := defaults()
	require.NoError(t, o.parse([]string{"-profile"}, io.Discard))
	require.Empty(t, o.worker)
	require.Equal(t, "bin", o.dir)
	require.False(t, o.whole())

	o = defaults()
	require.NoError(t, o.parse([]string{"-cpuprofile", "here"}, io.Discard))
	require.Empty(t, o.worker)
	require.Equal(t, "here", o.dir)
}

func TestOnlyWholeRunsAreKept(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": true, "-only scale": true, "-side bare+": true, "-only slot": false, "-only scale,slot": false,
		"-only scale -curves queued": false, "-only scale -points 2": false, "-profile": false,
	} {
		o := defaults()
		require.NoError(t, o.parse(strings.Fields(text), io.Discard))
		require.Equal(t, want, o.whole(), text)
	}
}

func TestWrongFlagsExitWithTwo(t *testing.T) {
	t.Parallel()
	var errOut bytes.Buffer
	require.Equal(t, exitUsage, run(t.Context(), []string{"-rounds", "0"}, io.Discard, &errOut))
	require.Equal(t, "bench: -rounds: 0 is below 1\n", errOut.String())
}
