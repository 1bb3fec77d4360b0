package scenarios_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/fallback"
	"understudy/internal/limit"
	"understudy/internal/llmtest"
)

const (
	limitedJobs = 3000
	slots       = 64
	answerTime  = 500 * time.Millisecond

	// What a job takes of the tokens: 201 of its prompt, and its max_tokens.
	jobTokens = 251
)

// quotaBody is the request of a job that takes jobTokens.
func quotaBody() string {
	return `{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"` + strings.Repeat("hey, ", 160) + `"}]}`
}

// slotted runs n jobs, so many at once as there are slots. A job that is handed
// back leaves its slot to the next, and comes back at the end of the line.
func (s *stage) slotted(ctx context.Context, n int, body string) []told {
	all := make([]told, n)
	free := make(chan struct{}, slots)
	var running sync.WaitGroup
	for i := range n {
		free <- struct{}{}
		running.Go(func() {
			all[i] = s.ask(ctx, question{
				id: fmt.Sprintf("job-%d", i), body: body,
				release: func() { <-free }, take: func() { free <- struct{}{} },
			})
			<-free
		})
	}
	running.Wait()
	return all
}

// least is the shortest time in which a provider that allows perMinute jobs, and
// as many at once at the start, can be done with all of them.
func least(perMinute float64, refill llmtest.Refill) time.Duration {
	if refill == llmtest.AtOnce {
		minutes := math.Ceil(limitedJobs/perMinute) - 1
		rounds := math.Ceil((limitedJobs - minutes*perMinute) / slots)
		return time.Duration(minutes)*time.Minute + time.Duration(rounds)*answerTime
	}
	wait := time.Duration((limitedJobs - perMinute) / perMinute * float64(time.Minute))
	return wait + answerTime
}

func TestLimitsAreUsedUpAndKept(t *testing.T) {
	t.Parallel()
	const (
		rpm, tpm = 630, 630 * jobTokens
		inSlots  = time.Hour // jobs wait in their slots, for as long as it takes
	)
	for _, tc := range []struct {
		name  string
		quota llmtest.Quota
		own   limit.Config
		hold  time.Duration
	}{
		{"requests", llmtest.Quota{Requests: rpm}, limit.Config{RPM: rpm}, inSlots},
		{"requests, not configured", llmtest.Quota{Requests: rpm}, limit.Config{}, inSlots},
		{"tokens, without a word", llmtest.Quota{Tokens: tpm, Silent: true}, limit.Config{TPM: tpm}, inSlots},
		{
			"both, at once",
			llmtest.Quota{Requests: 2 * rpm, Tokens: tpm, Refill: llmtest.AtOnce},
			limit.Config{Concurrency: slots, RPM: 2 * rpm, TPM: tpm},
			inSlots,
		},
		{"both, handed back", llmtest.Quota{Requests: 2 * rpm, Tokens: tpm}, limit.Config{Concurrency: slots, RPM: 2 * rpm, TPM: tpm}, 0},
		{"tokens, at once, not configured, handed back", llmtest.Quota{Tokens: tpm, Refill: llmtest.AtOnce}, limit.Config{}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				took := useUp(t, tc.hold, tc.quota, tc.own)
				best := least(rpm, tc.quota.Refill)
				t.Logf("%s is %.3f of the least possible", took, took.Seconds()/best.Seconds())
				if tc.quota.Silent { // nobody can know that more was free at the start
					best = limitedJobs * time.Minute / rpm
				}
				require.LessOrEqual(t, took, best*105/100)
			})
		})
	}
}

// useUp runs the jobs through a provider with a quota, and returns how long that
// took.
func useUp(t *testing.T, hold time.Duration, quota llmtest.Quota, own limit.Config) time.Duration {
	t.Helper()
	reply := llmtest.Reply{Delay: answerTime}
	if quota.Silent { // then the usage is all there is to learn from
		reply.Text = strings.Repeat("word ", 50)
	}
	script := llmtest.Limited(quota, llmtest.Always(reply))
	s := newStageHolding(t, hold, inMemory, steady(), part{name: openrouter, script: script, limit: own})
	all := s.slotted(t.Context(), limitedJobs, quotaBody())
	took := time.Since(s.began)

	refused, waited := 0, 0
	for _, c := range s.places[0].provider.Calls() {
		refused += count(c.Status == 429)
	}
	for i, r := range all {
		require.NotNil(t, r.Response, "job %d: %+v", i, r.Err)
		waited += len(r.waits)
	}
	t.Logf("%d of %d calls refused; %d hand-backs", refused, len(s.places[0].provider.Calls()), waited)
	require.LessOrEqual(t, refused, limitedJobs/100)
	require.LessOrEqual(t, waited, limitedJobs*3/2)
	return took
}

// With ON_LIMIT=fallback nobody waits for a turn while another backend is free,
// and the limited one does what it may: the 60 of a full bucket, and one more
// each second.
func TestNothingWaitsWhileAnotherBackendIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		policy := steady()
		policy.OnLimit = fallback.OnLimitFallback
		reply := llmtest.Always(llmtest.Reply{Delay: answerTime})
		s := newStage(t, inMemory, policy,
			part{name: openrouter, script: llmtest.Limited(llmtest.Quota{Requests: 60}, reply), limit: limit.Config{RPM: 60}},
			part{name: vllm, script: reply},
		)
		answered := map[string]int{}
		for i, r := range s.every(t.Context(), 20*time.Millisecond, 1500) {
			require.NotNil(t, r.Response, "job %d", i)
			require.Equal(t, answerTime, r.took(), "job %d waited", i)
			require.Empty(t, r.waits)
			answered[r.Backend]++
		}
		for _, c := range s.places[0].provider.Calls() {
			require.Equal(t, 200, c.Status)
		}
		require.Equal(t, map[string]int{openrouter: 89, vllm: 1411}, answered)
	})
}

// With ON_LIMIT=wait the same jobs are all answered by the first.
func TestJobsWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reply := llmtest.Always(llmtest.Reply{Delay: answerTime})
		s := newStage(t, inMemory, steady(),
			part{name: openrouter, script: reply, limit: limit.Config{Concurrency: 1}},
			part{name: vllm, script: reply},
		)
		require.NotNil(t, s.ask(t.Context(), question{id: "first"}).Response) // it tells how long calls take
		s.began = time.Now()
		const n = 4 // what fits into the time for which a job waits in its slot
		for i, r := range s.slotted(t.Context(), n, quotaBody()) {
			require.NotNil(t, r.Response, "job %d", i)
			require.Equal(t, openrouter, r.Backend)
			require.Empty(t, r.waits)
			require.Len(t, r.Trail, 1)
			require.Equal(t, (r.took() - answerTime).Milliseconds(), r.Trail[0].WaitMS)
		}
		require.Equal(t, n*answerTime, time.Since(s.began))
		require.Equal(t, 1, s.places[0].provider.Stats().MaxInFlight)
	})
}
