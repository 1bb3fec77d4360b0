package results

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// Some probes without an answer do not end bulk reads for as long as the connection lasts:
// the server may be busy. But where none ever had one it would only be refused again and
// again.
func TestAProbeIsMadeAgainUnlessAllWereRefused(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{Config: refusing})
	store := b.open(nats.UserInfo("old", "x"))
	u := &bulk{
		nc: store.nc, js: store.js, streams: [...]string{"LLM_EVENTS", "LLM_RESULTS"}, inbox: store.nc.NewInbox(),
		probeWait: 50 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, u.check(ctx)) // who gave up has not been refused
	require.Zero(t, u.silent)
	u.heard.Store(u.connection())
	require.ErrorIs(t, u.check(t.Context()), context.DeadlineExceeded)
	require.Zero(t, u.silent)
	u.heard.Store(0)
	u.silent = silence{on: u.connection() + 1, probes: bulkProbes} // of another connection
	for i := range bulkProbes {
		require.ErrorIs(t, u.check(t.Context()), context.DeadlineExceeded)
		require.Equal(t, silence{on: u.connection(), probes: i + 1}, u.silent)
	}
	require.Equal(t, errNotBulk, u.check(t.Context())) // not asked any more
}

// A server that is too slow for the first probe is asked again.
func TestBulkReadsBeginAfterASilentProbe(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	u, err := newBulk(t.Context(), b.nc, b.js, [...]string{ofEvents: "LLM_EVENTS", ofResults: "LLM_RESULTS"})
	require.NoError(t, err)
	u.probeWait = time.Nanosecond
	require.ErrorIs(t, u.check(t.Context()), context.DeadlineExceeded)
	require.False(t, u.usable)
	u.heard.Store(0) // else it would not be the connection's first
	require.ErrorIs(t, u.check(t.Context()), context.DeadlineExceeded)
	u.probeWait = patience
	require.NoError(t, u.check(t.Context()))
	require.True(t, u.usable)
}

// refusing is the configuration of a server that lets the user old make no direct gets.
const refusing = `authorization { users = [
	{user: all, password: x}
	{user: old, password: x, permissions: {publish: {deny: ["$JS.API.DIRECT.GET.>"]}}}
] }
no_auth_user: all`

func TestReadsGoToTheLeaderWhereBulkOnesCannotBe(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, b *bundle, store *Store, why string) {
		t.Helper()
		_, err := b.store.Commit(t.Context(), result("a", 1), 1, 0)
		require.NoError(t, err)
		require.ErrorContains(t, store.BatchReads(t.Context()), why)
		require.False(t, store.many.usable)
		stored, _, err := store.Recall("default", "a", Holder{Worker: "w-1", JobSeq: 1, Delivery: 1}).Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(1), stored.JobSeq)
	}
	t.Run("the stream does not allow direct gets", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, natstest.Options{})
		b.change("LLM_RESULTS", func(cfg *jetstream.StreamConfig) { cfg.AllowDirect = false })
		check(t, b, b.store, "stream LLM_RESULTS does not allow direct gets")
	})
	t.Run("the permissions do not", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, natstest.Options{Config: refusing})
		check(t, b, b.open(nats.UserInfo("old", "x")), "a direct get of stream LLM_EVENTS has no answer")
	})
}

func TestAStreamIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	b := batching(t)
	u := b.store.many
	u.roundWait = bulkTimeout // for what is lost with the connection
	b.srv.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := b.store.Recall("default", "a", Holder{Worker: "w-1", JobSeq: 1, Delivery: 1}).Wait(ctx)
	require.Error(t, err)
	b.srv.Start(t)
	u.mu.Lock()
	for _, q := range u.asked { // sent again by the client, or lost: nobody waits
		require.True(t, strings.HasPrefix(q.subjects[ofResults], "llm.results."))
	}
	u.mu.Unlock()
	require.Eventually(t, func() bool {
		if u.check(t.Context()) != nil {
			return false
		}
		q := u.ask(subjects("a"))
		return u.wait(t.Context(), q) == nil && q.answers == [bulkStreams]answer{}
	}, patience, time.Millisecond)
}
