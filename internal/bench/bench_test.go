package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// small is a whole run of some seconds, with the worker as a library.
func small() options {
	o := defaults()
	o.worker, o.rounds, o.jobs, o.hold, o.idle = "", 1, 200, 100*time.Millisecond, 100*time.Millisecond
	return o
}

func TestRunMeasuresBothSidesInEveryPart(t *testing.T) {
	t.Parallel()
	o := small()
	o.dir = t.TempDir()

	r, err := measure(t.Context(), o, t.Output())

	require.NoError(t, err)
	jobs := map[string]int{partThroughput: 200, partLatency: 25, partSlot: 10, partFlight: 50}
	require.Len(t, r.Rounds, len(jobs))
	for part, n := range jobs {
		require.Len(t, r.Rounds[part], 1, part)
		for _, both := range r.Rounds[part] {
			for _, s := range []sample{both.Bare, both.Worker} {
				require.Equal(t, n, s.Jobs, part)
				require.Positive(t, s.JobsPerSec, part)
				require.Positive(t, s.CPUMicros, part)
				require.Zero(t, s.Redelivered, part)
			}
		}
	}
	require.NotNil(t, r.Idle)
	require.Len(t, r.Lines, 5+5+6+4+2)
	for _, l := range r.Lines {
		require.Equal(t, l.Goal == "", l.Verdict == "", l.What)
	}
	for _, name := range []string{"bare-cpu.prof", "bare-allocs.prof", "worker-cpu.prof", "worker-allocs.prof"} {
		info, err := os.Stat(filepath.Join(o.dir, name))
		require.NoError(t, err)
		require.Positive(t, info.Size(), name)
	}
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

func TestPromptIsAboutAKilobyte(t *testing.T) {
	t.Parallel()
	require.True(t, json.Valid(prompt()))
	require.InDelta(t, promptSize, len(prompt()), 32)
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want string // of the error; empty for none
	}{
		"none":           {nil, ""},
		"two parts":      {[]string{"-only", "slot,idle"}, ""},
		"unknown part":   {[]string{"-only", "slots"}, `-only: "slots" is not one of throughput, latency, slot, flight, idle`},
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

func TestWrongFlagsExitWithTwo(t *testing.T) {
	t.Parallel()
	var errOut bytes.Buffer
	require.Equal(t, exitUsage, run(t.Context(), []string{"-rounds", "0"}, io.Discard, &errOut))
	require.Equal(t, "bench: -rounds: 0 is below 1\n", errOut.String())
}
