package results

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

// big is a payload of a kind, too long for a letter and short enough for a job.
func big(kind string) []byte {
	return []byte(`{"prompt":"` + kind + strings.Repeat("x", maxPayload-620) + `"}`)
}

// died buries a job and returns its letter.
func (b *bundle) died(id string, payload []byte, jobSeq uint64) *Letter {
	b.t.Helper()
	require.NoError(b.t, b.store.Bury(b.t.Context(), deadLetter(id), payload, jobSeq))
	return b.letter(id)
}

// letter is the one letter of a job.
func (b *bundle) letter(id string) *Letter {
	b.t.Helper()
	var found []*Letter
	for l, err := range b.store.Letters(b.t.Context(), "default", id) {
		require.NoError(b.t, err)
		found = append(found, l)
	}
	require.Len(b.t, found, 1)
	return found[0]
}

// objects are the names of all payloads of dead letters that were put aside.
func (b *bundle) objects() []string {
	b.t.Helper()
	return b.names("LLM_DEAD_PAYLOADS")
}

func (b *bundle) payloads(l *Letter) (now, original string) {
	b.t.Helper()
	payload, err := b.store.Payload(b.t.Context(), l.DeadLetter)
	require.NoError(b.t, err)
	first, err := b.store.Original(b.t.Context(), l.DeadLetter)
	require.NoError(b.t, err)
	return string(payload), string(first)
}

func TestAnEditReplacesTheLetterAndKeepsTheOriginal(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ first, second, third []byte }{
		"small":          {[]byte(`{"prompt": "1"}`), []byte(`{"prompt": "2"}`), []byte(`{"prompt": "3"}`)},
		"no JSON":        {[]byte(`{"prompt`), []byte("\xff\x00"), []byte(`{"object":"x","bytes":1}`)},
		"big":            {big("1"), big("2"), big("3")},
		"big, and small": {big("1"), []byte(`{"prompt": "2"}`), big("3")},
		"small, and big": {[]byte(`{"prompt": "1"}`), big("2"), []byte(`{"prompt": "3"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
			l := b.died("a", tc.first, 7)
			require.False(t, b.store.Edited(l.DeadLetter))
			for _, payload := range [][]byte{tc.second, tc.third} {
				edited, err := b.store.Edit(t.Context(), l, payload)
				require.NoError(t, err)
				require.Greater(t, edited.Seq, l.Seq)
				l = b.letter("a")
				require.Equal(t, edited.Seq, l.Seq)
				require.Equal(t, uint64(7), l.JobSeq)
				now, original := b.payloads(l)
				require.Equal(t, string(payload), now)
				require.Equal(t, string(tc.first), original)
				require.True(t, b.store.Edited(l.DeadLetter))
				require.Equal(t, []string{"00-1"}, l.Headers["traceparent"])
				require.ElementsMatch(t, b.store.objectsOf(l.DeadLetter), b.objects(), "nothing is left over")
			}
			buried, err := b.store.Buried(t.Context(), "default", "a", 7)
			require.NoError(t, err)
			require.True(t, buried, "the worker need not bury it again")

			back, err := b.store.Edit(t.Context(), l, tc.first) // as it was
			require.NoError(t, err)
			require.False(t, b.store.Edited(back.DeadLetter))
			now, original := b.payloads(b.letter("a"))
			require.Equal(t, string(tc.first), now)
			require.Equal(t, string(tc.first), original)
			require.ElementsMatch(t, b.store.objectsOf(back.DeadLetter), b.objects())
			require.Len(t, b.messages("LLM_DEAD"), 1)
		})
	}
}

func TestOfTwoEditsOneWinsAndTheOtherLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	old := b.died("a", big("1"), 7)
	won, err := b.store.Edit(t.Context(), old, big("2"))
	require.NoError(t, err)
	lost, err := b.store.Edit(t.Context(), old, big("3"))
	require.ErrorIs(t, err, ErrLetterChanged)
	require.Nil(t, lost)
	now, original := b.payloads(b.letter("a"))
	require.Equal(t, string(big("2")), now)
	require.Equal(t, string(big("1")), original)
	require.ElementsMatch(t, b.store.objectsOf(won.DeadLetter), b.objects())

	died := b.died("a", big("4"), 8) // and so does a new death
	_, err = b.store.Edit(t.Context(), won, big("3"))
	require.ErrorIs(t, err, ErrLetterChanged)
	now, _ = b.payloads(died)
	require.Equal(t, string(big("4")), now)

	require.NoError(t, b.store.Purge(t.Context(), died)) // and a purge
	_, err = b.store.Edit(t.Context(), died, big("3"))
	require.ErrorIs(t, err, ErrLetterChanged)
	require.Empty(t, b.messages("LLM_DEAD"))
}

func TestAnEditThatFitsNoMessageChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	l := b.died("a", []byte(`{"prompt":"1"}`), 7)
	_, err := b.store.Edit(t.Context(), l, make([]byte, maxPayload))
	var tooBig *TooBigError
	require.ErrorAs(t, err, &tooBig)
	require.Equal(t, int64(maxPayload), tooBig.Size)
	require.Equal(t, l, b.letter("a"))
	require.Empty(t, b.objects())
}

// The job of an edited letter may die again, and its original is still there.
func TestTheOriginalTravelsWithTheJob(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	l, err := b.store.Edit(t.Context(), b.died("a", big("1"), 7), big("2"))
	require.NoError(t, err)
	done, err := b.store.Redrive(t.Context(), l)
	require.NoError(t, err)
	original := l.Headers[job.HeaderOriginal]
	require.Equal(t, original, b.objects(), "what was edited is collected, the original is not")
	found, err := b.store.Orphans(t.Context(), time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Empty(t, found, "the job is queued and may die again")

	stream, err := b.js.Stream(t.Context(), "LLM_JOBS")
	require.NoError(t, err)
	queued, err := stream.GetMsg(t.Context(), done.JobSeq)
	require.NoError(t, err)
	require.Equal(t, original, queued.Header[job.HeaderOriginal])
	require.NoError(t, stream.DeleteMsg(t.Context(), done.JobSeq))
	again := deadLetter("a")
	again.Headers = queued.Header
	require.NoError(t, b.store.Bury(t.Context(), again, queued.Data, done.JobSeq))
	now, first := b.payloads(b.letter("a"))
	require.Equal(t, string(big("2")), now)
	require.Equal(t, string(big("1")), first)

	require.NoError(t, b.store.Purge(t.Context(), b.letter("a")))
	require.Empty(t, b.objects())
}

func TestANameOfAnotherLettersObjectIsNotBelieved(t *testing.T) {
	t.Parallel()
	b := newBundle(t, natstest.Options{MaxPayload: maxPayload})
	b.died("other", big("1"), 7)
	forged := deadLetter("a")
	forged.Headers = job.Header{job.HeaderOriginal: {"llm.dead.default.other@7"}}
	require.NoError(t, b.store.Bury(t.Context(), forged, []byte(`{"prompt":"2"}`), 8))
	l := b.letter("a")
	require.False(t, b.store.Edited(l.DeadLetter))
	_, original := b.payloads(l)
	require.JSONEq(t, `{"prompt":"2"}`, original)
	require.NoError(t, b.store.Purge(t.Context(), l))
	require.Equal(t, []string{"llm.dead.default.other@7"}, b.objects())
}
