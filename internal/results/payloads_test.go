package results

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

// bigBundle is a bundle with object stores, whose server takes messages of maxPayload.
func bigBundle(t *testing.T) *bundle {
	t.Helper()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	require.NoError(t, b.store.EnsureBuckets(t.Context(), 1, time.Hour))
	require.NoError(t, b.store.EnsureBuckets(t.Context(), 3, time.Minute), "what is there stays as it is")
	return b
}

// kept lists what the object store for payloads holds, message by message.
func (b *bundle) kept() []string {
	b.t.Helper()
	var subjects []string
	for _, msg := range b.messages("OBJ_LLM_PAYLOADS") {
		subjects = append(subjects, msg.Subject)
	}
	return subjects
}

func TestAJobGoesIntoAnObjectOnlyWhenItMust(t *testing.T) {
	t.Parallel()
	b := bigBundle(t)
	fits := bytes.Repeat([]byte("x"), maxPayload)
	msg, err := b.store.JobMessage(t.Context(), "default", "a", fits, nil, "")
	require.NoError(t, err)
	require.Equal(t, nats.Msg{Subject: "llm.jobs.default.a", Data: fits}, *msg)
	header := nats.Header{"A": {"b"}}
	msg, err = b.store.JobMessage(t.Context(), "default", "a", fits, header, "")
	require.NoError(t, err)
	name := msg.Header.Get(job.HeaderPayload)
	require.Regexp(t, `^llm\.jobs\.default\.a@[A-Z2-7]{26}$`, name)
	require.Equal(t, "b", msg.Header.Get("A"))
	require.Empty(t, msg.Data)
	require.Equal(t, nats.Header{"A": {"b"}}, header, "the caller's own stays as it is")
	got, err := b.store.LoadPayload(t.Context(), "default", "a", name, maxPayload)
	require.NoError(t, err)
	require.Equal(t, fits, got)

	msg, err = b.store.JobMessage(t.Context(), "default", "a", append(fits, 'y'), nil, "mark")
	require.NoError(t, err)
	require.Equal(t, "llm.jobs.default.a@mark", msg.Header.Get(job.HeaderPayload))
	stored := &jetstream.RawStreamMsg{Header: msg.Header}
	same, err := b.store.SamePayload(t.Context(), stored, append(fits, 'y'))
	require.NoError(t, err)
	require.True(t, same)
	same, err = b.store.SamePayload(t.Context(), stored, append(fits, 'z'))
	require.NoError(t, err)
	require.False(t, same)
	require.NoError(t, b.store.DropPayload(t.Context(), "llm.jobs.default.a@mark"))
	require.NoError(t, b.store.DropPayload(t.Context(), "llm.jobs.default.a@mark"), "twice is no error")
	require.NoError(t, b.store.DropPayload(t.Context(), name))
	require.Empty(t, b.kept(), "not even the mark of a deletion stays")
}

func TestWithoutAnObjectStoreABigJobIsRefusedWithTheSizes(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	has, err := b.store.HasPayloads(t.Context())
	require.NoError(t, err)
	require.False(t, has)
	_, err = b.store.JobMessage(t.Context(), "default", "a", make([]byte, maxPayload+1), nil, "")
	require.ErrorIs(t, err, ErrNoPayloads)
	var tooBig *TooBigError
	require.ErrorAs(t, err, &tooBig)
	require.Equal(t, TooBigError{What: "job with its headers", Size: maxPayload + 1, Limit: maxPayload}, *tooBig)
	require.NoError(t, b.store.DropPayload(t.Context(), "x"))
	swept, err := b.store.SweepPayloads(t.Context(), time.Now())
	require.NoError(t, err)
	require.Zero(t, swept)
	mine, err := b.store.ClaimSweep(t.Context(), 0)
	require.NoError(t, err)
	require.False(t, mine)
}

func TestTheSweepTakesOnlyWhatNobodyRefersTo(t *testing.T) {
	t.Parallel()
	b := bigBundle(t)
	put := func(id, name string) {
		bucket, err := b.js.ObjectStore(t.Context(), "LLM_PAYLOADS")
		require.NoError(t, err)
		_, err = bucket.PutString(t.Context(), name, "payload of "+id)
		require.NoError(t, err)
	}
	queue := func(id, name string) {
		msg := nats.NewMsg("llm.jobs.default." + id)
		msg.Header.Set(job.HeaderPayload, name)
		_, err := b.js.PublishMsg(t.Context(), msg)
		require.NoError(t, err)
	}
	put("queued", "llm.jobs.default.queued@1")
	put("queued", "llm.jobs.default.queued@2") // of a publish that was refused
	queue("queued", "llm.jobs.default.queued@1")
	put("never", "llm.jobs.default.never")
	put("dead", "llm.jobs.default.dead")
	letter := deadLetter("dead")
	letter.Headers = map[string][]string{job.HeaderPayload: {"llm.jobs.default.dead"}}
	require.NoError(t, b.store.Bury(t.Context(), letter, nil, 7))
	put("", "somebody's own")
	// A put that was cut off has chunks, and nothing that names them.
	_, err := b.js.Publish(t.Context(), "$O.LLM_PAYLOADS.C.CUT", []byte("part"))
	require.NoError(t, err)

	swept, err := b.store.SweepPayloads(t.Context(), time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Zero(t, swept, "nothing is old enough")
	swept, err = b.store.SweepPayloads(t.Context(), time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 3, swept)
	require.ElementsMatch(t, []string{"llm.jobs.default.queued@1", "llm.jobs.default.dead", "somebody's own"}, b.names("LLM_PAYLOADS"))
	require.Len(t, b.kept(), 6, "a chunk and a name for each")
}

// TestWhatTheLeaderHoldsIsNotMissing pins when an object that a replica lacks is
// waited for, and when the job is at fault.
func TestWhatTheLeaderHoldsIsNotMissing(t *testing.T) {
	t.Parallel()
	b := bigBundle(t)
	bucket, err := b.js.ObjectStore(t.Context(), "LLM_PAYLOADS")
	require.NoError(t, err)
	held := func(bucket, name string) bool {
		t.Helper()
		is, err := b.store.held(t.Context(), bucket, name)
		require.NoError(t, err)
		return is
	}
	require.False(t, held("LLM_NONE", "llm.jobs.default.a"))
	require.False(t, held("LLM_PAYLOADS", "llm.jobs.default.a"))
	require.NoError(t, b.store.put(t.Context(), bucket, "llm.jobs.default.a", make([]byte, 2*maxPayload)))
	info, err := bucket.GetInfo(t.Context(), "llm.jobs.default.a")
	require.NoError(t, err)
	require.True(t, held("LLM_PAYLOADS", "llm.jobs.default.a"))
	stream, err := OpenAtLeader(t.Context(), b.js, "OBJ_LLM_PAYLOADS")
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSubject("$O.LLM_PAYLOADS.C."+info.NUID)))
	require.False(t, held("LLM_PAYLOADS", "llm.jobs.default.a"), "its chunks are gone for good")
	require.NoError(t, bucket.Delete(t.Context(), "llm.jobs.default.a"))
	require.False(t, held("LLM_PAYLOADS", "llm.jobs.default.a"), "deleted")
}

func TestOneOfAllSweepsOnceInAWhile(t *testing.T) {
	t.Parallel()
	b := bigBundle(t)
	claims := make(chan bool, 16)
	for range cap(claims) {
		go func() {
			mine, err := b.store.ClaimSweep(t.Context(), time.Hour)
			claims <- mine && err == nil
		}()
	}
	won := 0
	for range cap(claims) {
		if receive(t, claims) {
			won++
		}
	}
	require.Equal(t, 1, won)
	mine, err := b.open().ClaimSweep(t.Context(), time.Nanosecond)
	require.NoError(t, err)
	require.True(t, mine, "the while is over")
	require.Equal(t, []string{"$O.LLM_PAYLOADS.C.swept"}, b.kept())
	swept, err := b.store.SweepPayloads(t.Context(), time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Zero(t, swept)
}

func TestAnswersThatRaceDoNotOverwriteEachOther(t *testing.T) {
	t.Parallel()
	b := bigBundle(t)
	one, err := b.store.PutAnswer(t.Context(), "default", "a", 7, bytes.Repeat([]byte("1"), 2*maxPayload))
	require.NoError(t, err)
	two, err := b.store.PutAnswer(t.Context(), "default", "a", 7, bytes.Repeat([]byte("2"), 2*maxPayload))
	require.NoError(t, err)
	require.NotEqual(t, one, two)
	for _, name := range []string{one, two} {
		require.True(t, strings.HasPrefix(name, "llm.results.default.a@7."), name)
	}
	got, err := b.store.Answer(t.Context(), one, 2*maxPayload)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("1", 2*maxPayload), string(got))
	_, err = b.store.Answer(t.Context(), one, 2*maxPayload+1)
	require.EqualError(t, err, "read the answer "+one+" from LLM_ANSWERS: it has 131072 bytes, the result says 131073")
	_, err = b.store.Answer(t.Context(), one, 10)
	var tooBig *TooBigError
	require.ErrorAs(t, err, &tooBig)
	require.NoError(t, b.store.DropAnswer(t.Context(), two))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // it is looked for again and again
	defer cancel()
	_, err = b.store.Answer(ctx, two, 2*maxPayload)
	require.ErrorIs(t, err, jetstream.ErrObjectNotFound)
	require.NoError(t, b.store.DropAnswer(t.Context(), one))
	require.Empty(t, b.messages("OBJ_LLM_ANSWERS"))
}

// TestABlockageEndsWithTheLastTry pins that nothing stays blocked for ever, whatever
// the tries come to.
func TestABlockageEndsWithTheLastTry(t *testing.T) {
	t.Parallel()
	s := &Store{blocked: newBlockages()}
	var said []Blockage
	s.OnBlocked(func(b Blockage) { said = append(said, b) })
	free := func() bool {
		select {
		case <-s.Unblocked():
			return true
		default:
			return false
		}
	}
	require.True(t, free())
	one, two, three := s.blocked.trial(KindDead), s.blocked.trial(KindDead), s.blocked.trial(KindResults)
	one.over()
	require.Empty(t, said, "it went well at once")
	one.failed(&jetstream.APIError{Description: "maximum bytes exceeded"})
	one.failed(nats.ErrTimeout)
	two.failed(errors.New("x"))
	waiting := s.Unblocked()
	state, ok := s.Blocked()
	require.True(t, ok)
	require.Equal(t, "dead letters cannot be stored: x", state.String())
	three.failed(nats.ErrTimeout)
	state, _ = s.Blocked()
	require.Equal(t, Blockage{Kind: KindResults, Jobs: 1, Why: "the server does not answer"}, state, "the more telling first")
	one.over()
	one.over()
	two.over()
	require.False(t, free())
	three.over()
	require.True(t, free())
	receive(t, waiting)
	_, ok = s.Blocked()
	require.False(t, ok)
	counts := map[Kind][]int{}
	for _, b := range said {
		counts[b.Kind] = append(counts[b.Kind], b.Jobs)
	}
	require.Equal(t, map[Kind][]int{KindDead: {1, 2, 1, 0}, KindResults: {1, 0}}, counts)
}

// TestADeadLetterOfABigJobFitsASmallServer: the client's own chunks would not.
func TestADeadLetterOfABigJobFitsASmallServer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: 16 << 10})
	payload, err := json.Marshal(map[string]string{"body": strings.Repeat("x", 200<<10)})
	require.NoError(t, err)
	require.NoError(t, b.store.Bury(t.Context(), deadLetter("a"), payload, 7))
	for l, err := range b.store.Letters(t.Context(), "default", "a") {
		require.NoError(t, err)
		got, err := b.store.Payload(t.Context(), l.DeadLetter)
		require.NoError(t, err)
		require.Equal(t, payload, got)
	}
}
