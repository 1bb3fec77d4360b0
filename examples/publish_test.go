package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"understudy/internal/backend/openai"
	"understudy/internal/breaker"
	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
	"understudy/internal/worker"
)

// patience ends a test that would wait for ever; it is no pass condition.
const patience = 2 * time.Minute

// fleet is a NATS server, one worker, and two providers that echo.
type fleet struct {
	srv              *natstest.Server
	openrouter, vllm *llmtest.Provider
}

// start runs a fleet with the routes that prompts.jsonl names.
func start(t *testing.T) fleet {
	t.Helper()
	f := fleet{srv: natstest.Run(t), openrouter: llmtest.New(t), vllm: llmtest.New(t)}
	backend := func(name string, p *llmtest.Provider) worker.Backend {
		return worker.Backend{
			Name: name, Breaker: breaker.Config{Failures: 5},
			OpenAI: openai.Config{BaseURL: p.URL(), APIKey: "a-key", Timeout: patience},
		}
	}
	policy := fallback.DefaultPolicy()
	inboxes, err := job.ParseReplyRule(job.DefaultReplyAllow)
	require.NoError(t, err)
	w, err := worker.New(worker.Config{
		Name: "w-1", ReplyAllow: inboxes,
		Connect: func(opts ...nats.Option) (*nats.Conn, error) {
			return nats.Connect(f.srv.URL, opts...)
		},
		Backends: []worker.Backend{backend("openrouter", f.openrouter), backend("vllm", f.vllm)},
		Routes: []fallback.Route{
			{Name: fallback.DefaultRoute, Policy: policy},
			{Name: "simple_qa", Chain: []string{"vllm", "openrouter"}, Policy: policy},
			{Name: "complex_reasoning", Chain: []string{"openrouter", "vllm"}, Policy: policy},
		},
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	select {
	case <-w.Ready():
	case err := <-ended:
		ended <- err
		require.FailNow(t, "the worker did not start", "%v", err)
	}
	return f
}

func TestEveryPromptReachesAProviderByteForByte(t *testing.T) {
	t.Parallel()
	f := start(t)
	jobs, lines := prompts(t)
	js := f.srv.JetStream(t)
	results := make(chan *nats.Msg, len(jobs))
	sub, err := js.Conn().ChanSubscribe("llm.done.default.prompts.*", results)
	require.NoError(t, err)
	defer sub.Unsubscribe()
	bodies := map[string]string{} // by hash would do; by body it reads better
	for i, j := range jobs {
		bodies[string(j.Body)] = j.CustomID
		_, err := js.Publish(t.Context(), "llm.jobs.default.prompts."+j.CustomID, lines[i])
		require.NoError(t, err)
	}
	answered := map[string]bool{}
	for range jobs {
		var result job.Result
		select {
		case msg := <-results:
			require.NoError(t, json.Unmarshal(msg.Data, &result))
		case <-time.After(patience):
			require.FailNow(t, "not every prompt was answered", "%d of %d", len(answered), len(jobs))
		}
		require.Equal(t, job.Succeeded, result.Status, "%s: %+v", result.CustomID, result.Error)
		require.Equal(t, "prompts."+result.CustomID, result.ID)
		answered[result.CustomID] = true
	}
	require.Len(t, answered, len(jobs))
	called := map[string]bool{}
	for _, c := range append(f.openrouter.Calls(), f.vllm.Calls()...) {
		id, known := bodies[string(c.Body)]
		require.True(t, known, "the provider got another body than was published: %s", c.Body)
		called[id] = true
	}
	require.Len(t, called, len(jobs))
}

// publishes runs a publisher against a fleet and checks that it prints the
// answer of the job and of the request.
func publishes(t *testing.T, name string, args ...string) {
	t.Helper()
	f := start(t)
	const question = `Why is the "sky" blue? Und grün? 空`
	out, said := run(t, f.srv.URL, name, append(args, question)...)
	require.Equal(t, "echo: "+question+"\necho: "+question+"\n", out)
	require.Contains(t, said, "stored as hello-")
	require.Equal(t, llmtest.Stats{Calls: 2, Ended: 2, MaxInFlight: 1}, f.openrouter.Stats())

	stream, err := f.srv.JetStream(t).Stream(t.Context(), "LLM_RESULTS")
	require.NoError(t, err)
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("llm.results.default.>"))
	require.NoError(t, err)
	require.Len(t, info.State.Subjects, 2, "the request was a stored job too")
}

// refuses runs a publisher against a fleet whose providers refuse the request,
// and checks that it fails with the reason.
func refuses(t *testing.T, name string, args ...string) {
	t.Helper()
	f := start(t)
	f.openrouter.SetScript(llmtest.Always(llmtest.Fail(400, "that is no question")))
	cmd := exec.CommandContext(t.Context(), name, append(args, "x")...)
	cmd.Env = append(os.Environ(), "NATS_URL="+f.srv.URL)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Empty(t, out.String())
	require.Contains(t, said.String(), "failed: invalid_request: ")
}

func run(t *testing.T, url, name string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "NATS_URL="+url)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	require.NoError(t, cmd.Run(), "%s", said.String())
	return out.String(), said.String()
}

func TestTheGoPublisher(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "publish")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./publish").CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Run("prints its answers", func(t *testing.T) {
		t.Parallel()
		publishes(t, path)
	})
	t.Run("fails with the reason", func(t *testing.T) {
		t.Parallel()
		refuses(t, path)
	})
}

func TestTheShellPublisherIsValidShell(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sh", "-n", "publish.sh")
	cmd.Stderr = io.Discard
	require.NoError(t, cmd.Run())
}
