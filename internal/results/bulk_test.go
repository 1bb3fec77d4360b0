package results

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

// batching is newBundle whose store reads for many jobs at once.
func batching(t *testing.T) *bundle {
	t.Helper()
	b := newBundle(t, natstest.Options{})
	err := b.store.BatchReads(t.Context())
	u := b.store.many
	u.probeWait, u.roundWait = patience, patience
	if err != nil { // the server may have been slow
		err = u.check(t.Context())
	}
	require.NoError(t, err)
	return b
}

// stall lets the next questions to u wait, as if a round was under way; the returned
// function ends that when n do.
func stall(t *testing.T, u *bulk) (release func(n int)) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	require.Empty(t, u.asked)
	u.asked = append(u.asked, &question{})
	return func(n int) {
		require.Eventually(t, func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return len(u.waiting) == n
		}, patience, time.Millisecond)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.asked = u.asked[:0]
		u.next()
	}
}

// subjects are what is asked of a job.
func subjects(id string) [bulkStreams]string {
	return [...]string{ofEvents: "llm.events.default." + id, ofResults: "llm.results.default." + id}
}

// recalls asks for n jobs at once, as their first deliveries do.
func (b *bundle) recalls(n int) (wait func() []*Stored) {
	stored := make([]*Stored, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			stored[i], _, errs[i] = b.store.Recall("default", "j"+strconv.Itoa(i), Holder{Worker: "w-1", JobSeq: 1, Delivery: 1}).Wait(b.t.Context())
		})
	}
	return func() []*Stored {
		b.t.Helper()
		wg.Wait()
		for _, err := range errs {
			require.NoError(b.t, err)
		}
		return stored
	}
}

func TestManyJobsAreRecalledWithFewRequests(t *testing.T) {
	t.Parallel()
	b := batching(t)
	const n = bulkMost + 20
	want := make([]*Stored, n)
	for i := 0; i < n; i += 7 {
		id := "j" + strconv.Itoa(i)
		data, err := b.store.Commit(t.Context(), result(id, i), uint64(100+i), 0)
		require.NoError(t, err)
		want[i], err = b.store.Lookup(t.Context(), "default", id)
		require.NoError(t, err)
		require.Equal(t, data, want[i].Data)
	}
	requests, leader := b.watch("$JS.API.DIRECT.GET.*"), b.watch("$JS.API.STREAM.MSG.GET.*")
	release := stall(t, b.store.many)
	wait := b.recalls(n)
	release(n)
	require.Equal(t, want, wait())
	for range 4 { // two for each stream
		receive(t, requests)
	}
	b.none(requests, "$JS.API.DIRECT.GET.mark")
	b.none(leader, "$JS.API.STREAM.MSG.GET.mark")
}

func TestRecallsArePreparedAndSentTogether(t *testing.T) {
	t.Parallel()
	b := batching(t)
	_, err := b.store.Commit(t.Context(), result("j1", 1), 7, 0)
	require.NoError(t, err)
	requests := b.watch("$JS.API.DIRECT.GET.LLM_RESULTS")
	recall := func(id string) *Recall {
		return b.store.Recall("default", id, Holder{Worker: "w-1", JobSeq: 7, Delivery: 1})
	}
	first, second := recall("j0"), recall("j1")
	b.none(requests, "$JS.API.DIRECT.GET.LLM_RESULTS")
	b.store.SendRecalls()
	b.store.SendRecalls() // nothing is left to send
	require.JSONEq(t, `{"multi_last": ["llm.results.default.j0", "llm.results.default.j1"], "max_bytes": 8388608}`, string(receive(t, requests).Data))
	third := recall("j2")
	for r, want := range map[*Recall]bool{first: false, second: true, third: false} { // the wait for the third sends it
		stored, _, err := r.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, stored != nil)
	}
	require.JSONEq(t, `{"multi_last": ["llm.results.default.j2"], "max_bytes": 8388608}`, string(receive(t, requests).Data))
}

func TestARecallKnowsWhatHappened(t *testing.T) {
	t.Parallel()
	b := batching(t)
	o := b.outbox()
	b.run(o)
	received := job.NewEvent("w-0", job.EventReceived, "a", at(1), job.Received{Queue: "default", Delivery: 1, JobSeq: 7})
	started := job.NewEvent("w-0", job.EventAttemptStarted, "a", at(2), job.Attempt{N: 1, Backend: "vllm", StartedAt: at(2)})
	for _, e := range []*job.Event{received, started} {
		require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.a", e.Encoded(), ""))
	}
	for delivery := 1; delivery <= 2; delivery++ { // in bulk, and at the leader
		by := Holder{Worker: "w-1", JobSeq: 7, Delivery: delivery}
		want, err := b.store.History(t.Context(), "default", "a", by)
		require.NoError(t, err)
		require.Len(t, want.Unknown, 1)
		stored, got, err := b.store.Recall("default", "a", by).Wait(t.Context())
		require.NoError(t, err)
		require.Nil(t, stored)
		require.Equal(t, want, got)
	}
}

// What does not fit one answer is read one by one.
func TestBigResultsAreRecalledToo(t *testing.T) {
	t.Parallel()
	b := batching(t)
	const n = 12
	size := 900 << 10 // the most that the server takes is 1 MiB
	require.Greater(t, n*size, bulkBytes)
	for i := range n {
		_, err := b.store.Commit(t.Context(), result("j"+strconv.Itoa(i), size), uint64(i+1), 0)
		require.NoError(t, err)
	}
	leader := b.watch("$JS.API.STREAM.MSG.GET.LLM_RESULTS")
	release := stall(t, b.store.many)
	wait := b.recalls(n)
	release(n)
	for i, stored := range wait() {
		require.NotNil(t, stored, i)
		require.Equal(t, uint64(i+1), stored.JobSeq)
		require.Greater(t, len(stored.Data), size)
	}
	receive(t, leader)
	require.True(t, b.store.many.usable) // nothing was wrong
}

// Whoever may publish events can store one that looks like the server's word that
// there is nothing.
func TestAStoredMessageIsNoStatus(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"404", "204", "408"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			b := batching(t)
			forged := nats.NewMsg("llm.results.default.j0")
			forged.Header.Set("Status", status)
			forged.Header.Set("Description", "No Results")
			_, err := b.js.PublishMsg(t.Context(), forged)
			require.NoError(t, err)
			_, err = b.store.Commit(t.Context(), result("j1", 1), 2, 0)
			require.NoError(t, err)
			release := stall(t, b.store.many)
			wait := b.recalls(3)
			release(3)
			stored := wait()
			require.Equal(t, uint64(1), stored[0].Seq)
			require.Equal(t, uint64(2), stored[1].JobSeq)
			require.Nil(t, stored[2])
		})
	}
}

// The server says of which subject a message is behind what the message itself says.
func TestAStoredMessageAnswersForNoOther(t *testing.T) {
	t.Parallel()
	b := batching(t)
	forged := nats.NewMsg("llm.results.default.j0")
	forged.Header.Set(jetstream.SubjectHeader, "llm.results.default.j1")
	forged.Header.Set(jetstream.SequenceHeader, "77")
	forged.Header.Set("Nats-Num-Pending", "7")
	forged.Data = []byte("forged")
	_, err := b.js.PublishMsg(t.Context(), forged)
	require.NoError(t, err)
	data, err := b.store.Commit(t.Context(), result("j1", 1), 2, 0)
	require.NoError(t, err)
	release := stall(t, b.store.many)
	wait := b.recalls(2)
	release(2)
	stored := wait()
	require.Equal(t, &Stored{Data: []byte("forged"), Seq: 1}, stored[0])
	require.Equal(t, &Stored{Data: data, Seq: 2, JobSeq: 2}, stored[1])
	require.True(t, b.store.many.usable)
}

// Two jobs can have the same result: see the worker's safe ids. Servers before 2.15
// can forget a subject when another one is asked for twice.
func TestASubjectIsAskedForOnce(t *testing.T) {
	t.Parallel()
	b := batching(t)
	_, err := b.store.Commit(t.Context(), result("j0", 1), 1, 0)
	require.NoError(t, err)
	requests := b.watch("$JS.API.DIRECT.GET.LLM_RESULTS")
	u := b.store.many
	release := stall(t, u)
	var asked []*question
	for _, id := range []string{"j1", "j0", "j1", "j0"} {
		asked = append(asked, u.ask(subjects(id)))
	}
	release(4)
	for i, q := range asked {
		require.NoError(t, u.wait(t.Context(), q))
		require.NoError(t, q.answers[ofResults].err)
		require.Equal(t, i%2 == 1, q.answers[ofResults].msg != nil)
	}
	require.JSONEq(t, `{"multi_last": ["llm.results.default.j0", "llm.results.default.j1"], "max_bytes": 8388608}`, string(receive(t, requests).Data))
}

func TestLongSubjectsAreAskedForInParts(t *testing.T) {
	t.Parallel()
	b := batching(t)
	requests := b.watch("$JS.API.DIRECT.GET.LLM_RESULTS")
	u := b.store.many
	release := stall(t, u)
	const n = 40
	var asked []*question
	for i := range n {
		asked = append(asked, u.ask(subjects(strings.Repeat("x", 4000)+strconv.Itoa(i))))
	}
	release(n)
	for _, q := range asked {
		require.NoError(t, u.wait(t.Context(), q))
		require.Equal(t, [bulkStreams]answer{}, q.answers)
	}
	for range 3 { // 160 kB by 64 kB
		require.LessOrEqual(t, len(receive(t, requests).Data), bulkAsk+1000)
	}
}

func TestAMissingMessageIsNoAnswer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	message := func(u *bulk, stream int, header ...string) *nats.Msg {
		m := nats.NewMsg(u.reply(stream, u.rounds))
		for i := 0; i < len(header); i += 2 {
			m.Header.Set(header[i], header[i+1])
		}
		return m
	}
	// found is the message seq, which came after the message before.
	found := func(u *bulk, subject, before, seq, pending string) {
		u.receive(message(u, ofEvents, jetstream.SubjectHeader, subject, jetstream.SequenceHeader, seq,
			"Nats-Last-Sequence", before, "Nats-Num-Pending", pending))
	}
	status := func(u *bulk, code string) { u.receive(message(u, ofEvents, "Status", code)) }
	for name, tc := range map[string]struct {
		answer   func(*bulk)
		a, b     error
		unusable bool
	}{
		"all":          {answer: func(u *bulk) { found(u, "a", "0", "5", "1"); found(u, "b", "5", "6", "0"); status(u, "204") }},
		"one":          {answer: func(u *bulk) { found(u, "a", "0", "5", "0"); status(u, "204") }},
		"none":         {answer: func(u *bulk) { u.receive(message(u, ofEvents, "Status", "404", "Description", "No Results")) }},
		"the last":     {answer: func(u *bulk) { found(u, "a", "0", "5", "1"); status(u, "204") }, b: errNotBulk},
		"the first":    {answer: func(u *bulk) { found(u, "b", "5", "6", "0") }, a: errNotBulk, b: errNotBulk, unusable: true},
		"both":         {answer: func(u *bulk) { status(u, "204") }, a: errNotBulk, b: errNotBulk},
		"in between":   {answer: func(u *bulk) { found(u, "a", "0", "5", "3"); found(u, "b", "7", "8", "1") }, b: errNotBulk, unusable: true},
		"of the count": {answer: func(u *bulk) { found(u, "a", "0", "5", "3"); found(u, "b", "5", "8", "1") }, b: errNotBulk, unusable: true},
		"no word":      {answer: func(u *bulk) { found(u, "a", "", "5", "0") }, a: errNotBulk, b: errNotBulk, unusable: true},
		"an error":     {answer: func(u *bulk) { status(u, "500") }, a: errNotBulk, b: errNotBulk, unusable: true},
		"could not":    {answer: func(u *bulk) { u.receive(message(u, ofEvents, "Status", "404", "Description", "Message Not Found")) }, a: errNotBulk, b: errNotBulk, unusable: true},
		"no responder": {answer: func(u *bulk) { status(u, "503") }, a: errNotBulk, b: errNotBulk, unusable: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := &bulk{
				nc: b.nc, js: b.js, streams: [...]string{"NOBODY", "ANSWERS"}, inbox: "_INBOX.x", usable: true, roundWait: patience,
			}
			qa, qb := u.ask([...]string{"a", "c"}), u.ask([...]string{"b", "d"})
			u.send()
			none := nats.Header{"Status": {"404"}, "Description": {"No Results"}}
			u.receive(&nats.Msg{Subject: "_INBOX.x.0.0", Header: none}) // of another round
			u.receive(message(u, ofResults, "Status", "404", "Description", "No Results"))
			require.Empty(t, qa.done) // the other stream is to answer yet
			tc.answer(u)
			u.receive(&nats.Msg{Subject: u.reply(ofResults, 1), Header: nats.Header{"Status": {"500"}}}) // too late
			for q, want := range map[*question]error{qa: tc.a, qb: tc.b} {
				require.NoError(t, u.wait(t.Context(), q))
				require.Equal(t, want, q.answers[ofEvents].err)
				require.NoError(t, q.answers[ofResults].err) // that was whole
			}
			require.Equal(t, tc.unusable, !u.usable)
			require.Empty(t, u.asked)
			u.timeout.Stop()
		})
	}
}

// A round without an answer is given up, also the second one, while the timer of the
// first is running.
func TestARoundWithoutAnAnswerIsGivenUp(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	u := &bulk{
		nc: b.nc, js: b.js, streams: [...]string{"TAKES", "IT"}, inbox: b.nc.NewInbox(), usable: true, roundWait: bulkTimeout,
	}
	first := u.ask([...]string{"a", "c"})
	u.send()
	for i := range bulkStreams {
		u.receive(&nats.Msg{Subject: u.reply(i, 1), Header: nats.Header{"Status": {"404"}, "Description": {"No Results"}}})
	}
	require.NoError(t, u.wait(t.Context(), first))
	require.Equal(t, [bulkStreams]answer{}, first.answers)
	began := time.Now()
	second := u.ask([...]string{"b", "d"})
	require.NoError(t, u.wait(t.Context(), second))
	require.GreaterOrEqual(t, time.Since(began), bulkTimeout)
	require.Equal(t, [bulkStreams]answer{{err: errNotBulk}, {err: errNotBulk}}, second.answers)
	third := u.ask([...]string{"a", "c"}) // read by itself, until the next check
	require.NoError(t, u.wait(t.Context(), third))
	require.Equal(t, errNotBulk, third.answers[ofEvents].err)
}

// A round that goes with its connection is no reason to read otherwise from then on.
func TestARoundOfALostConnectionIsReadOtherwise(t *testing.T) {
	t.Parallel()
	b := batching(t)
	u := b.store.many
	for _, ended := range []bool{false, true} {
		q, next := u.ask(subjects("a")), u.ask(subjects("b"))
		u.mu.Lock()
		u.waiting = u.waiting[:1] // next comes while the round is under way
		u.next()
		u.waiting = append(u.waiting, next)
		u.parts[ofResults].ended = ended
		u.on, u.began = 0, time.Time{} // another connection, long ago
		u.rounds++                     // what the server says is lost
		u.mu.Unlock()
		u.expire()
		for _, q := range []*question{q, next} {
			require.NoError(t, u.wait(t.Context(), q))
		}
		require.Equal(t, errNotBulk, q.answers[ofEvents].err)
		require.Equal(t, !ended, q.answers[ofResults].err != nil)
		require.Equal(t, [bulkStreams]answer{}, next.answers)
		require.True(t, u.usable)
	}
}

// The round before, which ended whole, says nothing of one that could not be sent.
func TestARoundThatCannotBeSentHasNoAnswers(t *testing.T) {
	t.Parallel()
	b := batching(t)
	u := b.store.many
	before := u.ask(subjects("a"))
	require.NoError(t, u.wait(t.Context(), before))
	require.Equal(t, [bulkStreams]answer{}, before.answers)
	b.store.nc.Close()
	q := u.ask(subjects("b"))
	require.NoError(t, u.wait(t.Context(), q))
	require.Equal(t, [bulkStreams]answer{{err: errNotBulk}, {err: errNotBulk}}, q.answers)
}

// A check may find that the streams can be asked in bulk no more.
func TestWhatWasAskedBeforeACheckIsNotSentAfterIt(t *testing.T) {
	t.Parallel()
	b := batching(t)
	requests := b.watch("$JS.API.DIRECT.GET.*")
	u := b.store.many
	q := u.ask(subjects("a"))
	u.mu.Lock()
	u.usable = false
	u.mu.Unlock()
	u.send()
	require.NoError(t, u.wait(t.Context(), q))
	require.Equal(t, errNotBulk, q.answers[ofEvents].err)
	require.Equal(t, errNotBulk, q.answers[ofResults].err)
	b.none(requests, "$JS.API.DIRECT.GET.mark")
}
