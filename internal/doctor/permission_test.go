package doctor

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// guarded is an installation in an account where the user "some" may do only
// what permissions say.
func guarded(t *testing.T, permissions string) *bundle {
	t.Helper()
	all := nats.UserInfo("all", "pw")
	b := bareBundle(t, natstest.Options{Config: `
accounts { APP { jetstream: enabled, users: [
  {user: all, password: pw}
  {user: some, password: pw, permissions: {` + permissions + `}}
] } }`}, all)
	b.user = []nats.Option{all}
	b.ensure("default", "low")
	b.worker("w-1", nil)
	b.job("default", "a")
	b.finish("default")
	return b
}

// denials are what the user could not see: where, and the mend.
func denials(findings []Finding) []string {
	var list []string
	for _, f := range findings {
		if f.Check == "permission.denied" {
			list = append(list, f.Where+": "+f.Mend)
		}
	}
	return list
}

const readers = `"$JS.API.INFO", "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.LIST.LLM_JOBS", "$JS.API.CONSUMER.INFO.LLM_JOBS.*",
	"$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.GET.>", "$SRV.INFO.llm-worker", "$SRV.STATS.llm-worker"`

func TestAReaderSeesEverythingButMayNotPublish(t *testing.T) {
	t.Parallel()
	b := guarded(t, `publish: [`+readers+`], subscribe: ["_INBOX.>"]`)
	b.letter("x", "timeout", "{}")
	b.job("low", "b")
	b.finish("low")
	findings := b.examine(nats.UserInfo("some", "pw"))
	require.Equal(t, []string{`jobs: allow this user to publish "llm.jobs.>"`}, denials(findings))
	problems := bad(findings)
	require.Len(t, problems, 1, "%+v", problems)
	require.Equal(t, "dead.letters", problems[0].Check)
}

func TestWhatMayNotBeSeenIsAFindingAndNoCrash(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		permissions string
		want        []string
	}{
		"nothing at all": {
			`publish: ["nothing"], subscribe: ["_INBOX.>"]`,
			[]string{
				`account: allow this user to publish "$JS.API.INFO"`,
				`LLM_JOBS: allow this user to publish "$JS.API.STREAM.INFO.LLM_JOBS"`,
				`LLM_RESULTS: allow this user to publish "$JS.API.STREAM.INFO.LLM_RESULTS"`,
				`LLM_EVENTS: allow this user to publish "$JS.API.STREAM.INFO.LLM_EVENTS"`,
				`LLM_DEAD: allow this user to publish "$JS.API.STREAM.INFO.LLM_DEAD"`,
				`workers: allow this user to publish "$SRV.INFO.llm-worker"`,
			},
		},
		"no answer": {
			`publish: [` + readers + `], subscribe: ["nothing"]`,
			[]string{`account: allow this user to subscribe "_INBOX.>"`},
		},
		"no consumers, no messages, no workers": {
			`publish: ["$JS.API.INFO", "$JS.API.STREAM.INFO.>", "llm.jobs.>"], subscribe: ["_INBOX.>"]`,
			[]string{
				`workers: allow this user to publish "$SRV.INFO.llm-worker"`,
				`LLM_JOBS: allow this user to publish "$JS.API.CONSUMER.LIST.LLM_JOBS"`,
				`queue low: allow this user to publish "$JS.API.STREAM.MSG.GET.LLM_JOBS"`,
				`LLM_DEAD: allow this user to publish "$JS.API.DIRECT.GET.LLM_DEAD"`,
			},
		},
		"no list of consumers": {
			`publish: ["$JS.API.INFO", "$JS.API.STREAM.INFO.>", "$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.GET.>", "llm.jobs.>", "$SRV.>",
				"$JS.API.CONSUMER.INFO.LLM_JOBS.q-default"], subscribe: ["_INBOX.>"]`,
			[]string{
				`LLM_JOBS: allow this user to publish "$JS.API.CONSUMER.LIST.LLM_JOBS"`,
				`LLM_JOBS/q-low: allow this user to publish "$JS.API.CONSUMER.INFO.LLM_JOBS.q-low"`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := guarded(t, tc.permissions)
			b.letter("x", "timeout", "{}")
			b.job("low", "b")
			findings := b.examine(nats.UserInfo("some", "pw"))
			require.Equal(t, tc.want, denials(findings))
			for _, f := range findings {
				require.NotEqual(t, "check.failed", f.Check, "%+v", f)
				require.NotEqual(t, Problem, f.Level, "%+v", f)
			}
		})
	}
}

func TestReconcilingWithoutPermissionNamesTheSubject(t *testing.T) {
	t.Parallel()
	b := guarded(t, `publish: ["$JS.API.STREAM.INFO.>"], subscribe: ["_INBOX.>"]`)
	b.result("x", "failed", 1)
	var last error
	for _, err := range Reconcile(t.Context(), ReconcileConfig{Conn: b.srv.Conn(t, nats.UserInfo("some", "pw")), Layout: b.layout}) {
		last = err
	}
	denied, ok := asDenied(last)
	require.True(t, ok, "%v", last)
	require.Equal(t, "this user may not publish to $JS.API.DIRECT.GET.LLM_RESULTS", denied.Error())
}

func TestAnotherErrorHandlerStillHears(t *testing.T) {
	t.Parallel()
	b := guarded(t, `publish: ["$JS.API.>"], subscribe: ["_INBOX.>"]`)
	heard := make(chan error, 10)
	nc := b.srv.Conn(t, nats.UserInfo("some", "pw"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { heard <- err }))
	_, err := Examine(t.Context(), Config{Conn: nc, Layout: b.layout})
	require.NoError(t, err)
	require.Empty(t, heard) // all denials were answers
	require.NoError(t, nc.Publish("other", nil))
	select {
	case err := <-heard:
		require.ErrorContains(t, err, `"other"`)
	case <-time.After(patience):
		require.FailNow(t, "the handler did not hear of it")
	}
}
