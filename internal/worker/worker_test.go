package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/queue"
)

func TestAJobIsAnsweredStoredAndAnnounced(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Answer("Rayleigh scattering.")))
	b.start(b.config(model("vllm", p)))

	inbox, events := b.nc.NewInbox(), b.nc.NewInbox()
	reply, err := b.nc.SubscribeSync(inbox)
	require.NoError(t, err)
	copies, err := b.nc.SubscribeSync(events)
	require.NoError(t, err)
	done, err := b.nc.SubscribeSync(b.subjects.Done("default", "sky"))
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	b.publish("sky", fmt.Appendf(nil, `{"custom_id":"row-17","body":{"model":"auto","messages":[{"role":"user","content":"Why?"}]},"reply_to":%q,"events_to":%q,"metadata":{"tenant":"acme"}}`, inbox, events))

	r := b.result("sky")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, "row-17", r.CustomID)
	require.Equal(t, "vllm", r.Backend)
	require.Equal(t, "default", r.Route)
	require.JSONEq(t, `{"tenant":"acme"}`, string(r.Metadata))
	require.Nil(t, r.Error)
	require.Contains(t, string(r.Response.Body), "Rayleigh scattering.")
	require.Equal(t, []string{"vllm:succeeded"}, trail(r.Attempts))
	require.Equal(t, 1, r.Deliveries)
	require.Equal(t, 1, p.Stats().Calls)

	stored := b.last("LLM_RESULTS", b.subjects.Result("default", "sky"))
	for name, sub := range map[string]*nats.Subscription{"reply_to": reply, "done": done} {
		msg, err := sub.NextMsg(patience)
		require.NoError(t, err, name)
		require.Equal(t, string(stored.Data), string(msg.Data), name)
	}
	want := []job.EventType{job.EventReceived, job.EventAttemptStarted, job.EventAttemptSucceeded, job.EventCompleted}
	require.Equal(t, want, types(b.events("sky")))
	for _, kind := range want {
		msg, err := copies.NextMsg(patience)
		require.NoError(t, err)
		e, err := job.DecodeEvent(msg.Data)
		require.NoError(t, err)
		require.Equal(t, kind, e.Type)
		require.Equal(t, "understudy/w-1", e.Source)
	}
	b.settled()
	require.Nil(t, b.letter("sky"))
}

func TestTheBodyArrivesByteForByte(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	answer := "{ \"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"<\\u00e9>\"},\n\t\"finish_reason\":\"stop\"}],\"provider\":\"P\",\"big\":12345678901234567890, \"cost\":1e-7 }"
	p := llmtest.New(t, llmtest.Always(llmtest.Raw(http.StatusOK, "application/json", answer)))
	b.start(b.config(model("vllm", p)))

	body := `{ "temperature" : 0, "model":"a", "seed":12345678901234567890,"stop":"a", "top_k":1,` +
		` "messages" :[{"role":"user","content":"\u00e9\/ \ud83d\ude00"}],"model":"b","z":null,"a":{"model":"inner"} }`
	b.publish("exact", []byte(`{"body":`+body+`}`))

	r := b.result("exact")
	require.Equal(t, job.Succeeded, r.Status)
	stored := b.last("LLM_RESULTS", b.subjects.Result("default", "exact"))
	require.Contains(t, string(stored.Data), answer, "the answer's bytes are in the result")

	calls := p.Calls()
	require.Len(t, calls, 1)
	sent := string(calls[0].Body)
	require.Equal(t, 1, strings.Count(sent, `"model":"vllm-model"`), "one model, the backend's own: %s", sent)
	require.NotContains(t, sent, `"model":"a"`)
	require.NotContains(t, sent, `"model":"b"`)
	for _, part := range []string{
		`{ "temperature" : 0,`, `"seed":12345678901234567890,"stop":"a", "top_k":1,`,
		` "messages" :[{"role":"user","content":"\u00e9\/ \ud83d\ude00"}]`, `"z":null,"a":{"model":"inner"} }`,
	} {
		require.Contains(t, sent, part)
	}
	var decoded map[string]any
	require.NoError(t, json.Unmarshal(calls[0].Body, &decoded))
}

func TestTheSeedsChainFallsBackAsItSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		first llmtest.Reply
		trail []string
	}{
		{"a timeout goes on", llmtest.Broken(llmtest.Hang), []string{"openrouter:timeout>fallback", "vllm:succeeded"}},
		{"a 429 goes on", llmtest.Reply{Status: 429, RetryAfter: "60"}, []string{"openrouter:rate_limit>fallback", "vllm:succeeded"}},
		{"a 503 goes on", llmtest.Fail(503, "busy"), []string{"openrouter:overloaded>fallback", "vllm:succeeded"}},
		{"a 400 reaches the rules engine", llmtest.Fail(400, "bad"), []string{"openrouter:invalid_request>fallback", "rules:succeeded"}},
		{"a 404 reaches the rules engine", llmtest.Fail(404, "no such model"), []string{"openrouter:model_not_found>fallback", "rules:succeeded"}},
		{"a reset goes on", llmtest.Broken(llmtest.Reset), []string{"openrouter:connection>fallback", "vllm:succeeded"}},
		{"HTML goes on", llmtest.HTML(200), []string{"openrouter:bad_response>fallback", "vllm:succeeded"}},
		{"a cut body goes on", llmtest.Broken(llmtest.CutLength), []string{"openrouter:bad_response>fallback", "vllm:succeeded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			first, second := llmtest.New(t, llmtest.Always(c.first)), llmtest.New(t)
			openrouter, vllm := model("openrouter", first), model("vllm", second)
			if c.first.Fault == llmtest.Hang {
				openrouter.OpenAI.Timeout = 300 * time.Millisecond
			}
			b.start(b.config(openrouter, vllm, Backend{Name: "rules", Kind: KindRules}))
			b.publish("job", chat("hello there"))
			r := b.result("job")
			require.Equal(t, c.trail, trail(r.Attempts), "%v", r.Error)
			require.Equal(t, job.Succeeded, r.Status)
			require.Equal(t, r.Backend == "rules", r.Degraded)
			require.Equal(t, 1, first.Stats().Calls)
		})
	}
}

func TestAJobThatFailsEverywhereIsDeadLettered(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a := llmtest.New(t, llmtest.Always(llmtest.Fail(500, "boom")))
	c := llmtest.New(t, llmtest.Always(llmtest.Fail(503, "busy")))
	b.start(b.config(model("openrouter", a), model("vllm", c)))
	payload := chat("hello")
	b.publish("doomed", payload, "X-Tenant", "acme")

	r := b.result("doomed")
	require.Equal(t, job.Failed, r.Status)
	require.Equal(t, []string{"openrouter:server_error>fallback", "vllm:overloaded>fallback", "openrouter:server_error>stop"}, trail(r.Attempts))
	require.Equal(t, "server_error", r.Error.Code)
	require.Equal(t, "openrouter", r.Error.First.Backend)
	require.Equal(t, 500, r.Error.Last.Status)
	require.Equal(t, 500, r.Response.StatusCode)
	b.settled()
	letter := b.letter("doomed")
	require.NotNil(t, letter)
	require.Equal(t, "server_error", letter.Reason)
	got, err := letter.Payload()
	require.NoError(t, err)
	require.Equal(t, string(payload), string(got))
	require.Equal(t, []string{"acme"}, letter.Headers["X-Tenant"])
	require.Equal(t, []job.EventType{
		job.EventReceived, job.EventAttemptStarted, job.EventAttemptFailed, job.EventAttemptStarted, job.EventAttemptFailed,
		job.EventAttemptStarted, job.EventAttemptFailed, job.EventDeadLettered, job.EventCompleted,
	}, types(b.events("doomed")))
}

func TestBadInputIsDeadLetteredOnceAndNamesTheField(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	cases := []struct {
		id, payload, field string
	}{
		{"empty", ``, "payload"},
		{"binary", "\x00\xff\x01\x02", "payload"},
		{"brackets", strings.Repeat("[", 1<<20-1024), "payload"},
		{"nested", strings.Repeat(`{"a":`, 100000), "payload"},
		{"number", `17`, "payload"},
		{"no-body", `{"route":"default"}`, ""},
		{"body-type", `{"body":[]}`, "body"},
		{"messages", `{"body":{"model":"x"}}`, "body.messages"},
		{"unknown", `{"body":{"messages":[]},"rout":"x"}`, "rout"},
		{"wrong-type", `{"body":{"messages":[]},"timeout_ms":"soon"}`, "timeout_ms"},
		{"policy", `{"body":{"messages":[]},"policy":{"max_attempts":-1}}`, "policy.max_attempts"},
		{"policy-class", `{"body":{"messages":[]},"policy":{"on_errors":["bogus"]}}`, "policy.on_errors"},
		{"no-route", `{"body":{"messages":[]},"route":"nowhere"}`, "route"},
		{"no-backend", `{"body":{"messages":[]},"chain":["nobody"]}`, "chain[0]"},
		{"no-primary", `{"body":{"messages":[]},"primary":"nobody"}`, "primary"},
		{"js-api", `{"body":{"messages":[]},"reply_to":"$JS.API.STREAM.DELETE.LLM_JOBS"}`, "reply_to"},
		{"own", `{"body":{"messages":[]},"events_to":"llm.jobs.default.x"}`, "events_to"},
		{"wildcard", `{"body":{"messages":[]},"reply_to":"_INBOX.>"}`, "reply_to"},
		{"foreign", `{"body":{"messages":[]},"reply_to":"orders.new"}`, "reply_to"},
		{"deadline", `{"body":{"messages":[]},"deadline":"tomorrow"}`, "deadline"},
		{"url", `{"body":{"messages":[]},"url":"/v1/images"}`, "url"},
		{"a.b.c.d.e", `{"body":{"messages":[]}}`, "id"},
		{strings.Repeat("x", 65), `{"body":{"messages":[]}}`, "id"},
		{"umlaut-ü", `{"body":{"messages":[]}}`, "id"},
	}
	for _, c := range cases {
		b.publish(c.id, []byte(c.payload))
	}
	require.NoError(t, b.nc.Publish("llm.jobs.default.*", chat("hi"))) // a literal wildcard
	for _, c := range cases {
		r := b.result(c.id)
		require.Equal(t, job.Failed, r.Status, c.id)
		require.Equal(t, string(backend.InvalidJob), r.Error.Code, c.id)
		require.Truef(t, strings.HasPrefix(r.Error.Message, c.field), "%s: %q names the field %q", c.id, r.Error.Message, c.field)
		require.Empty(t, r.Attempts, c.id)
		b.eventually("dead letter of "+c.id, func() bool { return b.letter(c.id) != nil })
	}
	b.settled()
	require.Zero(t, p.Stats().Calls)
	dead := b.stream("LLM_DEAD")
	require.EqualValues(t, len(cases)+1, dead.Msgs, "each once, the wildcard included")
	require.EqualValues(t, len(cases)+1, dead.LastSeq)

	b.publish("after", chat("still alive"))
	require.Equal(t, job.Succeeded, b.result("after").Status)
}

func TestAFinishedJobIsNotPaidForAgain(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	b.publish("once", chat("hi"))
	first := b.result("once")
	b.settled()

	inbox := b.nc.NewInbox()
	reply, err := b.nc.SubscribeSync(inbox)
	require.NoError(t, err)
	b.publish("once", chat("something else"), job.HeaderReplyTo, inbox)
	msg, err := reply.NextMsg(patience)
	require.NoError(t, err)
	again, err := job.DecodeResult(msg.Data)
	require.NoError(t, err)
	require.Equal(t, first, again)
	b.settled()
	require.Equal(t, 1, p.Stats().Calls)
}

func TestOneJobPerIDWhileItIsQueuedOrRunning(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	release := make(chan struct{})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Until: release}))
	b.start(b.config(model("vllm", p)))
	b.publish("twin", chat("hi"))
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.InFlight == 1 }))
	_, err := b.js.Publish(t.Context(), b.subjects.Job("default", "twin"), chat("hi"))
	require.ErrorContains(t, err, "per subject")
	close(release)
	require.Equal(t, job.Succeeded, b.result("twin").Status)
}

func TestEndpointsStoreAJobLikeAnyOther(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Answer("blue")))
	b.start(b.config(model("vllm", p)))

	msg, err := b.nc.Request("llm.complete", chat("Why?"), patience)
	require.NoError(t, err)
	r, err := job.DecodeResult(msg.Data)
	require.NoError(t, err)
	require.Equal(t, job.Succeeded, r.Status)
	require.Contains(t, string(r.Response.Body), "blue")
	require.Equal(t, job.Succeeded, b.result(r.ID).Status, "it is stored")

	msg, err = b.nc.Request("llm.submit", []byte(`{"id":"mine","queue":"default","body":{"messages":[{"role":"user","content":"x"}]}}`), patience)
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"mine","queue":"default","result_subject":"llm.results.default.mine","done_subject":"llm.done.default.mine","events_subject":"llm.events.default.mine"}`, string(msg.Data))
	require.Equal(t, job.Succeeded, b.result("mine").Status)

	msg, err = b.nc.Request("llm.complete", []byte(`{"messages":`), patience)
	require.NoError(t, err)
	r, err = job.DecodeResult(msg.Data)
	require.NoError(t, err)
	require.Equal(t, "invalid_job", r.Error.Code, "a malformed job ends as any other, and its requester hears of it")

	msg, err = b.nc.Request("llm.complete", []byte(`{"id":"no good","body":{"messages":[]}}`), patience)
	require.NoError(t, err)
	require.Equal(t, "400", msg.Header.Get("Nats-Service-Error-Code"))
	require.Contains(t, string(msg.Data), "id:")
}

// TestARequesterThatMayNotBeAnsweredGetsNoWord pins that a worker does not lend
// its permissions: an answer on a results subject would be a result.
func TestARequesterThatMayNotBeAnsweredGetsNoWord(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	cfg := b.config(model("vllm", p))
	b.start(cfg)
	for _, endpoint := range []string{"llm.complete", "llm.submit"} {
		for _, reply := range []string{"llm.results.default.victim", "llm.dead.default.victim", "elsewhere"} {
			answers, err := b.nc.SubscribeSync(reply)
			require.NoError(t, err)
			require.NoError(t, b.nc.PublishRequest(endpoint, reply, chat("hi")))
			_, err = b.nc.Request("llm.submit", []byte(`{"id":"no good","body":{}}`), patience) // answered after it
			require.NoError(t, err)
			n, _, err := answers.Pending()
			require.NoError(t, err)
			require.Zero(t, n, "%s answered on %s", endpoint, reply)
			require.NoError(t, answers.Unsubscribe())
		}
	}
	require.Zero(t, p.Stats().Calls)
	require.Contains(t, b.logs.String(), "a request is dropped")
}

func TestAnOutageOfEveryBackendMakesJobsWait(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	down := llmtest.Fail(503, "down")
	first, second := llmtest.New(t, llmtest.Always(down)), llmtest.New(t, llmtest.Always(down))
	healthy := llmtest.New(t)
	one, two := model("one", first), model("two", second)
	one.Breaker = breaker.Config{Failures: 5, Cooldown: 3 * time.Second}
	two.Breaker = one.Breaker
	cfg := b.config(one, two, model("three", healthy))
	cfg.Routes[0].Chain = []string{"one", "two"}
	b.start(cfg)
	const n = 100
	for i := range n {
		b.publish(fmt.Sprintf("out.%d", i), chat("hi"))
	}
	events, err := b.js.Stream(t.Context(), "LLM_EVENTS")
	require.NoError(t, err)
	b.eventually("every job waits", func() bool {
		info, err := events.Info(t.Context())
		return err == nil && info.State.NumSubjects >= n && strings.Count(b.logs.String(), "job waits") >= n
	})
	b.publish("healthy", []byte(`{"body":{"messages":[{"role":"user","content":"hi"}]},"chain":["three"]}`))
	require.Equal(t, job.Succeeded, b.result("healthy").Status, "another route's job flows meanwhile")
	require.Less(t, first.Stats().Calls+second.Stats().Calls, n, "the outage was noticed")

	first.SetScript(llmtest.Echo())
	second.SetScript(llmtest.Echo())
	for i := range n {
		r := b.result(fmt.Sprintf("out.%d", i))
		require.Equal(t, job.Succeeded, r.Status, "%v", trail(r.Attempts))
	}
	b.settled()
	require.Zero(t, b.stream("LLM_DEAD").Msgs)
}

func TestAJobThatKeepsKillingItsWorkerIsPoison(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	b.publish("poison", chat("hi"))
	consumer, err := b.js.Consumer(t.Context(), "LLM_JOBS", queue.ConsumerName("default"))
	require.NoError(t, err)
	for range 3 { // three workers took it and never told how it ended
		b.crash(consumer)
	}
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	r := b.result("poison")
	require.Equal(t, job.Failed, r.Status)
	require.Equal(t, "poison", r.Error.Code)
	b.settled()
	require.Equal(t, "poison", b.letter("poison").Reason)
	require.Zero(t, p.Stats().Calls)
}

func TestCrashesAreCountedAcrossAHandBack(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	b.publish("poison", chat("hi"))
	consumer, err := b.js.Consumer(t.Context(), "LLM_JOBS", queue.ConsumerName("default"))
	require.NoError(t, err)
	b.crash(consumer)
	b.crash(consumer)
	p := llmtest.New(t, llmtest.Always(llmtest.Broken(llmtest.Hang)))
	cfg := b.config(model("vllm", p))
	cfg.Backends[0].OpenAI.Timeout = patience
	cfg.ShutdownGrace = -1
	w := b.start(cfg)
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.InFlight == 1 }))
	require.NoError(t, w.stop()) // hands it back, which is no crash
	b.crash(consumer)
	b.start(cfg)
	r := b.result("poison")
	require.Equal(t, "poison", r.Error.Code)
	require.Equal(t, 1, p.Stats().Calls)
}

func TestADeliveryThatNoWorkerBeganIsNoCrash(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	b.publish("parcel", chat("hi"))
	consumer, err := b.js.Consumer(t.Context(), "LLM_JOBS", queue.ConsumerName("default"))
	require.NoError(t, err)
	for range 5 { // handed out at a stop, and given back
		msg, err := consumer.Next()
		require.NoError(t, err)
		require.NoError(t, msg.Nak())
	}
	b.start(b.config(model("vllm", llmtest.New(t))))
	r := b.result("parcel")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, 6, r.Deliveries)
}

func TestJobsInAHurryDoNotOpenABreaker(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Delay: time.Second}))
	vllm := model("vllm", p)
	vllm.OpenAI.Timeout = patience
	vllm.Breaker = breaker.Config{Failures: 2, Cooldown: time.Hour}
	b.start(b.config(vllm))
	for i := range 4 {
		b.publish(fmt.Sprintf("hasty.%d", i), []byte(`{"body":{"messages":[]},"timeout_ms":50}`))
		r := b.result(fmt.Sprintf("hasty.%d", i))
		require.Equal(t, job.Expired, r.Status)
		require.Equal(t, "the job's time is up", r.Error.Message)
	}
	b.publish("calm", chat("hi"))
	require.Equal(t, job.Succeeded, b.result("calm").Status)
}

func TestWhatStandsWhereAResultBelongsEndsTheJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	_, err := b.js.Publish(t.Context(), "llm.results.default.odd", []byte("not a result"))
	require.NoError(t, err)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	b.publish("odd", chat("hi"))
	b.settled()
	require.Zero(t, p.Stats().Calls)
}

func TestAnIDThatJSONCannotHoldIsRefusedEveryTime(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.start(b.config(model("vllm", llmtest.New(t))))
	for range 2 {
		_, err := b.js.Publish(t.Context(), "llm.jobs.default.a\xff", chat("hi"))
		require.NoError(t, err)
		b.settled()
	}
	require.Equal(t, "invalid_job", b.result("a_").Error.Code)
}

func TestAFinishedJobIsAnnouncedAgain(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	b.publish("echo", chat("hi"))
	b.result("echo")
	b.settled()
	done, err := b.nc.SubscribeSync(b.subjects.Done("default", "echo"))
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	b.publish("echo", chat("hi"))
	msg, err := done.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, string(b.last("LLM_RESULTS", b.subjects.Result("default", "echo")).Data), string(msg.Data))
	require.Equal(t, 1, p.Stats().Calls)
}

func TestCompleteAnswersItsRequesterAndNobodyElse(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	msg, err := b.nc.Request("llm.complete", []byte(`{"body":{"messages":[]},"reply_to":"_INBOX.other"}`), patience)
	require.NoError(t, err)
	require.Equal(t, "400", msg.Header.Get("Nats-Service-Error-Code"))
	require.Contains(t, string(msg.Data), "reply_to")
	require.Zero(t, p.Stats().Calls)
}

func TestADataDirectoryHasOneServer(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	cfg := b.config(model("vllm", llmtest.New(t)))
	cfg.Embedded = &Embedded{Addr: "127.0.0.1:0", DataDir: t.TempDir()}
	w := b.start(cfg)
	second, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	err = second.Run(t.Context())
	var taken *DirError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, "WORKER_DATA_DIR", taken.Setting)
	require.NoError(t, w.stop())
	b.start(cfg)
}

func TestAJobGoesOnWhereItsDeadWorkerLeftIt(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure("default")
	b.publish("heir", chat("hi"))
	consumer, err := b.js.Consumer(t.Context(), "LLM_JOBS", queue.ConsumerName("default"))
	require.NoError(t, err)
	msg, err := consumer.Next()
	require.NoError(t, err)
	meta, err := msg.Metadata()
	require.NoError(t, err)
	class, text, next := "timeout", "no answer in 5s", job.NextFallback
	failed := job.Attempt{N: 1, Backend: "one", Outcome: job.OutcomeFailed, Class: &class, Error: &text, Next: &next, StartedAt: time.Now()}
	for _, e := range []*job.Event{
		job.NewEvent("dead", job.EventReceived, "heir", time.Now(), job.Received{Queue: "default", Delivery: 1, JobSeq: meta.Sequence.Stream}),
		job.NewEvent("dead", job.EventAttemptStarted, "heir", time.Now(), job.Attempt{N: 1, Backend: "one", StartedAt: time.Now()}),
		job.NewEvent("dead", job.EventAttemptFailed, "heir", time.Now(), failed),
		job.NewEvent("dead", job.EventAttemptStarted, "heir", time.Now(), job.Attempt{N: 2, Backend: "two", StartedAt: time.Now()}),
	} {
		_, err := b.js.Publish(t.Context(), b.subjects.Event("default", "heir"), e.Encode())
		require.NoError(t, err)
	}
	require.NoError(t, msg.Nak())

	first, second := llmtest.New(t), llmtest.New(t)
	b.start(b.config(model("one", first), model("two", second)))
	r := b.result("heir")
	require.Equal(t, []string{"one:timeout>fallback", "two:unknown", "two:succeeded"}, trail(r.Attempts))
	require.Equal(t, 2, r.Deliveries)
	require.Zero(t, first.Stats().Calls, "a finished attempt is not repeated")
	require.Contains(t, types(b.events("heir")), job.EventAttemptUnknown)
}

func TestARestartHandsRunningJobsBackAtNoCost(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Broken(llmtest.Hang)))
	cfg := b.config(model("vllm", p))
	cfg.Backends[0].OpenAI.Timeout = patience
	cfg.ShutdownGrace = -1
	w := b.start(cfg)
	b.publish("moved", chat("hi"))
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.InFlight == 1 }))
	require.NoError(t, w.stop())

	p.SetScript(llmtest.Echo())
	cfg.Name = "w-2"
	b.start(cfg)
	r := b.result("moved")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, "w-2", r.Worker)
	require.Equal(t, 2, r.Deliveries)
	require.Equal(t, "vllm:succeeded", trail(r.Attempts)[len(r.Attempts)-1])
}

func TestAnExpiredJobCostsNoCall(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	b.publish("late", []byte(`{"body":{"messages":[]},"deadline":"2020-01-01T00:00:00Z"}`))
	r := b.result("late")
	require.Equal(t, job.Expired, r.Status)
	require.Equal(t, "expired", r.Error.Code)
	b.settled()
	require.Equal(t, "expired", b.letter("late").Reason)
	require.Zero(t, p.Stats().Calls)
}

func TestARedrivenJobReplacesItsFailedResultOnly(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Fail(400, "no")))
	b.start(b.config(model("vllm", p)))
	b.publish("phoenix", chat("hi"))
	require.Equal(t, job.Failed, b.result("phoenix").Status)
	b.settled()
	p.SetScript(llmtest.Echo())
	b.publish("phoenix", chat("hi"), job.HeaderRedrives, "1")
	b.settled()
	r := b.result("phoenix")
	require.Equal(t, job.Succeeded, r.Status)
	require.Equal(t, 1, r.Redrives)
	b.publish("phoenix", chat("hi"), job.HeaderRedrives, "2")
	b.settled()
	require.Equal(t, r, b.result("phoenix"), "a succeeded result stays")
	require.Equal(t, 2, p.Stats().Calls)
}

// TestACountOfRedrivesThatIsAbsurdStillCounts pins that a publisher cannot make
// the next redrive of its job be taken for the job itself.
func TestACountOfRedrivesThatIsAbsurdStillCounts(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Fail(400, "no")))
	w := b.start(b.config(model("vllm", p)))
	b.publish("absurd", chat("hi"), job.HeaderRedrives, "9223372036854775807")
	require.Equal(t, job.Failed, b.result("absurd").Status)
	b.settled()
	p.SetScript(llmtest.Echo())
	for letter, err := range w.store.Letters(t.Context(), "default", "absurd") {
		require.NoError(t, err)
		_, err = w.store.Redrive(t.Context(), letter)
		require.NoError(t, err)
	}
	b.settled()
	require.Equal(t, job.Succeeded, b.result("absurd").Status)
}

func TestAResultThatIsTooBigSaysSo(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Size: 2 << 20}))
	cfg := b.config(model("vllm", p))
	cfg.MaxPayload = -1
	b.start(cfg)
	b.publish("big", chat("hi"))
	r := b.result("big")
	require.Equal(t, job.Failed, r.Status)
	require.Equal(t, "too_large", r.Error.Code)
	require.Contains(t, r.Error.Message, "1048064")
	b.settled()
	require.NotNil(t, b.letter("big"))
}

// TestAStreamedJobIsRelayedAndAssembled pins that a reader of the chunks can tell
// where a fallback starts the answer anew.
func TestAStreamedJobIsRelayedAndAssembled(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	dying := llmtest.New(t, llmtest.Always(llmtest.Reply{Text: "one two three four", Stream: llmtest.Stream{After: 2, End: llmtest.EndCut}}))
	sound := llmtest.New(t, llmtest.Always(llmtest.Answer("five six")))
	b.start(b.config(model("dying", dying), model("sound", sound)))
	chunks, err := b.nc.SubscribeSync(b.subjects.Chunks("default", "s"))
	require.NoError(t, err)
	copies, err := b.nc.SubscribeSync("_INBOX.copies")
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	b.publish("s", []byte(`{"events_to":"_INBOX.copies","body":{"messages":[{"role":"user","content":"x"}],"stream":true}}`))
	r := b.result("s")
	require.Equal(t, job.Succeeded, r.Status)
	require.Contains(t, string(r.Response.Body), `"five six"`)
	require.Equal(t, []string{"dying truncated", "sound "}, []string{
		r.Attempts[0].Backend + " " + *r.Attempts[0].Class, r.Attempts[1].Backend + " ",
	})
	b.settled()
	require.NoError(t, b.nc.Flush())
	relayed, copied := texts(t, chunks), texts(t, copies)
	require.Equal(t, map[string]string{"1": "one two ", "2": "five six"}, relayed)
	require.Equal(t, relayed, copied, "whoever gets the events gets the chunks")
}

// texts is what chunks say, by the number of their attempt. What has no number is
// an event.
func texts(t *testing.T, sub *nats.Subscription) map[string]string {
	t.Helper()
	pending, _, err := sub.Pending()
	require.NoError(t, err)
	said := make(map[string]string)
	for range pending {
		msg, err := sub.NextMsg(patience)
		require.NoError(t, err)
		n := msg.Header.Get(job.HeaderAttempt)
		if n == "" {
			require.Contains(t, string(msg.Data), `"specversion"`)
			continue
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		require.NoError(t, json.Unmarshal(msg.Data, &chunk))
		for _, c := range chunk.Choices {
			said[n] += c.Delta.Content
		}
	}
	return said
}

func TestLogsAndMetricsHoldNeitherPromptNorKeyNorProviderText(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const secret, prompt, echo = "sk-very-secret-key-0123456789", "my-private-prompt", "the provider quotes my-private-prompt"
	p := llmtest.New(t, llmtest.Steps(llmtest.Fail(500, echo+secret), llmtest.Fail(400, echo+secret)))
	backend := model("vllm", p)
	backend.OpenAI.APIKey = secret
	cfg := b.config(backend)
	cfg.HTTPAddr = "127.0.0.1:0"
	w := b.start(cfg)
	b.publish("quiet", chat(prompt))
	r := b.result("quiet")
	require.Equal(t, job.Failed, r.Status)
	b.settled()
	require.NotContains(t, string(b.last("LLM_RESULTS", "llm.results.default.quiet").Data), secret)
	require.NotContains(t, string(b.last("LLM_DEAD", "llm.dead.default.quiet").Data), secret)
	for _, e := range b.events("quiet") {
		require.NotContains(t, string(e.Data), secret)
	}
	metrics := get(t, "http://"+w.HTTPAddr()+"/metrics", http.StatusOK)
	require.Contains(t, metrics, `llm_requests_total{backend="vllm",status="server_error"} 1`)
	require.Contains(t, metrics, `understudy_jobs_total{queue="default",route="default",status="failed"} 1`)
	for _, text := range []string{metrics, b.logs.String()} {
		for _, banned := range []string{secret, prompt, "quotes"} {
			require.NotContains(t, text, banned)
		}
	}
}

func TestReadyTellsTheTruth(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	cfg := b.config(model("vllm", llmtest.New(t)))
	cfg.HTTPAddr = "127.0.0.1:0"
	w := b.start(cfg)
	url := "http://" + w.HTTPAddr()
	b.publish("warm", chat("hi"))
	b.result("warm")
	require.Contains(t, get(t, url+"/readyz", http.StatusOK), `"ready":true`)
	b.srv.Stop(t)
	b.eventually("not ready without a server", func() bool {
		resp, err := http.Get(url + "/readyz") //nolint:noctx // a test's probe
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	require.Contains(t, get(t, url+"/healthz", http.StatusOK), `"ready":true`)
	b.srv.Start(t)
	b.eventually("ready again", func() bool { return w.readiness(t.Context()).Ready })
	b.publish("back", chat("hi"))
	require.Equal(t, job.Succeeded, b.result("back").Status)
}

func TestTheEmbeddedServerKeepsItsJobsOverARestart(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	p := llmtest.New(t)
	cfg := b.config(model("vllm", p))
	cfg.Connect = nil
	cfg.Embedded = &Embedded{Addr: "127.0.0.1:0", DataDir: t.TempDir()}
	w := b.start(cfg)
	nc, err := nats.Connect(w.URL())
	require.NoError(t, err)
	msg, err := nc.Request("llm.complete", []byte(`{"id":"kept","body":{"messages":[{"role":"user","content":"x"}]}}`), patience)
	require.NoError(t, err)
	nc.Close()
	require.NoError(t, w.stop())
	w = b.start(cfg)
	nc, err = nats.Connect(w.URL())
	require.NoError(t, err)
	defer nc.Close()
	again, err := nc.Request("llm.complete", []byte(`{"id":"kept","body":{"messages":[{"role":"user","content":"x"}]}}`), patience)
	require.NoError(t, err)
	require.True(t, bytes.Equal(msg.Data, again.Data))
	require.Equal(t, 1, p.Stats().Calls)
}

func get(t *testing.T, url string, status int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	require.NoError(t, err)
	require.Equal(t, status, resp.StatusCode, body.String())
	return body.String()
}
