package results

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

func TestTheFirstResultIsTheOne(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{SyncAlways: true})
	first, second := result("a", 1), result("a", 2)
	none, err := b.store.Lookup(t.Context(), "default", "a")
	require.NoError(t, err)
	require.Nil(t, none)

	data, err := b.store.Commit(t.Context(), first, 41, 0)
	require.NoError(t, err)
	require.Equal(t, first.Encode(), data)
	for range 2 {
		for _, s := range []*Store{b.store, b.open()} {
			_, err = s.Commit(t.Context(), second, 42, 0)
			require.ErrorIs(t, err, ErrCommitted)
			require.EqualError(t, err, "commit the result of job a: the job has a result already")
			stored, err := s.Lookup(t.Context(), "default", "a")
			require.NoError(t, err)
			require.Equal(t, &Stored{Data: data, Seq: 1, JobSeq: 41}, stored)
		}
		b.srv.Restart(t) // what is committed stays so
	}
	require.Len(t, b.messages("LLM_RESULTS"), 1)
}

func TestOneOfManyCommittersWins(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	stores := []*Store{b.store, b.open(), b.open(), b.open()}
	for _, id := range []string{"a", "b.1", "c"} {
		errs := make([]error, 16)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = stores[i%len(stores)].Commit(t.Context(), result(id, i), uint64(i+1), 0) })
		}
		wg.Wait()
		winner := 0
		for i, err := range errs {
			if err == nil {
				require.Zero(t, winner, "two won")
				winner = i + 1
				continue
			}
			require.ErrorIs(t, err, ErrCommitted)
		}
		stored, err := b.store.Lookup(t.Context(), "default", id)
		require.NoError(t, err)
		require.Equal(t, uint64(winner), stored.JobSeq)
		require.Equal(t, result(id, winner-1).Encode(), stored.Data)
	}
	require.Len(t, b.messages("LLM_RESULTS"), 3)
}

func TestAResultIsReplacedOnlyByWhoKnowsIt(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	for _, id := range []string{"other", "a"} {
		_, err := b.store.Commit(t.Context(), result(id, 0), 1, 0)
		require.NoError(t, err)
	}
	for _, wrong := range []uint64{0, 1, 3} {
		_, err := b.store.Commit(t.Context(), result("a", 1), 2, wrong)
		require.ErrorIs(t, err, ErrCommitted, wrong)
	}
	data, err := b.store.Commit(t.Context(), result("a", 2), 3, 2)
	require.NoError(t, err)
	_, err = b.store.Commit(t.Context(), result("a", 3), 4, 2) // somebody was faster
	require.ErrorIs(t, err, ErrCommitted)
	stored, err := b.store.Lookup(t.Context(), "default", "a")
	require.NoError(t, err)
	require.Equal(t, &Stored{Data: data, Seq: 3, JobSeq: 3}, stored)
	require.Len(t, b.messages("LLM_RESULTS"), 2)
}

func TestALostAnswerToACommitDoesNotCommitTwice(t *testing.T) {
	t.Parallel()
	for name, replaces := range map[string]uint64{"a first result": 0, "one that replaces": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d dialer
			b := newBundle(t, natstest.Options{}, nats.SetCustomDialer(natstest.Wrap(d.wrap)))
			b.store.tryTimeout = 500 * time.Millisecond
			if replaces > 0 {
				_, err := b.store.Commit(t.Context(), result("a", 0), 1, 0)
				require.NoError(t, err)
			}
			done := b.watch("llm.done.>")
			d.lose(`{"stream":"LLM_RESULTS"`)
			_, err := b.store.Commit(t.Context(), result("a", 1), 7, replaces)
			require.ErrorIs(t, err, ErrCommitted)
			require.Equal(t, 1, d.hits())
			stored, err := b.store.Lookup(t.Context(), "default", "a")
			require.NoError(t, err)
			require.Equal(t, uint64(7), stored.JobSeq) // it is ours
			require.Equal(t, replaces+1, stored.Seq)   // and was written once
			require.Len(t, b.messages("LLM_RESULTS"), 1)
			require.Equal(t, "llm.done.default.a", receive(t, done).Subject)
			b.none(done, "llm.done.mark")
		})
	}
}

func TestACommitOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	b.store.tryTimeout = 100 * time.Millisecond // several tries wait in the connection's buffer
	down := make(chan struct{})
	once := sync.OnceFunc(func() { close(down) })
	b.store.nc.SetDisconnectErrHandler(func(*nats.Conn, error) { once() })
	b.srv.Stop(t)
	receive(t, down)
	committed := make(chan error, 1)
	go func() {
		_, err := b.store.Commit(t.Context(), result("a", 0), 7, 0)
		committed <- err
	}()
	select {
	case err := <-committed:
		require.FailNow(t, "it gave up", "%v", err)
	case <-time.After(500 * time.Millisecond):
	}
	b.srv.Start(t)
	if err := receive(t, committed); err != nil { // an earlier try was stored first
		require.ErrorIs(t, err, ErrCommitted)
	}
	msgs := b.messages("LLM_RESULTS")
	require.Len(t, msgs, 1)
	require.Equal(t, uint64(1), msgs[0].Sequence)
}

func TestACommitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	b.srv.Stop(t)
	cause := errors.New("the grace is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	_, err := b.store.Commit(ctx, result("a", 0), 7, 0)
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, "commit the result of job a: the grace is over (last answer: ")
	err = b.store.Bury(soon(t), deadLetter("a"), []byte("{}"), 7)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "store the dead letter of job a: ")
	b.srv.Start(t)
}

func TestAResultThatDoesNotFitIsRefusedWithItsSize(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: 4096})
	all := b.watch("llm.results.>")
	const limit = 4096 - 512
	fits := limit - len(result("a", 0).Encode())
	_, err := b.store.Commit(t.Context(), result("a", fits+1), 7, 0)
	var tooBig *TooBigError
	require.ErrorAs(t, err, &tooBig)
	require.Equal(t, TooBigError{What: "result", Size: limit + 1, Limit: limit}, *tooBig)
	require.EqualError(t, tooBig, "the result has 3585 bytes; a message here takes 3584")
	b.none(all, "llm.results.mark")

	data, err := b.store.Commit(t.Context(), result("a", fits), 7, 0)
	require.NoError(t, err)
	require.Len(t, data, limit)
}

// What the server refuses for its size would be refused for ever.
func TestTheServersOwnLimitsEndACommit(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: 4096})
	b.change("LLM_RESULTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 1000 })
	store := b.open()
	r := result("a", 1000)
	_, err := store.Commit(t.Context(), r, 7, 0)
	var tooBig *TooBigError
	require.ErrorAs(t, err, &tooBig)
	require.Equal(t, TooBigError{What: "message", Size: int64(len(r.Encode())), Limit: 1000}, *tooBig)

	msg := nats.NewMsg("llm.results.default.a")
	msg.Data = make([]byte, 4096)
	msg.Header.Set("A", "b")
	err = store.store(t.Context(), KindResults, msg)
	require.ErrorAs(t, err, &tooBig)
	require.Equal(t, TooBigError{What: "message with its headers", Size: 4096 + 18, Limit: 4096}, *tooBig)
	require.Empty(t, b.messages("LLM_RESULTS"))
}

func TestDoneIsHeardOnlyForStoredResults(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	published, done := b.watch("llm.results.>"), b.watch("llm.done.>")
	data, err := b.store.Commit(t.Context(), result("batch.1", 1), 7, 0)
	require.NoError(t, err)
	_, err = b.store.Commit(t.Context(), result("batch.1", 2), 8, 0)
	require.ErrorIs(t, err, ErrCommitted)

	msg := receive(t, done)
	require.Equal(t, "llm.done.default.batch.1", msg.Subject)
	require.Equal(t, data, msg.Data)
	require.Equal(t, "7", msg.Header.Get(job.HeaderJobSeq))
	b.none(done, "llm.done.mark")
	require.Equal(t, data, receive(t, published).Data)
	require.NotEqual(t, data, receive(t, published).Data) // the one that was refused
}

func TestLookupReadsForeignMessages(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	for value, want := range map[string]uint64{"": 0, "x": 0, "-1": 0, "12": 12, "18446744073709551616": 1<<64 - 1} {
		msg := nats.NewMsg("llm.results.default.a")
		msg.Data = []byte("not a result")
		msg.Header.Set(job.HeaderJobSeq, value)
		ack, err := b.js.PublishMsg(t.Context(), msg)
		require.NoError(t, err)
		stored, err := b.store.Lookup(t.Context(), "default", "a")
		require.NoError(t, err)
		require.Equal(t, ack.Sequence, stored.Seq)
		require.Equal(t, "not a result", string(stored.Data))
		require.Equal(t, want, stored.JobSeq, value)
	}
}

// A replica may lag behind; only the leader knows what is stored.
func TestTheLeaderIsAsked(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	direct, leader := b.watch("$JS.API.DIRECT.>"), b.watch("$JS.API.STREAM.MSG.GET.>")
	_, err := b.store.Lookup(t.Context(), "default", "a")
	require.NoError(t, err)
	_, err = b.store.Buried(t.Context(), "default", "a", 1)
	require.NoError(t, err)
	_, err = b.store.History(t.Context(), "default", "a", Holder{JobSeq: 1})
	require.NoError(t, err)
	for _, stream := range []string{"LLM_RESULTS", "LLM_DEAD", "LLM_EVENTS"} {
		require.Equal(t, "$JS.API.STREAM.MSG.GET."+stream, receive(t, leader).Subject)
	}
	b.none(direct, "$JS.API.DIRECT.mark")
}

func TestReadingFailsWithoutAServer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	b.srv.Stop(t)
	_, err := b.store.Lookup(soon(t), "default", "a")
	require.ErrorContains(t, err, "read llm.results.default.a: ")
	_, err = b.store.Buried(soon(t), "default", "a", 1)
	require.ErrorContains(t, err, "read llm.dead.default.a: ")
	_, err = b.store.History(soon(t), "default", "a", Holder{JobSeq: 1})
	require.ErrorContains(t, err, "read llm.events.default.a: ")
	b.srv.Start(t)
}

func TestReplyIsACopyForWhoeverListens(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	got := b.watch("_INBOX.me")
	require.NoError(t, b.store.Reply("", []byte("nobody")))
	require.NoError(t, b.store.Reply("_INBOX.gone", []byte("nobody")))
	require.NoError(t, b.store.Reply("_INBOX.me", []byte("me")))
	require.Equal(t, "me", string(receive(t, got).Data))
	b.store.nc.Close()
	require.ErrorIs(t, b.store.Reply("_INBOX.me", nil), nats.ErrConnectionClosed)
}

func TestOpenNamesTheStreamThatIsMissing(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_DEAD"))
	_, err := Open(t.Context(), b.nc, b.js, b.subjects)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	require.ErrorContains(t, err, "open stream LLM_DEAD: ")
}

func TestAJobIsAcceptedWhenItIsQueuedOrHasAResult(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	accepted := func() bool {
		t.Helper()
		ok, err := b.store.Accepted(t.Context(), "default", "a")
		require.NoError(t, err)
		return ok
	}
	require.False(t, accepted())
	ack, err := b.store.js.Publish(t.Context(), "llm.jobs.default.a", []byte("{}"))
	require.NoError(t, err)
	require.True(t, accepted())
	_, err = b.store.Commit(t.Context(), result("a", 1), ack.Sequence, 0)
	require.NoError(t, err)
	jobs, err := b.store.js.Stream(t.Context(), "LLM_JOBS")
	require.NoError(t, err)
	require.NoError(t, jobs.DeleteMsg(t.Context(), ack.Sequence))
	require.True(t, accepted())

	b.srv.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = b.store.Accepted(ctx, "default", "a")
	require.Error(t, err, "not known is not no")
}

// A stream whose leader changes is away for a moment. That is nothing to stop for.
func TestAMomentWithoutAStreamHoldsNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	cfg := b.config("LLM_RESULTS")
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_RESULTS"))
	tried := b.watch("llm.results.>")
	held := make(chan Blockage, 10)
	b.store.OnBlocked(func(x Blockage) { held <- x })
	done := make(chan error, 1)
	go func() {
		_, err := b.store.Commit(t.Context(), result("a", 1), 1, 0)
		done <- err
	}()
	receive(t, tried)
	require.Empty(t, held)
	_, err := b.js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, receive(t, done))
}
