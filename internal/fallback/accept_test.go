package fallback_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// judge is an acceptance that refuses the answers of some backends, always with
// the same error, and counts how often it is asked.
type judge struct {
	refuses map[string]bool
	err     backend.Error

	mu    sync.Mutex // guards asked: answers of a race are judged at once
	asked []string
}

func (j *judge) accept(req *backend.Request, resp *backend.Response) *backend.Error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked = append(j.asked, string(req.Body)+string(resp.Body))
	if j.refuses[string(resp.Body)] {
		return &j.err
	}
	return nil
}

func refusing(bodies ...string) *judge {
	j := &judge{refuses: map[string]bool{}, err: backend.Error{Class: backend.BadResponse, Message: "the answer is not of the schema: /n is missing"}}
	for _, body := range bodies {
		j.refuses[`"`+body+`"`] = true
	}
	return j
}

func strict(p *fallback.Policy) { p.AcceptSchema = true }

func TestAnAnswerThatIsNotAcceptedIsABadResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := refusing("a")
		st := newStage(t, shape{
			backends: chain(model("a", answers(2*second).costing(0.25)), model("b", answers(second).costing(0.5))), policy: strict, accept: j.accept,
		})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []string{"a@0s", "b@2s"}, st.calls)
		require.Equal(t, "b", end(out))
		require.Equal(t, []string{`{}"a"`, `{}"b"`}, j.asked)
		require.Equal(t, job.Attempt{
			N: 1, Backend: "a", Model: "a-model", Outcome: job.OutcomeFailed, Class: new("bad_response"), Status: 200,
			Error: new("the answer is not of the schema: /n is missing"), StartedAt: st.began, DurationMS: 2000, FirstTokenMS: new(int64(1000)),
			InputTokens: new(int64(3)), OutputTokens: new(int64(5)), CostUSD: new(0.25), Next: new(job.NextFallback),
		}, out.Trail[0])
		require.Equal(t, backend.Error{Class: backend.BadResponse, Message: "the answer is not of the schema: /n is missing"}, j.err, "the judge's error stays its own")
	})
}

func TestWhenNoAnswerIsAcceptedTheLastOneIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{
			backends: chain(model("a", answers(0).costing(1)), model("b", answers(0).costing(1))), policy: func(p *fallback.Policy) { strict(p); p.MaxAttempts = 2 },
			accept: refusing("a", "b").accept,
		})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, []string{"a bad_response fallback", "b bad_response stop"}, lines(out.Trail))
		require.Equal(t, "!bad_response b", end(out))
		require.Equal(t, `"b"`, string(out.Err.Body))
		require.Equal(t, 200, out.Err.Status)
		require.Equal(t, "b-model", out.Err.Model)
		require.Equal(t, &job.Usage{InputTokens: 3, OutputTokens: 5}, out.Err.Usage)
		require.Equal(t, &job.Failure{Backend: "b", Class: "bad_response", Status: 200, Message: "the answer is not of the schema: /n is missing"}, out.Last)
	})
}

func TestWhatARefusedAnswerLeadsTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		backends []backend.Backend
		policy   func(*fallback.Policy)
		judge    *judge
		retries  map[string]int
		trail    []string
		asked    int
	}{
		{
			"a degraded answer is not judged", chain(model("a"), offline()), func(p *fallback.Policy) { strict(p); p.MaxAttempts = 1 }, refusing("a", "rules"), nil,
			[]string{"a bad_response fallback", "rules succeeded"},
			1,
		},
		{
			"a route without the setting judges nothing", chain(model("a")), nil, refusing("a"), nil,
			[]string{"a succeeded"},
			0,
		},
		{
			"a failure is not judged", chain(model("a", fails(backend.Timeout, 0)), model("b")), strict, refusing(), nil,
			[]string{"a timeout fallback", "b succeeded"},
			1,
		},
		{
			"ON_ERRORS rules it", chain(model("a"), model("b")), func(p *fallback.Policy) { strict(p); p.OnErrors = []backend.Class{backend.Timeout} }, refusing("a"), nil,
			[]string{"a bad_response stop"},
			1,
		},
		{
			"it may be mapped", chain(model("a"), model("b"), model("c")),
			func(p *fallback.Policy) {
				strict(p)
				mapping(fallback.ErrorType, 0, to{backend.BadResponse: {"c"}})(p)
			},
			refusing("a"), nil,
			[]string{"a bad_response fallback", "c succeeded"},
			2,
		},
		{
			"it may be retried", chain(model("a"), model("b")), strict, refusing("a"),
			again{"a": 1},
			[]string{"a bad_response retry", "a bad_response fallback", "b succeeded"},
			3,
		},
		{
			"what it cost counts", chain(model("a", answers(0).costing(2)), model("b")), func(p *fallback.Policy) { strict(p); p.MaxCostUSD = 1 }, refusing("a"), nil,
			[]string{"a bad_response stop"},
			1,
		},
		{
			"in a race it lets the others win", chain(model("a", answers(second)), model("b", answers(2*second)), model("c", answers(minute))),
			func(p *fallback.Policy) { strict(p); racing(0, 0)(p) }, refusing("a"), nil,
			[]string{"a bad_response fallback", "b succeeded", "c cancelled stop"},
			2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				st := newStage(t, shape{backends: c.backends, policy: c.policy, accept: c.judge.accept, retries: c.retries})
				out := st.once(t.Context(), nil, time.Time{})
				if st.races {
					inOrderOfStart(st, out)
				}
				require.Equal(t, c.trail, lines(out.Trail))
				require.Len(t, c.judge.asked, c.asked)
			})
		})
	}
}

func TestWithoutAJudgeEveryAnswerIsAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(model("a")), policy: strict})
		require.Equal(t, "a", end(st.once(t.Context(), nil, time.Time{})))
	})
}
