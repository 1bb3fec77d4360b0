package results

import (
	"context"
	"encoding/json"
	"net"
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

// mark does what an object's deletion does first, before it purges the chunks.
func (b *bundle) mark(bucket, name string) {
	b.t.Helper()
	store, err := b.js.ObjectStore(b.t.Context(), bucket)
	require.NoError(b.t, err)
	info, err := store.GetInfo(b.t.Context(), name)
	require.NoError(b.t, err)
	info.Deleted, info.Size, info.Chunks, info.Digest, info.ModTime = true, 0, 0, "", time.Time{}
	data, err := json.Marshal(info)
	require.NoError(b.t, err)
	b.enter(metaSubject(bucket, name), string(data))
}

// enter stores an entry of an object store.
func (b *bundle) enter(subject, data string) {
	b.t.Helper()
	msg := nats.NewMsg(subject)
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	msg.Data = []byte(data)
	_, err := b.js.PublishMsg(b.t.Context(), msg)
	require.NoError(b.t, err)
}

// interrupter makes connections that do something before they send a request.
type interrupter struct {
	mu   sync.Mutex // guards the rest
	left int        // requests before that one
	do   func()     // nil: nothing
}

// before has do called before so many more requests and another one are sent.
func (i *interrupter) before(left int, do func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.left, i.do = left, do
}

// over reports whether it has been done.
func (i *interrupter) over() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.do == nil
}

// wrap is a [natstest.Wrap].
func (i *interrupter) wrap(conn net.Conn) (net.Conn, error) {
	return &interrupted{Conn: conn, i: i}, nil
}

type interrupted struct {
	net.Conn
	i *interrupter
}

func (c *interrupted) Write(data []byte) (int, error) {
	if strings.Contains(string(data), "PUB ") {
		c.i.mu.Lock()
		do := c.i.do
		if c.i.left--; c.i.left >= 0 {
			do = nil
		}
		if do != nil {
			c.i.do = nil
		}
		c.i.mu.Unlock()
		if do != nil {
			do()
		}
	}
	return c.Conn.Write(data)
}

// TestAListEndsWhateverIsDeletedMeanwhile pins that a list of objects does not wait for
// the newest of them, which may go at any moment.
func TestAListEndsWhateverIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bucket, object string
		list           func(ctx context.Context, s *Store) error
	}{
		"payloads": {"LLM_PAYLOADS", "llm.jobs.default.a", func(ctx context.Context, s *Store) error {
			_, err := s.SweepPayloads(ctx, time.Now().Add(time.Hour))
			return err
		}},
		"of dead letters": {"LLM_DEAD_PAYLOADS", "llm.dead.default.a@7", func(ctx context.Context, s *Store) error {
			_, err := s.Orphans(ctx, time.Now().Add(time.Hour))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bigBundle(t)
			require.NoError(t, b.store.tryPutAside(t.Context(), "other", []byte("x"))) // makes the bucket
			require.NoError(t, b.store.drop(t.Context(), "LLM_DEAD_PAYLOADS", "other"))
			i := &interrupter{}
			s := b.open(nats.SetCustomDialer(natstest.Wrap(i.wrap)))
			requests := 0
			for {
				require.NoError(t, b.store.tryPut(t.Context(), tc.bucket, tc.object, []byte("x")))
				b.mark(tc.bucket, tc.object)
				i.before(requests, func() { _ = b.store.drop(t.Context(), tc.bucket, tc.object) })
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				err := tc.list(ctx, s)
				cancel()
				require.NoError(t, err, "deleted before request %d", requests)
				if !i.over() {
					break
				}
				requests++
			}
			require.GreaterOrEqual(t, requests, 3)
		})
	}
}

// TestADeletionThatWasCutOffIsFinished: it leaves a mark, and the chunks.
func TestADeletionThatWasCutOffIsFinished(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	t.Run("payload", func(t *testing.T) {
		t.Parallel()
		b := bigBundle(t)
		sweep := func(before time.Time, want int) {
			t.Helper()
			swept, err := b.store.SweepPayloads(t.Context(), before)
			require.NoError(t, err)
			require.Equal(t, want, swept)
		}
		for _, name := range []string{"llm.jobs.default.a@1", "somebody's own"} {
			require.NoError(t, b.store.tryPut(t.Context(), "LLM_PAYLOADS", name, make([]byte, 2*maxPayload)))
			b.mark("LLM_PAYLOADS", name)
		}
		before := b.kept()
		sweep(past, 0)
		require.Equal(t, before, b.kept(), "it may be under way")
		sweep(future, 1)
		require.Contains(t, b.kept(), metaSubject("LLM_PAYLOADS", "somebody's own"))
		require.Len(t, b.kept(), len(before)/2)
		sweep(future, 0)
	})
	t.Run("dead letter", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
		require.NoError(t, b.store.tryPutAside(t.Context(), "llm.dead.default.a@7", make([]byte, 2*maxPayload)))
		b.mark("LLM_DEAD_PAYLOADS", "llm.dead.default.a@7")
		list, err := b.store.Orphans(t.Context(), past)
		require.NoError(t, err)
		require.Empty(t, list)
		list, err = b.store.Orphans(t.Context(), future)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, "llm.dead.default.a@7", list[0].Name)
		gone, err := b.store.Collect(t.Context(), list[0])
		require.NoError(t, err)
		require.True(t, gone)
		require.Empty(t, b.messages("OBJ_LLM_DEAD_PAYLOADS"))
	})
}

// TestADeletionIsFinishedBesideANewObject pins that what has got the name of a deleted
// object, while its mark was looked at, keeps its chunks.
func TestADeletionIsFinishedBesideANewObject(t *testing.T) {
	t.Parallel()
	b := bigBundle(t)
	const name = "llm.jobs.default.a@batch"
	put := func(data string) {
		t.Helper()
		require.NoError(t, b.store.tryPut(t.Context(), "LLM_PAYLOADS", name, []byte(data)))
	}
	put("before")
	b.mark("LLM_PAYLOADS", name)
	stream, err := OpenAtLeader(t.Context(), b.js, "OBJ_LLM_PAYLOADS")
	require.NoError(t, err)
	mark, err := readEntry(t.Context(), stream, "LLM_PAYLOADS", metaSubject("LLM_PAYLOADS", name))
	require.NoError(t, err)
	require.True(t, mark.Deleted)
	put("after")
	require.Len(t, b.kept(), 3, "the chunks of both")
	require.NoError(t, finishDeletion(t.Context(), stream, "LLM_PAYLOADS", mark))
	require.Len(t, b.kept(), 2)
	got, err := b.store.LoadPayload(t.Context(), "default", "a", name, 100)
	require.NoError(t, err)
	require.Equal(t, "after", string(got))
}

// TestAShortListCostsNoPayload pins that chunks are no part of a cut-off put just
// because what is known of the objects lacks theirs.
func TestAShortListCostsNoPayload(t *testing.T) {
	t.Parallel()
	const other = `{"name":"llm.jobs.default.b","bucket":"LLM_PAYLOADS",`
	for name, tc := range map[string]struct {
		entry string // of the object b
		page  int
		left  []string
	}{
		"the list is whole":          {other + `"nuid":"B"}`, 3, []string{"A", "B"}},
		"its pages may not fit":      {other + `"nuid":"B"}`, 2, []string{"A", "B", "PART"}},
		"an entry is no entry":       {`{`, 3, []string{"A", "B", "PART"}},
		"an entry names no chunks":   {other + `"nuid":""}`, 3, []string{"A", "B", "PART"}},
		"an entry names all chunks":  {other + `"nuid":">"}`, 3, []string{"A", "B", "PART"}},
		"a mark names all chunks":    {other + `"nuid":"*","deleted":true}`, 3, []string{"A", "B", "PART"}},
		"an entry is of another one": {`{"name":"llm.jobs.default.a","nuid":"B","deleted":true}`, 3, []string{"A", "B", "PART"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bigBundle(t)
			b.store.page = tc.page
			for id, entry := range map[string]string{"a": `{"name":"llm.jobs.default.a","nuid":"A"}`, "b": tc.entry} {
				queued := nats.NewMsg("llm.jobs.default." + id)
				queued.Header.Set(job.HeaderPayload, queued.Subject)
				_, err := b.js.PublishMsg(t.Context(), queued)
				require.NoError(t, err)
				b.enter(metaSubject("LLM_PAYLOADS", queued.Subject), entry)
			}
			for _, nuid := range []string{"A", "B", "PART"} {
				_, err := b.js.Publish(t.Context(), "$O.LLM_PAYLOADS.C."+nuid, []byte("chunk"))
				require.NoError(t, err)
			}
			_, err := b.store.SweepPayloads(t.Context(), time.Now().Add(time.Hour))
			require.NoError(t, err)
			left := []string{}
			for _, subject := range b.kept() {
				if nuid, is := strings.CutPrefix(subject, "$O.LLM_PAYLOADS.C."); is {
					left = append(left, nuid)
				}
			}
			require.ElementsMatch(t, tc.left, left)
		})
	}
}
