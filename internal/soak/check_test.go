package soak

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is the evidence of a run without a fault: jobs a and b succeeded, c
// failed, d was answered twice because a worker died.
type world struct{ Evidence }

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

func (w *world) event(id string, kind job.EventType, data any) {
	e := job.NewEvent("w-1", kind, id, epoch, data)
	w.Events = append(w.Events, Message{Subject: "llm.events.default." + id, Seq: uint64(len(w.Events) + 1), Data: e.Encode()})
}

func attempt(n int, outcome job.Outcome, started float64) job.Attempt {
	return job.Attempt{N: n, Backend: "b", Outcome: outcome, StartedAt: at(started)}
}

func (w *world) end(id string, seq uint64, status job.Status, attempts ...job.Attempt) {
	w.ResultsEnd++
	r := &job.Result{ID: id, Queue: "default", Status: status, Attempts: attempts, Deliveries: 1}
	w.Results = append(w.Results, Message{
		Subject: "llm.results.default." + id, Seq: w.ResultsEnd, Time: at(10), JobSeq: seq, Data: r.Encode(),
	})
}

func (w *world) bury(id string, seq uint64) {
	w.Dead = append(w.Dead, Message{Subject: "llm.dead.default." + id, Seq: uint64(len(w.Dead) + 1), JobSeq: seq})
}

func (w *world) call(id string, seconds float64, status int) {
	w.Calls = append(w.Calls, Call{Time: at(seconds), Job: id, Status: status, Whole: status == 200})
}

func newWorld() *world {
	w := &world{Evidence{Accepted: 4}}
	for i, id := range []string{"a", "b", "c", "d"} {
		w.event(id, job.EventReceived, job.Received{Queue: "default", Delivery: 1, JobSeq: uint64(i + 1)})
	}
	w.end("a", 1, job.Succeeded, attempt(1, job.OutcomeSucceeded, 1))
	w.call("a", 1.01, 200)
	w.end("b", 2, job.Succeeded, attempt(1, job.OutcomeFailed, 1), attempt(2, job.OutcomeSkipped, 1.5), attempt(3, job.OutcomeSucceeded, 2))
	w.call("b", 1.01, 503)
	w.call("b", 2.01, 200)
	w.end("c", 3, job.Failed, attempt(1, job.OutcomeFailed, 1))
	w.bury("c", 3)
	w.call("c", 1.01, 400)
	w.event("d", job.EventReceived, job.Received{Queue: "default", Delivery: 2, JobSeq: 4})
	w.end("d", 4, job.Succeeded, attempt(1, job.OutcomeUnknown, 1), attempt(2, job.OutcomeSucceeded, 5))
	w.call("d", 1.01, 200)
	w.call("d", 5.01, 200)
	return w
}

func TestARunWithoutAFaultHasNoFindings(t *testing.T) {
	t.Parallel()
	r := Check(&newWorld().Evidence)
	require.Empty(t, r.Findings)
	require.Equal(t, &Report{
		Accepted: 4, Succeeded: 3, Failed: 1, Dead: 1, Calls: 6, Attempts: 6, Redelivered: 1, Again: 1, Unknown: map[Fate]int{Answered: 1},
	}, r)
	require.Equal(t, 1, r.UnknownOutcomes())
}

func TestWhatIsPlantedIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(w *world)
		want  []string
	}{
		"a loss": {
			func(w *world) { w.Accepted = 5 },
			[]string{"lost: job not known: job message 5 has no result and is not in the queue"},
		},
		"a loss after it was taken": {
			func(w *world) {
				w.Accepted = 5
				w.event("e", job.EventReceived, job.Received{Queue: "default", Delivery: 1, JobSeq: 5})
			},
			[]string{"lost: job e: job message 5 has no result and is not in the queue"},
		},
		"a stuck job": {
			func(w *world) {
				w.Accepted = 5
				w.Jobs = []Message{{Subject: "llm.jobs.default.e", Seq: 5}}
			},
			[]string{"stuck: job e: it is still in the queue, as message 5"},
		},
		"a finished job that never left": {
			func(w *world) { w.Jobs = []Message{{Subject: "llm.jobs.default.a", Seq: 1}} },
			[]string{"stuck: job a: it is still in the queue, as message 1"},
		},
		"a second result beside the first": {
			func(w *world) { w.end("a", 1, job.Succeeded, attempt(1, job.OutcomeSucceeded, 1)) },
			[]string{"second result: job a: result 5 is not the only one"},
		},
		"a second result under another id": {
			func(w *world) { w.end("z", 1, job.Succeeded) },
			[]string{"second result: job z: result 5 is not the only one"},
		},
		"a second result in the place of the first": {
			func(w *world) { w.Results[2].Seq, w.Results[3].Seq, w.ResultsEnd = 4, 5, 5 },
			[]string{"second result: job not known: results 3 to 3 were replaced or removed"},
		},
		"a result that was removed at the end": {
			func(w *world) { w.ResultsEnd = 6 },
			[]string{"second result: job not known: results 5 to 6 were replaced or removed"},
		},
		"a result of no job": {
			func(w *world) { w.end("z", 9, job.Succeeded) },
			[]string{"unfounded: job z: the result names job message 9, which was never accepted"},
		},
		"a call after the result": {
			func(w *world) {
				w.event("a", job.EventAttemptStarted, attempt(2, "", 12))
				w.call("a", 12, 200)
				w.event("a", job.EventReceived, job.Received{Queue: "default", Delivery: 2, JobSeq: 1})
			},
			[]string{"call after the result: job a: called 2s after its result was stored"},
		},
		"a missing dead letter": {
			func(w *world) { w.Dead = nil },
			[]string{"no dead letter: job c: it failed and has no dead letter"},
		},
		"a dead letter of another life": {
			func(w *world) { w.Dead[0].JobSeq = 2 },
			[]string{
				"unfounded: job c: the dead letter is of job message 2, the result of 3",
				"no dead letter: job c: it failed and has no dead letter",
			},
		},
		"a dead letter of a job that succeeded": {
			func(w *world) { w.bury("a", 1) },
			[]string{"unfounded: job a: there is a dead letter, but no failed result"},
		},
		"a call that nobody tells of": {
			func(w *world) { w.call("c", 3, 500) },
			[]string{"unexplained call: job c: the provider saw 2 calls, the workers tell of 1"},
		},
		"a call for a job that never was": {
			func(w *world) { w.call("z", 3, 500) },
			[]string{"unexplained call: job z: the provider saw 1 calls, the workers tell of 0"},
		},
		"an unknown outcome without a crash": {
			func(w *world) { w.Events = w.Events[:4] },
			[]string{
				"unexplained unknown outcome: job d: attempt 1 is unknown, and the job was never handed out again",
				"paid twice: job d: 2 good answers, and it was never handed out again",
			},
		},
		"bytes that are no result": {
			func(w *world) { w.Results[0].Data = []byte("{") },
			[]string{"unreadable: job a: result 1: ", "lost: job a: job message 1 has no result and is not in the queue", "unexplained call: job a: "},
		},
		"bytes that are no event": {
			func(w *world) { w.Events[0].Data = nil },
			[]string{"unreadable: job a: event 1: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			c.plant(w)
			found := Check(&w.Evidence).Findings
			require.Len(t, found, len(c.want), "%v", found)
			for i, want := range c.want {
				require.True(t, strings.HasPrefix(found[i].String(), want), "%s", found[i])
			}
		})
	}
}

func TestACallOnItsWayIsNoCallAfterTheResult(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.event("a", job.EventAttemptStarted, attempt(1, "", 9.9))
	w.call("a", 10.2, 0)
	r := Check(&w.Evidence)
	require.Empty(t, r.Findings)
	require.Equal(t, 1, r.Crossed)
}

func TestACallOfAWorkerThatWasCutOffIsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.call("d", 3, 500)
	r := Check(&w.Evidence)
	require.Empty(t, r.Findings)
	require.Equal(t, 1, r.Untold)
}

func TestTheFateOfAnUnknownCall(t *testing.T) {
	t.Parallel()
	for want, call := range map[Fate]*Call{
		Answered: {Time: at(1.1), Status: 200, Whole: true},
		Failed:   {Time: at(1.1), Status: 503},
		Cut:      {Time: at(1.1), Aborted: true},
		NotMade:  nil,
	} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.Calls = w.Calls[:4]
			if call != nil {
				call.Job = "d"
				w.Calls = append(w.Calls, *call)
			}
			w.call("d", 5.01, 200)
			r := Check(&w.Evidence)
			require.Empty(t, r.Findings)
			require.Equal(t, map[Fate]int{want: 1}, r.Unknown)
		})
	}
}

func TestReadCalls(t *testing.T) {
	t.Parallel()
	calls, err := ReadCalls(strings.NewReader(`{"time":"2026-01-01T00:00:01Z","job":"a","provider":"p","status":200,"whole":true}` + "\n" + `{"job":"b","aborted":true}` + "\n"))
	require.NoError(t, err)
	require.Equal(t, []Call{{Time: at(1), Job: "a", Provider: "p", Status: 200, Whole: true}, {Job: "b", Aborted: true}}, calls)

	_, err = ReadCalls(strings.NewReader("{}\n{\n"))
	require.ErrorContains(t, err, "call log, line 2: ")
	_, err = ReadCalls(strings.NewReader(strings.Repeat("x", maxLine+1)))
	require.ErrorContains(t, err, "call log: ")
}

func TestTheReportIsForPeople(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.Dead = nil
	var out bytes.Buffer
	require.NoError(t, Check(&w.Evidence).Write(&out))
	for _, want := range []string{
		"jobs accepted           4\n", "unknown outcomes        1\n       1  the provider answered, the worker was gone\n",
		"no dead letter               1\n", "lost                         0\n", "\nno dead letter: job c: it failed and has no dead letter\n",
	} {
		require.Contains(t, out.String(), want)
	}
	require.ErrorContains(t, Check(&w.Evidence).Write(full{}), "full")
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("full") }

// TestACallBecauseTheServerHadForgottenIsNoFinding pins that it is one without
// such a time, and when all calls were on one side of it.
func TestACallBecauseTheServerHadForgottenIsNoFinding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		amnesia   []Span
		forgotten int
	}{
		{nil, 0},
		{[]Span{{at(3), at(4)}}, 1},
		{[]Span{{at(0.1), at(0.2)}, {at(6), at(7)}}, 0},
		{[]Span{{at(0.5), at(1.5)}}, 1},
	} {
		w := newWorld()
		w.call("a", 5, 200)
		w.Amnesia = c.amnesia
		r := Check(&w.Evidence)
		require.Equal(t, c.forgotten, r.Forgotten)
		require.Len(t, r.Findings, 2*(1-c.forgotten), "%v", r.Findings)

		w.event("a", job.EventAttemptStarted, attempt(1, "", 5)) // the second worker told of its call
		r = Check(&w.Evidence)
		require.Equal(t, c.forgotten, r.Forgotten)
		require.Len(t, r.Findings, 1-c.forgotten, "%v", r.Findings)
	}
}
