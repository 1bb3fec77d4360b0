package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// A worker may die in the very moment in which a call has left. The stream knows of
// every call all the same, so that whoever takes the job up can tell.
func TestACallIsKnownThoughItsWorkerDiesAtOnce(t *testing.T) {
	t.Parallel()
	const rounds, jobs = 12, 100
	for round := range rounds {
		var calls atomic.Int64
		killed := make(chan struct{})
		var s *storm
		s = newStorm(t, func(llmtest.Call) llmtest.Reply {
			if calls.Add(1) == int64(jobs/2+round) {
				_ = s.workers[0].Process.Kill()
				close(killed)
			}
			return llmtest.Reply{}
		})
		w := s.start()
		s.await("the streams are made", func() bool { return s.state("LLM_DEAD").Consumers == 0 && s.state("LLM_JOBS").Consumers == 1 })
		for i := range jobs {
			s.publish(i)
		}
		<-killed
		require.Error(t, w.Wait(), "it was killed")
		s.await(fmt.Sprintf("every call of round %d is told", round), func() bool { return len(s.untold()) == 0 })
	}
}

// untold are the jobs of calls of whose begin the stream has no event.
func (s *storm) untold() []string {
	s.t.Helper()
	events, err := s.js.Stream(s.t.Context(), "LLM_EVENTS")
	require.NoError(s.t, err)
	told := map[string]bool{}
	for seq := range events.CachedInfo().State.LastSeq {
		msg, err := events.GetMsg(s.t.Context(), seq+1)
		require.NoError(s.t, err)
		e, err := job.DecodeEvent(msg.Data)
		require.NoError(s.t, err)
		told[e.Subject] = told[e.Subject] || e.Type == job.EventAttemptStarted
	}
	var untold []string
	for _, c := range s.provider.Calls() {
		_, rest, _ := strings.Cut(string(c.Body), "job-")
		if id, _, _ := strings.Cut(rest, "!"); !told[id] {
			untold = append(untold, id)
		}
	}
	return untold
}
