package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

// fault is something that breaks, and is mended.
type fault struct {
	name    string
	servers int
	// other tells that a second worker is there when it strikes.
	other bool
	// strike breaks it, lets the held jobs go on, and mends it.
	strike func(r *rig, victim *exec.Cmd, release func())
}

// outage is how long a fault lasts that somebody mends.
const outage = 1500 * time.Millisecond

// The faults after which the server may have forgotten what it had handed out.
const (
	serverKilled    = "server killed"
	consumerDeleted = "consumer deleted"
)

// faults are the columns of the matrix.
func faults() []fault {
	return []fault{
		{"worker killed", 1, true, func(r *rig, victim *exec.Cmd, release func()) {
			require.NoError(r.t, victim.Process.Kill())
			_ = victim.Wait()
			release()
		}},
		{"worker told to stop", 1, true, func(r *rig, victim *exec.Cmd, release func()) {
			require.NoError(r.t, victim.Process.Signal(syscall.SIGTERM))
			pause(outage) // longer than the grace
			release()
			require.NoError(r.t, victim.Wait())
		}},
		{"worker frozen past its lease", 1, true, func(r *rig, victim *exec.Cmd, release func()) {
			require.NoError(r.t, victim.Process.Signal(syscall.SIGSTOP))
			pause(r.lease + outage)
			release() // the word reaches it when it wakes
			require.NoError(r.t, victim.Process.Signal(syscall.SIGCONT))
		}},
		{serverKilled, 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			r.servers[0].kill()
			release()
			pause(outage)
			r.servers[0].start()
		}},
		{"server restarted in order", 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			r.servers[0].stop()
			release()
			r.servers[0].start()
		}},
		{"connections reset", 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			r.proxy.reset()
			release()
		}},
		{"connections half-open", 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			r.blackhole(release)
		}},
		{consumerDeleted, 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			require.NoError(r.t, r.js.DeleteConsumer(r.t.Context(), "LLM_JOBS", "q-default"))
			release()
		}},
		{"leader of three killed", 3, false, func(r *rig, _ *exec.Cmd, release func()) {
			leader := r.leader("LLM_JOBS")
			leader.kill()
			release()
			pause(outage)
			leader.start()
		}},
		{"server full", 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			empty := r.fill()
			release()
			pause(outage)
			empty()
		}},
		{"permission denied", 1, false, func(r *rig, _ *exec.Cmd, release func()) {
			r.servers[0].configure(`"llm.results.>", "llm.events.>", "llm.dead.>", "$JS.ACK.>", "$JS.API.CONSUMER.MSG.NEXT.>"`)
			r.servers[0].reload()
			release()
			pause(outage)
			r.servers[0].configure("")
			r.servers[0].reload()
		}},
	}
}

// points are the rows of the matrix.
func points() []string {
	return []string{
		pointPull, pointPulled, pointDecoded, pointCalling, pointDuring, pointAnswered, pointCommitting, pointCommitted, pointBuried, pointAcking,
	}
}

// leader is the server that leads a stream.
func (r *rig) leader(stream string) *natsd {
	r.t.Helper()
	var found *natsd
	r.await(stream+" has a leader", func() bool {
		ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Second)
		defer cancel()
		s, err := r.js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		for _, srv := range r.servers {
			if srv.name == s.CachedInfo().Cluster.Leader {
				found = srv
			}
		}
		return found != nil
	})
	return found
}

// blackhole makes the workers' connections half-open, lets the held jobs go on,
// and returns how long it took until one of the workers noticed.
func (r *rig) blackhole(release func()) time.Duration {
	r.t.Helper()
	before, start := r.proxy.connections(), time.Now()
	r.proxy.blackhole()
	release()
	r.await("the half-open connection is noticed", func() bool { return r.proxy.connections() > before })
	return time.Since(start)
}

// fill takes all the room there is at the server, and returns how to free it.
func (r *rig) fill() (empty func()) {
	r.t.Helper()
	if r.servers[0].store == bigStore { // only the streams that must not lose anything
		return r.limit("LLM_RESULTS", "LLM_DEAD")
	}
	const ballast = "BALLAST"
	_, err := r.js.CreateStream(r.t.Context(), jetstream.StreamConfig{Name: ballast, Subjects: []string{"ballast"}})
	require.NoError(r.t, err)
	for size := 900 << 10; size > 0; size /= 2 {
		data := make([]byte, size)
		for err = nil; err == nil; {
			_, err = r.js.Publish(r.t.Context(), "ballast", data)
		}
		require.ErrorContains(r.t, err, "insufficient") // storage resources available
	}
	return func() { require.NoError(r.t, r.js.DeleteStream(r.t.Context(), ballast)) }
}

// limit lets streams take no more, and returns how to lift that.
func (r *rig) limit(streams ...string) (lift func()) {
	r.t.Helper()
	set := func(bytes func(jetstream.StreamState) int64) {
		for _, name := range streams {
			s, err := r.js.Stream(r.t.Context(), name)
			require.NoError(r.t, err)
			cfg := s.CachedInfo().Config
			cfg.MaxBytes = bytes(s.CachedInfo().State)
			_, err = r.js.UpdateStream(r.t.Context(), cfg)
			require.NoError(r.t, err)
		}
	}
	set(func(st jetstream.StreamState) int64 { return int64(max(st.Bytes, 1)) })
	return func() { set(func(jetstream.StreamState) int64 { return -1 }) }
}

// verdict is what one cell of the matrix came to.
type verdict struct {
	unknown, calls, again, untold int
	recovery                      time.Duration
}

// play plays one cell: two jobs, one that succeeds and one that fails, are held
// at the point, the fault strikes, the jobs go on and it is mended, and two more
// jobs must run as if nothing had been.
func play(t *testing.T, point string, f fault) verdict {
	t.Helper()
	r := newRig(t, f.servers, nil)
	ids := []string{"ok-1", "fail-1"}
	if point == pointBuried {
		ids = []string{"fail-1", "fail-2"}
	}
	var holds []*hold
	if point == pointPull {
		holds = append(holds, r.hold("w-1", point, ""))
	} else {
		for _, id := range ids {
			holds = append(holds, r.hold("w-1", point, id))
		}
	}
	victim := r.work("w-1")
	if point != pointPull {
		r.ready("w-1")
	}
	r.await("the streams are made", func() bool { return r.state("LLM_JOBS").Consumers == 1 })
	for _, id := range ids {
		require.NoError(t, r.publish(id))
	}
	for _, h := range holds {
		select {
		case <-h.reached:
		case <-time.After(patience):
			t.Fatalf("%s is not reached", point)
		}
	}
	if f.other {
		r.work("w-2")
		r.ready("w-2")
	}
	start := time.Now()
	f.strike(r, victim, func() {
		for _, h := range holds {
			h.release()
		}
	})
	r.finished(len(ids))
	v := verdict{recovery: time.Since(start)}
	r.await("more jobs can be stored", func() bool { return r.publish("ok-"+job6()) == nil })
	r.await("more jobs can be stored", func() bool { return r.publish("fail-"+job6()) == nil })
	r.finished(len(ids) + 2)
	report := r.check()
	require.Equal(t, report.Accepted, report.Succeeded+report.Failed)
	v.unknown, v.calls, v.again = report.UnknownOutcomes(), report.Calls, report.Again
	v.untold = report.Untold
	t.Logf("%s, %s: %d unknown, %d calls, %d answers again, %s", point, f.name, v.unknown, v.calls, v.again, v.recovery.Round(10*time.Millisecond))
	return v
}

// job6 is a new id.
func job6() string { return fmt.Sprint(time.Now().UnixNano()) }

// faultNamed finds a fault.
func faultNamed(t *testing.T, name string) fault {
	t.Helper()
	for _, f := range faults() {
		if f.name == name {
			return f
		}
	}
	t.Fatalf("there is no fault %q", name)
	return fault{}
}

// TestWhateverBreaksNothingIsLost plays some cells of the matrix; `make matrix`
// plays all.
func TestWhateverBreaksNothingIsLost(t *testing.T) {
	t.Parallel()
	for _, cell := range [][2]string{
		{pointPull, "connections reset"},
		{pointPulled, "worker killed"},
		{pointDecoded, "worker told to stop"},
		{pointCalling, "worker frozen past its lease"},
		{pointDuring, "worker killed"},
		{pointDuring, consumerDeleted},
		{pointAnswered, serverKilled},
		{pointCommitting, "server full"},
		{pointCommitting, "permission denied"},
		{pointCommitted, "worker killed"},
		{pointBuried, "server restarted in order"},
		{pointAcking, "connections reset"},
	} {
		t.Run(strings.Join(cell[:], ", "), func(t *testing.T) {
			t.Parallel()
			require.Contains(t, points(), cell[0])
			play(t, cell[0], faultNamed(t, cell[1]))
		})
	}
}

// TestAJobThatOutlastsItsLeaseIsCalledOnce is a job of three minutes under a
// lease of 30 s, at a tenth of the scale.
func TestAJobThatOutlastsItsLeaseIsCalledOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, llmtest.Always(llmtest.Reply{Delay: 6 * shortLease}))
	r.work("w-1", "VLLM_TIMEOUT=120")
	r.ready("w-1")
	require.NoError(t, r.publish("long"))
	r.work("w-2", "VLLM_TIMEOUT=120") // would take it, were it handed out again
	r.finished(1)
	report := r.check()
	require.Equal(t, 1, report.Calls)
	require.Zero(t, report.Redelivered)
}

// loseConsumer deletes the consumer of a worker whose slots are all taken, and
// returns how long it took until it took jobs again.
func loseConsumer(t *testing.T, lease time.Duration) time.Duration {
	t.Helper()
	r := newRig(t, 1, llmtest.Always(llmtest.Reply{Delay: 50 * time.Millisecond}))
	r.lease = lease
	r.work("w-1")
	r.ready("w-1")
	const slots, jobs = 8, 200
	var holds []*hold
	for i := range jobs {
		id := fmt.Sprintf("ok-%d", i)
		if i < slots {
			holds = append(holds, r.hold("w-1", pointDuring, id))
		}
		require.NoError(t, r.publish(id))
	}
	for _, h := range holds {
		<-h.reached
	}
	require.NoError(t, r.js.DeleteConsumer(t.Context(), "LLM_JOBS", "q-default"))
	start, before := time.Now(), r.hooks.count("w-1", pointPulled)
	require.Equal(t, slots, before)
	for _, h := range holds {
		h.release()
	}
	r.await("jobs are taken again", func() bool { return r.hooks.count("w-1", pointPulled) > before })
	took := time.Since(start)
	r.finished(jobs)
	r.check()
	return took
}

func TestAWorkerWhoseSlotsAreFullSurvivesTheLossOfItsConsumer(t *testing.T) {
	t.Parallel()
	loseConsumer(t, shortLease)
}
