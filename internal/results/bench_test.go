package results

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
	"understudy/internal/queue"
)

// benchStore is a Store over an in-process server, whose own work is measured too.
func benchStore(b *testing.B) (*Store, *Outbox) {
	b.Helper()
	srv := natstest.RunWith(b, natstest.Options{})
	nc := srv.Conn(b)
	js, err := jetstream.New(nc)
	require.NoError(b, err)
	subjects, err := job.NewSubjects("llm")
	require.NoError(b, err)
	_, err = queue.Layout{Subjects: subjects}.Ensure(b.Context(), js, []string{"default"})
	require.NoError(b, err)
	s, err := Open(b.Context(), nc, js, subjects)
	require.NoError(b, err)
	require.NoError(b, s.BatchReads(b.Context()))
	o, err := NewOutbox(nc, nil, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan struct{})
	go func() { // ends in the cleanup
		defer close(ended)
		o.Run(ctx)
	}()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	return s, o
}

// jobsAtOnce is as many goroutines on each processor as a worker with the default
// slots has on two.
const jobsAtOnce = 32

func BenchmarkCommit(b *testing.B) {
	s, _ := benchStore(b)
	var n atomic.Int64
	b.SetParallelism(jobsAtOnce)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Commit(b.Context(), result("j"+strconv.FormatInt(n.Add(1), 10), 600), 1, 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkRecall(b *testing.B) {
	for name, delivery := range map[string]int{"in bulk": 1, "at the leader": 2} {
		b.Run(name, func(b *testing.B) {
			s, _ := benchStore(b)
			var n atomic.Int64
			b.SetParallelism(jobsAtOnce)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := "j" + strconv.FormatInt(n.Add(1), 10)
					if _, _, err := s.Recall("default", id, Holder{Worker: "w-1", JobSeq: 1, Delivery: delivery}).Wait(b.Context()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkEmit(b *testing.B) {
	_, o := benchStore(b)
	report := job.Report{Worker: "w-1", Type: job.EventAttemptSucceeded, Subject: "a", Time: time.Now()}
	attempt := job.Attempt{N: 1, Backend: "vllm", Outcome: job.OutcomeSucceeded}
	require.NoError(b, o.EmitStored(b.Context(), "llm.events.default.a", report.Attempt(&attempt), ""))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for o.behind.Load() > outboxSize/2 { // the stream stores no faster
			runtime.Gosched()
		}
		o.Emit("llm.events.default.a", report.Attempt(&attempt), "")
	}
	b.StopTimer()
	if n := o.Dropped(); n > 0 {
		b.Errorf("%d were dropped", n)
	}
}
