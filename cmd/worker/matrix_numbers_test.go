//go:build matrix

package main

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// number is a promise with a number in it, and what was measured.
type number struct{ what, limit, got string }

// numbers are the promises, with the real lease of 30 s unless they say otherwise.
func numbers() map[string]func(t *testing.T) []number {
	return map[string]func(t *testing.T) []number{
		"a job of 3 minutes":        longJob,
		"a killed worker":           killedWorker,
		"a stopped worker":          stoppedWorker,
		"a half-open connection":    halfOpen,
		"a deleted consumer":        deletedConsumer,
		"an outage of all backends": outageOfAll,
	}
}

func longJob(t *testing.T) []number {
	t.Helper()
	r := newRig(t, 1, llmtest.Always(llmtest.Reply{Delay: 3 * time.Minute}))
	r.lease = 0
	r.work("w-1", "VLLM_TIMEOUT=300")
	r.ready("w-1")
	require.NoError(t, r.publish("long"))
	r.work("w-2", "VLLM_TIMEOUT=300") // would take it, were it handed out again
	for r.state("LLM_RESULTS").Msgs == 0 && r.provider.Stats().Calls < 2 {
		pause(time.Second)
	}
	r.finished(1)
	report := r.check()
	require.Equal(t, 1, report.Calls)
	return []number{{"a job of 3 minutes under a lease of 30 s makes", "1 call", fmt.Sprintf("%d call", report.Calls)}}
}

// elsewhere measures how long a job that runs on one worker takes to run on
// another after a signal to the first.
func elsewhere(t *testing.T, signal os.Signal, from func(r *rig) time.Time) time.Duration {
	t.Helper()
	r := newRig(t, 1, nil)
	r.lease = 0
	h := r.hold("w-1", pointDuring, "ok")
	victim := r.work("w-1")
	r.ready("w-1")
	require.NoError(t, r.publish("ok"))
	<-h.reached
	r.work("w-2")
	r.ready("w-2")
	again := r.hold("w-2", pointDuring, "ok")
	require.NoError(t, victim.Process.Signal(signal))
	start := from(r)
	<-again.reached
	took := time.Since(start)
	h.release()
	again.release()
	_ = victim.Wait()
	r.finished(1)
	r.check()
	return took
}

func killedWorker(t *testing.T) []number {
	t.Helper()
	took := elsewhere(t, syscall.SIGKILL, func(*rig) time.Time { return time.Now() })
	require.Less(t, took, 35*time.Second)
	return []number{{"a killed worker's job runs elsewhere", "within 35 s", seconds(took)}}
}

func stoppedWorker(t *testing.T) []number {
	t.Helper()
	const grace = time.Second // as the rig sets it
	took := elsewhere(t, syscall.SIGTERM, func(*rig) time.Time { return time.Now().Add(grace) })
	require.Less(t, took, time.Second)
	return []number{{"a stopped worker's job runs elsewhere, after the grace", "within 1 s", seconds(max(took, 0))}}
}

func halfOpen(t *testing.T) []number {
	t.Helper()
	r := newRig(t, 1, nil)
	r.lease = 0
	r.work("w-1")
	r.ready("w-1")
	require.NoError(t, r.publish("ok-1"))
	r.finished(1)
	took := r.blackhole(func() {})
	require.Less(t, took, 45*time.Second)
	require.NoError(t, r.publish("ok-2"))
	r.finished(2)
	r.check()
	return []number{{"a half-open connection is noticed", "within 45 s", seconds(took)}}
}

func deletedConsumer(t *testing.T) []number {
	t.Helper()
	took := loseConsumer(t, 0)
	require.Less(t, took, 5*time.Second)
	return []number{{"after its consumer was deleted under load a worker takes jobs again", "within 5 s", seconds(took)}}
}

// outageOfAll lets every backend of one route fail for two minutes, with 1,000
// jobs waiting, while another route is healthy.
func outageOfAll(t *testing.T) []number {
	t.Helper()
	const waiting, length = 1000, 2 * time.Minute
	r := newRig(t, 1, llmtest.Always(llmtest.Reply{Delay: 200 * time.Millisecond}))
	r.lease = 0
	var down atomic.Bool
	down.Store(true)
	sick := llmtest.NewWith(t, llmtest.Config{ForgetCalls: true, OnEnd: r.log.ended, Script: func(c llmtest.Call) llmtest.Reply {
		reply := llmtest.Reply{Delay: 20 * time.Millisecond}
		if down.Load() {
			reply = llmtest.Fail(503, "down")
		}
		c.N += 1 << 40 // not one of the other provider's
		r.log.begun(c, reply)
		return reply
	}})
	vars := []string{
		"BACKENDS=vllm,sick", "SICK_BASE_URL=" + sick.URL(), "SICK_BREAKER_COOLDOWN=10", "BREAKER_MAX_COOLDOWN=15",
		"ROUTES=healthy,sick", "ROUTE_HEALTHY_CHAIN=vllm", "ROUTE_SICK_CHAIN=sick", "WORKER_LOG_LEVEL=warn", "WORKER_CONCURRENCY=16",
	}
	r.work("w-1", vars...)
	r.work("w-2", vars...)
	r.ready("w-1")
	sent := 0
	healthy := func(until time.Time) (first, last int) { // publishes a healthy job every 100 ms
		for first = sent; time.Now().Before(until); pause(100 * time.Millisecond) {
			require.NoError(t, r.route("healthy", fmt.Sprintf("healthy-%d", sent)))
			sent++
		}
		return first, sent
	}
	calmFirst, calmLast := healthy(time.Now().Add(20 * time.Second))
	for i := range waiting {
		require.NoError(t, r.route("sick", fmt.Sprintf("sick-%d", i)))
	}
	first, last := healthy(time.Now().Add(length))
	calls := sick.Stats().Calls
	down.Store(false)
	recovery := time.Now()
	r.finished(sent + waiting)
	drain := time.Since(recovery)
	r.stopAll()
	e := r.evidence()
	latency := make(map[string]time.Duration)
	for _, m := range e.Results {
		got, err := job.DecodeResult(m.Data)
		require.NoError(t, err)
		latency[got.ID] = time.Duration(got.QueuedMS+got.DurationMS) * time.Millisecond
		require.Equal(t, job.Succeeded, got.Status, got.ID)
	}
	p99 := func(from, to int) time.Duration {
		var all []time.Duration
		for i := from; i < to; i++ {
			all = append(all, latency[fmt.Sprintf("healthy-%d", i)])
		}
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	calm, during := p99(calmFirst, calmLast), p99(first, last)
	require.Empty(t, e.Dead)
	require.Less(t, calls, 60)
	require.Less(t, drain, 30*time.Second)
	require.Less(t, during, 2*calm)
	return []number{
		{"dead letters of 1,000 jobs while all their backends are down for 2 minutes", "0", fmt.Sprint(len(e.Dead))},
		{"calls meanwhile, two workers together", "fewer than 60", fmt.Sprint(calls)},
		{"all done after the recovery", "within 30 s", seconds(drain)},
		{"p99 of another route's jobs meanwhile", fmt.Sprintf("below twice the usual %s", calm), during.String()},
	}
}

// route publishes a job for a route.
func (r *rig) route(route, id string) error {
	return r.put(id, `{"route":"`+route+`","body":{"model":"m","messages":[{"role":"user","content":"hello"}]}}`)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
