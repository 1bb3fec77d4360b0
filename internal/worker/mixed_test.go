package worker

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/breaker"
	"understudy/internal/job"
	"understudy/internal/llmtest"
)

// mixed plays providers that fail in every way, and remembers what it did to
// each job.
type mixed struct {
	mu  sync.Mutex // guards did
	did map[string][]string
}

// fault is a reply and what the worker must make of it.
type fault struct {
	outcome string
	reply   llmtest.Reply
}

// faults are the replies but for [hang], two thirds of them good: a breaker that
// opens at every third call would measure its cool-downs.
func faults() []fault {
	list := []fault{
		{"succeeded", llmtest.Reply{}},
		{"succeeded", llmtest.Answer("fine")},
		{"succeeded", llmtest.Reply{Delay: 20 * time.Millisecond}},
		{"succeeded", llmtest.Reply{Size: 4096}},
		{string(backend.RateLimit), llmtest.Reply{Status: 429, RetryAfter: "0.02"}},
		{string(backend.ServerError), llmtest.Fail(500, "boom")},
		{string(backend.Overloaded), llmtest.Fail(503, "busy")},
		{string(backend.BadResponse), llmtest.HTML(200)},
		{string(backend.ServerError), llmtest.HTML(502)},
		{string(backend.BadResponse), llmtest.Broken(llmtest.CutLength)},
		{string(backend.BadResponse), llmtest.Raw(200, "application/json", "")},
		{string(backend.EmptyOutput), llmtest.Raw(200, "application/json", `{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}`)},
		{string(backend.Connection), llmtest.Broken(llmtest.Reset)},
	}
	for range 16 {
		list = append(list, fault{"succeeded", llmtest.Reply{}})
	}
	return list
}

// hang is a reply that does not come. It is for some of the first jobs only, once
// each: so the timeout can be beyond every delay on a busy machine, and nobody waits
// for a hang but at the start.
func hang() fault { return fault{string(backend.Timeout), llmtest.Broken(llmtest.Hang)} }

// hangs tells whether a job's call, counted from 0, is to hang.
func hangs(id string, call int) bool {
	const jobs, calls = 48, 3
	i, err := strconv.Atoi(strings.TrimPrefix(id, "m."))
	return err == nil && i < jobs && call == i%calls
}

// script is the script of one backend. What a call gets depends only on the job
// and on how often it was called.
func (m *mixed) script(name string) llmtest.Script {
	list := faults()
	return func(c llmtest.Call) llmtest.Reply {
		_, rest, _ := strings.Cut(string(c.Body), "job-")
		id, _, _ := strings.Cut(rest, "!")
		m.mu.Lock()
		defer m.mu.Unlock()
		h := fnv.New32a()
		fmt.Fprintf(h, "%s/%s/%d", id, name, len(m.did[id]))
		f := list[h.Sum32()%uint32(len(list))]
		if hangs(id, len(m.did[id])) {
			f = hang()
		}
		m.did[id] = append(m.did[id], name+":"+f.outcome)
		return f.reply
	}
}

// to is what was done to a job.
func (m *mixed) to(id string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.did[id])
}

func TestMixedFaultsLoseNothing(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]int{"one worker": 0, "stopped and started in the middle": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runMixed(t, 2000, restarts)
		})
	}
}

func runMixed(t *testing.T, n, restarts int) {
	t.Helper()
	b := newBundle(t)
	m := &mixed{did: make(map[string][]string)}
	one, two := model("one", llmtest.New(t, m.script("one"))), model("two", llmtest.New(t, m.script("two")))
	for _, backend := range []*Backend{&one, &two} {
		backend.OpenAI.Timeout = 15 * time.Second // beyond every delay but a hang
		backend.Breaker = breaker.Config{Failures: 10, Cooldown: 20 * time.Millisecond, Probes: 2}
	}
	cfg := b.config(one, two)
	cfg.Concurrency = 64
	cfg.ShutdownGrace = patience // no call is cut: the trail must be what the providers did
	cfg.Routes[0].BaseDelay = 5 * time.Millisecond
	b.ensure("default")
	go func() { // ends with the last job
		for i := range n {
			if _, err := b.js.Publish(t.Context(), b.subjects.Job("default", id(i)), chat("job-"+id(i)+"!")); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
		}
	}()
	count := func() int { return int(b.stream("LLM_RESULTS").Msgs) }
	for i := range restarts + 1 {
		cfg.Name = fmt.Sprintf("w-%d", i)
		w := b.start(cfg)
		b.eventually("the jobs of this worker's turn", func() bool { return count() >= n*(i+1)/(restarts+1) })
		if i < restarts {
			require.NoError(t, w.stop())
		}
	}
	b.settled()
	checkMixed(b, m, n)
}

func id(i int) string { return fmt.Sprintf("m.%04d", i) }

// checkMixed compares what the streams say with what the providers did.
func checkMixed(b *bundle, m *mixed, n int) {
	b.t.Helper()
	state := b.stream("LLM_RESULTS")
	require.EqualValues(b.t, n, state.Msgs, "every job has a result")
	require.EqualValues(b.t, n, state.LastSeq, "and no job had a second one")
	failed := 0
	for i := range n {
		r := b.result(id(i))
		var calls []string
		for _, a := range r.Attempts {
			if a.Outcome == job.OutcomeSkipped {
				continue
			}
			outcome := string(a.Outcome)
			if a.Class != nil {
				outcome = *a.Class
			}
			calls = append(calls, a.Backend+":"+outcome)
		}
		require.Equal(b.t, m.to(id(i)), calls, "the trail of job %s is what happened: %v", id(i), trail(r.Attempts))
		succeeded := strings.HasSuffix(calls[len(calls)-1], ":succeeded")
		require.Equal(b.t, succeeded, r.Status == job.Succeeded, id(i))
		if !succeeded {
			failed++
			require.NotNil(b.t, b.letter(id(i)), id(i))
		}
	}
	require.EqualValues(b.t, failed, b.stream("LLM_DEAD").Msgs)
	require.Less(b.t, failed, n/4)
}
