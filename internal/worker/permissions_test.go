package worker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
	"understudy/internal/queue"
)

// guarded is a server with the permissions of deploy/nats/permissions.conf.
type guarded struct{ *bundle }

// permissions is the text of deploy/nats/permissions.conf with every user's
// password, which is "pw".
func permissions(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/nats/permissions.conf")
	require.NoError(t, err)
	return "WORKER_PASSWORD: pw\nPUBLISHER_PASSWORD: pw\nACME_PASSWORD: pw\nREADER_PASSWORD: pw\nOPERATOR_PASSWORD: pw\n" +
		strings.Replace(string(text), "  users: [", "  users: [\n    {user: root, password: pw}\n", 1)
}

func newGuarded(t *testing.T, maxPayload int32) *guarded {
	t.Helper()
	return newGuardedWith(t, natstest.Options{Config: permissions(t), MaxPayload: maxPayload}, "root")
}

// newGuardedWith looks at the server as the user trusted.
func newGuardedWith(t *testing.T, opts natstest.Options, trusted string) *guarded {
	t.Helper()
	srv := natstest.RunWith(t, opts)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	nc := srv.Conn(t, nats.UserInfo(trusted, "pw"))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return &guarded{&bundle{t: t, srv: srv, nc: nc, js: js, subjects: subjects, logs: new(buffer)}}
}

// as connects as a user, and returns what the server denies it.
func (g *guarded) as(user string) (*nats.Conn, <-chan error) {
	g.t.Helper()
	denied := make(chan error, 200)
	nc := g.srv.Conn(g.t, nats.UserInfo(user, "pw"), nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	return nc, denied
}

// worker starts a worker as the user worker.
func (g *guarded) worker(backends ...Backend) running {
	g.t.Helper()
	cfg := g.config(backends...)
	allow, err := job.ParseReplyRule("_INBOX_publisher.>,_INBOX_acme.>")
	require.NoError(g.t, err)
	cfg.ReplyAllow = allow
	cfg.HTTPAddr = "127.0.0.1:0"
	cfg.Connect = func(opts ...nats.Option) (*nats.Conn, error) {
		return nats.Connect(g.srv.URL, append(opts, nats.UserInfo("worker", "pw"), nats.CustomInboxPrefix("_INBOX_worker"))...)
	}
	for _, q := range []string{"default", "acme"} {
		cfg.Queues = append(cfg.Queues, weighted(q))
	}
	return g.start(cfg)
}

// submit runs the command as a user, within a minute.
func (g *guarded) submit(binary, user string, args ...string) (code int, stdout, stderr string) {
	g.t.Helper()
	home := g.t.TempDir()
	dir := filepath.Join(home, ".config", "nats", "context")
	require.NoError(g.t, os.MkdirAll(dir, 0o700))
	text := fmt.Sprintf(`{"url":%q,"user":%q,"password":"pw","inbox_prefix":"_INBOX_%s"}`, g.srv.URL, user, user)
	require.NoError(g.t, os.WriteFile(filepath.Join(dir, "u.json"), []byte(text), 0o600))
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, ".config"), "NATS_CONTEXT=u"}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	require.NoError(g.t, ctx.Err(), "submit %v as %s hangs: %s", args, user, &errs)
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestTheWorkersPermissionsAreEnough takes a worker through everything that it
// does on the server.
func TestTheWorkersPermissionsAreEnough(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, 16<<10)
	p := llmtest.New(t, func(c llmtest.Call) llmtest.Reply {
		if strings.Contains(string(c.Body), "fail") {
			return llmtest.Fail(500, "boom")
		}
		return llmtest.Reply{}
	})
	w := g.worker(model("vllm", p))
	for i := range 30 {
		g.publish(fmt.Sprintf("batch.%d", i), chat("hello"))
	}
	g.publish("bad", chat("fail"))
	g.publish("bad-big", chat("fail "+strings.Repeat("x", 15<<10)))
	g.publish("streamed", []byte(`{"stream":true,"messages":[{"role":"user","content":"a b c"}]}`))
	for i := range 30 {
		require.Equal(t, job.Succeeded, g.result(fmt.Sprintf("batch.%d", i)).Status)
	}
	for _, id := range []string{"bad", "bad-big"} {
		require.Equal(t, job.Failed, g.result(id).Status)
		g.eventually("the letter", func() bool { return g.letter(id) != nil })
	}
	_, err := g.js.ObjectStore(t.Context(), "LLM_DEAD_PAYLOADS")
	require.NoError(t, err, "a payload is put aside")
	require.Equal(t, job.Succeeded, g.result("streamed").Status)
	g.publish("streamed", chat("again")) // sends the result that is there
	g.settled()
	require.Equal(t, []job.EventType{job.EventReceived, job.EventAttemptStarted, job.EventAttemptSucceeded, job.EventCompleted}, types(g.events("batch.0")))

	publisher, denied := g.as("publisher")
	for _, queue := range []string{"default", "acme"} {
		msg, err := publisher.Request("llm.complete", fmt.Appendf(nil, `{"queue":%q,"body":{"messages":[{"role":"user","content":"hi"}]}}`, queue), patience)
		require.NoError(t, err)
		r, err := job.DecodeResult(msg.Data)
		require.NoError(t, err, "%s", msg.Data)
		require.Equal(t, job.Succeeded, r.Status)
	}
	require.Empty(t, denied)
	g.eventually("the worker has measured its queues", func() bool {
		msg, err := publisher.Request("llm.submit", []byte(`{"messages":[{"role":"user","content":"hi"}]}`), patience)
		return err == nil && strings.Contains(string(msg.Data), "result_subject")
	})
	require.NoError(t, g.js.DeleteConsumer(t.Context(), "LLM_JOBS", "q-default")) // it makes it anew
	g.publish("after", chat("hello"))
	require.Equal(t, job.Succeeded, g.result("after").Status)
	require.NoError(t, w.stop())
	require.NotContains(t, strings.ToLower(g.logs.String()), "permissions violation")
}

// buildSubmit builds the command.
func buildSubmit(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "submit")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "understudy/cmd/submit").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// What each command does as each user: it works, or it says which subject is
// forbidden, soon.
func TestSubmitSaysWhichSubjectIsForbidden(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, 16<<10)
	p := llmtest.New(t, func(c llmtest.Call) llmtest.Reply {
		if strings.Contains(string(c.Body), "fail") {
			return llmtest.Fail(400, "boom")
		}
		return llmtest.Reply{}
	})
	g.worker(model("vllm", p))
	g.publish("good", chat("hello"))
	require.Equal(t, job.Succeeded, g.result("good").Status)
	for id, prompt := range map[string]string{"bad": "fail", "bad-big": "fail " + strings.Repeat("x", 15<<10), "bad-too": "fail"} {
		g.publish(id, chat(prompt))
		g.eventually("the letter of "+id, func() bool { return g.letter(id) != nil })
	}
	g.settled()
	binary, dir := buildSubmit(t), t.TempDir()
	line := `{"custom_id":"a","body":{"messages":[{"role":"user","content":"x"}]}}` + "\n"
	in := filepath.Join(dir, "in.jsonl")
	require.NoError(t, os.WriteFile(in, []byte(line), 0o600))
	const info = "$JS.API.STREAM.INFO.LLM_"
	for _, tc := range []struct {
		user   string
		args   string // IN and OUT are files
		code   int
		denied string // the beginning of the subject; empty for none
	}{
		{"publisher", "ask hello", 0, ""},
		{"publisher", "ask -stream hello", 0, ""},
		{"publisher", "job -f IN -id one", 0, ""},
		{"publisher", "job -f IN -id two -queue acme -no-wait", 0, ""},
		{"publisher", "batch IN -o OUT", 0, ""},
		{"publisher", "result good", 0, ""},
		{"publisher", "result nothing", 1, ""},
		{"publisher", "watch good", 2, "$JS.API.CONSUMER.CREATE.LLM_EVENTS."},
		{"publisher", "dead ls", 2, "$JS.API.STREAM.MSG.GET.LLM_DEAD"},
		{"publisher", "dead redrive bad", 2, "$JS.API.STREAM.MSG.GET.LLM_DEAD"},
		{"publisher", "dead purge -all -yes", 2, "$JS.API.STREAM.MSG.GET.LLM_DEAD"},
		{"acme", "ask hello", 2, info},
		{"acme", "result good", 2, info},
		{"acme", "watch", 2, info},
		{"acme", "dead ls", 2, info},
		{"reader", "result good", 0, ""},
		{"reader", "watch good", 0, ""},
		{"reader", "dead ls", 0, ""},
		{"reader", "dead show bad-big", 0, ""},
		{"reader", "ask hello", 2, "llm.jobs.default."},
		{"reader", "job -f IN -id three -no-wait", 2, "llm.jobs.default.three"},
		{"reader", "batch -queue acme IN -o OUT", 2, "llm.jobs.acme."},
		{"reader", "dead redrive bad", 2, "llm."},
		{"reader", "dead purge -yes bad", 2, "$JS.API.STREAM.MSG.DELETE.LLM_DEAD"},
		{"operator", "dead redrive bad", 0, ""},
		{"operator", "dead redrive bad-big", 0, ""},
		{"operator", "dead purge -yes bad-too", 0, ""},
	} {
		out := filepath.Join(t.TempDir(), "out")
		args := strings.Fields(strings.NewReplacer("IN", in, "OUT", out).Replace(tc.args))
		begun := time.Now()
		code, stdout, stderr := g.submit(binary, tc.user, args...)
		what := fmt.Sprintf("%s as %s, after %s: %s%s", tc.args, tc.user, time.Since(begun), stdout, stderr)
		require.Equal(t, tc.code, code, what)
		if tc.denied != "" {
			require.Contains(t, stderr, `NATS does not permit it: permissions violation: Permissions Violation for Publish to "`+tc.denied, what)
		} else {
			require.NotContains(t, stderr, "permi", what)
		}
	}
	require.Nil(t, g.letter("bad-too"), "an operator may purge")
}

// What the server must refuse to each user, and say so by the subject's name.
func TestPermissionsDenyTheRest(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, 0)
	g.ensure("default", "acme")
	everybody := []string{ // may none of them publish
		"llm.results.default.x", "llm.breakers.vllm", "llm.done.default.x", "llm.chunks.default.x",
		"$JS.API.STREAM.DELETE.LLM_JOBS", "$JS.API.STREAM.PURGE.LLM_JOBS", "$JS.API.STREAM.UPDATE.LLM_JOBS",
		"$JS.API.STREAM.MSG.DELETE.LLM_JOBS", "$JS.API.STREAM.CREATE.LLM_JOBS", "$JS.API.STREAM.CREATE.X",
		"$JS.API.STREAM.MSG.DELETE.LLM_RESULTS", "$JS.API.STREAM.PURGE.LLM_RESULTS", "$JS.API.STREAM.PURGE.LLM_DEAD",
		"$JS.API.CONSUMER.CREATE.LLM_JOBS.x.llm.jobs.default.>", "$JS.API.CONSUMER.DURABLE.CREATE.LLM_JOBS.x",
		"$JS.API.CONSUMER.DELETE.LLM_JOBS.q-default", "$JS.API.CONSUMER.MSG.NEXT.LLM_JOBS.q-default",
		"$JS.ACK.LLM_JOBS.q-default.1.1.1.1.0", "$JS.API.STREAM.SNAPSHOT.LLM_JOBS", "$JS.API.STREAM.LEADER.STEPDOWN.LLM_JOBS",
		"_INBOX_worker.x", "other",
	}
	noOperator := []string{"llm.dead.default.x", "llm.events.default.x", "$JS.API.STREAM.MSG.DELETE.LLM_DEAD", "$O.LLM_DEAD_PAYLOADS.M.x"}
	listens := []string{">", "llm.jobs.>", "llm.results.>", "llm.complete", "_INBOX.>", "_INBOX_worker.>", "$JS.API.>", "$JS.ACK.>"}
	for user, tc := range map[string]struct{ publish, subscribe []string }{
		"publisher": {
			append(noOperator, "llm.jobs.nothing", "$JS.API.STREAM.MSG.GET.LLM_DEAD", "$JS.API.STREAM.MSG.GET.LLM_EVENTS"),
			[]string{"_INBOX_acme.>", "llm.events.>"},
		},
		"acme": {
			append(noOperator, "llm.jobs.default.x", "llm.complete", "llm.submit", "llm.cancel", "$JS.API.DIRECT.GET.LLM_RESULTS",
				"$JS.API.DIRECT.GET.LLM_RESULTS.llm.results.default.x", "$JS.API.STREAM.MSG.GET.LLM_RESULTS", "$JS.API.STREAM.INFO.LLM_RESULTS"),
			[]string{"_INBOX_publisher.>", "llm.done.default.>", "llm.done.>", "llm.chunks.default.x"},
		},
		"reader":   {append(noOperator, "llm.jobs.default.x", "llm.complete", "llm.submit", "llm.cancel"), []string{"_INBOX_publisher.>"}},
		"operator": {nil, []string{"_INBOX_publisher.>"}},
		"worker": {
			[]string{
				"$JS.API.STREAM.DELETE.LLM_JOBS", "$JS.API.STREAM.PURGE.LLM_JOBS", "$JS.API.STREAM.UPDATE.LLM_JOBS", "$JS.API.STREAM.MSG.DELETE.LLM_RESULTS",
				"$JS.API.STREAM.PURGE.LLM_RESULTS", "$JS.API.STREAM.MSG.DELETE.LLM_DEAD", "$JS.API.CONSUMER.DELETE.LLM_JOBS.q-default", "_INBOX.x", "other",
			},
			[]string{"_INBOX_publisher.>", "llm.jobs.>", "llm.results.>"},
		},
	} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			nc, denied := g.as(user)
			if user != "worker" {
				tc.publish, tc.subscribe = append(tc.publish, everybody...), append(tc.subscribe, listens...)
			}
			for _, subject := range tc.publish {
				require.NoError(t, nc.Publish(subject, []byte("{}")))
				err := awaitDenial(t, denied, subject)
				require.ErrorIs(t, err, nats.ErrPermissionViolation)
				require.ErrorContains(t, err, fmt.Sprintf("Permissions Violation for Publish to %q", subject))
			}
			for _, subject := range tc.subscribe {
				_, err := nc.SubscribeSync(subject)
				require.NoError(t, err)
				require.ErrorContains(t, awaitDenial(t, denied, subject), fmt.Sprintf("Permissions Violation for Subscription to %q", subject))
			}
		})
	}
}

func awaitDenial(t *testing.T, denied <-chan error, subject string) error {
	t.Helper()
	select {
	case err := <-denied:
		return err
	case <-time.After(patience):
		require.FailNow(t, "it is allowed", subject)
		return nil
	}
}

// A user of one queue works with it by plain NATS, and reaches nothing else.
func TestAUserOfOneQueueSeesOnlyThat(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, 0)
	g.worker(model("vllm", llmtest.New(t)))
	nc, denied := g.as("acme")
	done, err := nc.SubscribeSync("llm.done.acme.>")
	require.NoError(t, err)
	inbox := nc.NewInbox()
	reply, err := nc.SubscribeSync(inbox)
	require.NoError(t, err)
	ack, err := nc.Request("llm.jobs.acme.a", fmt.Appendf(nil, `{"body":{"messages":[]},"reply_to":%q}`, inbox), patience)
	require.NoError(t, err)
	require.Contains(t, string(ack.Data), `"stream":"LLM_JOBS"`)
	announced, err := done.NextMsg(patience)
	require.NoError(t, err)
	sent, err := reply.NextMsg(patience)
	require.NoError(t, err)
	stored, err := nc.Request("$JS.API.DIRECT.GET.LLM_RESULTS.llm.results.acme.a", nil, patience)
	require.NoError(t, err)
	require.Equal(t, string(announced.Data), string(stored.Data))
	require.Equal(t, string(announced.Data), string(sent.Data))
	g.publish("secret", chat("hello"))
	g.result("secret")
	require.NoError(t, nc.Publish("llm.jobs.acme.b", chat("hello")))
	next, err := done.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "llm.done.acme.b", next.Subject)
	require.Empty(t, denied)
}

// The server sends its answers wherever a requester says. Permissions do not
// prevent that, accounts do.
func TestOnlyAnAccountHoldsATenantThatMeansHarm(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/nats/accounts.conf")
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		config, trusted string
		forged          bool
	}{
		"permissions": {permissions(t), "root", true},
		"accounts":    {"WORKER_PASSWORD: pw\nACME_PASSWORD: pw\n" + string(text), "worker", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuardedWith(t, natstest.Options{Config: tc.config}, tc.trusted)
			g.ensure("default", "acme")
			nc := g.srv.Conn(t, nats.UserInfo("acme", "pw"), nats.CustomInboxPrefix("_INBOX_acme"))
			done, err := nc.SubscribeSync("llm.done.acme.>")
			require.NoError(t, err)
			const victim = "llm.results.default.victim"
			require.NoError(t, nc.PublishRequest("llm.jobs.acme.a", victim, chat("hello")))
			g.worker(model("vllm", llmtest.New(t)))
			announced, err := done.NextMsg(patience)
			require.NoError(t, err)
			require.Equal(t, "llm.done.acme.a", announced.Subject)
			stored, err := nc.Request("$JS.API.DIRECT.GET.LLM_RESULTS.llm.results.acme.a", nil, patience)
			require.NoError(t, err)
			require.Equal(t, string(announced.Data), string(stored.Data))
			require.Equal(t, tc.forged, g.last("LLM_RESULTS", victim) != nil)
		})
	}
}

// A worker that may not do what it must ends with an error, and its log names
// the subject.
func TestAWorkerWithoutPermissionsDoesNotStart(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, 0)
	g.ensure("default")
	cfg := g.config(model("vllm", llmtest.New(t)))
	cfg.Connect = func(opts ...nats.Option) (*nats.Conn, error) {
		return nats.Connect(g.srv.URL, append(opts, nats.UserInfo("acme", "pw"), nats.CustomInboxPrefix("_INBOX_acme"))...)
	}
	w, err := New(cfg, slog.New(slog.NewTextHandler(g.logs, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	err = w.Run(t.Context())
	require.ErrorContains(t, err, "create stream LLM_JOBS")
	require.ErrorContains(t, err, "may this user manage streams?")
	require.Contains(t, g.logs.String(), `Permissions Violation for Publish to \"$JS.API.STREAM.INFO.LLM_JOBS\"`)
}

func TestTheSampleClusterRuns(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/nats/cluster.conf")
	require.NoError(t, err)
	const include = `include "permissions.conf"`
	require.Contains(t, string(text), include)
	config := "SERVER_NAME: s1\nROUTE_PASSWORD: pw\nROUTES: [\"nats://route:pw@s1:6222\"]\n" +
		strings.Replace(string(text), include, permissions(t), 1)
	c := natstest.RunClusterWith(t, 3, natstest.Options{Config: config})
	nc := c.Conn(t, nats.UserInfo("worker", "pw"), nats.CustomInboxPrefix("_INBOX_worker"))
	require.Equal(t, "understudy", nc.ConnectedClusterName())
	require.EqualValues(t, 8<<20, nc.MaxPayload())
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	differences, err := queue.Layout{Subjects: subjects, Replicas: 3}.Ensure(t.Context(), js, []string{"default"})
	require.NoError(t, err)
	require.Empty(t, differences)

	path := filepath.Join(t.TempDir(), "cluster.conf")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	opts, err := server.ProcessConfigFile(path)
	require.NoError(t, err)
	require.True(t, opts.SyncAlways)
	require.Equal(t, "/data", opts.StoreDir)
	require.Equal(t, "s1", opts.ServerName)
	require.EqualValues(t, 50<<30, opts.JetStreamMaxStore)
	require.Len(t, opts.Users, 6) // root is the test's
}

func weighted(name string) queue.Weighted { return queue.Weighted{Name: name, Weight: 1} }
