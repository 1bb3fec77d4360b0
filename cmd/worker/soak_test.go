//go:build soak

package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
	"understudy/internal/soak"
)

// The measures of a soak.
const (
	soakLease   = 5 * time.Second
	soakWorkers = 3
	soakSenders = 8
	// soakBacklog is how many jobs wait at most; more are not sent meanwhile.
	soakBacklog = 300
	// soakBetween is the least time between two faults.
	soakBetween = 2 * time.Second
	// soakLong is how long the answer to a long job takes: more than two leases.
	soakLong = 12 * time.Second
)

// soaking is a soak under way.
type soaking struct {
	*rig
	started int
	sent    atomic.Int64 // jobs that the stream has for certain
	unsure  atomic.Int64 // publishes without an answer

	amnesia []soak.Span // see soak.Evidence

	mu    sync.Mutex // guards armed
	armed *strike
}

// strike waits for a job to come to a point.
type strike struct {
	point    string
	worker   chan string // who came there
	released chan struct{}
}

// TestSoak runs jobs through three workers under random faults of the matrix, at
// random points, for the time in UNDERSTUDY_SOAK (10m). Then it judges the run
// by the streams and the provider's log, and writes bin/soak-report.txt.
func TestSoak(t *testing.T) {
	t.Parallel()
	length := 10 * time.Minute
	if text := os.Getenv("UNDERSTUDY_SOAK"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err, "UNDERSTUDY_SOAK")
	}
	s := &soaking{rig: newRigWith(t, 1, bigStore, mixed)}
	s.lease = soakLease
	s.hooks.watch = s.watch
	for range soakWorkers {
		s.recruit()
	}
	s.await("the streams are made", func() bool { return s.state("LLM_JOBS").Consumers == 1 })

	begin := time.Now()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for i := range soakSenders {
		senders.Go(func() { s.send(i, stop) })
	}
	struck := s.torment(begin.Add(length))
	close(stop)
	senders.Wait()
	drained := time.Now()
	for s.state("LLM_JOBS").Msgs > 0 && time.Since(drained) < patience { // a job that stays is a finding
		pause(100 * time.Millisecond)
	}
	rest := time.Since(drained)
	s.stopAll()
	evidence := s.evidence()
	evidence.Amnesia = s.amnesia
	report := soak.Check(evidence)
	s.write(report, struck, length, rest)
	for _, f := range report.Findings[:min(len(report.Findings), 20)] {
		t.Error(f)
	}
	require.GreaterOrEqual(t, int64(report.Accepted), s.sent.Load(), "more jobs were acknowledged than stored")
	require.LessOrEqual(t, int64(report.Accepted), s.sent.Load()+s.unsure.Load())
	require.Equal(t, report.Accepted, report.Succeeded+report.Failed)
}

// mixed answers by the kind of job, and fails now and then.
func mixed(c llmtest.Call) llmtest.Reply {
	kind, _, _ := strings.Cut(idOf(c), "-")
	quick := time.Duration(rand.IntN(30)) * time.Millisecond
	switch kind {
	case "fail":
		return llmtest.Fail(400, "no")
	case "long":
		return llmtest.Reply{Delay: soakLong}
	case "stream":
		stream := llmtest.Stream{TokenDelay: time.Millisecond}
		if rand.IntN(10) == 0 {
			stream.After, stream.End = 1, llmtest.EndCut
		}
		return llmtest.Reply{Delay: quick, Stream: stream}
	}
	switch rand.IntN(60) {
	case 0:
		return llmtest.Fail(503, "busy")
	case 1:
		return llmtest.Broken(llmtest.Reset)
	case 2:
		return llmtest.Broken(llmtest.CutLength)
	case 3:
		return llmtest.Reply{Status: 429, Text: "slow down", RetryAfter: "0.05"}
	case 4:
		return llmtest.HTML(200)
	default:
		return llmtest.Reply{Delay: quick}
	}
}

// recruit starts a new worker.
func (s *soaking) recruit() {
	s.t.Helper()
	s.started++
	s.work(fmt.Sprintf("w-%d", s.started), "WORKER_CONCURRENCY=16", "FALLBACK_MAX_ATTEMPTS=8", "VLLM_BREAKER_COOLDOWN=1", "WORKER_LOG_LEVEL=warn")
}

// send publishes jobs until stop is closed.
func (s *soaking) send(sender int, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		if n%50 == 0 {
			for s.state("LLM_JOBS").Msgs > soakBacklog {
				pause(50 * time.Millisecond)
			}
		}
		kind, more := "ok", ""
		switch rand.IntN(100) {
		case 0, 1, 2, 3:
			kind = "fail"
		case 4, 5, 6, 7, 8:
			kind, more = "stream", `,"stream":true`
		case 9:
			if rand.IntN(4) == 0 {
				kind = "long"
			}
		}
		if err := s.put(fmt.Sprintf("%s-%d-%d", kind, sender, n), `{"model":"m","messages":[{"role":"user","content":"hello"}]`+more+`}`); err != nil {
			s.unsure.Add(1)
			pause(200 * time.Millisecond)
			continue
		}
		s.sent.Add(1)
	}
}

// watch holds the job that comes to the armed point first.
func (s *soaking) watch(worker, point, _ string) {
	s.mu.Lock()
	x := s.armed
	if x == nil || x.point != point {
		s.mu.Unlock()
		return
	}
	s.armed = nil
	s.mu.Unlock()
	x.worker <- worker
	<-x.released
}

// catch waits until a job comes to the point, and returns its worker's name and
// how to let it go on; any worker and nothing when none comes.
func (s *soaking) catch(point string) (worker string, release func()) {
	anyone := slices.Collect(maps.Keys(s.workers))
	worker, release = anyone[rand.IntN(len(anyone))], func() {}
	if point == pointDuring { // there are calls at any time
		return worker, release
	}
	x := &strike{point: point, worker: make(chan string, 1), released: make(chan struct{})}
	s.mu.Lock()
	s.armed = x
	s.mu.Unlock()
	select {
	case worker = <-x.worker:
		return worker, sync.OnceFunc(func() { close(x.released) })
	case <-time.After(5 * time.Second):
	}
	s.mu.Lock()
	s.armed = nil
	s.mu.Unlock()
	close(x.released) // for one that came just now
	return worker, release
}

// torment lets faults strike until the end, one after the other, and counts them.
func (s *soaking) torment(end time.Time) map[string]int {
	struck := make(map[string]int)
	var possible []fault
	for _, f := range faults() {
		if f.servers == 1 {
			possible = append(possible, f)
		}
	}
	for next := 0; time.Now().Before(end); next++ {
		if next%len(possible) == 0 { // each as often as the others
			rand.Shuffle(len(possible), func(i, j int) { possible[i], possible[j] = possible[j], possible[i] })
		}
		f, point := possible[next%len(possible)], points()[rand.IntN(len(points()))]
		worker, release := s.catch(point)
		victim := s.workers[worker]
		if victim == nil { // its last word came late
			release()
			continue
		}
		struckAt := time.Now()
		f.strike(s.rig, victim, release)
		struck[f.name]++
		if f.name == consumerDeleted || f.name == serverKilled {
			s.amnesia = append(s.amnesia, soak.Span{From: struckAt, To: time.Now()})
		}
		if victim.ProcessState != nil {
			delete(s.workers, worker)
			s.recruit()
		}
		pause(soakBetween + time.Duration(rand.IntN(2000))*time.Millisecond)
	}
	return struck
}

// write writes the report for people.
func (s *soaking) write(r *soak.Report, struck map[string]int, length, rest time.Duration) {
	s.t.Helper()
	path := filepath.Join("..", "..", "bin", "soak-report.txt")
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o750))
	f, err := os.Create(path)
	require.NoError(s.t, err)
	defer f.Close()
	out := io.MultiWriter(f, s.t.Output())
	fmt.Fprintf(out, "understudy soak: %s of faults, then %s until the queue was empty\n", length, rest.Round(100*time.Millisecond))
	fmt.Fprintf(out, "publishes without an answer (stored or not): %d\nfaults:\n", s.unsure.Load())
	for _, name := range slices.Sorted(maps.Keys(struck)) {
		fmt.Fprintf(out, "  %4d  %s\n", struck[name], name)
	}
	fmt.Fprintln(out)
	require.NoError(s.t, r.Write(out))
}
