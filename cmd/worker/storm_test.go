package main

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// storm is real worker processes under a load, to be killed at will, and what
// an independent checker needs: the streams and the provider's own call log.
type storm struct {
	t        *testing.T
	srv      *natstest.Server
	js       jetstream.JetStream
	provider *llmtest.Provider
	workers  []*exec.Cmd
	started  int
}

// patience bounds the waits of a storm, beyond the lease of a killed worker's jobs.
const patience = 3 * time.Minute

func newStorm(t *testing.T, script llmtest.Script) *storm {
	t.Helper()
	s := &storm{t: t, srv: natstest.Run(t), provider: llmtest.New(t, script)}
	s.js = s.srv.JetStream(t)
	t.Cleanup(func() {
		for _, w := range s.workers {
			_ = w.Process.Kill()
			_ = w.Wait()
		}
	})
	return s
}

// start adds a worker process.
func (s *storm) start() *exec.Cmd {
	s.t.Helper()
	s.started++
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), binary)
	cmd.Dir = s.t.TempDir()
	cmd.Env = []string{
		"HOME=" + cmd.Dir, "NATS_URL=" + s.srv.URL, fmt.Sprintf("WORKER_NAME=w-%d", s.started),
		"VLLM_BASE_URL=" + s.provider.URL(), "VLLM_TIMEOUT=5", "WORKER_HTTP_ADDR=", "WORKER_CONCURRENCY=8",
		"FALLBACK_BASE_DELAY=0.02", "FALLBACK_MAX_DELAY=0.1", "FALLBACK_MAX_ATTEMPTS=20", "BREAKER_FAILURES=1000", "WORKER_LOG_LEVEL=error",
	}
	require.NoError(s.t, cmd.Start())
	s.workers = append(s.workers, cmd)
	return cmd
}

// publish stores job n.
func (s *storm) publish(n int) {
	s.t.Helper()
	_, err := s.js.Publish(s.t.Context(), "llm.jobs.default."+id(n), payload(n))
	require.NoError(s.t, err)
}

func id(n int) string { return fmt.Sprintf("storm.%06d", n) }

// payload is that of job n.
func payload(n int) []byte {
	return fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"job-%s!"}]}`, id(n))
}

// state is the state of a stream; zero while there is none, or it cannot be read.
func (s *storm) state(stream string) jetstream.StreamState {
	st, err := s.js.Stream(s.t.Context(), stream)
	if err != nil {
		return jetstream.StreamState{}
	}
	return st.CachedInfo().State
}

// await blocks until cond holds. It asks in the goroutine of the test.
func (s *storm) await(what string, cond func() bool) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		require.True(s.t, time.Now().Before(end), what)
	}
}

// results waits until there are n results, and returns the state of their stream.
func (s *storm) results(n int) (state jetstream.StreamState) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d results", n), func() bool {
		state = s.state("LLM_RESULTS")
		return state.Msgs >= uint64(n)
	})
	return state
}

// check compares the streams with the provider's call log: nothing lost, nothing
// stuck, no second result, every call explained, none after its job's result.
func (s *storm) check(n int) (unknown int) {
	s.t.Helper()
	s.results(n)
	s.await("the queue is empty", func() bool {
		jobs := s.state("LLM_JOBS")
		return jobs.LastSeq >= uint64(n) && jobs.Msgs == 0
	})
	results := s.results(n)
	require.EqualValues(s.t, n, results.Msgs, "results")
	require.EqualValues(s.t, n, results.LastSeq, "no job had a second result")

	calls := map[string][]llmtest.Call{}
	for _, c := range s.provider.Calls() {
		calls[idOf(c)] = append(calls[idOf(c)], c)
	}
	stream, err := s.js.Stream(s.t.Context(), "LLM_RESULTS")
	require.NoError(s.t, err)
	for i := range n {
		msg, err := stream.GetLastMsgForSubject(s.t.Context(), "llm.results.default."+id(i))
		require.NoError(s.t, err, id(i))
		r, err := job.DecodeResult(msg.Data)
		require.NoError(s.t, err)
		require.Equal(s.t, job.Succeeded, r.Status, id(i))
		told := 0
		for _, a := range r.Attempts {
			if a.Outcome != job.OutcomeSkipped {
				told++
			}
			if a.Outcome == job.OutcomeUnknown {
				unknown++
			}
		}
		require.NotEmpty(s.t, calls[id(i)], id(i))
		require.LessOrEqual(s.t, len(calls[id(i)]), told, "every call of job %s is in its trail: %+v", id(i), r.Attempts)
		for _, c := range calls[id(i)] {
			require.False(s.t, c.Time.After(msg.Time), "job %s was called after its result", id(i))
		}
	}
	return unknown
}

func TestKilledWorkersLoseNothing(t *testing.T) {
	t.Parallel()
	const n = 600
	s := newStorm(t, llmtest.Always(llmtest.Reply{Delay: 40 * time.Millisecond}))
	first, second := s.start(), s.start()
	s.await("the streams are made", func() bool { return s.state("LLM_DEAD").Consumers == 0 && s.state("LLM_JOBS").Consumers == 1 })
	for i := range n {
		s.publish(i)
	}
	s.results(n / 6)
	require.NoError(t, first.Process.Kill())
	s.results(n / 3)
	s.start()
	require.NoError(t, second.Process.Signal(syscall.SIGTERM))
	require.NoError(t, second.Wait())
	s.results(n / 2)
	s.start()
	unknown := s.check(n)
	require.LessOrEqual(t, unknown, 8, "only what ran on the killed worker is unknown")
	t.Logf("%d jobs, %d calls, %d unknown outcomes", n, s.provider.Stats().Calls, unknown)
}
