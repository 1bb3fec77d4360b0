package results

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

func TestARedriveCollectsThePayloadOfItsLetterOnly(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	old := b.died("a", big("1"), 7)
	b.died("a.b", big("2"), 8)
	require.ElementsMatch(t, []string{"llm.dead.default.a@7", "llm.dead.default.a.b@8"}, b.objects())
	done, err := b.store.Redrive(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, uint64(1), done.JobSeq)
	require.Equal(t, []string{"llm.dead.default.a.b@8"}, b.objects())

	b.died("a", big("1"), 9)                        // it died again, with the same payload
	again, err := b.store.Redrive(t.Context(), old) // somebody had read the letter before
	require.ErrorIs(t, err, ErrLetterChanged)
	require.Zero(t, again)
	require.ElementsMatch(t, []string{"llm.dead.default.a.b@8", "llm.dead.default.a@9"}, b.objects())
	now, _ := b.payloads(b.letter("a"))
	require.Equal(t, string(big("1")), now)
}

func TestAPurgeDeletesALetterAndItsObjects(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	small, large := b.died("small", []byte(`{"prompt":"1"}`), 7), b.died("large", big("1"), 8)
	require.NoError(t, b.store.Purge(t.Context(), small))
	require.Equal(t, []string{"llm.dead.default.large@8"}, b.objects())
	require.NoError(t, b.store.Purge(t.Context(), large))
	require.NoError(t, b.store.Purge(t.Context(), large), "again")
	require.Empty(t, b.objects())
	require.Empty(t, b.messages("LLM_DEAD"))

	gone, err := b.store.Letter(t.Context(), large.Seq)
	require.NoError(t, err)
	require.Nil(t, gone)

	newer := b.died("large", big("2"), 9)
	require.NoError(t, b.store.Purge(t.Context(), large), "the old one once more")
	require.Equal(t, newer, b.letter("large"))
	require.Equal(t, []string{"llm.dead.default.large@9"}, b.objects())
}

func TestOnlyObjectsThatNothingNeedsAreOrphans(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	orphans := func(before time.Time) []string {
		t.Helper()
		list, err := b.store.Orphans(t.Context(), before)
		require.NoError(t, err)
		names := []string{}
		for _, o := range list {
			names = append(names, o.Name)
		}
		return names
	}
	future := time.Now().Add(time.Hour)
	require.Empty(t, orphans(future), "there is no bucket yet")

	b.died("kept", big("1"), 7)
	l, err := b.store.Edit(t.Context(), b.died("edited", big("1"), 8), []byte(`{"prompt":"2"}`))
	require.NoError(t, err)
	for _, name := range []string{"llm.dead.default.kept@6", "llm.dead.default.gone@3", "llm.dead.default.queued@4", "llm.dead.default.gone", "holiday.jpg"} {
		require.NoError(t, b.store.tryPutAside(t.Context(), name, []byte("x")))
	}
	_, err = b.js.Publish(t.Context(), "llm.jobs.default.queued", []byte("{}"))
	require.NoError(t, err)
	_, err = b.js.Publish(t.Context(), "llm.dead.default.junk", []byte("junk"))
	require.NoError(t, err)
	require.NoError(t, b.store.tryPutAside(t.Context(), "llm.dead.default.junk@1", []byte("x")))

	want := []string{"llm.dead.default.kept@6", "llm.dead.default.gone@3", "llm.dead.default.gone"}
	require.Equal(t, want, orphans(future))
	require.Empty(t, orphans(time.Now().Add(-time.Hour)), "they are too young")

	list, err := b.store.Orphans(t.Context(), future)
	require.NoError(t, err)
	b.died("gone", []byte(`{}`), 10)
	forged := deadLetter("gone") // what was found an orphan is needed now
	forged.Headers = job.Header{job.HeaderOriginal: {"llm.dead.default.gone@3"}}
	require.NoError(t, b.store.Bury(t.Context(), forged, []byte("{}"), 11))
	collected := 0
	for _, o := range list {
		gone, err := b.store.Collect(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, o.Name != "llm.dead.default.gone@3", gone, o.Name)
		if gone {
			collected++
		}
	}
	require.Equal(t, 2, collected)
	require.Empty(t, orphans(future))
	now, original := b.payloads(b.letter("edited"))
	require.Equal(t, []string{`{"prompt":"2"}`, string(big("1"))}, []string{now, original})
	require.True(t, b.store.Edited(l.DeadLetter))
}

// cutter makes connections that are dead after so many answers of the server.
type cutter struct{ left atomic.Int64 }

// wrap is a [natstest.Wrap].
func (c *cutter) wrap(conn net.Conn) (net.Conn, error) { return &cut{Conn: conn, c: c}, nil }

type cut struct {
	net.Conn
	c *cutter
}

func (c *cut) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.c.left.Add(-1) < 0 {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// cutOff runs act with a Store whose connection dies after so many answers. It
// reports whether act came to its end all the same.
func (b *bundle) cutOff(answers int, act func(ctx context.Context, s *Store) error) bool {
	b.t.Helper()
	c := &cutter{}
	c.left.Store(1 << 60)
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	s := b.open(nats.SetCustomDialer(natstest.Wrap(c.wrap)), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { cancel() }))
	c.left.Store(int64(answers))
	return act(ctx, s) == nil
}

// A command that is killed anywhere leaves one letter with its payload, or none
// and the job in the queue; and what it leaves besides can be collected.
func TestACommandThatIsCutOffLosesNothing(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(ctx context.Context, s *Store, l *Letter) error{
		"edit": func(ctx context.Context, s *Store, l *Letter) error {
			_, err := s.Edit(ctx, l, big("3"))
			return err
		},
		"redrive": func(ctx context.Context, s *Store, l *Letter) error {
			_, err := s.Redrive(ctx, l)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := false
			answers := 0
			for ; !whole; answers++ {
				b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
				l, err := b.store.Edit(t.Context(), b.died("a", big("1"), 7), big("2"))
				require.NoError(t, err)
				whole = b.cutOff(answers, func(ctx context.Context, s *Store) error { return act(ctx, s, l) })
				jobs := b.messages("LLM_JOBS")
				if letters := b.messages("LLM_DEAD"); len(letters) > 0 {
					now, original := b.payloads(b.letter("a"))
					require.Contains(t, []string{string(big("2")), string(big("3"))}, now, "after %d answers", answers)
					require.Equal(t, string(big("1")), original)
				} else {
					require.Len(t, jobs, 1, "after %d answers", answers)
				}
				if len(jobs) > 0 { // again: it is put back once, and the letter goes
					done, err := b.store.Redrive(t.Context(), l)
					if err == nil {
						require.True(t, done.Repeated)
					}
					require.Len(t, b.messages("LLM_JOBS"), 1)
					stream, err := b.js.Stream(t.Context(), "LLM_JOBS")
					require.NoError(t, err)
					require.NoError(t, stream.Purge(t.Context()))
				}
				list, err := b.store.Orphans(t.Context(), time.Now().Add(time.Hour))
				require.NoError(t, err)
				for _, o := range list {
					_, err := b.store.Collect(t.Context(), o)
					require.NoError(t, err)
				}
				needed := []string{}
				if len(b.messages("LLM_DEAD")) > 0 {
					needed = b.store.objectsOf(b.letter("a").DeadLetter)
				}
				require.ElementsMatch(t, needed, b.objects())
			}
			require.Greater(t, answers, 5, "it was cut off at several places")
		})
	}
}

// A redrive that was killed before it could delete its letter is finished by the
// next one, however much later that comes.
func TestAnUnfinishedRedriveIsFinishedBeyondTheDuplicateWindow(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{})
	b.change("LLM_JOBS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })

	l := b.died("a", []byte(`{"prompt":"p"}`), 7)
	_, err := b.js.Publish(t.Context(), "llm.jobs.default.a", []byte(`{"prompt":"p"}`), jetstream.WithMsgID(RedriveID(l)))
	require.NoError(t, err)
	_, err = b.js.Publish(t.Context(), "llm.jobs.default.later", nil, jetstream.WithMsgID("later"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the window has passed for what came before, too
		_, err := b.js.Publish(t.Context(), "llm.jobs.default.later", nil, jetstream.WithMsgID("later"))
		return errors.Is(Refusal(err), ErrInFlight)
	}, patience, 20*time.Millisecond)

	done, err := b.store.Redrive(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, Redriven{JobSeq: 1, Redrives: 1, Repeated: true}, done)
	require.Empty(t, b.messages("LLM_DEAD"))
	require.Len(t, b.messages("LLM_JOBS"), 2)
}
