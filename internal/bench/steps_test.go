package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// printed is what pprof prints of four stacks.
const printed = `File: bench
Type: cpu
Duration: 7.44s, Total samples = 70ms (97.73%)
-----------+-------------------------------------------------------
      10ms   runtime.mallocgc
             understudy/internal/job.(*Event).Encode (inline)
             understudy/internal/results.(*Outbox).Emit
             understudy/internal/worker.observer.Ended
             understudy/internal/fallback.(*run).attempt
-----------+-------------------------------------------------------
      40ms   internal/runtime/syscall/linux.Syscall6
             github.com/nats-io/nats%2ego.(*natsWriter).flush
             github.com/nats-io/nats%2ego.(*Conn).flusher
-----------+-------------------------------------------------------
      20ms   encoding/json.Unmarshal
             understudy/internal/worker.New
             main.runWorker
-----------+-------------------------------------------------------
      30ms   runtime.futex
             runtime.findRunnable
             runtime.schedule
             runtime.park_m
             runtime.mcall
-----------+-------------------------------------------------------
`

func TestTracesAreSharedAmongTheSteps(t *testing.T) {
	t.Parallel()
	all, err := parseTraces(strings.TrimSuffix(printed, "-----------+-------------------------------------------------------\n"))
	require.NoError(t, err)
	require.Len(t, all, 4)
	require.Equal(t, "understudy/internal/job.(*Event).Encode", all[0].stack[1])
	require.Equal(t, "github.com/nats-io/nats.go.(*Conn).flusher", all[1].stack[2])

	got := make(map[string]stepCost)
	for _, c := range attribute(all, 160, 10) {
		got[c.Step] = c
	}
	require.Len(t, got, len(stepNames()))
	require.Equal(t, stepCost{stepEmit, 20, 1}, got[stepEmit])
	require.Equal(t, stepCost{stepNATS, 80, 4}, got[stepNATS])
	require.Equal(t, stepCost{stepScheduler, 60, 3}, got[stepScheduler])
	require.Zero(t, got[stepRest].Micros)
}

func TestTracesThatAreNoneAreAnError(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "File: bench", "-----\n  alot   main.main\n", "-----\n 10ms\n"} {
		_, err := parseTraces(text)
		require.Error(t, err, text)
	}
}

func TestStepOfAStack(t *testing.T) {
	t.Parallel()
	const engine = "understudy/internal/fallback.(*run).attempt"
	for step, stack := range map[string][]string{
		stepBreaker:   {"sync.(*Mutex).Lock", "understudy/internal/breaker.(*Guard).Complete", engine},
		stepCall:      {"net/http.(*Transport).roundTrip", "understudy/internal/backend/openai.(*Client).send", "understudy/internal/breaker.(*Guard).Complete", engine},
		stepCandidate: {"runtime.mallocgc", engine, "understudy/internal/fallback.(*Engine).Run", "understudy/internal/worker.(*task).call"},
		stepPlan:      {"understudy/internal/fallback.(*Engine).Plan", "understudy/internal/worker.(*task).accept"},
		stepDecode:    {"understudy/internal/job.content", "understudy/internal/job.(*Decoder).Decode", "understudy/internal/worker.(*task).understand", "understudy/internal/worker.(*task).received"},
		stepRecall:    {"understudy/internal/results.last", "understudy/internal/results.(*Store).Lookup", "understudy/internal/worker.(*task).read"},
		stepCommit:    {"github.com/nats-io/nats.go.(*Conn).publish", "understudy/internal/results.(*Store).store", "understudy/internal/worker.(*task).finish"},
		stepAck:       {"github.com/nats-io/nats.go.(*Conn).publish", "understudy/internal/queue.(*Delivery).Ack", "understudy/internal/worker.(*task).settle"},
		stepCount:     {"log/slog.(*Logger).Info", "understudy/internal/worker.(*task).account", "understudy/internal/worker.(*task).finish"},
		stepPull:      {"understudy/internal/queue.newDelivery", "github.com/nats-io/nats.go.(*Conn).waitForMsgs"},
		stepNATS:      {"runtime.chansend", "github.com/nats-io/nats.go.(*Conn).processMsg", "github.com/nats-io/nats.go.(*Conn).readLoop"},
		stepCollector: {"runtime.scanobject", "runtime.gcDrain", "runtime.gcBgMarkWorker"},
		stepRest:      {"runtime.memmove"},
		stepNone:      {"encoding/json.Unmarshal", "understudy/internal/worker.New", "main.runWorker"},
	} {
		require.Equal(t, step, stepOf(stack, rules()), stack[0])
	}
}

func TestProtocolFindsMessagesHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	const text = "PING\r\nPUB a.b _INBOX.1 3\r\nM\r\n\r\nHPUB c 2 4\r\nab\r\n\r\npub d 0\r\n\r\n" +
		"MSG e 7 2\r\nhi\r\nHMSG f 7 $JS.ACK.x 2 2\r\nhi\r\n-ERR 'what'\r\nPONG\r\n"
	want := []frame{
		{published: true, subject: "a.b", reply: "_INBOX.1", size: 3},
		{published: true, subject: "c", size: 4},
		{published: true, subject: "d"},
		{subject: "e", size: 2},
		{subject: "f", reply: "$JS.ACK.x", size: 2},
	}
	for size := 1; size <= len(text); size++ {
		var p protocol
		var got []frame
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			p.feed([]byte(rest[:n]), time.Time{}, func(f frame) { got = append(got, f) })
			rest = rest[n:]
		}
		require.Equal(t, want, got, "in pieces of %d", size)
	}
}

func TestLinesWithoutAMessageAreNoFrames(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "PING\r", "SUB a 1", "PUB", "PUB a", "PUB a x", "MSG a 3", "HMSG a 1 2", "INFO {}"} {
		_, ok := parseFrame(line)
		require.False(t, ok, line)
	}
}

// lived lets a recorder see one job, a millisecond from moment to moment.
func lived(r *recorder, asks []string) {
	at := time.Unix(1000, 0)
	next := func() time.Time { at = at.Add(time.Millisecond); return at }
	r.begin()
	r.now[published] = at
	r.tell(frame{published: true, subject: "$JS.API.CONSUMER.MSG.NEXT.LLM_JOBS.q", at: at}) // the pull for this job
	r.tell(frame{subject: "inbox.1", reply: "$JS.ACK.LLM_JOBS.1", at: next()})
	for _, ask := range asks {
		r.tell(frame{published: true, subject: ask, reply: "_INBOX." + ask, at: next()})
	}
	for _, ask := range asks {
		r.tell(frame{subject: "_INBOX." + ask, at: next()})
	}
	r.note(called, next())
	r.note(answered, next())
	r.tell(frame{published: true, subject: eventsPrefix + "1", reply: "_INBOX.e", at: at})
	r.tell(frame{published: true, subject: resultsPrefix + "1", reply: "_INBOX.r", at: next()})
	r.tell(frame{subject: "_INBOX.r", at: next()})
	r.tell(frame{published: true, subject: "$JS.ACK.LLM_JOBS.1", reply: "_INBOX.a", at: next()})
	r.tell(frame{subject: "_INBOX.a", at: next()})
	r.tell(frame{published: true, subject: "$JS.API.CONSUMER.MSG.NEXT.LLM_JOBS.q", at: next()})
}

func TestSpansMeetAndMakeUpTheWholeJob(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	lived(r, []string{"$JS.API.DIRECT.GET.LLM_RESULTS", "$JS.API.STREAM.MSG.GET.LLM_EVENTS"})
	<-r.ended
	require.Len(t, r.lives, 1)
	w := wall{Spans: medians(r.lives)}
	require.InDelta(t, 1000*float64(1+4+1+1+1+1+1+1+1), w.sum(), 1e-6)
	require.InDelta(t, 3000, w.Spans[2].P50, 1e-6) // until the last answer
	require.Equal(t, "call", w.Spans[4].Name)
	require.InDelta(t, 1000, w.Spans[4].P50, 1e-6)
	for i, s := range w.Spans[1:] {
		require.Equal(t, w.Spans[i].to, s.from)
	}
}

func TestLoopThatAsksNothingHasNoTimeForIt(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	lived(r, nil)
	<-r.ended
	all := medians(r.lives)
	require.Zero(t, all[1].P50)
	require.Zero(t, all[2].P50)
	require.InDelta(t, 1000, all[3].P50, 1e-6) // from the delivery to the call
}

func TestStepsAreTold(t *testing.T) {
	t.Parallel()
	spans := medians(nil)
	for i := range spans {
		spans[i].P50 = 100
	}
	st := &steps{Jobs: 1000, Micros: 100, CPU: []stepCost{{stepPull, 25, 4}, {stepCall, 75, 0}}, Walls: []wall{{Side: "bare", Spans: spans, Sent: 5, Got: 5}}}
	dir := t.TempDir()

	text, err := st.markdown(pictures{dir: dir, begin: "performance"})

	require.NoError(t, err)
	require.Contains(t, text, "| pull | 25.0 | 12.5 | 25.0 |\n")
	require.Contains(t, text, "| all | 100 |  | 100 |\n")
	require.Contains(t, text, "| all |  | 1000 |\n| of it its own | own | 500 |\n")
	for _, name := range []string{"performance-cpu.svg", "performance-time.svg"} {
		require.Contains(t, text, "("+name+")")
		svg, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		wellFormed(t, string(svg))
		require.NotContains(t, string(svg), "(provider)")
	}
}
