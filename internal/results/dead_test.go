package results

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

func deadLetter(id string) *job.DeadLetter {
	return &job.DeadLetter{
		ID: id, Queue: "default", Reason: "timeout", Deliveries: 1, Worker: "w-1",
		Headers: map[string][]string{"traceparent": {"00-1"}},
		Time:    time.Date(2026, 11, 2, 9, 30, 0, 0, time.UTC),
	}
}

// buried reads the dead letter of job id back, and its payload.
func (b *bundle) buried(id string) (*job.DeadLetter, []byte) {
	b.t.Helper()
	msg, err := last(b.t.Context(), b.store.dead, b.subjects.Dead("default", id))
	require.NoError(b.t, err)
	require.NotNil(b.t, msg)
	l, err := job.DecodeDeadLetter(msg.Data)
	require.NoError(b.t, err)
	payload, err := b.store.Payload(b.t.Context(), l)
	require.NoError(b.t, err)
	return l, payload
}

const maxPayload = 64 << 10

func TestADeadLetterKeepsThePayloadByteForByte(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	noise := func(n int) []byte {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(rand.IntN(256))
		}
		return text
	}
	asJSON := func(n int) []byte {
		return []byte(`{"messages": [ "` + strings.Repeat("<", n-len(`{"messages": [ ""] }`)) + `"] }`)
	}
	for i, tc := range []struct {
		name    string
		payload []byte
		aside   bool
	}{
		{"JSON", []byte(`{"temperature": 0,  "n": 12345678901234567890}`), false},
		{"empty", nil, false},
		{"not JSON", []byte(`{"messages": [`), false},
		{"binary", noise(100), false},
		{"JSON that fits", asJSON(maxPayload - 2000), false},
		{"JSON that almost fits", asJSON(maxPayload - 700), true},
		{"the largest JSON", asJSON(maxPayload), true},
		{"binary that fits", noise(maxPayload / 2), false},
		{"the largest binary", noise(maxPayload), true},
		{"like base64", []byte(`{"base64":"AAAA"}`), false},
		{"like a reference", []byte(`{"object":"llm.dead.default.job8","bytes":5}`), false},
		{"like a reference in another case", []byte(`{"Object":"llm.dead.default.job8","Bytes":5}`), false},
		{"like a reference the other way round", []byte(`{"bytes":5,"object":"llm.dead.default.job8"}`), false},
		{"like a reference and more", []byte(`{"object":"llm.dead.default.job8","bytes":5,"body":{}}`), false},
		{"like a reference with space", []byte(`{"object": "llm.dead.default.job8", "bytes": 5}`), false},
	} {
		tc.payload = bytes.ReplaceAll(tc.payload, []byte("job8"), []byte("job"+strconv.Itoa(i))) // its own name
		id := "job" + strconv.Itoa(i)
		for range 2 { // burying again changes nothing
			require.NoError(t, b.store.Bury(t.Context(), deadLetter(id), tc.payload, 7), tc.name)
			l, payload := b.buried(id)
			require.True(t, bytes.Equal(tc.payload, payload), tc.name)
			require.Equal(t, tc.aside, bytes.HasPrefix(l.Job, []byte(`{"object":"llm.dead.default.`)) && len(tc.payload) > 1000, tc.name)
			require.Equal(t, []string{"00-1"}, l.Headers["traceparent"], tc.name)
		}
	}
	require.Len(t, b.messages("LLM_DEAD"), 15)
	require.Len(t, b.objects(), 3)
}

func TestBuriedKnowsTheLifeOfTheJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	buried := func(id string, seq uint64) bool {
		t.Helper()
		is, err := b.store.Buried(t.Context(), "default", id, seq)
		require.NoError(t, err)
		return is
	}
	require.False(t, buried("a", 7))
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), []byte("{}"), 7))
	require.True(t, buried("a", 7))
	require.False(t, buried("a", 8))
	require.False(t, buried("b", 7))
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), []byte("{}"), 8)) // the next life
	require.False(t, buried("a", 7))
	require.True(t, buried("a", 8))
	require.Len(t, b.messages("LLM_DEAD"), 1)
}

// TestAWorkerThatComesBackLateReplacesNoLetter pins that what happened to a letter
// meanwhile outlasts the try of a worker that was cut off.
func TestAWorkerThatComesBackLateReplacesNoLetter(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), []byte(`{"n":1}`), 7))
	for l, err := range b.store.Letters(t.Context(), "default", "a") {
		require.NoError(t, err)
		_, err = b.store.Edit(t.Context(), l, []byte(`{"n":2}`))
		require.NoError(t, err)
		break // else it comes to the edited one
	}
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), []byte(`{"n":1}`), 7))
	_, payload := b.buried("a")
	require.Equal(t, `{"n":2}`, string(payload), "the edit stays")
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), []byte(`{"n":3}`), 9))
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), []byte(`{"n":1}`), 7))
	_, payload = b.buried("a")
	require.Equal(t, `{"n":3}`, string(payload), "the newer life's letter stays, and took the older one's place")
}

// TestOfWorkersThatBuryTogetherTheLatestLifeWins pins that a letter which comes in
// between is read again.
func TestOfWorkersThatBuryTogetherTheLatestLifeWins(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = b.store.Bury(t.Context(), deadLetter("a"), []byte(strconv.Itoa(i)), uint64(i+1))
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	_, payload := b.buried("a")
	require.Equal(t, "19", string(payload))
}

func TestQueuedKnowsWhetherAJobHasLeft(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	ack, err := b.js.Publish(t.Context(), "llm.jobs.default.a", []byte("{}"))
	require.NoError(t, err)
	queued, err := b.store.Queued(t.Context(), ack.Sequence)
	require.NoError(t, err)
	require.True(t, queued)
	jobs, err := OpenAtLeader(t.Context(), b.js, "LLM_JOBS")
	require.NoError(t, err)
	info, err := jobs.Info(t.Context())
	require.NoError(t, err)
	require.True(t, info.Config.AllowDirect, "the stream keeps its setting")
	require.False(t, jobs.CachedInfo().Config.AllowDirect, "the handle its own")
	require.NoError(t, jobs.DeleteMsg(t.Context(), ack.Sequence))
	queued, err = b.store.Queued(t.Context(), ack.Sequence)
	require.NoError(t, err)
	require.False(t, queued)
}

func TestHeadersWithAMeaningAreKeptInAnyCase(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string][]string{"Understudy-Payload": {"x"}, "traceparent": {"00-1"}},
		known(map[string][]string{"understudy-payload": {"x"}, "Traceparent": {"00-2"}, "traceparent": {"00-1"}, "Y": {"y"}}))
}

// A job that cannot be buried could never leave its queue.
func TestALetterOfAnySizeIsBuried(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	attempts := make([]job.Attempt, 400)
	for i := range attempts {
		attempts[i] = job.Attempt{N: i + 1, Backend: "vllm", Outcome: job.OutcomeFailed}
	}
	many := map[string][]string{"Nats-Reply-To": {"_INBOX.me"}, "traceparent": {"00-1"}}
	for i := range job.MaxTrail + 1 {
		many["H"+strconv.Itoa(i)] = []string{""}
	}
	ours := map[string][]string{"Nats-Reply-To": {"_INBOX.me"}, "traceparent": {"00-1"}, "Understudy-Redrives": {"2"}}
	long := map[string][]string{"X": {strings.Repeat("x", maxPayload)}, "Nats-Reply-To": {"_INBOX.me"}, "traceparent": {"00-1"}, "Understudy-Redrives": {"2"}}
	for name, tc := range map[string]struct {
		headers      map[string][]string
		attempts     int
		wantHeaders  map[string][]string
		wantAttempts int
	}{
		"much of both, but it fits": {ours, 100, ours, 100},
		"a long trail":              {ours, 400, ours, 0},
		"long headers":              {long, 0, ours, 0},
		"long headers and a trail":  {long, 400, ours, 0},
		"many headers":              {many, 3, map[string][]string{"Nats-Reply-To": {"_INBOX.me"}, "traceparent": {"00-1"}}, 3},
		"a long one of ours":        {map[string][]string{"traceparent": {strings.Repeat("x", maxPayload)}}, 0, map[string][]string{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := job.NewID()
			l := deadLetter(id)
			l.Headers, l.Attempts = tc.headers, attempts[:tc.attempts]
			payload := []byte(`{"messages":["` + strings.Repeat("x", maxPayload/2) + `"]}`)
			require.NoError(t, b.store.Bury(t.Context(), l, payload, 7))
			back, got := b.buried(id)
			require.Equal(t, payload, got)
			require.Equal(t, tc.wantHeaders, back.Headers)
			require.Len(t, back.Attempts, tc.wantAttempts)
		})
	}
}

func TestWorkersThatPutAsideTogetherAgree(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	stores := []*Store{b.store, b.open(), b.open(), b.open()}
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			payload := []byte(fmt.Sprintf("%d%s", i, make([]byte, maxPayload-1)))
			errs[i] = stores[i%len(stores)].Bury(t.Context(), deadLetter("job"+strconv.Itoa(i)), payload, 7)
		})
	}
	wg.Wait()
	for i, err := range errs {
		require.NoError(t, err)
		_, payload := b.buried("job" + strconv.Itoa(i))
		require.Len(t, payload, maxPayload)
		require.Equal(t, strconv.Itoa(i), string(payload[:1]))
	}
	s, err := b.js.Stream(t.Context(), "OBJ_LLM_DEAD_PAYLOADS")
	require.NoError(t, err)
	require.Equal(t, jetstream.FileStorage, s.CachedInfo().Config.Storage)
	require.Equal(t, 1, s.CachedInfo().Config.Replicas)
	require.Zero(t, s.CachedInfo().Config.MaxAge)
}

func TestAPayloadThatIsGoneIsAnError(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	ref := func(text string) *job.DeadLetter {
		l := deadLetter("a")
		l.Job = json.RawMessage(text)
		return l
	}
	const own = `{"object":"llm.dead.default.a@7","bytes":5}`
	_, err := b.store.Payload(t.Context(), ref(own))
	require.ErrorIs(t, err, jetstream.ErrBucketNotFound)
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("other"), make([]byte, maxPayload), 7))
	_, err = b.store.Payload(t.Context(), ref(own))
	require.ErrorIs(t, err, jetstream.ErrObjectNotFound)
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), make([]byte, maxPayload), 7))
	_, err = b.store.Payload(t.Context(), ref(own))
	require.EqualError(t, err, "read the payload of job a: the object has 65536 bytes, the letter says 5")
	_, err = b.store.Payload(t.Context(), ref(`{"object":"llm.dead.default.other@7","bytes":65536}`)) // forged
	require.ErrorContains(t, err, "is kept in the object store")
}
