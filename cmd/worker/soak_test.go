//go:build soak

package main

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

// TestSoak runs jobs through three workers of which one is killed or stopped
// every few seconds, and a server that restarts now and then, for the time in
// UNDERSTUDY_SOAK (10m), then checks the streams against the call log.
func TestSoak(t *testing.T) {
	t.Parallel()
	length := 10 * time.Minute
	if text := os.Getenv("UNDERSTUDY_SOAK"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err, "UNDERSTUDY_SOAK")
	}
	s := newStorm(t, func(llmtest.Call) llmtest.Reply {
		switch rand.IntN(20) {
		case 0:
			return llmtest.Fail(503, "busy")
		case 1:
			return llmtest.Broken(llmtest.Reset)
		default:
			return llmtest.Reply{Delay: time.Duration(rand.IntN(80)) * time.Millisecond}
		}
	})
	workers := []int{0, 1, 2}
	for range workers {
		s.start()
	}
	s.await("the streams are made", func() bool { return s.state("LLM_JOBS").Consumers == 1 })
	end := time.Now().Add(length)
	jobs, faults := 0, map[string]int{}
	fault := time.NewTicker(7 * time.Second)
	defer fault.Stop()
	for time.Now().Before(end) {
		for range 20 {
			s.publish(jobs)
			jobs++
		}
		s.await("the workers keep up", func() bool { return s.state("LLM_JOBS").Msgs < 500 })
		select {
		case <-fault.C:
		default:
			continue
		}
		i := rand.IntN(len(workers))
		victim := s.workers[workers[i]]
		switch rand.IntN(5) {
		case 0:
			faults["server restart"]++
			s.srv.Restart(t)
			s.await("the server is back", func() bool { return s.state("LLM_RESULTS").Msgs > 0 })
			continue
		case 1, 2:
			faults["SIGTERM"]++
			require.NoError(t, victim.Process.Signal(syscall.SIGTERM))
		default:
			faults["SIGKILL"]++
			require.NoError(t, victim.Process.Kill())
		}
		_ = victim.Wait()
		s.start()
		workers[i] = len(s.workers) - 1
	}
	unknown := s.check(jobs)
	t.Logf("%d jobs in %s, %d calls, %d unknown outcomes, faults %v", jobs, length, s.provider.Stats().Calls, unknown, faults)
}
