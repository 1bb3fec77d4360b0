package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/require"

	"understudy/internal/doctor"
	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// examined runs a command that reads what a worker would.
func (b *bench) examined(args ...string) (code int, out, stderr string) {
	b.t.Helper()
	c := b.command("")
	c.loadWorker = func() workerSettings { return workerSettings{problems: []string{"BACKENDS: no backend is configured"}} }
	c.start(args...)
	code = c.wait()
	return code, c.out.String(), c.err.String()
}

func TestTheTableOfFindingsIsAligned(t *testing.T) {
	t.Parallel()
	requireGolden(t, "doctor.txt", findingsTable([]doctor.Finding{
		{Level: doctor.Problem, Check: "stream.settings", Where: "LLM_JOBS", What: "max_age is 1h0m0s, wants 0s: jobs vanish by themselves", Mend: "nats stream edit LLM_JOBS --max-age=0s"},
		{Level: doctor.Warning, Check: "dead.letters", Where: "LLM_DEAD", What: "2 dead letters: quota, the oldest since 3d, the newest since 5m", Mend: "submit dead ls -class quota; when the cause is mended, submit dead redrive -all -class quota"},
		{Level: doctor.Note, Check: "worker.prefix", Where: "workers", What: "1 worker of another installation\nin this account\x1b[31m"},
		{Level: doctor.OK, Check: "stream.settings", Where: "LLM_EVENTS", What: "as it should be, with 12 messages"},
	}))
	require.Empty(t, findingsTable(nil))
}

func TestDoctorFindsNothingWrongWithARealWorker(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Echo())
	b.publish("default", "x", `{"messages":[{"role":"user","content":"SECRET PROMPT"}]}`)
	b.awaitQueued(0)
	code, out, stderr := b.examined("doctor", "-v")
	require.Equal(t, exitOK, code, out+stderr)
	require.NotContains(t, out, "SECRET")
	require.NotContains(t, out, "\nproblem")
	require.NotContains(t, out, "\nwarning")
	require.Contains(t, out, "worker w-1")
	require.Contains(t, out, "its clock agrees with this machine's")
	require.Contains(t, out, "has dropped no event")
	require.True(t, strings.HasPrefix(stderr, "submit: 0 problems, 0 warnings, 1 note; "), stderr)

	var info micro.Info // what the doctor knows of a worker
	msg, err := b.js.Conn().Request("$SRV.INFO.llm-worker", nil, patience)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(msg.Data, &info))
	require.Equal(t, map[string]string{"worker": "w-1", "prefix": "llm", "queues": "default", "concurrency": "32", "backends": "model1"}, info.Metadata)
	var stats micro.Stats
	msg, err = b.js.Conn().Request("$SRV.STATS.llm-worker", nil, patience)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(msg.Data, &stats))
	require.NotEmpty(t, stats.Endpoints)
	require.Regexp(t, `^{"time":"20[^"]+","held":0,"dropped_events":0}$`, string(stats.Endpoints[0].Data))
}

func TestDoctorTellsOfProblemsByItsExitCode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stream, err := b.js.Stream(t.Context(), "LLM_JOBS")
	require.NoError(t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxAge = time.Hour
	_, err = b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	code, out, stderr := b.examined("doctor")
	require.Equal(t, exitFailed, code)
	first, rest, _ := strings.Cut(out, "\n")
	require.Equal(t, []string{"LEVEL", "CHECK", "WHERE", "FINDING"}, strings.Fields(first))
	require.Regexp(t, `^problem  stream\.settings +LLM_JOBS +max_age is 1h0m0s, wants 0s: jobs vanish by themselves; mend: nats stream edit LLM_JOBS --max-age=0s\n`, rest)
	require.NotContains(t, out, "\nok ")
	require.Regexp(t, `^submit: 1 problem, 1 warning, 1 note; \d+ things fine \(-v lists them\)\n$`, stderr)

	code, out, _ = b.examined("doctor", "-json")
	require.Equal(t, exitFailed, code)
	var f doctor.Finding
	require.NoError(t, json.Unmarshal([]byte(out[:strings.IndexByte(out, '\n')]), &f))
	require.Equal(t, doctor.Finding{
		Level: doctor.Problem, Check: "stream.settings", Where: "LLM_JOBS",
		What: "max_age is 1h0m0s, wants 0s: jobs vanish by themselves", Mend: "nats stream edit LLM_JOBS --max-age=0s",
	}, f)
	require.Equal(t, 3, strings.Count(out, "\n"))
}

func TestDoctorWithoutNATSOrWithWrongArguments(t *testing.T) {
	t.Parallel()
	code, out, stderr := offline(t, "", "doctor")
	require.Equal(t, exitUnreachable, code)
	require.Empty(t, out)
	require.Contains(t, stderr, nats.ErrNoServers.Error())
	code, _, stderr = offline(t, "", "doctor", "now")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, `there is an argument too many, "now"`)
	c := newCommand(t, "", environment{problems: []string{"NATS_URL: is wrong"}}).start("doctor")
	require.Equal(t, exitUsage, c.wait())
}

func TestTheLinesOfStandingsAreWhole(t *testing.T) {
	t.Parallel()
	since, until := noon().Add(-time.Hour), noon()
	var out strings.Builder
	count := standings{counts: make(map[doctor.State]int)}
	for _, s := range []doctor.Standing{
		{State: doctor.Queued, Level: doctor.OK, Queue: "default", ID: "b.000007", What: "never taken"},
		{State: doctor.Waiting, Level: doctor.OK, Queue: "low", ID: "x", Worker: "w-1", Since: &since, Until: &until, Deliveries: 3, What: "every breaker is open"},
		{State: doctor.Returning, Level: doctor.Note, Queue: "low", ID: "y", Since: &since, What: "worker w-2 does not answer; the job comes back when its lease of 30s ends"},
		{State: doctor.Unburied, Level: doctor.Problem, Queue: "default", ID: "a-long-name-of-a-batch.000001", Since: &since, What: "it failed (timeout) and has no dead letter: it cannot be redriven", Mend: "publish it again from its source, under a new id"},
		{State: doctor.Removed, Level: doctor.Warning, Queue: "default", ID: "z\x1b[2J", What: "it ended, and its result is gone\nbefore its time"},
	} {
		count.add(s)
		out.WriteString(standingText(s))
	}
	requireGolden(t, "reconcile.txt", out.String()+count.text()+"\n")
	require.Equal(t, "every job has its end", (&standings{}).text())
}

func TestReconcileListsJobsWithoutAnEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	code, out, stderr := b.examined("reconcile")
	require.Equal(t, exitOK, code, stderr)
	require.Empty(t, out)
	require.Equal(t, "submit: every job has its end\n", stderr)

	b.died("default", "dead", `{"prompt":"p"}`)
	b.publish("default", "b.1", `{"prompt":"SECRET PROMPT"}`)
	b.publish("low", "x", `{"prompt":"SECRET PROMPT"}`)
	code, out, stderr = b.examined("reconcile")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "queued     default     b.1                   never taken\nqueued     low         x                     never taken\n", out)
	require.Equal(t, "submit: 2 jobs: 2 queued; 0 of them need somebody\n", stderr)
	code, out, _ = b.examined("reconcile", "-batch", "b", "-json")
	require.Equal(t, exitOK, code)
	require.JSONEq(t, `{"state":"queued","level":"ok","queue":"default","id":"b.1","what":"never taken"}`, out)

	failed := job.Result{ID: "lost-letter", Queue: "low", Status: job.Failed, Error: &job.Error{Code: "timeout"}, FinishedAt: noon()}
	_, err := b.js.Publish(t.Context(), b.subjects.Result("low", "lost-letter"), failed.Encode())
	require.NoError(t, err)
	code, out, stderr = b.examined("reconcile", "-queue", "low")
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "unburied   low         lost-letter           it failed (timeout) and has no dead letter: it cannot be redriven, since ")
	require.Equal(t, "submit: 2 jobs: 1 queued, 1 unburied; 1 of them need somebody\n", stderr)
}

func TestReconcileSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{Config: `
accounts { APP { jetstream: enabled, users: [
  {user: all, password: pw}
  {user: some, password: pw, permissions: {publish: ["$JS.API.STREAM.INFO.>", "$JS.API.INFO"], subscribe: ["_INBOX.>"]}}
] } }
no_auth_user: all`})
	code, _, stderr := b.examined("reconcile")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, ": start a worker first, it makes the streams\n")
	b.ensure("default")
	b.died("default", "b", "{}")
	b.publish("default", "a", "{}")
	_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: b.subjects.Event("default", "a"), Data: []byte("{}")})
	require.NoError(t, err)

	c := b.command("")
	c.loadWorker = func() workerSettings { return workerSettings{} }
	connect := c.load().connect
	c.load = func() environment {
		return environment{subjects: b.subjects, connect: func(opts ...nats.Option) (*nats.Conn, error) {
			return connect(append(opts, nats.UserInfo("some", "pw"))...)
		}}
	}
	c.start("reconcile")
	require.Equal(t, exitUsage, c.wait())
	require.Contains(t, c.err.String(), `this user may not publish to $JS.API.DIRECT.GET.LLM_EVENTS: allow this user to publish "$JS.API.DIRECT.GET.LLM_EVENTS"`)
	require.Equal(t, "reconcile: x", denied(errors.New("x")).Error())

	for _, args := range [][]string{{"reconcile", "x"}, {"reconcile", "-batch", "a b"}, {"reconcile", "-queue", "a.b"}} {
		code, out, _ := offline(t, "", args...)
		require.Equal(t, exitUsage, code)
		require.Empty(t, out)
	}
}
