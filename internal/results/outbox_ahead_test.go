package results

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// ahead returns a running Outbox whose connection keeps what it wrote in s.
func (b *bundle) ahead(s *slow) *Outbox {
	b.t.Helper()
	writes := new(Writes)
	o, err := NewOutbox(b.srv.Conn(b.t, nats.SetCustomDialer(natstest.Wrap(s.wrap)), writes.Option()), writes, slog.New(slog.DiscardHandler))
	require.NoError(b.t, err)
	b.run(o)
	return o
}

// wrote reports whether an event of that text was written.
func (s *slow) wrote(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), `"subject":"`+text+`"`)
}

func TestAnEventAheadIsWrittenWhenItReturns(t *testing.T) {
	t.Parallel()
	var s slow
	b := newBundle(t, natstest.Options{})
	o := b.ahead(&s)
	var wg sync.WaitGroup
	for j := range 4 { // some find the outbox busy, and take the queue
		subject := "llm.events.default.job" + strconv.Itoa(j)
		wg.Go(func() {
			for i := range 50 {
				text := strconv.Itoa(j) + "-" + strconv.Itoa(i)
				o.Emit(subject, event(text+"-before"), "")
				o.EmitAhead(subject, event(text), "").Wait(t.Context())
				if !s.wrote(text) {
					t.Error(text, "was not written")
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, o.EmitStored(t.Context(), "llm.events.default.end", event("end"), ""))
	got := b.texts()["llm.events.default.job0"]
	require.Len(t, got, 100)
	for i := range 50 {
		require.Equal(t, "0-"+strconv.Itoa(i)+"-before", got[2*i])
		require.Equal(t, "0-"+strconv.Itoa(i), got[2*i+1])
	}
	require.Zero(t, o.Dropped())
}

func TestAnEventAheadIsStoredWhereTheServerDiesToo(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox() // nothing sees its writes
	b.run(o)
	for i := range 20 {
		o.EmitAhead("llm.events.default.a", event(strconv.Itoa(i)), "").Wait(t.Context())
		require.Len(t, b.messages("LLM_EVENTS"), i+1)
	}
}

func TestAnEventAheadHoldsNothingUp(t *testing.T) {
	t.Parallel()
	var s slow
	b := newBundle(t, natstest.Options{})
	o := b.ahead(&s)
	o.EmitAhead("llm.events.default.a", event("before"), "").Wait(t.Context())
	b.srv.Stop(t)
	require.Eventually(t, func() bool { return !o.nc.IsConnected() }, patience, time.Millisecond)
	ended := make(chan struct{})
	go func() { // ends by itself; if each waited for its limit, after much more than patience
		defer close(ended)
		for range 100 {
			o.EmitAhead("llm.events.default.a", event("lost"), "").Wait(t.Context())
		}
	}()
	receive(t, ended)
	b.srv.Start(t)
}

func TestAnEventAheadDoesNotWaitForAStreamInTrouble(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox() // nobody runs it: who waits does so in vain
	require.False(t, o.stalled(), "nothing is owed")
	require.NotNil(t, o.EmitAhead("llm.events.default.a", event("1"), "").stored)
	o.ask()
	require.False(t, o.stalled(), "it was only asked now")
	o.owing.Store(time.Now().Add(-2 * outboxFresh).UnixNano())
	require.True(t, o.stalled())
	require.Zero(t, o.EmitAhead("llm.events.default.a", event("2"), ""))
	o.heard.Store(time.Now().UnixNano())
	require.False(t, o.stalled(), "it says so to others")
	o.heard.Store(time.Now().Add(-2 * outboxFresh).UnixNano())
	o.ask()
	require.True(t, o.stalled())
	o.asked.Store(0)
	why := "no space"
	o.failing.Store(&why)
	require.Zero(t, o.EmitAhead("llm.events.default.a", event("3"), ""))
	require.Len(t, o.queue, 3)
}

func TestTheWaitForAnEventAheadEnds(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	o := b.outbox() // nobody runs it
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // a second each, were it not for ctx
		o.EmitAhead("llm.events.default.a", event("1"), "").Wait(done)
	}
	o.EmitAhead("llm.events.default.a", event("1"), "").Wait(t.Context()) // a second
	close(o.closed)
	o.EmitAhead("llm.events.default.a", event("1"), "").Wait(t.Context())
	Ahead{}.Wait(t.Context())
}
