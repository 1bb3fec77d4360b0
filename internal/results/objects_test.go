package results

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// troubled returns a Store to whose first n questions about a bucket the server says
// word, or nothing where that is empty. asked counts them all.
func (b *bundle) troubled(bucket string, n int, word string) (s *Store, asked *atomic.Int64) {
	b.t.Helper()
	asked = new(atomic.Int64)
	nc := b.srv.Conn(b.t)
	api := "API_OF_" + bucket
	_, err := nc.Subscribe(api+".>", func(m *nats.Msg) {
		question, _ := strings.CutPrefix(m.Subject, api+".")
		if question == "STREAM.INFO."+bucketStream(bucket) && asked.Add(1) <= int64(n) {
			if word != "" {
				_ = m.Respond([]byte(word)) // else it is asked again
			}
			return
		}
		_ = nc.PublishMsg(&nats.Msg{Subject: "$JS.API." + question, Reply: m.Reply, Header: m.Header, Data: m.Data})
	})
	require.NoError(b.t, err)
	require.NoError(b.t, nc.Flush())
	s = b.open()
	s.js, err = jetstream.NewWithAPIPrefix(s.nc, api)
	require.NoError(b.t, err)
	return s, asked
}

// A bucket that has lost its leader is back soon, and says 503 or nothing until then.
func TestAnObjectStoreBetweenTwoLeadersIsWaitedFor(t *testing.T) {
	t.Parallel()
	const name = "llm.jobs.default.a"
	for what, tc := range map[string]struct {
		word  string
		n     int
		asked int // at least
		final string
	}{
		"it has no leader": {`{"error":{"code":503,"err_code":10008,"description":"unavailable"}}`, objectTries + 1, objectTries + 2, ""},
		"it is silent":     {"", objectTries, objectTries + 1, ""},
		"it refuses":       {`{"error":{"code":403,"err_code":10099,"description":"not for you"}}`, 1000, objectTries, "not for you"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := bigBundle(t)
			payload := bytes.Repeat([]byte("x"), 2*maxPayload)
			require.NoError(t, b.store.tryPut(t.Context(), "LLM_PAYLOADS", name, payload))
			t.Run("a payload", func(t *testing.T) {
				t.Parallel()
				b := *b
				b.t = t
				s, asked := b.troubled("LLM_PAYLOADS", tc.n, tc.word)
				s.tryTimeout = 2 * time.Second
				got, err := s.LoadPayload(t.Context(), "default", "a", name, maxPayload*2)
				require.GreaterOrEqual(t, asked.Load(), int64(tc.asked))
				if tc.final != "" {
					var final *PayloadError
					require.ErrorAs(t, err, &final)
					require.ErrorContains(t, final, tc.final)
					return
				}
				require.NoError(t, err)
				require.Equal(t, payload, got)
			})
			t.Run("an answer", func(t *testing.T) {
				t.Parallel()
				b := *b
				b.t = t
				s, asked := b.troubled("LLM_ANSWERS", tc.n, tc.word)
				s.tryTimeout = 2 * time.Second
				stored, err := s.PutAnswer(t.Context(), "default", "a", 7, payload)
				require.GreaterOrEqual(t, asked.Load(), int64(tc.asked))
				if tc.final != "" {
					require.ErrorContains(t, err, tc.final)
					return
				}
				require.NoError(t, err)
				got, err := b.store.Answer(t.Context(), stored, int64(len(payload)))
				require.NoError(t, err)
				require.Equal(t, payload, got)
			})
		})
	}
}

func TestAnObjectStoreIsGivenUpAfterRefusalsOrAMinute(t *testing.T) {
	t.Parallel()
	s := &Store{tryTimeout: tryTimeout}
	const minute = silentTries * tryTimeout
	silent := func(d time.Duration) doubt { return doubt{refused: 1, silent: time.Now().Add(-d)} }
	no := &jetstream.APIError{Code: 400}
	for name, tc := range map[string]struct {
		before doubt
		err    error
		want   bool
		silent bool // after it
	}{
		"a first timeout":              {doubt{}, context.DeadlineExceeded, false, true},
		"a timeout after one":          {silent(minute / 2), nats.ErrTimeout, false, true},
		"a timeout after many":         {silent(minute), context.DeadlineExceeded, true, true},
		"a first 503":                  {doubt{}, &jetstream.APIError{Code: 503}, false, true},
		"many 503":                     {silent(minute), &nats.APIError{Code: 503}, true, true},
		"a timeout after two refusals": {doubt{refused: 2}, nats.ErrTimeout, false, true},
		"a second refusal":             {doubt{refused: 1}, errors.Join(errors.New("x"), no), false, false},
		"a third refusal":              {doubt{refused: 2}, no, true, false},
		"a third one of a consumer":    {doubt{refused: 2}, &nats.APIError{Code: 400}, true, false},
		"a third look at no object":    {doubt{refused: 2}, jetstream.ErrBadObjectMeta, true, false},
		"a refusal after a silence":    {silent(minute), no, false, false},
	} {
		require.Equal(t, tc.want, s.hopeless(&tc.before, "LLM_ANSWERS", tc.err), name)
		require.Equal(t, tc.silent, !tc.before.silent.IsZero(), name)
	}
}
