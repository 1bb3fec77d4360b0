package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
	"understudy/internal/results"
)

// smallMessages is the server's limit in these tests.
const smallMessages = 64 << 10

// newBundleWith is newBundle with another server.
func newBundleWith(t *testing.T, opts natstest.Options, conn ...nats.Option) *bundle {
	t.Helper()
	srv := natstest.RunWith(t, opts)
	nc := srv.Conn(t, conn...)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	subjects, err := job.NewSubjects("llm")
	require.NoError(t, err)
	return &bundle{t: t, srv: srv, nc: nc, js: js, subjects: subjects, logs: new(buffer)}
}

// object stores an object as any client would.
func (b *bundle) object(bucket, name string, data []byte) {
	b.t.Helper()
	store, err := b.js.ObjectStore(b.t.Context(), bucket)
	require.NoError(b.t, err)
	_, err = store.Put(b.t.Context(), jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: 8 << 10}}, bytes.NewReader(data))
	require.NoError(b.t, err)
}

// objects are the names in a bucket. The client's own list may wait for ever for one
// that is deleted meanwhile.
func (b *bundle) objects(bucket string) []string {
	b.t.Helper()
	return answer(b, func() ([]string, error) {
		s, err := b.js.Stream(b.t.Context(), "OBJ_"+bucket)
		if err != nil {
			return nil, err
		}
		info, err := s.Info(b.t.Context(), jetstream.WithSubjectFilter("$O."+bucket+".M.>"))
		if err != nil {
			return nil, err
		}
		names := []string{}
		for subject := range info.State.Subjects {
			msg, err := s.GetLastMsgForSubject(b.t.Context(), subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue // deleted meanwhile
			}
			var o jetstream.ObjectInfo
			if err == nil {
				err = json.Unmarshal(msg.Data, &o)
			}
			if err != nil {
				return nil, err
			}
			if !o.Deleted {
				names = append(names, o.Name)
			}
		}
		return names, nil
	})
}

// empty waits until a bucket holds nothing, not even the marks of deletions.
func (b *bundle) empty(bucket string) {
	b.t.Helper()
	b.eventually(bucket+" is empty", func() bool { return b.stream("OBJ_"+bucket).Msgs == 0 })
}

// body reads the answer of a result from where it is.
func (b *bundle) body(r *job.Result) string {
	b.t.Helper()
	require.NotEmpty(b.t, r.Response.Object)
	require.Equal(b.t, "null", string(r.Response.Body))
	store, err := b.js.ObjectStore(b.t.Context(), "LLM_ANSWERS")
	require.NoError(b.t, err)
	data, err := store.GetBytes(b.t.Context(), r.Response.Object)
	require.NoError(b.t, err)
	require.Len(b.t, data, int(r.Response.Bytes))
	return string(data)
}

// publishBig stores a job whose payload is in an object of that name.
func (b *bundle) publishBig(id, name string, payload []byte, headers ...string) {
	b.t.Helper()
	b.object("LLM_PAYLOADS", name, payload)
	b.publish(id, nil, append(headers, job.HeaderPayload, name)...)
}

func TestABigJobIsRunAndItsObjectGoes(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	inbox, err := b.nc.SubscribeSync("_INBOX.x")
	require.NoError(t, err)
	payload := fmt.Appendf(nil, `{"custom_id":"c","reply_to":"_INBOX.x","body":{"messages":[{"role":"user","content":%q}]},"metadata":{"a":1}}`, strings.Repeat("x", 1<<20))
	b.publishBig("big", "llm.jobs.default.big@1", payload)
	r := b.result("big")
	require.Equal(t, job.Succeeded, r.Status, "%+v", r.Error)
	require.Equal(t, "c", r.CustomID)
	require.JSONEq(t, `{"a":1}`, string(r.Metadata))
	require.Contains(t, string(p.Calls()[0].Body), strings.Repeat("x", 1<<20))
	sent, err := inbox.NextMsg(patience)
	require.NoError(t, err)
	require.Contains(t, string(sent.Data), `"custom_id":"c"`)
	b.settled()
	b.empty("LLM_PAYLOADS")
	require.Nil(t, b.letter("big"))
}

func TestABigAnswerIsInAnObjectAndTheResultSaysWhere(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Size: 300 << 10}))
	b.start(b.config(model("vllm", p)))
	done, err := b.nc.SubscribeSync("llm.done.default.big")
	require.NoError(t, err)
	inbox, err := b.nc.SubscribeSync("_INBOX.x")
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	b.publish("big", chat("hi"), job.HeaderReplyTo, "_INBOX.x")
	r := b.result("big")
	require.Equal(t, job.Succeeded, r.Status, "%+v", r.Error)
	require.Equal(t, 200, r.Response.StatusCode)
	require.Equal(t, int64(300<<10), r.Response.Bytes)
	stored := b.last("LLM_RESULTS", "llm.results.default.big")
	require.True(t, strings.HasPrefix(r.Response.Object, "llm.results.default.big@"+stored.Header.Get(job.HeaderJobSeq)+"."), r.Response.Object)
	require.Contains(t, b.body(r), `"choices"`)
	for _, sub := range []*nats.Subscription{done, inbox} {
		msg, err := sub.NextMsg(patience)
		require.NoError(t, err)
		require.Equal(t, string(stored.Data), string(msg.Data))
	}
	b.settled()
	store, err := b.js.ObjectStore(t.Context(), "LLM_ANSWERS")
	require.NoError(t, err)
	status, err := store.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, 169*time.Hour, status.TTL(), "no result outlives its answer")
}

// TestARedrivenBigJobReplacesItsAnswer pins that a dead letter has all of a big
// job, and that nothing of the life before is left.
func TestARedrivenBigJobReplacesItsAnswer(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Status: 400, Size: 200 << 10}))
	b.start(b.config(model("vllm", p)))
	payload := chat(strings.Repeat("y", 500<<10))
	b.publishBig("big", "llm.jobs.default.big", payload)
	r := b.result("big")
	require.Equal(t, job.Failed, r.Status)
	require.Equal(t, "invalid_request", r.Error.Code)
	require.Contains(t, b.body(r), "Bad Request")
	b.settled()
	b.empty("LLM_PAYLOADS")
	letter := b.letter("big")
	require.Equal(t, "invalid_request", letter.Reason)

	store, err := results.Open(t.Context(), b.nc, b.js, b.subjects)
	require.NoError(t, err)
	got, err := store.Payload(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, string(payload), string(got), "the dead letter has its own copy")
	before := r.Response.Object
	p.SetScript(llmtest.Always(llmtest.Reply{Size: 100 << 10}))
	for l, err := range store.Letters(t.Context(), "default", "big") {
		require.NoError(t, err)
		_, err = store.Redrive(t.Context(), l)
		require.NoError(t, err)
	}
	b.eventually("the result is replaced", func() bool { return b.result("big").Status == job.Succeeded })
	r = b.result("big")
	require.Equal(t, 1, r.Redrives)
	require.Contains(t, b.body(r), `"choices"`)
	b.settled()
	b.eventually("the answer before is gone", func() bool { return len(b.objects("LLM_ANSWERS")) == 1 })
	require.NotContains(t, b.objects("LLM_ANSWERS"), before)
	b.empty("LLM_PAYLOADS")
	require.Nil(t, b.letter("big"))
	require.Equal(t, string(payload[16:]), string(p.Calls()[1].Body[len(p.Calls()[1].Body)-len(payload)+16:]), "the same prompt")
}

func TestAJobWhosePayloadCannotBeHadSaysWhy(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t)
	cfg := b.config(model("vllm", p))
	cfg.MaxPayload = 100 << 10
	b.start(cfg)
	payloads, err := b.js.ObjectStore(t.Context(), "LLM_PAYLOADS")
	require.NoError(t, err)
	b.object("LLM_PAYLOADS", "llm.jobs.default.big", make([]byte, 100<<10+1))
	b.object("LLM_PAYLOADS", "llm.jobs.default.broken", []byte("{"))
	b.object("LLM_PAYLOADS", "llm.jobs.default.both", chat("x"))
	b.object("LLM_PAYLOADS", "llm.jobs.default.other", chat("secret"))
	b.object("LLM_ANSWERS", "theirs", chat("secret"))
	answers, err := b.js.ObjectStore(t.Context(), "LLM_ANSWERS")
	require.NoError(t, err)
	theirs, err := answers.GetInfo(t.Context(), "theirs")
	require.NoError(t, err)
	_, err = payloads.AddLink(t.Context(), "llm.jobs.default.link", theirs)
	require.NoError(t, err)
	for id, tc := range map[string]struct{ object, payload, class, want string }{
		"missing": {"llm.jobs.default.missing@1", "", "invalid_job", "Understudy-Payload: the object llm.jobs.default.missing@1 of LLM_PAYLOADS cannot be read: nats: object not found"},
		"big":     {"llm.jobs.default.big", "", "too_large", "Understudy-Payload: the payload has 102401 bytes; this worker takes 102400 (WORKER_MAX_PAYLOAD)"},
		"broken":  {"llm.jobs.default.broken", "", "invalid_job", "payload: is not valid JSON: see byte 1 of 1"},
		"both":    {"llm.jobs.default.both", string(chat("x")), "invalid_job", "Understudy-Payload: the message has a payload of its own; it must be empty"},
		"thief":   {"llm.jobs.default.other", "", "invalid_job", "Understudy-Payload: the object must be called llm.jobs.default.thief, or that with @ and more behind it"},
		"link":    {"llm.jobs.default.link", "", "invalid_job", "Understudy-Payload: the object llm.jobs.default.link of LLM_PAYLOADS cannot be read: the object is a link"},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			inbox := b.nc.NewInbox()
			sub, err := b.nc.SubscribeSync(inbox)
			require.NoError(t, err)
			b.publish(id, []byte(tc.payload), job.HeaderPayload, tc.object, job.HeaderReplyTo, inbox)
			r := b.result(id)
			require.Equal(t, job.Failed, r.Status)
			require.Equal(t, tc.class+": "+tc.want, r.Error.Code+": "+r.Error.Message)
			_, err = sub.NextMsg(patience)
			require.NoError(t, err, "whoever asked hears of it")
			b.eventually("it has left the queue", func() bool { return b.last("LLM_JOBS", "llm.jobs.default."+id) == nil })
			letter := b.letter(id)
			require.Equal(t, tc.class, letter.Reason)
			require.Equal(t, []string{tc.object}, letter.Headers[job.HeaderPayload])
			require.Empty(t, p.Calls())
			if id == "broken" { // its payload could be read: the dead letter has it
				b.eventually("its object is gone", func() bool { return !slices.Contains(b.objects("LLM_PAYLOADS"), tc.object) })
			} else if id != "missing" {
				require.Contains(t, b.objects("LLM_PAYLOADS"), tc.object, "what could not be read stays")
			}
		})
	}
}

// TestAnObjectThatComesLaterMendsTheJob pins that a redrive looks for it again.
func TestAnObjectThatComesLaterMendsTheJob(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t)
	b.start(b.config(model("vllm", p)))
	b.publish("late", nil, job.HeaderPayload, "llm.jobs.default.late")
	require.Equal(t, "invalid_job", b.result("late").Error.Code)
	b.settled()
	b.object("LLM_PAYLOADS", "llm.jobs.default.late", chat(strings.Repeat("z", 100<<10)))
	store, err := results.Open(t.Context(), b.nc, b.js, b.subjects)
	require.NoError(t, err)
	swept, err := store.SweepPayloads(t.Context(), time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Zero(t, swept, "the dead letter refers to it")
	for l, err := range store.Letters(t.Context(), "default", "late") {
		require.NoError(t, err)
		_, err = store.Redrive(t.Context(), l)
		require.NoError(t, err)
	}
	b.eventually("it runs", func() bool { return b.result("late").Status == job.Succeeded })
	require.Len(t, p.Calls(), 1)
	b.settled()
	b.empty("LLM_PAYLOADS")
}

func TestWithoutObjectStoresWhatDoesNotFitIsRefusedWithTheSizes(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Size: 100 << 10}))
	cfg := b.config(model("vllm", p))
	cfg.MaxPayload = -1
	b.start(cfg)
	_, err := b.js.ObjectStore(t.Context(), "LLM_PAYLOADS")
	require.ErrorIs(t, err, jetstream.ErrBucketNotFound)
	b.publish("answer", chat("hi"))
	r := b.result("answer")
	require.Equal(t, job.Failed, r.Status)
	require.Nil(t, r.Response)
	require.Regexp(t, `^too_large: the result has 10\d{4} bytes; a message here takes 65024; WORKER_MAX_PAYLOAD is 0$`, r.Error.Code+": "+r.Error.Message)
	b.publish("job", nil, job.HeaderPayload, "llm.jobs.default.job")
	r = b.result("job")
	require.Equal(t, "too_large: Understudy-Payload: the payload is in an object, and this worker reads none (WORKER_MAX_PAYLOAD is 0)",
		r.Error.Code+": "+r.Error.Message)
	require.Len(t, p.Calls(), 1)
}

func TestAnAnswerAboveTheLimitFailsWithBothSizes(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Size: 200 << 10}))
	cfg := b.config(model("vllm", p))
	cfg.MaxPayload = 150 << 10
	b.start(cfg)
	b.publish("a", chat("hi"))
	r := b.result("a")
	require.Equal(t, "too_large", r.Error.Code)
	require.Contains(t, r.Error.Message, "a message here takes 65024; its answer has 204800, and WORKER_MAX_PAYLOAD is 153600")
	require.Empty(t, b.objects("LLM_ANSWERS"))
}

// TestForbiddenObjectStoresNeverHoldAJobUp pins that a worker that may not use
// them fails what does not fit, and says so.
func TestForbiddenObjectStoresNeverHoldAJobUp(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages, Config: `
authorization { users: [
  {user: root, password: pw}
  {user: w, password: pw, permissions: {publish: {deny: ["$O.>", "$JS.API.DIRECT.GET.OBJ_LLM_PAYLOADS.>", "$JS.API.STREAM.MSG.GET.OBJ_LLM_PAYLOADS"]}}}
]}`}, nats.UserInfo("root", "pw"))
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Size: 100 << 10}))
	cfg := b.config(model("vllm", p))
	cfg.Connect = func(opts ...nats.Option) (*nats.Conn, error) {
		return nats.Connect(b.srv.URL, append(opts, nats.UserInfo("w", "pw"))...)
	}
	b.start(cfg)
	b.publish("answer", chat("hi"))
	b.publishBig("job", "llm.jobs.default.job", chat("hi"))
	r := b.result("answer")
	require.Equal(t, "too_large", r.Error.Code)
	require.Contains(t, r.Error.Message, "a message here takes 65024; store an answer of 102400 bytes in LLM_ANSWERS: ")
	r = b.result("job")
	require.Equal(t, "invalid_job", r.Error.Code)
	require.Contains(t, r.Error.Message, "the object llm.jobs.default.job of LLM_PAYLOADS cannot be read")
	b.settled()
	require.Contains(t, b.logs.String(), "an answer that is too big for a message could not be put into the object store")
	require.Equal(t, []string{"llm.jobs.default.job"}, b.objects("LLM_PAYLOADS"))
}

func TestTheLoserOfARaceTakesItsAnswerWithIt(t *testing.T) {
	t.Parallel()
	b := newBundleWith(t, natstest.Options{MaxPayload: smallMessages})
	released := make(chan struct{})
	p := llmtest.New(t, llmtest.Always(llmtest.Reply{Size: 100 << 10, Until: released}))
	b.start(b.config(model("vllm", p)))
	b.publish("a", chat("hi"))
	require.NoError(t, p.Wait(t.Context(), func(s llmtest.Stats) bool { return s.Calls == 1 }))
	store, err := results.Open(t.Context(), b.nc, b.js, b.subjects)
	require.NoError(t, err)
	winner := &job.Result{ID: "a", Queue: "default", Status: job.Succeeded, Worker: "w-2", Response: &job.Response{StatusCode: 200, Body: json.RawMessage(`{}`)}}
	_, err = store.Commit(t.Context(), winner, b.last("LLM_JOBS", "llm.jobs.default.a").Sequence, 0)
	require.NoError(t, err)
	close(released)
	b.settled()
	require.Equal(t, "w-2", b.result("a").Worker)
	b.empty("LLM_ANSWERS")
}
