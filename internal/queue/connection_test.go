package queue

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// A server far away: everything takes time, nothing comes twice.
func TestASourceWorksOverASlowLink(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 4 * time.Second})
	link := natstest.RunProxy(t, b.srv.URL)
	const delay = 150 * time.Millisecond
	link.Delay(delay)
	nc, err := nats.Connect(link.URL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	all := ids("j", 64)
	b.publish("default", all...)
	var done handled
	s := b.sourceOn(nc, 16)
	s.hold = pullHold
	require.Greater(t, pullDoubt, 4*delay, "the product does not doubt such a link, nor the source here a busy machine")
	b.run(s, func(d *Delivery) { b.ack(d); done.add(d) })
	until(t, "all are done", func() bool { return done.count() >= len(all) })
	require.ElementsMatch(t, all, done.list())
	require.Equal(t, 1, done.maxNumber())
}

// With the numbers of the product, as a person with a wrong command would.
func TestASourceIsBackSoonAfterItsConsumerWasDeletedUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{})
	all := ids("j", 1000)
	b.publish("default", all...)
	var done handled
	quarter, deleted := make(chan struct{}), make(chan struct{})
	after := make(chan time.Time, 1)
	s := b.source(8)
	s.hold, s.doubt = pullHold, pullDoubt
	b.run(s, func(d *Delivery) {
		if done.add(d) == 250 {
			close(quarter)
			<-deleted
		}
		tryAck(d)
		select {
		case <-deleted:
			if len(after) == 0 && b.consumerIsThere() {
				select {
				case after <- time.Now():
				default: // another was first
				}
			}
		default:
		}
	})
	receive(t, quarter)
	require.NoError(t, b.js.DeleteConsumer(t.Context(), "LLM_JOBS", "q-default"))
	begun := time.Now()
	close(deleted)
	took := receive(t, after).Sub(begun)
	t.Logf("back at work after %s; the promise is 5 s, and `make matrix` holds it", took)
	until(t, "all are done", func() bool { return b.stored() == 0 })
	require.Subset(t, done.list(), all)
}

// consumerIsThere asks the server for the consumer of the default queue.
func (b *bundle) consumerIsThere() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // a handler may run in the cleanup
	defer cancel()
	_, err := b.js.Consumer(ctx, "LLM_JOBS", "q-default")
	return err == nil
}

func TestASourceSurvivesAStormOfResets(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{Lease: 2 * time.Second}, "default", "other")
	all := ids("j", 300)
	b.publish("default", all...)
	b.publish("other", ids("o", 50)...)
	var done handled
	s := b.source(8, nats.ReconnectWait(time.Millisecond))
	s.hold, s.doubt = pullHold, pullDoubt
	b.run(s, func(d *Delivery) { tryAck(d); done.add(d) })
	for n := range 40 { // the connections that are made anew too
		until(t, "it works", func() bool { return done.count() > 5*n })
		until(t, "a connection is reset", func() bool { return b.srv.DropClients(t) > 0 })
	}
	until(t, "all are done", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := b.js.Stream(ctx, "LLM_JOBS")
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
	require.Subset(t, done.list(), append(all, ids("o", 50)...))
	before := s.Health().LastGood
	until(t, "it goes on asking", func() bool { return s.Health().LastGood.After(before) })
}

// What a server that crashed can lose: the consumer, but not the stream.
func TestASourceSurvivesARestartThatLosesTheConsumer(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Layout{}, "default", "other")
	all := ids("j", 100)
	var done handled
	some := make(chan struct{})
	gate := make(chan struct{})
	b.run(b.quick(8), func(d *Delivery) {
		if done.add(d) == 30 {
			close(some)
		}
		if done.count() >= 30 {
			<-gate
		}
		tryAck(d)
	})
	b.publish("default", all...)
	receive(t, some)
	b.srv.Stop(t)
	var removed int
	require.NoError(t, filepath.WalkDir(b.srv.StoreDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || entry.Name() != "obs" {
			return err
		}
		removed++
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		return filepath.SkipDir
	}))
	require.Positive(t, removed, "directories of consumers")
	b.srv.Start(t)
	close(gate)
	until(t, "all are done", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := b.js.Stream(ctx, "LLM_JOBS")
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
	require.Subset(t, done.list(), all)
	require.Equal(t, b.layout.Consumer("default").FilterSubject, b.info("default").Config.FilterSubject)
	require.Equal(t, b.layout.Consumer("other").FilterSubject, b.info("other").Config.FilterSubject)
}
