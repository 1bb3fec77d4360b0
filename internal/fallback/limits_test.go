package fallback_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
)

// limited is a fake that lets calls wait for their turn: nobody's comes before
// free, which is full after the start and rests after every call.
type limited struct {
	*fake
	full, rests time.Duration
	always      time.Duration // every call waits for so long, whoever comes
	behind      time.Duration // what Defer answers on top of the room
	free        time.Time
	deferred    int
	overtaken   bool // somebody takes the turn between the look and the call, each time
}

// Room implements backend.Limited.
func (l *limited) Room(*backend.Request) time.Duration {
	if l.overtaken {
		return 0
	}
	return l.room()
}

func (l *limited) room() time.Duration {
	return max(time.Until(l.free), l.always, 0)
}

// Defer implements backend.Limited.
func (l *limited) Defer(*backend.Request) time.Duration {
	l.deferred++
	return l.room() + l.behind
}

func (l *limited) Complete(ctx context.Context, req *backend.Request) (*backend.Response, error) {
	wait := l.room()
	if req.MaxWait != 0 && wait > max(req.MaxWait, 0) {
		return nil, &backend.Error{Class: backend.CircuitOpen, Backend: l.name, RetryAfter: wait, Message: "no turn", Cause: backend.ErrNoTurn}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		defer func() { l.free = time.Now().Add(l.rests) }()
		return l.fake.Complete(ctx, req)
	case <-ctx.Done():
		return nil, &backend.Error{Class: backend.Canceled, Backend: l.name, Message: "gave up", Cause: context.Cause(ctx)}
	}
}

// busy is a limited backend whose first turn comes after full.
func busy(name string, full time.Duration, script ...step) *limited {
	return &limited{fake: model(name, script...), full: full}
}

// overtaken is a busy backend that seems free.
func overtaken(name string, full time.Duration) *limited {
	l := busy(name, full)
	l.overtaken = true
	return l
}

func onLimit(what string) func(*fallback.Policy) {
	return func(p *fallback.Policy) { p.OnLimit = what }
}

func TestTheTurnWithinTheLimitsOfABackend(t *testing.T) {
	t.Parallel()
	boom := fails(backend.ServerError, 0)
	goFree := onLimit(fallback.OnLimitFallback)
	for _, c := range []play{
		{
			name:     "wait: a short one is waited for in the slot, by the call",
			backends: chain(busy("a", 1500*ms), model("b")),
			calls:    []string{"a@1.5s"}, trail: []string{"a succeeded"}, end: "a", at: 1500 * ms,
		},
		{
			name:     "wait: as long as the hold is short",
			backends: chain(busy("a", 2*second), model("b")), policy: onLimit(fallback.OnLimitWait),
			calls: []string{"a@2s"}, trail: []string{"a succeeded"}, end: "a", at: 2 * second,
		},
		{
			name:     "wait: for a longer one the job is handed back",
			backends: chain(busy("a", 30*second)),
			calls:    []string{"a@30s"}, trail: []string{"a skipped wait", "a succeeded"}, waits: []string{"30s"}, end: "a", at: 30 * second,
		},
		{
			name:     "wait: though another backend is free",
			backends: chain(busy("a", 30*second), model("b"), offline()),
			calls:    []string{"a@30s"}, trail: []string{"a skipped wait", "a succeeded"}, waits: []string{"30s"}, end: "a", at: 30 * second,
		},
		{
			name:     "wait: what is free and comes first in the chain is called",
			backends: chain(model("b"), busy("a", 30*second)),
			calls:    []string{"b@0s"}, trail: []string{"b succeeded"}, end: "b",
		},
		{
			name:     "wait: after a failure too",
			backends: chain(model("b", boom), busy("a", 30*second), model("c")),
			calls:    []string{"b@0s", "a@30s"}, trail: []string{"b server_error wait", "a skipped wait", "a succeeded"}, waits: []string{"30s"}, end: "a", at: 30 * second,
		},
		{
			name:     "wait: a breaker that opens before the turn comes is the earliest",
			backends: chain(shut("b", 10*second), busy("a", 30*second), model("c")),
			calls:    []string{"b@10s"}, trail: []string{"b skipped wait", "a skipped wait", "b succeeded"}, waits: []string{"10s"}, end: "b", at: 10 * second,
		},
		{
			name:     "the job comes back when Defer says, behind the others",
			backends: chain(&limited{fake: model("a"), full: 10 * second, behind: 7 * second}),
			calls:    []string{"a@17s"}, trail: []string{"a skipped wait", "a succeeded"}, waits: []string{"17s"}, end: "a", at: 17 * second,
		},
		{
			name:     "fallback: to the one that is free, however short the wait",
			backends: chain(busy("a", 100*ms), model("b")), policy: goFree,
			calls: []string{"b@0s"}, trail: []string{"a skipped fallback", "b succeeded"}, end: "b",
		},
		{
			name:     "fallback: no attempt is lost by it",
			backends: chain(busy("a", second), model("b", fails(backend.ServerError, second))), hold: minute,
			policy: func(p *fallback.Policy) { goFree(p); p.MaxAttempts = 2 },
			calls:  []string{"b@0s", "a@1s"}, trail: []string{"a skipped fallback", "b server_error fallback", "a succeeded"}, end: "a", at: second,
		},
		{
			name:     "fallback: all full, the one with the least room is waited for in the slot",
			backends: chain(busy("a", 1900*ms), busy("b", second), busy("c", 1500*ms)), policy: goFree,
			calls: []string{"b@1s"}, trail: []string{"a skipped fallback", "c skipped fallback", "b succeeded"}, end: "b", at: second,
		},
		{
			name:     "fallback: all full for longer, the job is handed back for the one with the least room",
			backends: chain(busy("a", minute), busy("b", 30*second)), policy: goFree,
			calls: []string{"b@30s"}, trail: []string{"a skipped wait", "b skipped wait", "b succeeded"}, waits: []string{"30s"}, end: "b", at: 30 * second,
		},
		{
			name:     "fallback: a turn that comes before a breaker opens is taken",
			backends: chain(shut("a", minute), busy("b", 30*second)), policy: goFree,
			calls: []string{"b@30s"}, trail: []string{"a skipped wait", "b skipped wait", "b succeeded"}, waits: []string{"30s"}, end: "b", at: 30 * second,
		},
		{
			name:     "fallback: and one that comes after is not",
			backends: chain(shut("a", 10*second), busy("b", 30*second)), policy: goFree,
			calls: []string{"a@10s"}, trail: []string{"a skipped wait", "b skipped wait", "a succeeded"}, waits: []string{"10s"}, end: "a", at: 10 * second,
		},
		{
			name:     "a job that comes back again and again waits in the slot for longer each time, and is not starved",
			backends: chain(&limited{fake: model("a"), always: 5 * second}), hold: 2 * second,
			calls: []string{"a@10s"}, trail: []string{"a skipped wait", "a succeeded"}, waits: []string{"5s"}, end: "a", at: 10 * second,
		},
		{
			name:     "nor with a longer queue before it",
			backends: chain(&limited{fake: model("a"), always: 10 * second}), hold: 2 * second,
			calls: []string{"a@20s"}, trail: []string{"a skipped wait", "a succeeded"}, waits: []string{"10s"}, end: "a", at: 20 * second,
		},
		{
			name:     "a deadline that comes before the turn: the job comes back in time for what may be free by then",
			backends: chain(busy("a", 30*second)), budget: 10 * second,
			trail: []string{"a skipped wait"}, waits: []string{"5s", "2.5s", "1.25s"}, end: "!expired", at: 10 * second,
		},
		{
			name:     "a deadline within the hold: the call waits",
			backends: chain(busy("a", 30*second)), budget: 1500 * ms,
			trail: []string{}, end: "!expired", at: 1500 * ms,
		},
		{
			name:     "a retry waits for its turn as well",
			backends: chain(&limited{fake: model("a", boom, answers(0)), rests: 30 * second}, model("b")), retries: again{"a": 1}, policy: attempts(9),
			calls: []string{"a@0s", "a@30s"}, trail: []string{"a server_error retry", "a skipped wait", "a succeeded"}, waits: []string{"29s"}, end: "a", at: 30 * second,
		},
		{
			name:     "or goes to the one that is free",
			backends: chain(&limited{fake: model("a", boom, answers(0)), rests: 30 * second}, model("b")), retries: again{"a": 1},
			policy: func(p *fallback.Policy) { goFree(p); p.MaxAttempts = 9 },
			calls:  []string{"a@0s", "b@1s"}, trail: []string{"a server_error retry", "a skipped fallback", "b succeeded"}, end: "b", at: second,
		},
		{
			name:     "fallback: a turn that was lost at the last moment is not waited for",
			backends: chain(overtaken("a", 100*ms), model("b")), policy: goFree,
			calls: []string{"b@0s"}, trail: []string{"a skipped fallback", "b succeeded"}, end: "b",
		},
		{
			name:     "fallback: nor is it if that happens everywhere, but where it comes first",
			backends: chain(overtaken("a", 1500*ms), overtaken("b", 500*ms)), policy: goFree,
			calls: []string{"b@500ms"}, trail: []string{"a skipped fallback", "b succeeded"}, end: "b", at: 500 * ms,
		},
		{
			name:     "fallback: and the job is handed back if that is far away",
			backends: chain(overtaken("a", minute), overtaken("b", 30*second)), policy: goFree,
			calls: []string{"b@30s"}, trail: []string{"a skipped fallback", "b skipped wait", "b succeeded"}, waits: []string{"30s"}, end: "b", at: 30 * second,
		},
		{
			name:     "fallback: calls at once pass it over",
			backends: chain(overtaken("a", 100*ms), model("b", answers(second))), hold: minute,
			policy: func(p *fallback.Policy) { goFree(p); p.Strategy = fallback.Parallel },
			calls:  []string{"b@0s"}, trail: []string{"b succeeded"}, end: "b", at: second,
		},
		{
			name:     "wait: a turn that was lost at the last moment is waited for, if that is short",
			backends: chain(overtaken("a", 1500*ms), model("b")),
			calls:    []string{"a@1.5s"}, trail: []string{"a succeeded"}, end: "a", at: 1500 * ms,
		},
		{
			name:     "wait: if it is long the job is handed back",
			backends: chain(overtaken("a", 30*second), model("b")),
			calls:    []string{"a@30s"}, trail: []string{"a skipped wait", "a succeeded"}, waits: []string{"30s"}, end: "a", at: 30 * second,
		},
		{
			name:     "a deadline before a turn that was lost: the call waits",
			backends: chain(overtaken("a", 30*second)), budget: 1500 * ms,
			trail: []string{}, end: "!expired", at: 1500 * ms,
		},
		{
			name:     "a lost turn is no outage: the failure of the last attempt is the job's",
			backends: chain(model("b", boom), overtaken("a", minute)),
			policy:   func(p *fallback.Policy) { goFree(p); p.MaxAttempts = 1 },
			calls:    []string{"b@0s"}, trail: []string{"b server_error stop"}, end: "!server_error b",
		},
		{
			name:     "a breaker that is open is no turn to wait for",
			backends: chain(shut("a", minute), busy("b", second)),
			calls:    []string{"b@1s"}, trail: []string{"a skipped fallback", "b succeeded"}, end: "b", at: second,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.calls == nil {
				c.calls = []string(nil)
			}
			c.run(t)
		})
	}
}

func TestTheWaitForATurnIsTold(t *testing.T) {
	t.Parallel()
	for full, want := range map[time.Duration]int{1500 * ms: 0, 30 * second: 1} {
		synctest.Test(t, func(t *testing.T) {
			a := busy("a", full, answers(second))
			st := newStage(t, shape{backends: chain(a)})
			out, waits := st.run(t.Context(), time.Time{})
			require.Len(t, waits, want)
			require.Equal(t, want, a.deferred)
			last := out.Trail[len(out.Trail)-1]
			require.Equal(t, full.Milliseconds(), last.WaitMS, "the time outside the slot counts")
			require.Equal(t, int64(1000), last.DurationMS)
			require.Equal(t, st.began.Add(full), last.StartedAt.Add(0))
			if want == 0 {
				return
			}
			skip := out.Trail[0]
			require.Equal(t, "rate_limit", *skip.Class)
			require.Equal(t, "its limits leave no room for 30s", *skip.Error)
			require.Equal(t, full.Milliseconds(), *skip.RetryAfterMS)
			require.Zero(t, skip.Status)
		})
	}
}

func TestALostTurnIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(overtaken("a", 100*ms), model("b")), policy: onLimit(fallback.OnLimitFallback)})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, "b", end(out))
		require.Equal(t, []string{"1 skipped a", "2 started b", "2 succeeded b"}, st.heard)
		skip := out.Trail[0]
		require.Equal(t, "rate_limit", *skip.Class)
		require.Equal(t, "its limits leave no room for 100ms", *skip.Error)
		require.Equal(t, int64(100), *skip.RetryAfterMS)
	})
}

func TestTheCallerIsToldWhyAJobWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(busy("a", 30*second))})
		out := st.once(t.Context(), nil, time.Time{})
		require.Equal(t, &fallback.Wait{Until: st.began.Add(30 * second), Why: "the limits of a leave no room now"}, out.Wait)
	})
}

func TestAJobThatIsCancelledWhileItWaitsForItsTurnCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{backends: chain(busy("a", 1500*ms))})
		ctx, cancel := context.WithTimeout(t.Context(), second)
		defer cancel()
		out := st.once(ctx, nil, time.Time{})
		require.Equal(t, "!cancelled", end(out))
		require.Empty(t, out.Trail)
		require.Empty(t, st.heard)
		require.Equal(t, second, time.Since(st.began))
		require.Equal(t, "a", end(st.once(t.Context(), nil, time.Time{})))
	})
}
