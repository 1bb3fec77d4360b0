package results_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
	"understudy/internal/queue"
	"understudy/internal/results"
)

// lettersBench is a server with our streams and one Store.
type lettersBench struct {
	js       jetstream.JetStream
	subjects job.Subjects
	store    *results.Store
}

func newLettersBench(tb testing.TB, opts natstest.Options) *lettersBench {
	tb.Helper()
	srv := natstest.RunWith(tb, opts)
	nc := srv.Conn(tb)
	js, err := jetstream.New(nc)
	require.NoError(tb, err)
	subjects, err := job.NewSubjects(job.DefaultPrefix)
	require.NoError(tb, err)
	_, err = queue.Layout{Subjects: subjects}.Ensure(tb.Context(), js, []string{"default", "low"})
	require.NoError(tb, err)
	store, err := results.Open(tb.Context(), nc, js, subjects)
	require.NoError(tb, err)
	return &lettersBench{js: js, subjects: subjects, store: store}
}

// bury stores a dead letter as a worker does, of a job message with the sequence 7.
func (b *lettersBench) bury(tb testing.TB, queueName, id, payload string, h job.Header) {
	tb.Helper()
	letter := &job.DeadLetter{
		ID: id, Queue: queueName, Reason: "timeout", Headers: h, Deliveries: 1, Worker: "w-1",
		Time: time.Date(2026, 11, 22, 1, 2, 3, 4e6, time.UTC),
	}
	require.NoError(tb, b.store.Bury(tb.Context(), letter, []byte(payload), 7))
}

// letters reads all letters that match and fails on an error.
func (b *lettersBench) letters(tb testing.TB, queueName, id string) []*results.Letter {
	tb.Helper()
	var list []*results.Letter
	for l, err := range b.store.Letters(tb.Context(), queueName, id) {
		require.NoError(tb, err)
		list = append(list, l)
	}
	return list
}

func (b *lettersBench) letter(tb testing.TB, id string) *results.Letter {
	tb.Helper()
	list := b.letters(tb, "", id)
	require.Len(tb, list, 1)
	return list[0]
}

// jobMsg is the message of a queued job.
func (b *lettersBench) jobMsg(tb testing.TB, queueName, id string) *jetstream.RawStreamMsg {
	tb.Helper()
	stream, err := b.js.Stream(tb.Context(), b.subjects.JobsStream())
	require.NoError(tb, err)
	msg, err := stream.GetLastMsgForSubject(tb.Context(), b.subjects.Job(queueName, id))
	require.NoError(tb, err)
	return msg
}

// finish takes the one job out of the default queue, as a worker that acks it.
func (b *lettersBench) finish(tb testing.TB, id string) {
	tb.Helper()
	consumer, err := b.js.Consumer(tb.Context(), b.subjects.JobsStream(), queue.ConsumerName(job.DefaultQueue))
	require.NoError(tb, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(tb, err)
	require.Equal(tb, b.subjects.Job(job.DefaultQueue, id), msg.Subject())
	require.NoError(tb, msg.DoubleAck(tb.Context()))
}

func ids(list []*results.Letter) []string {
	out := []string{}
	for _, l := range list {
		out = append(out, l.Queue+"/"+l.ID)
	}
	return out
}

const lettersJob = `{"messages": [ {"role":"user","content":"<hi>"} ], "temperature": 0}`

func TestLettersAreFoundByQueueAndPattern(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	for _, at := range []string{"default/b.1", "low/b.2", "default/b.3", "default/x", "low/x"} {
		queueName, id, _ := strings.Cut(at, "/")
		b.bury(t, queueName, id, lettersJob, nil)
	}
	for _, tc := range []struct {
		queue, id string
		want      []string
	}{
		{"", "", []string{"default/b.1", "low/b.2", "default/b.3", "default/x", "low/x"}},
		{"low", "", []string{"low/b.2", "low/x"}},
		{"", "b.*", []string{"default/b.1", "low/b.2", "default/b.3"}},
		{"default", "b.*", []string{"default/b.1", "default/b.3"}},
		{"", "x", []string{"default/x", "low/x"}},
		{"low", "x", []string{"low/x"}},
		{"", "none", []string{}},
		{"none", "", []string{}},
	} {
		require.Equal(t, tc.want, ids(b.letters(t, tc.queue, tc.id)), "queue %q, id %q", tc.queue, tc.id)
	}
	l := b.letter(t, "b.2")
	require.Equal(t, uint64(2), l.Seq)
	require.Equal(t, uint64(7), l.JobSeq)
	require.JSONEq(t, lettersJob, string(l.Job))
}

func TestWhatIsNoLetterIsToldAndPassedOver(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	_, err := b.js.Publish(t.Context(), b.subjects.Dead("default", "garbage"), []byte("no JSON"))
	require.NoError(t, err)
	forged := &job.DeadLetter{ID: "other", Queue: "default"}
	_, err = b.js.Publish(t.Context(), b.subjects.Dead("default", "forged"), forged.Encode())
	require.NoError(t, err)
	b.bury(t, "default", "good", lettersJob, nil)

	var good []string
	var bad []string
	for l, err := range b.store.Letters(t.Context(), "", "") {
		if unreadable, ok := errors.AsType[*results.UnreadableError](err); ok {
			require.Nil(t, l)
			require.Error(t, unreadable.Unwrap())
			bad = append(bad, fmt.Sprint(unreadable.Subject, unreadable.Seq))
			continue
		}
		require.NoError(t, err)
		good = append(good, l.ID)
	}
	require.Equal(t, []string{"good"}, good)
	require.Equal(t, []string{"llm.dead.default.garbage1", "llm.dead.default.forged2"}, bad)
}

func TestReadingLettersEndsWhenTheReaderHasEnoughAndWithItsContext(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	b.bury(t, "default", "a", lettersJob, nil)
	b.bury(t, "default", "b", lettersJob, nil)
	n := 0
	for range b.store.Letters(t.Context(), "", "") {
		n++
		break
	}
	require.Equal(t, 1, n)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n = 0
	for _, err := range b.store.Letters(ctx, "", "") {
		require.ErrorIs(t, err, context.Canceled)
		n++
	}
	require.Equal(t, 1, n)
}

func TestARedriveQueuesThePayloadByteForByteAndDeletesTheLetter(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	b.bury(t, "low", "a.1", lettersJob, job.Header{
		"Nats-Msg-Id": {"mine"}, "Nats-Expected-Last-Sequence": {"99"}, "nats-rollup": {"all"}, "Nats-TTL": {"1s"},
		"understudy-redrives": {"5"}, job.HeaderReplyTo: {"_INBOX.gone"}, "traceparent": {"00-x"}, "X-Own": {"1", "2"},
	})
	done, err := b.store.Redrive(t.Context(), b.letter(t, "a.1"))
	require.NoError(t, err)
	require.Equal(t, results.Redriven{JobSeq: 1, Redrives: 1}, done)
	require.Empty(t, b.letters(t, "", ""))

	msg := b.jobMsg(t, "low", "a.1")
	require.True(t, bytes.Equal([]byte(lettersJob), msg.Data), "%s", msg.Data)
	require.Equal(t, uint64(1), msg.Sequence)
	own := map[string][]string{}
	for _, name := range []string{
		"Nats-Expected-Last-Sequence", "nats-rollup", "Nats-TTL", "understudy-redrives",
		job.HeaderReplyTo, "traceparent", "X-Own", job.HeaderRedrives,
	} {
		if v := msg.Header[name]; v != nil {
			own[name] = v
		}
	}
	require.Equal(t, map[string][]string{
		job.HeaderReplyTo: {"_INBOX.gone"}, "traceparent": {"00-x"}, "X-Own": {"1", "2"}, job.HeaderRedrives: {"1"},
	}, own)
	require.Equal(t, []string{"redrive.low.a.1.1." + fmt.Sprint(time.Date(2026, 11, 22, 1, 2, 3, 4e6, time.UTC).UnixMilli())}, msg.Header["Nats-Msg-Id"])
}

func TestARedriveIsNotSwallowedByTheDuplicateWindow(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	msg := nats.NewMsg(b.subjects.Job("default", "a"))
	msg.Data = []byte(lettersJob)
	_, err := b.js.PublishMsg(t.Context(), msg, jetstream.WithMsgID("mine"))
	require.NoError(t, err)
	b.finish(t, "a")
	b.bury(t, "default", "a", lettersJob, job.Header{"Nats-Msg-Id": {"mine"}})

	for n := 1; n <= 3; n++ { // all within the two minutes of the window
		l := b.letter(t, "a")
		l.Redrives = n - 1
		done, err := b.store.Redrive(t.Context(), l)
		require.NoError(t, err)
		require.Equal(t, results.Redriven{JobSeq: uint64(n + 1), Redrives: n}, done)
		require.Equal(t, fmt.Sprint(n), b.jobMsg(t, "default", "a").Header.Get(job.HeaderRedrives))
		b.finish(t, "a")
		b.bury(t, "default", "a", lettersJob, job.Header{"Nats-Msg-Id": {"mine"}})
	}
}

func TestOneLetterPutsItsJobBackOnce(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	b.bury(t, "default", "a", lettersJob, nil)
	l := b.letter(t, "a")
	_, err := b.store.Redrive(t.Context(), l)
	require.NoError(t, err)
	b.finish(t, "a")

	again, err := b.store.Redrive(t.Context(), l) // a second person read the letter before it went
	require.NoError(t, err)
	require.Equal(t, results.Redriven{JobSeq: 1, Redrives: 1, Repeated: true}, again)
	stream, err := b.js.Stream(t.Context(), b.subjects.JobsStream())
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().State.Msgs)
}

func TestARedriveWhileTheJobIsQueuedIsRefusedAndKeepsTheLetter(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	b.bury(t, "default", "a", lettersJob, nil)
	_, err := b.js.Publish(t.Context(), b.subjects.Job("default", "a"), []byte(`{"prompt":"newer"}`))
	require.NoError(t, err)

	done, err := b.store.Redrive(t.Context(), b.letter(t, "a"))
	require.ErrorIs(t, err, results.ErrInFlight)
	require.NotErrorIs(t, err, results.ErrQueueFull)
	require.Equal(t, results.Redriven{}, done)
	require.Len(t, b.letters(t, "", "a"), 1)
	require.JSONEq(t, `{"prompt":"newer"}`, string(b.jobMsg(t, "default", "a").Data))

	b.finish(t, "a")
	_, err = b.store.Redrive(t.Context(), b.letter(t, "a"))
	require.NoError(t, err)
}

func TestARedriveIntoAFullQueueIsRefusedAndKeepsTheLetter(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	b.limit(t, 1)
	_, err := b.js.Publish(t.Context(), b.subjects.Job("default", "other"), []byte(lettersJob))
	require.NoError(t, err)
	b.bury(t, "default", "a", lettersJob, nil)

	_, err = b.store.Redrive(t.Context(), b.letter(t, "a"))
	require.ErrorIs(t, err, results.ErrQueueFull)
	require.NotErrorIs(t, err, results.ErrInFlight)
	require.Len(t, b.letters(t, "", "a"), 1)

	b.finish(t, "other")
	done, err := b.store.Redrive(t.Context(), b.letter(t, "a"))
	require.NoError(t, err)
	require.Equal(t, uint64(2), done.JobSeq)
}

// limit gives the jobs stream room for n messages.
func (b *lettersBench) limit(tb testing.TB, n int64) {
	tb.Helper()
	stream, err := b.js.Stream(tb.Context(), b.subjects.JobsStream())
	require.NoError(tb, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = n
	_, err = b.js.UpdateStream(tb.Context(), cfg)
	require.NoError(tb, err)
}

func TestARedriveDoesNotDeleteANewerLetter(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{})
	b.bury(t, "default", "a", lettersJob, nil)
	old := b.letter(t, "a")
	again := *old.DeadLetter // it died again
	require.NoError(t, b.store.Bury(t.Context(), &again, []byte(lettersJob), 8))

	done, err := b.store.Redrive(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, uint64(1), done.JobSeq)
	require.Equal(t, uint64(2), b.letter(t, "a").Seq)
}

func TestAPayloadThatWasPutAsideIsRedrivenWhole(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{MaxPayload: 8 << 10})
	payload := `{"messages":[{"role":"user","content":"` + strings.Repeat("x", 7000) + `"}]}`
	b.bury(t, "default", "big", payload, job.Header{"X-Long": {strings.Repeat("h", 900)}})
	l := b.letter(t, "big")
	require.Contains(t, string(l.Job), `"object"`)

	_, err := b.store.Redrive(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, payload, string(b.jobMsg(t, "default", "big").Data))
	require.Empty(t, b.letters(t, "", ""))
}

func TestAJobThatFitsNoMessageAnyMoreKeepsItsLetterAndSaysTheSizes(t *testing.T) {
	t.Parallel()
	b := newLettersBench(t, natstest.Options{MaxPayload: 8 << 10})
	payload := `{"prompt":"` + strings.Repeat("x", 8<<10-20) + `"}`
	b.bury(t, "default", "big", payload, nil)

	_, err := b.store.Redrive(t.Context(), b.letter(t, "big"))
	var tooBig *results.TooBigError
	require.ErrorAs(t, err, &tooBig)
	require.Equal(t, int64(8<<10), tooBig.Limit)
	require.Greater(t, tooBig.Size, tooBig.Limit)
	require.Len(t, b.letters(t, "", "big"), 1)
}

func TestARefusalOfTheStreamIsToldApart(t *testing.T) {
	t.Parallel()
	api := func(code jetstream.ErrorCode, text string) error {
		return fmt.Errorf("publish: %w", &jetstream.APIError{Code: 503, ErrorCode: code, Description: text})
	}
	other := errors.New("other")
	for _, tc := range []struct {
		err  error
		want error
	}{
		{api(10077, "maximum messages per subject exceeded"), results.ErrInFlight},
		{api(10077, "maximum messages exceeded"), results.ErrQueueFull},
		{api(10077, "maximum bytes exceeded"), results.ErrQueueFull},
		{api(10023, "insufficient resources"), results.ErrQueueFull},
		{api(10028, "insufficient memory"), results.ErrQueueFull},
		{api(10047, "insufficient storage"), results.ErrQueueFull},
		{other, other},
	} {
		got := results.Refusal(tc.err)
		require.ErrorIs(t, got, tc.want)
		require.ErrorIs(t, got, tc.err)
	}
	wrongLast := api(10071, "wrong last sequence")
	require.Equal(t, wrongLast, results.Refusal(wrongLast))
	require.NoError(t, results.Refusal(nil))
}
