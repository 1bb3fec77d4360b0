package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
	"understudy/internal/worker"
)

func TestAHealthyInstallationHasNoFindingAboveANote(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	seq := b.job("default", "a")
	b.event("a", "w-1", job.EventReceived, time.Now(), job.Received{Queue: "default", Delivery: 1, JobSeq: seq})
	b.result("a", job.Succeeded, seq)
	b.event("a", "w-1", job.EventCompleted, time.Now(), job.Completed{Queue: "default", Status: job.Succeeded})
	b.finish("default")
	findings := b.examine()
	require.Empty(t, bad(findings))
	fine := make(map[string]int)
	for _, f := range findings {
		if f.Level == OK {
			fine[f.Check]++
			require.Empty(t, f.Mend, "%+v", f)
		} else {
			require.Equal(t, "server.sync", f.Check, "%+v", f) // only the system account could tell
		}
	}
	delete(fine, "account.storage") // the server may have limits of its own
	delete(fine, "account.memory")
	require.Equal(t, map[string]int{
		"server.version": 1, "server.payload": 1, "server.jetstream": 1, "stream.settings": 4, "clock.server": 1,
		"worker.version": 1, "worker.events": 1, "worker.clock": 1, "consumer.settings": 2, "dead.letters": 1, "permission.publish": 1,
	}, fine)
	require.Equal(t, Note, Worst(findings))
}

func TestAnExaminationChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.job("default", "a")
	b.letter("x", "timeout", `{}`)
	before := b.everything()
	writes, err := b.nc.SubscribeSync("$JS.API.>")
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	b.examine()
	b.reconcile(nil)
	require.Equal(t, before, b.everything())
	for msg, err := writes.NextMsg(100 * time.Millisecond); err == nil; msg, err = writes.NextMsg(100 * time.Millisecond) {
		for _, verb := range []string{"CREATE", "UPDATE", "DELETE", "PURGE", "PAUSE", "NEXT"} {
			require.NotContains(t, msg.Subject, verb)
		}
	}
}

// everything is what the server has, but for what only looking changes.
func (b *bundle) everything() map[string]any {
	b.t.Helper()
	all := make(map[string]any)
	for s := range b.js.ListStreams(b.t.Context()).Info() {
		all[s.Config.Name], all[s.Config.Name+" state"] = s.Config, s.State
		stream, err := b.js.Stream(b.t.Context(), s.Config.Name)
		require.NoError(b.t, err)
		for c := range stream.ListConsumers(b.t.Context()).Info() {
			all[s.Config.Name+"/"+c.Name] = []any{c.Config, c.Delivered.Consumer, c.NumPending}
		}
	}
	return all
}

func TestEachFaultIsFound(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		plant func(b *bundle)
		want  string // words; the end may be left out
	}{
		"a stream is missing": {
			func(b *bundle) { require.NoError(b.t, b.js.DeleteStream(b.t.Context(), "LLM_EVENTS")) },
			"problem | stream.missing | LLM_EVENTS | the stream does not exist | start a worker: it makes the streams that are missing",
		},
		"jobs age": {
			func(b *bundle) { b.edit("LLM_JOBS", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }) },
			"problem | stream.settings | LLM_JOBS | max_age is 1h0m0s, wants 0s: jobs vanish by themselves | nats stream edit LLM_JOBS --max-age=0s",
		},
		"results age early": {
			func(b *bundle) { b.edit("LLM_RESULTS", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }) },
			"note | stream.environment | LLM_RESULTS | keeps messages for 1h0m0s; WORKER_RESULTS_MAX_AGE here says 168h0m0s | WORKER_RESULTS_MAX_AGE=1h0m0s, or nats stream edit LLM_RESULTS --max-age=168h0m0s",
		},
		"events age before results": {
			func(b *bundle) { b.edit("LLM_EVENTS", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }) },
			"note | events.shorter | LLM_EVENTS | events are kept for 1h0m0s, results for 168h0m0s: the story of older results is gone | nats stream edit LLM_EVENTS --max-age=168h0m0s, and WORKER_EVENTS_MAX_AGE",
		},
		"the wrong retention": {
			func(b *bundle) {
				b.remake("LLM_JOBS", func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy })
			},
			"problem | stream.settings | LLM_JOBS | retention is Limits, wants WorkQueue: finished jobs do not leave the stream | it cannot be changed: stop the workers, nats stream backup LLM_JOBS,",
		},
		"jobs in memory": {
			func(b *bundle) {
				b.remake("LLM_JOBS", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage })
			},
			"problem | stream.settings | LLM_JOBS | storage is Memory, wants File: a restart of the server loses everything | it cannot",
		},
		"a full stream throws away": {
			func(b *bundle) {
				b.edit("LLM_DEAD", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld })
			},
			"problem | stream.settings | LLM_DEAD | discard is DiscardOld, wants DiscardNew: a full stream throws away instead of telling | nats stream edit LLM_DEAD --discard=new",
		},
		"several jobs of one id": {
			func(b *bundle) {
				b.edit("LLM_JOBS", func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject, c.MaxMsgsPerSubject = false, 5 })
			},
			"problem | stream.settings | LLM_JOBS | max_msgs_per_subject is 5, wants 1: one id is one job, and one result, only with 1; a job's story needs all its events | nats stream edit LLM_JOBS --max-msgs-per-subject=1",
		},
		"no republish": {
			func(b *bundle) {
				b.edit("LLM_RESULTS", func(c *jetstream.StreamConfig) { c.RePublish = nil })
			},
			"problem | stream.settings | LLM_RESULTS | republish.dest is , wants llm.done.>: nobody who awaits a result hears of it | nats stream edit LLM_RESULTS --republish-source='llm.results.>' --republish-destination='llm.done.>'",
		},
		"no direct get": {
			func(b *bundle) {
				b.edit("LLM_RESULTS", func(c *jetstream.StreamConfig) { c.AllowDirect = false })
			},
			"warning | stream.settings | LLM_RESULTS | allow_direct is false, wants true: reading many results is slow, and submit reconcile cannot | nats stream edit LLM_RESULTS --allow-direct",
		},
		"a stream is nearly full": {
			func(b *bundle) {
				b.edit("LLM_JOBS", func(c *jetstream.StreamConfig) { c.MaxMsgs = 5 })
				for _, id := range []string{"a", "b", "c", "d"} {
					b.job("default", id)
				}
			},
			"warning | stream.full | LLM_JOBS | 4 of max_msgs 5 are used | nats stream edit LLM_JOBS --max-msgs=…, or take out what is old",
		},
		"a stream is full": {
			func(b *bundle) {
				b.edit("LLM_DEAD", func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
				b.letter("a", "timeout", "{}")
			},
			"problem | stream.full | LLM_DEAD | 1 of max_msgs 1 are used: the next message is refused |",
		},
		"a short lease": {
			func(b *bundle) {
				b.editConsumer(func(c *jetstream.ConsumerConfig) { c.AckWait = 5 * time.Second })
			},
			"problem | consumer.settings | LLM_JOBS/q-default | ack_wait is 5s, shorter than three heartbeats (22.5s): jobs are handed out while they run | nats consumer edit LLM_JOBS q-default --wait=30s",
		},
		"a long lease": {
			func(b *bundle) { b.editConsumer(func(c *jetstream.ConsumerConfig) { c.AckWait = time.Hour }) },
			"warning | consumer.settings | LLM_JOBS/q-default | ack_wait is 1h0m0s, wants 30s: a dead worker's jobs come back after that time | nats consumer edit LLM_JOBS q-default --wait=30s",
		},
		"few deliveries": {
			func(b *bundle) { b.editConsumer(func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }) },
			"problem | consumer.settings | LLM_JOBS/q-default | max_deliver is 5, wants -1: a job that was handed out so often stays in the stream for ever | nats consumer edit LLM_JOBS q-default --max-deliver=-1",
		},
		"few at once": {
			func(b *bundle) { b.editConsumer(func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 100 }) },
			"warning | consumer.settings | LLM_JOBS/q-default | max_ack_pending is 100, wants -1: jobs that wait keep others from running | nats consumer edit LLM_JOBS q-default --max-pending=-1",
		},
		"a backoff": {
			func(b *bundle) {
				b.editConsumer(func(c *jetstream.ConsumerConfig) { c.BackOff = []time.Duration{30 * time.Second, time.Minute} })
			},
			"problem | consumer.settings | LLM_JOBS/q-default | backoff has 2 steps: it replaces ack_wait, and jobs are handed out while they run | nats consumer edit LLM_JOBS q-default --backoff=none",
		},
		"a consumer is gone": {
			func(b *bundle) { require.NoError(b.t, b.js.DeleteConsumer(b.t.Context(), "LLM_JOBS", "q-low")) },
			"problem | consumer.missing | LLM_JOBS/q-low | the consumer of queue low does not exist, though a worker serves the queue | the worker makes it within half a minute;",
		},
		"a paused consumer": {
			func(b *bundle) {
				_, err := b.js.PauseConsumer(b.t.Context(), "LLM_JOBS", "q-low", time.Now().Add(90*time.Minute))
				require.NoError(b.t, err)
			},
			"problem | consumer.paused | LLM_JOBS/q-low | is paused for another 1h: its jobs do not run | nats consumer resume LLM_JOBS q-low",
		},
		"a foreign consumer": {
			func(b *bundle) {
				_, err := b.js.CreateConsumer(b.t.Context(), "LLM_JOBS", jetstream.ConsumerConfig{
					Durable: "mine", FilterSubject: "llm.jobs.mine.>", AckPolicy: jetstream.AckExplicitPolicy,
				})
				require.NoError(b.t, err)
			},
			"problem | consumer.foreign | LLM_JOBS/mine | no worker made this consumer: jobs on llm.jobs.mine.> go to it, and keep a worker from serving them | nats consumer rm LLM_JOBS mine",
		},
		"consumers that overlap": {
			func(b *bundle) {
				b.remake("LLM_JOBS", func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy })
				b.ensure("default", "low")
				_, err := b.js.CreateConsumer(b.t.Context(), "LLM_JOBS", jetstream.ConsumerConfig{
					Durable: "a-copy", FilterSubject: "llm.jobs.*.b", AckPolicy: jetstream.AckExplicitPolicy,
				})
				require.NoError(b.t, err)
			},
			"problem | consumer.overlap | LLM_JOBS/a-copy | gets jobs that q-default gets too: they run twice |",
		},
		"a queue stands still": {
			func(b *bundle) { b.job("default", "a") },
			"problem | consumer.stalled | LLM_JOBS/q-default | 1 job wait and nobody asks for them, though 0 slots of the workers' 4 slots are taken | look at /readyz",
		},
		"the workers are full": {
			func(b *bundle) {
				for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
					b.job("default", id)
				}
				for range 4 {
					b.take("default")
				}
			},
			"note | consumer.busy | LLM_JOBS/q-default | 2 jobs wait while all 4 slots of the workers are taken | raise WORKER_CONCURRENCY, or start more workers",
		},
		"a queue nobody serves": {
			func(b *bundle) {
				b.ensure("other")
				b.job("other", "a")
			},
			"problem | consumer.unserved | LLM_JOBS/q-other | no worker serves queue other, where 1 job wait | WORKER_QUEUES of a worker must name other",
		},
		"jobs that came again": {
			func(b *bundle) {
				b.job("default", "a")
				require.NoError(b.t, b.take("default").Nak())
				b.take("default")
			},
			"note | consumer.redelivered | LLM_JOBS/q-default | 1 job came again: after a wait, or after a worker lost it | submit reconcile -queue default tells which, and why",
		},
		"jobs of a queue without a consumer": {
			func(b *bundle) {
				b.later = 3 * time.Hour
				b.job("typo", "a")
				b.job("typo", "b")
			},
			"problem | queue.unserved | queue typo | 2 jobs that no consumer takes, the oldest since 3h | start a worker with typo in its WORKER_QUEUES; one that serves it already makes the consumer by itself; submit reconcile lists the jobs",
		},
		"an address that cannot be": {
			func(b *bundle) { b.publish("llm.jobs.default.a$b", []byte("{}")) },
			`problem | queue.address | LLM_JOBS | 1 job at an address that cannot be one, such as "default.a$b": id: '$' is not allowed; use A-Z a-z 0-9 _ - | publish under`,
		},
		"an old job": {
			func(b *bundle) {
				b.later = 20 * time.Minute
				b.job("low", "a")
			},
			"note | queue.age | queue low | 1 job, the oldest since 20m | submit reconcile -queue low tells what it waits for",
		},
		"a very old job": {
			func(b *bundle) {
				b.later = 50 * time.Hour
				b.job("low", "a")
			},
			"warning | queue.age | queue low | 1 job, the oldest since 2d | submit reconcile",
		},
		"dead letters": {
			func(b *bundle) {
				b.letter("a", "quota", "{}")
				b.letter("b", "quota", "{}")
			},
			"warning | dead.letters | LLM_DEAD | 2 dead letters: quota, the oldest since 0s, the newest since 0s | submit dead ls -class quota; when the cause is mended, submit dead redrive -all -class quota",
		},
		"a letter that is none": {
			func(b *bundle) { b.publish("llm.dead.default.a", []byte("junk")) },
			"warning | dead.unreadable | LLM_DEAD | 1 message in the stream that no worker wrote | submit dead ls names them; nats stream rmm LLM_DEAD SEQ removes one",
		},
		"a payload without a letter": {
			func(b *bundle) { b.object("llm.dead.default.gone@7") },
			"note | dead.orphan | LLM_DEAD_PAYLOADS | 1 payload without a dead letter, such as llm.dead.default.gone@7: redriven or purged ones leave it behind | submit dead purge -orphans",
		},
		"a letter without its payload": {
			func(b *bundle) { b.letter("a", "timeout", `{"object":"llm.dead.default.a@3","bytes":12}`) },
			"problem | dead.payload | LLM_DEAD_PAYLOADS | the payload of dead letter llm.dead.default.a@3 is gone: it cannot be redriven | publish the job again from its source, then remove the letter",
		},
		"results without events": {
			func(b *bundle) { b.result("a", job.Succeeded, 1) },
			"warning | events.missing | LLM_EVENTS | results are stored and events are not: the newest event is older than the newest result | see the metric",
		},
		"two of a name": {
			func(b *bundle) { b.worker("w-1", nil) },
			"warning | worker.name | worker w-1 | 2 workers have this name: what they did to a job cannot be told apart | WORKER_NAME: another one for each worker, or none",
		},
		"two versions": {
			func(b *bundle) { b.worker("w-2", func(s *says) { s.version = "1.1.0" }) },
			"warning | worker.version | workers | run different versions: 1.0.0, 1.1.0 | finish the upgrade",
		},
		"another installation": {
			func(b *bundle) { b.worker("w-2", func(s *says) { s.prefix = "test" }) },
			"note | worker.prefix | workers | 1 worker of another installation in this account: WORKER_SUBJECT_PREFIX is not llm there |",
		},
		"an old worker": {
			func(b *bundle) { b.worker("w-2", func(s *says) { s.silent = true }) },
			"note | worker.silent | worker w-2 | does not tell its clock and its dropped events: it is of an older version, or did not answer in time |",
		},
		"dropped events": {
			func(b *bundle) { b.worker("w-2", func(s *says) { s.status = &worker.Status{DroppedEvents: 3} }) },
			"warning | worker.events | worker w-2 | has dropped 3 events since its start: what happened to some jobs is not recorded | see that the stream LLM_EVENTS has room and a leader",
		},
		"a clock behind": {
			func(b *bundle) { b.worker("w-2", func(s *says) { s.skew = -time.Hour }) },
			"warning | worker.clock | worker w-2 | its clock is 1h0m0s behind this machine's: deadlines and ages are off by that | synchronise the clocks (NTP)",
		},
		"this clock ahead": {
			func(b *bundle) { b.later = time.Hour },
			"warning | clock.server | ",
		},
		"copies without a cluster": {
			func(b *bundle) { b.layout.Replicas = 3 },
			"problem | server.cluster | ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			tc.plant(b)
			var all []string
			for _, f := range b.examine() {
				all = append(all, words(f))
			}
			n := 0
			for _, said := range all {
				if strings.HasPrefix(said, tc.want) {
					n++
				}
			}
			require.Equal(t, 1, n, "%s\nin:\n%s", tc.want, strings.Join(all, "\n"))
		})
	}
}

// object puts an object into the store of payloads.
func (b *bundle) object(name string) {
	b.t.Helper()
	store, err := b.js.CreateOrUpdateObjectStore(b.t.Context(), jetstream.ObjectStoreConfig{Bucket: "LLM_DEAD_PAYLOADS"})
	require.NoError(b.t, err)
	_, err = store.PutBytes(b.t.Context(), name, []byte("payload"))
	require.NoError(b.t, err)
	_, err = store.PutBytes(b.t.Context(), "deleted", []byte("payload"))
	require.NoError(b.t, err)
	require.NoError(b.t, store.Delete(b.t.Context(), "deleted"))
}

func TestAPayloadOfALetterIsNoOrphan(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.letter("a", "timeout", `{"object":"llm.dead.default.a@3","bytes":7}`)
	b.object("llm.dead.default.a@3")
	var checks []string
	for _, f := range b.examine() {
		if f.Level != OK {
			checks = append(checks, f.Check)
		}
	}
	require.Equal(t, []string{"server.sync", "dead.letters"}, checks)
}

func TestWithoutAWorkerJobsAreAProblem(t *testing.T) {
	t.Parallel()
	b := bareBundle(t, natstest.Options{})
	b.ensure("default")
	require.Equal(t, "warning | worker.none | workers | no worker answers | start a worker, with the same NATS_URL and WORKER_SUBJECT_PREFIX",
		words(found(t, b.examine(), "worker.none", "workers")))
	b.job("default", "a")
	findings := b.examine()
	require.Equal(t, "problem | worker.none | workers | no worker answers, and 1 job in the queues | start a worker, with the same NATS_URL and WORKER_SUBJECT_PREFIX",
		words(found(t, findings, "worker.none", "workers")))
	require.Equal(t, "1 job wait and nobody asks for them", found(t, findings, "consumer.stalled", "LLM_JOBS/q-default").What)
	require.Equal(t, Problem, Worst(findings))
}

func TestAServerWithoutStreamsOrWithoutJetStream(t *testing.T) {
	t.Parallel()
	b := bareBundle(t, natstest.Options{})
	missing := 0
	for _, f := range b.examine() {
		if f.Check == "stream.missing" {
			missing++
		}
	}
	require.Equal(t, 4, missing)
	b = bareBundle(t, natstest.Options{Config: `accounts { A { users: [{user: u, password: p}] } }`}, nats.UserInfo("u", "p"))
	findings := b.examine(nats.UserInfo("u", "p"))
	problems := bad(findings)
	require.Len(t, problems, 2, "%+v", problems)
	require.Equal(t, "server.jetstream", problems[0].Check)
	require.Equal(t, "start the server with -js, and enable JetStream for the account", problems[0].Mend)
	require.Equal(t, "worker.none", problems[1].Check)
}

func TestASmallServerIsTold(t *testing.T) {
	t.Parallel()
	b := bareBundle(t, natstest.Options{MaxPayload: 64 << 10})
	var got Finding
	for _, f := range b.examine() {
		if f.Check == "server.payload" {
			got = f
		}
	}
	require.Equal(t, Warning, got.Level)
	require.Equal(t, "a message takes 65536 bytes at most: longer jobs are refused, longer answers fail as too_large", got.What)
}

func TestALostConnectionEndsTheExamination(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	nc := b.srv.Conn(t, nats.NoReconnect())
	b.srv.Stop(t)
	require.Eventually(t, nc.IsClosed, patience, 5*time.Millisecond)
	_, err := Examine(t.Context(), Config{Conn: nc, Layout: b.layout})
	require.ErrorContains(t, err, "the connection to NATS is lost: ")
}

func TestManyInventedQueuesAreNotAskedForOneByOne(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for i := range maxQueues + 3 {
		b.job(fmt.Sprintf("q%04d", i), "a")
	}
	findings := b.examine()
	require.Equal(t, "jobs are in 203 queues; 3 of them were not looked at", found(t, findings, "queue.unserved", "queues").What)
	found(t, findings, "queue.unserved", "queue q0199")
	for _, f := range findings {
		require.NotEqual(t, "queue q0200", f.Where)
	}
}
