package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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
		var s *storm
		k := newKill(jobs/2+round, func() { _ = s.workers[0].Process.Kill() })
		s = newStorm(t, k.script)
		w := s.start()
		s.await("the consumer is made", func() bool { return s.state("LLM_JOBS").Consumers == 1 })
		for i := range jobs {
			s.publish(i)
		}
		<-k.done
		require.Error(t, w.Wait(), "it was killed")
		s.await(fmt.Sprintf("every call of round %d is told", round), func() bool { return len(untold(t, s.js, s.provider.Calls())) == 0 })
	}
}

// With the embedded server the stream dies as well.
func TestACallIsKnownThoughItsWorkerDiesWithItsServer(t *testing.T) {
	t.Parallel()
	const rounds, jobs = 4, 100
	for round := range rounds {
		var first *exec.Cmd
		k := newKill(jobs/2+round, func() { _ = first.Process.Kill() })
		provider, data := llmtest.New(t, k.script), t.TempDir()
		worker, js := embedded(t, provider.URL(), data)
		first = worker
		for i := range jobs { // those after its death are nobody's
			_, _ = js.PublishAsync("llm.jobs.default."+id(i), payload(i))
		}
		<-k.done
		require.Error(t, first.Wait(), "it was killed")
		called := provider.Calls()
		_, js = embedded(t, provider.URL(), data)
		require.Empty(t, untold(t, js, called))
	}
}

// embedded starts a worker with its own server, and returns when it takes jobs.
func embedded(t *testing.T, provider, data string) (*exec.Cmd, jetstream.JetStream) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(log)
	require.NoError(t, err)
	cmd := command(t, "", []string{
		"WORKER_EMBEDDED_ADDR=127.0.0.1:0", "WORKER_DATA_DIR=" + data, "WORKER_HTTP_ADDR=", "WORKER_LOG_FORMAT=json", "VLLM_BASE_URL=" + provider,
	})
	cmd.Stderr = file
	require.NoError(t, cmd.Start())
	require.NoError(t, file.Close())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	at := regexp.MustCompile(`"url":"(nats://[^"]+)"`)
	for end := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		require.True(t, time.Now().Before(end), "%s", text)
		if strings.Contains(string(text), `"worker takes jobs"`) {
			nc, err := nats.Connect(at.FindStringSubmatch(string(text))[1])
			require.NoError(t, err)
			t.Cleanup(nc.Close)
			js, err := jetstream.New(nc)
			require.NoError(t, err)
			return cmd, js
		}
	}
}

// kill kills at one of the calls.
type kill struct {
	at    int64
	calls atomic.Int64
	now   func()
	done  chan struct{}
}

func newKill(at int, now func()) *kill {
	return &kill{at: int64(at), now: now, done: make(chan struct{})}
}

func (k *kill) script(llmtest.Call) llmtest.Reply {
	if k.calls.Add(1) == k.at {
		k.now()
		close(k.done)
	}
	return llmtest.Reply{}
}

// untold are the jobs of calls of whose begin the stream has no event.
func untold(t *testing.T, js jetstream.JetStream, calls []llmtest.Call) []string {
	t.Helper()
	events, err := js.Stream(t.Context(), "LLM_EVENTS")
	require.NoError(t, err)
	told := map[string]bool{}
	for seq := range events.CachedInfo().State.LastSeq {
		msg, err := events.GetMsg(t.Context(), seq+1)
		require.NoError(t, err)
		e, err := job.DecodeEvent(msg.Data)
		require.NoError(t, err)
		told[e.Subject] = told[e.Subject] || e.Type == job.EventAttemptStarted
	}
	var jobs []string
	for _, c := range calls {
		if id := idOf(c); !told[id] {
			jobs = append(jobs, id)
		}
	}
	return jobs
}
