package queue

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

func TestEnsureMakesTheStreamsAsPromised(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{EventsMaxAge: 48 * time.Hour}, "default")
	for name, want := range map[string]struct {
		subjects            []string
		retention           jetstream.RetentionPolicy
		discard             jetstream.DiscardPolicy
		perSubject          int64
		discardNewPerSubjct bool
		maxAge              time.Duration
		republish           *jetstream.RePublish
	}{
		"LLM_JOBS": {
			subjects: []string{"llm.jobs.*.>"}, retention: jetstream.WorkQueuePolicy,
			discard: jetstream.DiscardNew, perSubject: 1, discardNewPerSubjct: true,
		},
		"LLM_RESULTS": {
			subjects: []string{"llm.results.>"}, discard: jetstream.DiscardNew, perSubject: 1, maxAge: 168 * time.Hour,
			republish: &jetstream.RePublish{Source: "llm.results.>", Destination: "llm.done.>"},
		},
		"LLM_EVENTS": {subjects: []string{"llm.events.>", "llm.breakers.>"}, perSubject: -1, maxAge: 48 * time.Hour},
		"LLM_DEAD":   {subjects: []string{"llm.dead.>"}, discard: jetstream.DiscardNew, perSubject: 1},
	} {
		s, err := b.js.Stream(t.Context(), name)
		require.NoError(t, err)
		have := s.CachedInfo().Config
		require.Equal(t, want.subjects, have.Subjects, name)
		require.Equal(t, want.retention, have.Retention, name)
		require.Equal(t, want.discard, have.Discard, name)
		require.Equal(t, want.perSubject, have.MaxMsgsPerSubject, name)
		require.Equal(t, want.discardNewPerSubjct, have.DiscardNewPerSubject, name)
		require.Equal(t, want.maxAge, have.MaxAge, name)
		require.Equal(t, want.republish, have.RePublish, name)
		require.Equal(t, jetstream.FileStorage, have.Storage, name)
		require.Equal(t, 1, have.Replicas, name)
		require.True(t, have.AllowDirect, name)
		require.False(t, have.NoAck, name)
		require.False(t, have.DenyDelete, name)
		require.Equal(t, [3]int64{-1, -1, -1}, [3]int64{have.MaxMsgs, have.MaxBytes, int64(have.MaxMsgSize)}, name)
	}
}

func TestEnsureMakesTheConsumerAsPromised(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lease, want time.Duration
	}{
		"the default lease": {0, 30 * time.Second},
		"another lease":     {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, Layout{Lease: tc.lease}, "high", "low")
			for _, queue := range []string{"high", "low"} {
				have := b.info(queue).Config
				require.Equal(t, "q-"+queue, have.Durable)
				require.Equal(t, "llm.jobs."+queue+".>", have.FilterSubject)
				require.Equal(t, jetstream.AckExplicitPolicy, have.AckPolicy)
				require.Equal(t, jetstream.DeliverAllPolicy, have.DeliverPolicy)
				require.Equal(t, tc.want, have.AckWait)
				require.Equal(t, -1, have.MaxDeliver)
				require.Equal(t, -1, have.MaxAckPending)
				require.Empty(t, have.BackOff)
				require.Zero(t, have.InactiveThreshold)
			}
		})
	}
}

func TestEnsureIsIdempotentAndFindsNoDifferences(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "default", "high")
	b.publish("default", "kept")
	for range 2 {
		diffs, err := b.layout.Ensure(t.Context(), b.js, b.queues)
		require.NoError(t, err)
		require.Empty(t, diffs)
	}
	require.Equal(t, uint64(1), b.stored())
}

func TestWorkersThatStartTogetherAgree(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	layout := Layout{Subjects: subjects(t)}
	const workers = 8
	var wg sync.WaitGroup
	errs, diffs := make([]error, workers), make([][]Difference, workers)
	for i := range workers {
		js := srv.JetStream(t)
		wg.Go(func() { diffs[i], errs[i] = layout.Ensure(t.Context(), js, []string{"high", "default", "low"}) })
	}
	wg.Wait()
	for i := range workers {
		require.NoError(t, errs[i])
		require.Empty(t, diffs[i])
	}
	js := srv.JetStream(t)
	var streams []string
	for name := range js.StreamNames(t.Context()).Name() {
		streams = append(streams, name)
	}
	require.ElementsMatch(t, []string{"LLM_JOBS", "LLM_RESULTS", "LLM_EVENTS", "LLM_DEAD"}, streams)
}

func TestEnsureAltersNothingAndNamesEachDifference(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	js := srv.JetStream(t)
	layout := Layout{Subjects: subjects(t), Replicas: 1}
	for _, cfg := range []jetstream.StreamConfig{
		{Name: "LLM_JOBS", Subjects: []string{"llm.jobs.default.>"}, Storage: jetstream.MemoryStorage, MaxAge: time.Hour},
		{
			Name: "LLM_RESULTS", Subjects: []string{"llm.results.>"}, MaxMsgsPerSubject: 5, Discard: jetstream.DiscardNew,
			RePublish: &jetstream.RePublish{Source: ">", Destination: "other.>"}, AllowDirect: true,
		},
		{Name: "LLM_EVENTS", Subjects: []string{"llm.breakers.>", "llm.events.>"}, MaxMsgsPerSubject: 7, MaxAge: DefaultMaxAge, AllowDirect: true},
		{Name: "LLM_DEAD", Subjects: []string{"llm.dead.>"}, NoAck: true, MaxMsgsPerSubject: 1, AllowDirect: true},
	} {
		_, err := js.CreateStream(t.Context(), cfg)
		require.NoError(t, err)
	}
	_, err := js.CreateConsumer(t.Context(), "LLM_JOBS", jetstream.ConsumerConfig{
		Durable: "q-default", FilterSubject: "llm.jobs.default.a", AckPolicy: jetstream.AckAllPolicy,
		AckWait: 5 * time.Second, MaxDeliver: 4, MaxAckPending: 20, BackOff: []time.Duration{5 * time.Second},
	})
	require.NoError(t, err)
	before := everything(t, js)

	diffs, err := layout.Ensure(t.Context(), js, []string{"default"})
	require.NoError(t, err)

	require.Equal(t, before, everything(t, js))
	var said []string
	for _, d := range diffs {
		said = append(said, d.String())
	}
	require.Equal(t, []string{
		"LLM_JOBS: subjects is [llm.jobs.default.>], wants [llm.jobs.*.>]",
		"LLM_JOBS: retention is Limits, wants WorkQueue",
		"LLM_JOBS: storage is Memory, wants File",
		"LLM_JOBS: allow_direct is false, wants true",
		"LLM_JOBS: max_age is 1h0m0s, wants 0s",
		"LLM_JOBS: max_msgs_per_subject is 0, wants 1",
		"LLM_JOBS: discard_new_per_subject is false, wants true",
		"LLM_JOBS: discard is DiscardOld, wants DiscardNew",
		"LLM_RESULTS: max_age is 0s, wants 168h0m0s",
		"LLM_RESULTS: max_msgs_per_subject is 5, wants 1",
		"LLM_RESULTS: republish.dest is other.>, wants llm.done.>",
		"LLM_EVENTS: max_msgs_per_subject is 7, wants 0",
		"LLM_DEAD: no_ack is true, wants false",
		"LLM_DEAD: discard is DiscardOld, wants DiscardNew",
		"LLM_JOBS/q-default: filter_subject is llm.jobs.default.a, wants llm.jobs.default.>",
		"LLM_JOBS/q-default: ack_policy is AckAll, wants AckExplicit",
		"LLM_JOBS/q-default: ack_wait is 5s, wants 30s",
		"LLM_JOBS/q-default: max_deliver is 4, wants -1",
		"LLM_JOBS/q-default: max_ack_pending is 20, wants -1",
		"LLM_JOBS/q-default: backoff is 1, wants 0",
	}, said)
}

func everything(t *testing.T, js jetstream.JetStream) map[string]any {
	t.Helper()
	all := make(map[string]any)
	for s := range js.ListStreams(t.Context()).Info() {
		all[s.Config.Name] = s.Config
		stream, err := js.Stream(t.Context(), s.Config.Name)
		require.NoError(t, err)
		for c := range stream.ListConsumers(t.Context()).Info() {
			all[s.Config.Name+"/"+c.Name] = c.Config
		}
	}
	return all
}

func TestEnsureSaysWhichObjectItCouldNotMake(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	js := srv.JetStream(t)
	layout := Layout{Subjects: subjects(t)}
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "TAKEN", Subjects: []string{"llm.dead.>"}})
	require.NoError(t, err)
	_, err = layout.Ensure(t.Context(), js, nil)
	require.ErrorContains(t, err, "create stream LLM_DEAD: ")
	require.NoError(t, js.DeleteStream(t.Context(), "TAKEN"))
	_, err = layout.Ensure(t.Context(), js, nil)
	require.NoError(t, err)
	_, err = js.CreateConsumer(t.Context(), "LLM_JOBS", jetstream.ConsumerConfig{
		Durable: "mine", FilterSubject: "llm.jobs.default.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	_, err = layout.Ensure(t.Context(), js, []string{"default"})
	require.ErrorContains(t, err, "create consumer q-default: ")
}

func TestOneQueuedOrRunningJobPerID(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	publish := func() error {
		_, err := b.js.Publish(t.Context(), "llm.jobs.default.a", []byte("{}"))
		return err
	}
	refused := func(err error) {
		t.Helper()
		var api *jetstream.APIError
		require.ErrorAs(t, err, &api)
		require.Equal(t, jetstream.ErrorCode(10077), api.ErrorCode)
		require.Equal(t, "maximum messages per subject exceeded", api.Description)
	}
	require.NoError(t, publish())
	refused(publish()) // while it is queued
	running, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	b.run(b.source(1), func(d *Delivery) {
		running <- struct{}{}
		<-end
		b.ack(d)
		ended <- struct{}{}
	})
	for range 2 {
		receive(t, running)
		refused(publish()) // while it runs
		end <- struct{}{}
		receive(t, ended)
		require.NoError(t, publish())
	}
	receive(t, running)
	end <- struct{}{}
	receive(t, ended)
}

func TestAFullQueueTellsThePublisher(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	cfg := b.layout.Streams()[0]
	cfg.MaxMsgs = 2
	_, err := b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	b.publish("default", "a", "b")
	_, err = b.js.Publish(t.Context(), "llm.jobs.default.c", []byte("{}"))
	var api *jetstream.APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, "maximum messages exceeded", api.Description)
	require.Equal(t, uint64(2), b.stored())
}

func TestOldestIsTheFirstStoredJobOfItsQueue(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "default", "high")
	at, err := b.layout.Oldest(t.Context(), b.js, "default")
	require.NoError(t, err)
	require.Zero(t, at)
	b.publish("high", "x")
	b.publish("default", "a", "b.1.2.3")
	s, err := b.js.Stream(t.Context(), "LLM_JOBS")
	require.NoError(t, err)
	msg, err := s.GetMsg(t.Context(), 2)
	require.NoError(t, err)
	at, err = b.layout.Oldest(t.Context(), b.js, "default")
	require.NoError(t, err)
	require.True(t, msg.Time.Equal(at), "%s %s", msg.Time, at)
	require.NoError(t, b.js.DeleteStream(t.Context(), "LLM_JOBS"))
	_, err = b.layout.Oldest(t.Context(), b.js, "default")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}
