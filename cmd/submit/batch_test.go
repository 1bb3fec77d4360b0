package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

// rows is a batch file of n lines.
func rows(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, `{"custom_id":"row-%d","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"%d"}]}}`+"\n", i, i)
	}
	return b.String()
}

// results reads an output file.
func resultsIn(tb testing.TB, text string) []*job.Result {
	tb.Helper()
	var list []*job.Result
	for line := range strings.Lines(text) {
		r, err := job.DecodeResult([]byte(line))
		require.NoError(tb, err)
		list = append(list, r)
	}
	return list
}

// requireRows requires the results of rows 1 to n, once each, in order.
func requireRows(tb testing.TB, text string, n int) {
	tb.Helper()
	list := resultsIn(tb, text)
	require.Len(tb, list, n)
	for i, r := range list {
		require.Equal(tb, fmt.Sprintf("row-%d", i+1), r.CustomID)
	}
}

// counter counts jobs by id, for serve.
type counter struct {
	mu   sync.Mutex // guards seen
	seen map[string]int
}

func (c *counter) count(status func(*taken) job.Status) func(*taken) job.Status {
	c.seen = make(map[string]int)
	return func(tk *taken) job.Status {
		c.mu.Lock()
		c.seen[tk.id]++
		c.mu.Unlock()
		return status(tk)
	}
}

// requireOnce requires that n jobs came, once each.
func (c *counter) requireOnce(tb testing.TB, n int) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Len(tb, c.seen, n)
	for id, times := range c.seen {
		require.Equal(tb, 1, times, id)
	}
}

func TestABatchRunsEveryLineOnceAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var c counter
	b.serve("default", c.count(always(job.Succeeded)))
	const lines = 2000
	in, out := b.file("in.jsonl", rows(lines)), filepath.Join(t.TempDir(), "out.jsonl")
	code, stdout, stderr := b.submit("batch", in, "-o", out)
	require.Equal(t, exitOK, code, stderr)
	require.Empty(t, stdout)
	require.Regexp(t, `^batch b-[0-9a-f]{20}: 2000 lines: 2000 succeeded \(0 degraded\), 0 failed, 0 expired, 0 cancelled; \$2\.000000 in 0 ms\n$`, stderr)
	requireRows(t, read(t, out), lines)
	c.requireOnce(t, lines)
	require.NoFileExists(t, out+".partial")
	require.Zero(t, b.queued())

	code, stdout, stderr = b.submit("batch", in, "-o", out, "-json") // nothing is left to do
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, stderr, ": 2000 of 2000 lines were done before; they are not run again\n")
	requireRows(t, read(t, out), lines)
	c.requireOnce(t, lines)
	var s batchSummary
	require.NoError(t, json.Unmarshal([]byte(stdout), &s))
	require.Equal(t, lines, s.Succeeded)
	require.Equal(t, out, s.Output)
	require.Equal(t, []*backendTally{{Backend: "standin", Jobs: lines, Succeeded: lines, InputTokens: 3 * lines, OutputTokens: 5 * lines, CostUSD: s.CostUSD}}, s.Backends)
}

func TestABatchRunsThroughARealWorker(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(func(c llmtest.Call) llmtest.Reply {
		if strings.Contains(string(c.Body), `"content":"7"`) {
			return llmtest.Fail(400, "seven is not allowed")
		}
		return llmtest.Reply{}
	})
	in, out := b.file("in.jsonl", rows(100)), filepath.Join(t.TempDir(), "out.jsonl")
	code, _, stderr := b.submit("batch", in, "-o", out, "-id", "b", "-v")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "BACKEND  JOBS  SUCCEEDED  DEGRADED")
	require.Contains(t, stderr, "\nmodel1   100   99         0 ")
	require.Contains(t, stderr, "batch b: 100 lines: 99 succeeded (0 degraded), 1 failed, 0 expired, 0 cancelled;")
	require.Contains(t, stderr, "\nsubmit: not succeeded: b.000007. To see why: submit dead ls 'b.*'\n")
	requireRows(t, read(t, out), 100)
	for i, r := range resultsIn(t, read(t, out)) {
		if i == 6 {
			require.Equal(t, job.Failed, r.Status)
			continue
		}
		require.Equal(t, fmt.Sprintf("echo: %d", i+1), answerText(r.Response))
	}
}

func TestAnInterruptedBatchGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in, out := b.file("in.jsonl", rows(20)), filepath.Join(t.TempDir(), "out.jsonl")
	first := b.command("").start("batch", in, "-o", out, "-id", "b")
	b.awaitQueued(20)
	for range 7 {
		b.finish(b.take("default"), job.Succeeded)
	}
	eventually(t, func() bool { return strings.Count(read(t, out+".partial"), "\n") == 7 })
	first.interrupt()
	require.Equal(t, exitInterrupted, first.wait())
	require.True(t, strings.HasSuffix(first.err.String(), "submit: batch b: 7 of 20 lines done, 13 still queued or running, 0 not queued. The same command goes on from there (-id b)\n"+
		"The results so far are in "+out+".partial.\n"), first.err) // on a slow machine it was told before that no worker is there
	require.NoFileExists(t, out)

	for range 3 { // while nobody listens
		b.finish(b.take("default"), job.Succeeded)
	}
	var c counter
	second := b.command("").start("batch", in, "-o", out, "-id", "b")
	second.err.await(t, "submit: batch b: 10 of 20 lines were done before; they are not run again\n")
	b.serve("default", c.count(always(job.Succeeded)))
	require.Equal(t, exitOK, second.wait(), second.err)
	requireRows(t, read(t, out), 20)
	c.requireOnce(t, 10)
	require.NoFileExists(t, out+".partial")
}

func TestTheSameFileIsTheSameBatchUnlessItIsToBeFresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var c counter
	b.serve("default", c.count(always(job.Succeeded)))
	dir := t.TempDir()
	batch := regexp.MustCompile(`batch (\S+): 3 lines: `)
	run := func(text string, flags ...string) string {
		in := b.file("in.jsonl", text)
		code, _, stderr := b.submit(append([]string{"batch", in, "-o", filepath.Join(dir, "out.jsonl")}, flags...)...)
		require.Equal(t, exitOK, code, stderr)
		return batch.FindStringSubmatch(stderr)[1]
	}
	one, same, other := run(rows(3)), run(rows(3)), run(strings.ReplaceAll(rows(3), "user", "system"))
	require.Equal(t, one, same)
	require.NotEqual(t, one, other)
	c.requireOnce(t, 6)
	fresh := run(rows(3), "-fresh")
	require.NotEqual(t, one, fresh)
	require.NotEqual(t, fresh, run(rows(3), "-fresh"))
	c.requireOnce(t, 12)
	require.Equal(t, "nightly", run(rows(3), "-id", "nightly"))
}

func TestABatchWaitsForRoomInAFullQueueAndLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.limit(5)
	in, out := b.file("in.jsonl", rows(60)), filepath.Join(t.TempDir(), "out.jsonl")
	c := b.command("").start("batch", in, "-o", out)
	c.err.await(t, "submit: queue default is full; waiting for room, nothing is lost (maximum messages exceeded, code 10077)\n")
	var n counter
	b.serve("default", n.count(always(job.Succeeded)))
	require.Equal(t, exitOK, c.wait(), c.err)
	requireRows(t, read(t, out), 60)
	n.requireOnce(t, 60)
	require.Contains(t, c.err.String(), "submit: queue default takes jobs again\n")
}

func TestWhatCameTwiceIsWrittenOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in, out := b.file("in.jsonl", rows(3)), filepath.Join(t.TempDir(), "out.jsonl")
	b.publish("default", "b.000002", strings.Split(rows(3), "\n")[1]) // an earlier run was killed here
	c := b.command("").start("batch", in, "-o", out, "-id", "b")
	b.awaitQueued(3)
	for range 3 {
		tk := b.take("default")
		b.finish(tk, job.Succeeded)
		stored, err := b.store.Lookup(t.Context(), tk.queue, tk.id)
		require.NoError(t, err)
		// Anybody can publish there, anything: again, garbage, of no job of ours.
		for subject, data := range map[string][]byte{"b.000001": stored.Data, "b.000002": []byte("x"), "b.x": stored.Data} {
			require.NoError(t, b.js.Conn().Publish(b.subjects.Done("default", subject), data))
		}
	}
	require.Equal(t, exitOK, c.wait(), c.err)
	list := resultsIn(t, read(t, out))
	require.Len(t, list, 3)
}

func TestResultsThatWereStoredWhileTheConnectionWasBrokenAreFetched(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in, out := b.file("in.jsonl", rows(200)), filepath.Join(t.TempDir(), "out.jsonl")
	c, network := b.gated()
	c.start("batch", in, "-o", out)
	b.awaitQueued(200)
	network.cut()
	c.err.await(t, "submit: the connection to NATS is lost; trying to get it back\n")
	for range 150 {
		b.finish(b.take("default"), job.Succeeded)
	}
	network.mend()
	c.err.await(t, "submit: connected to NATS again")
	b.serve("default", always(job.Succeeded))
	require.Equal(t, exitOK, c.wait(), c.err)
	requireRows(t, read(t, out), 200)
}

func TestABatchSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in, out := b.file("in.jsonl", rows(300)), filepath.Join(t.TempDir(), "out.jsonl")
	c := b.command("").start("batch", in, "-o", out, "-window", "4")
	eventually(t, func() bool { return b.queued() > 20 })
	b.srv.Restart(t)
	b.awaitQueued(300)
	b.serve("default", always(job.Succeeded))
	require.Equal(t, exitOK, c.wait(), c.err)
	requireRows(t, read(t, out), 300)
}

func TestJobsThatSomebodyTookOutOfTheQueueAreMissedAndToldOf(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in, out := b.file("in.jsonl", rows(3)), filepath.Join(t.TempDir(), "out.jsonl")
	c := b.command("")
	conns := make(chan *nats.Conn, 1)
	env := c.load()
	connect := env.connect
	env.connect = func(opts ...nats.Option) (*nats.Conn, error) {
		nc, err := connect(opts...)
		conns <- nc
		return nc, err
	}
	c.load = func() environment { return env }
	c.start("batch", in, "-o", out, "-id", "b")
	b.awaitQueued(3)
	b.finish(b.take("default"), job.Succeeded)
	stream, err := b.js.Stream(t.Context(), b.subjects.JobsStream())
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context()))
	nc := <-conns
	eventually(t, func() bool { // every return to the server makes it look
		nc.Opts.ReconnectedCB(nc)
		return len(c.code) > 0
	})
	require.Equal(t, exitFailed, c.wait())
	require.Contains(t, c.err.String(), "submit: batch b: 2 lines went out of the queue without a result: ")
	require.NoFileExists(t, out)
	require.Equal(t, 1, strings.Count(read(t, out+".partial"), "\n"))

	b.serve("default", always(job.Succeeded))
	code, _, stderr := b.submit("batch", in, "-o", out, "-id", "b")
	require.Equal(t, exitOK, code, stderr)
	requireRows(t, read(t, out), 3)
}

func TestABatchThatCannotBePublishedEnds(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{Config: `
accounts { A { jetstream: enabled, users: [
  {user: all, password: x}
  {user: reader, password: x, permissions: {publish: {deny: ["llm.jobs.>"]}}}
] } }
no_auth_user: all`})
	b.ensure("default")
	b.srv.URL = strings.Replace(b.srv.URL, "nats://", "nats://reader:x@", 1)
	code, _, stderr := b.submit("batch", b.file("in.jsonl", rows(3)), "-o", filepath.Join(t.TempDir(), "out.jsonl"))
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, `submit: NATS does not permit it: permissions violation: Permissions Violation for Publish to "llm.jobs.default.b-`)
	require.NotContains(t, stderr, "reader:x")
}

func TestTheTableOfBackendsIsAligned(t *testing.T) {
	t.Parallel()
	tl := newTally(noon())
	tl.add(&job.Result{Status: job.Succeeded, Backend: "openrouter", Usage: &job.Usage{InputTokens: 1200, OutputTokens: 34}, CostUSD: new(0.0125)})
	tl.add(&job.Result{Status: job.Succeeded, Backend: "rules", Degraded: true})
	tl.add(&job.Result{Status: job.Failed, Backend: "openrouter"})
	tl.add(&job.Result{Status: job.Expired})
	tl.add(&job.Result{Status: job.Cancelled})
	tl.add(nil)
	s := tl.summary("b", &batchOptions{queue: "low", out: "out.jsonl"}, noon().Add(90_000_000_000))
	requireGolden(t, "batch-table.txt", s.table()+s.line()+"\n")
	line, err := jsonLine(s)
	require.NoError(t, err)
	requireGolden(t, "batch-summary.json", string(line))
}
