package fallback_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// tooLong is the word of a backend that takes 4,096 tokens; it quotes the prompt.
func tooLong() step {
	return step{class: backend.ContextLength, status: 400, limit: 4096, needs: 5000, text: "too long: my secret diary"}
}

// prompt is a request body whose text has n bytes.
func prompt(n int) []byte {
	return []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("x", n) + `"}]}`)
}

// asks runs one more job of n bytes on the same engine and returns its trail.
func (st *stage) asks(n int, plan *fallback.Plan) fallback.Outcome {
	st.t.Helper()
	st.calls, st.heard, st.request.Body = nil, nil, prompt(n)
	if plan != nil {
		mine := st.plan
		st.plan = plan
		defer func() { st.plan = mine }()
	}
	return st.once(st.t.Context(), nil, time.Time{})
}

func TestABackendIsNotAskedTwiceForWhatItCanNeverTake(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0)
	for _, c := range []play{
		{
			name:     "when the chain wraps round",
			backends: chain(model("a", tooLong()), model("b", boom)), policy: attempts(4),
			calls: []string{"a@0s", "b@0s", "b@1s", "b@3s"},
			trail: []string{"a context_length fallback", "b server_error retry", "a skipped wait", "b server_error retry", "b server_error stop"},
			end:   "!server_error b", at: 3 * second,
		},
		{
			name:     "nor when it is alone",
			backends: chain(model("a", tooLong())), policy: attempts(4),
			calls: []string{"a@0s"}, trail: []string{"a context_length stop"}, end: "!context_length a",
		},
		{
			name:     "nor a backend after another, and nobody is waited for",
			backends: chain(model("a", tooLong()), model("b", fails(backend.Unsupported, 0)), model("c", fails(backend.TooLarge, 0))), policy: attempts(9),
			calls: []string{"a@0s", "b@0s", "c@0s"},
			trail: []string{"a context_length fallback", "b unsupported fallback", "c too_large stop"}, end: "!too_large c",
		},
		{
			name:     "the rules engine is asked then",
			backends: chain(model("a", tooLong()), offline()), policy: attempts(9),
			calls: []string{"a@0s", "rules@0s"}, trail: []string{"a context_length fallback", "rules succeeded"}, end: "rules",
		},
		{
			name:     "also by those who take the job up",
			backends: chain(model("a", tooLong()), model("b", boom.hinting(10*second), answers(0))), policy: attempts(4),
			calls: []string{"a@0s", "b@0s", "b@10s"},
			trail: []string{"a context_length fallback", "b server_error wait", "a skipped wait", "b succeeded"},
			waits: []string{"10s"}, end: "b", at: 10 * second,
		},
		{
			name:     "a retry is none",
			backends: chain(model("a", tooLong()), model("b")), policy: attempts(4), retries: again{"a": 3},
			calls: []string{"a@0s", "b@0s"}, trail: []string{"a context_length fallback", "b succeeded"}, end: "b",
		},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t) })
	}
}

func TestALaterJobIsNotSentWhereItCannotFit(t *testing.T) {
	t.Parallel()
	skipped, called := []string{"a skipped fallback", "b succeeded"}, []string{"a succeeded"}
	for _, c := range []struct {
		name  string
		later func(st *stage) fallback.Outcome
		want  []string
	}{
		{"one of the same size", func(st *stage) fallback.Outcome { return st.asks(4000, nil) }, skipped},
		{"a bigger one", func(st *stage) fallback.Outcome { return st.asks(40_000, nil) }, skipped},
		{"a smaller one is sent there", func(st *stage) fallback.Outcome { return st.asks(3900, nil) }, called},
		{"and its success forgets nothing of bigger ones", func(st *stage) fallback.Outcome {
			st.asks(3900, nil)
			return st.asks(4000, nil)
		}, skipped},
		{"nearly an hour later", func(st *stage) fallback.Outcome {
			time.Sleep(hour - ms)
			return st.asks(4000, nil)
		}, skipped},
		{"an hour later it is forgotten", func(st *stage) fallback.Outcome {
			time.Sleep(hour)
			return st.asks(4000, nil)
		}, called},
		{"another model is not affected", func(st *stage) fallback.Outcome {
			st.request.Model = "other"
			return st.asks(4000, nil)
		}, called},
		{"another endpoint is not affected", func(st *stage) fallback.Outcome {
			st.request.URL = job.URLEmbeddings
			return st.asks(4000, nil)
		}, called},
		{"when nobody else is left it is called all the same", func(st *stage) fallback.Outcome {
			only, err := st.engine.Plan(&job.Job{Chain: []string{"a"}})
			require.NoError(st.t, err)
			return st.asks(4000, only)
		}, called},
		{"with nobody but the rules engine too", func(st *stage) fallback.Outcome {
			only, err := st.engine.Plan(&job.Job{Chain: []string{"rules", "a"}, Policy: &job.Policy{Strategy: new("random")}})
			require.NoError(st.t, err)
			return st.asks(4000, only)
		}, called},
		{"others that the strategy never asks are nobody", func(st *stage) fallback.Outcome {
			only, err := st.engine.Plan(&job.Job{Policy: &job.Policy{Strategy: new("random"), Weights: map[string]float64{"b": 0}}})
			require.NoError(st.t, err)
			return st.asks(4000, only)
		}, called},
		{"a success of one that is not smaller forgets", func(st *stage) fallback.Outcome {
			only, err := st.engine.Plan(&job.Job{Chain: []string{"a"}})
			require.NoError(st.t, err)
			st.asks(4000, only)
			return st.asks(9000, nil)
		}, called},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := newStage(t, shape{backends: chain(model("a", tooLong(), answers(0)), model("b"), offline())})
				st.request.URL, st.request.Model = job.URLChat, "auto"
				require.Equal(t, []string{"a context_length fallback", "b succeeded"}, lines(st.asks(4000, nil).Trail))
				out := c.later(st)
				require.Equal(t, c.want, lines(out.Trail))
				if len(c.want) < 2 {
					return
				}
				skip := out.Trail[0]
				require.Equal(t, "context_length", *skip.Class)
				require.Equal(t, "the backend takes 4096 tokens, and was asked for 5000 by a job that was not bigger", *skip.Error)
				require.Nil(t, skip.RetryAfterMS)
				require.Equal(t, []string{"1 skipped a", "2 started b", "2 succeeded b"}, st.heard)
			})
		})
	}
}

// TestWhatIsRememberedQuotesNobody pins that neither the prompt nor the provider's
// words of one job reach another one.
func TestWhatIsRememberedQuotesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		word := tooLong()
		word.limit, word.needs, word.class = 0, 0, backend.TooLarge
		st := newStage(t, shape{backends: chain(model("a", word), model("b"))})
		st.asks(4000, nil)
		out := st.asks(4000, nil)
		require.Equal(t, "the backend cannot take a job of this size", *out.Trail[0].Error)
		require.Equal(t, "too_large", *out.Trail[0].Class)
	})
}

func TestTheSmallestJobThatDidNotFitIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", tooLong(), tooLong(), answers(0)), model("b"))})
		alone, err := st.engine.Plan(&job.Job{Chain: []string{"a"}})
		require.NoError(t, err)
		st.asks(4000, nil)
		st.asks(8000, alone) // says nothing new
		require.Equal(t, []string{"a skipped fallback", "b succeeded"}, lines(st.asks(4000, nil).Trail))
		require.Equal(t, []string{"a succeeded"}, lines(st.asks(3000, nil).Trail))
	})
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", tooLong(), tooLong(), answers(0)), model("b"))})
		st.asks(4000, nil)
		st.asks(2000, nil)
		require.Equal(t, []string{"a skipped fallback", "b succeeded"}, lines(st.asks(3000, nil).Trail))
	})
}

func TestWhenNoBackendIsBigEnoughAllAreAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", tooLong()), model("b", tooLong()))})
		want := []string{"a context_length fallback", "b context_length stop"}
		for range 3 {
			require.Equal(t, want, lines(st.asks(4000, nil).Trail))
		}
	})
}

func TestTheMemoryOfWhatDoesNotFitIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := model("a", tooLong())
		st := newStage(t, shape{backends: chain(a, model("b"))})
		for i := range 4096 {
			st.request.Model = fmt.Sprint("model-", i)
			st.asks(4000, nil)
		}
		require.Equal(t, 4096, a.made)
		for _, i := range []int{0, 4095} {
			st.request.Model = fmt.Sprint("model-", i)
			require.Equal(t, "a skipped fallback", lines(st.asks(4000, nil).Trail)[0])
			st.asks(3000, nil) // replaces what is known, and needs no more room
		}
		st.request.Model = "model-1"
		require.Equal(t, "a skipped fallback", lines(st.asks(4000, nil).Trail)[0])
		st.request.Model = "one too many"
		st.asks(4000, nil)
		require.Equal(t, "a skipped fallback", lines(st.asks(4000, nil).Trail)[0])
		st.request.Model = "model-1"
		require.Equal(t, "a context_length fallback", lines(st.asks(4000, nil).Trail)[0], "forgotten")
	})
}

func TestNoCallIsKeptForABackendThatIsTooSmall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{
			backends: chain(model("a", answers(0), fails(backend.ServerError, 0)), model("b", tooLong()), model("c")),
			retries:  again{"a": 1}, policy: attempts(3),
		})
		first, err := st.engine.Plan(&job.Job{Chain: []string{"b"}})
		require.NoError(t, err)
		st.asks(4000, first)
		st.asks(10, nil)
		require.Equal(t, []string{"a server_error retry", "a server_error fallback", "b skipped fallback", "c succeeded"}, lines(st.asks(4000, nil).Trail))
	})
}

// sizing is a backend that takes bodies of up to limit bytes.
type sizing struct {
	name  string
	limit int
}

func (s sizing) Name() string { return s.name }

func (s sizing) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("m")
	if len(req.Body) > s.limit {
		return nil, &backend.Error{Class: backend.ContextLength, Backend: s.name}
	}
	return &backend.Response{Status: 200}, nil
}

func TestManyJobsLearnAtOnce(t *testing.T) {
	t.Parallel()
	e, err := fallback.New(fallback.Config{Backends: chain(sizing{"small", 2000}, sizing{"big", 1 << 20})})
	require.NoError(t, err)
	plan, err := e.Plan(&job.Job{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 200 {
				body := bytes.Repeat([]byte("x"), 100*(1+(i+j)%40))
				out := e.Run(t.Context(), fallback.Task{Plan: plan, Observer: nobody{}, Request: backend.Request{Body: body, Model: fmt.Sprint(j % 3)}})
				want := "small"
				if len(body) > 2000 {
					want = "big"
				}
				if out.Response == nil || out.Backend != want {
					t.Errorf("%d bytes: %s", len(body), end(out))
				}
			}
		})
	}
	wg.Wait()
	out := e.Run(t.Context(), fallback.Task{Plan: plan, Observer: nobody{}, Request: backend.Request{Body: make([]byte, 4000), Model: "0"}})
	require.Equal(t, []string{"small skipped fallback", "big succeeded"}, lines(out.Trail))
}

// TestAPictureThatIsTooBigSaysNothingAboutText pins that one request with media,
// whose estimate is anybody's guess, closes a backend to nobody else.
func TestAPictureThatIsTooBigSaysNothingAboutText(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a", step{class: backend.TooLarge, status: 413}, answers(0)), model("b"))})
		st.request.Body = []byte(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 4000) + `"}}]}]}`)
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []string{"a too_large fallback", "b succeeded"}, lines(out.Trail))
		require.Equal(t, []string{"a succeeded"}, lines(st.asks(100_000, nil).Trail))
	})
}
