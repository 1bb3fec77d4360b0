package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"understudy/internal/job"
)

// The numbers of a lease.
const (
	// DefaultLease is how long a dead worker keeps a job: the consumer's AckWait.
	DefaultLease = 30 * time.Second
	// extensions is how often a running job's lease is extended before it would
	// run out. Four survive three lost messages.
	extensions = 4
)

// Defaults of [Layout].
const (
	// DefaultMaxAge is how long results and events are kept: a week.
	DefaultMaxAge = 168 * time.Hour
)

// Layout says how the streams are to be made where they are missing.
type Layout struct {
	Subjects job.Subjects
	// Replicas is the number of copies of each stream; 0 means 1.
	Replicas int
	// ResultsMaxAge and EventsMaxAge are how long results and events are kept;
	// 0 means [DefaultMaxAge].
	ResultsMaxAge, EventsMaxAge time.Duration
	// Lease is how long a dead worker keeps a job; 0 means [DefaultLease].
	Lease time.Duration
}

// lease is Lease or its default.
func (l Layout) lease() time.Duration { return cmp.Or(l.Lease, shortLease(), DefaultLease) }

// Heartbeat is how often a worker extends the lease of a job it runs.
func (l Layout) Heartbeat() time.Duration { return l.lease() / extensions }

// Streams returns the configuration of every stream.
func (l Layout) Streams() []jetstream.StreamConfig {
	s := l.Subjects
	streams := []jetstream.StreamConfig{
		{
			Name: s.JobsStream(), Subjects: []string{s.Prefix() + ".jobs.*.>"}, // a job without an id is refused
			Description: "understudy: queued and running jobs, one per id",
			Retention:   jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
		},
		{
			Name: s.ResultsStream(), Subjects: []string{s.All("results")},
			Description: "understudy: the one final result of each job",
			Discard:     jetstream.DiscardNew, MaxMsgsPerSubject: 1, MaxAge: cmp.Or(l.ResultsMaxAge, DefaultMaxAge),
			RePublish: &jetstream.RePublish{Source: s.All("results"), Destination: s.All("done")},
		},
		{
			Name: s.EventsStream(), Subjects: []string{s.All("events"), s.All("breakers")},
			Description: "understudy: what happened to each job and breaker",
			MaxAge:      cmp.Or(l.EventsMaxAge, DefaultMaxAge),
		},
		{
			Name: s.DeadStream(), Subjects: []string{s.All("dead")},
			Description: "understudy: dead letters",
			Discard:     jetstream.DiscardNew, MaxMsgsPerSubject: 1,
		},
	}
	for i := range streams {
		streams[i].Storage = jetstream.FileStorage
		streams[i].AllowDirect = true
		streams[i].Replicas = max(l.Replicas, 1)
	}
	return streams
}

// Consumer returns the configuration of the consumer of one queue.
func (l Layout) Consumer(queue string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       ConsumerName(queue),
		Description:   "understudy: workers of queue " + queue,
		FilterSubject: l.Subjects.Queue(queue),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       l.lease(),
		MaxDeliver:    -1, // the worker decides what is poison; the server would strand it
		MaxAckPending: -1, // parked jobs keep their place here and must not stall the rest
	}
}

// ConsumerName is the durable consumer of a queue.
func ConsumerName(queue string) string { return "q-" + queue }

// Difference is a setting of an existing stream or consumer that is not what
// this program needs. It is left as it is.
type Difference struct {
	// Object is the stream, or stream/consumer; Setting is the server's name of it.
	Object, Setting string
	// Have and Want are the values.
	Have, Want string
}

// String says it for people.
func (d Difference) String() string {
	return fmt.Sprintf("%s: %s is %s, wants %s", d.Object, d.Setting, d.Have, d.Want)
}

// Ensure creates the streams and the queues' consumers that are missing. It
// alters nothing that exists and returns what differs there.
func (l Layout) Ensure(ctx context.Context, js jetstream.JetStream, queues []string) ([]Difference, error) {
	var diffs []Difference
	for _, want := range l.Streams() {
		have, err := ensureStream(ctx, js, want)
		if err != nil {
			return nil, fmt.Errorf("create stream %s: %w", want.Name, err)
		}
		diffs = append(diffs, compareStream(have, want)...)
	}
	for _, queue := range queues {
		want := l.Consumer(queue)
		have, err := l.ensureConsumer(ctx, js, want)
		if err != nil {
			return nil, fmt.Errorf("create consumer %s: %w", want.Durable, err)
		}
		diffs = append(diffs, compareConsumer(l.Subjects.JobsStream(), have, want)...)
	}
	return diffs, nil
}

// ensureStream returns the stream's configuration as it is on the server.
func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.StreamConfig, error) {
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another worker was first
		stream, err = js.Stream(ctx, want.Name)
	}
	if err != nil {
		return jetstream.StreamConfig{}, err
	}
	return stream.CachedInfo().Config, nil
}

func (l Layout) ensureConsumer(ctx context.Context, js jetstream.JetStream, want jetstream.ConsumerConfig) (jetstream.ConsumerConfig, error) {
	stream := l.Subjects.JobsStream()
	consumer, err := js.Consumer(ctx, stream, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = js.CreateConsumer(ctx, stream, want)
	}
	if errors.Is(err, jetstream.ErrConsumerExists) { // another worker was first
		consumer, err = js.Consumer(ctx, stream, want.Durable)
	}
	if err != nil {
		return jetstream.ConsumerConfig{}, err
	}
	return consumer.CachedInfo().Config, nil
}

// CheckStream lists what differs in one of our streams from what [Layout.Ensure]
// would make; nothing for a stream that is not ours. It asks no server.
func (l Layout) CheckStream(have jetstream.StreamConfig) []Difference {
	for _, want := range l.Streams() {
		if want.Name == have.Name {
			return compareStream(have, want)
		}
	}
	return nil
}

// CheckConsumer is [Layout.CheckStream] for the consumer of a queue.
func (l Layout) CheckConsumer(queue string, have jetstream.ConsumerConfig) []Difference {
	return compareConsumer(l.Subjects.JobsStream(), have, l.Consumer(queue))
}

// compareStream lists what a promise of ours rests on and is not so.
func compareStream(have, want jetstream.StreamConfig) []Difference {
	d := differences{object: want.Name}
	d.add("subjects", slices.Sorted(slices.Values(have.Subjects)), slices.Sorted(slices.Values(want.Subjects)))
	d.add("retention", have.Retention, want.Retention)
	d.add("storage", have.Storage, want.Storage)
	d.add("allow_direct", have.AllowDirect, want.AllowDirect)
	d.add("num_replicas", have.Replicas, want.Replicas)
	d.add("max_age", have.MaxAge, want.MaxAge)
	d.add("max_msgs_per_subject", max(have.MaxMsgsPerSubject, 0), max(want.MaxMsgsPerSubject, 0)) // the server says -1 for no limit
	d.add("no_ack", have.NoAck, want.NoAck)
	d.add("discard_new_per_subject", have.DiscardNewPerSubject, want.DiscardNewPerSubject)
	if want.Discard == jetstream.DiscardNew {
		d.add("discard", have.Discard, want.Discard)
	}
	if want.RePublish != nil {
		var dest string
		if have.RePublish != nil {
			dest = have.RePublish.Destination
		}
		d.add("republish.dest", dest, want.RePublish.Destination)
	}
	return d.list
}

func compareConsumer(stream string, have, want jetstream.ConsumerConfig) []Difference {
	d := differences{object: stream + "/" + want.Durable}
	d.add("filter_subject", have.FilterSubject, want.FilterSubject)
	d.add("ack_policy", have.AckPolicy, want.AckPolicy)
	d.add("ack_wait", have.AckWait, want.AckWait)
	d.add("max_deliver", have.MaxDeliver, want.MaxDeliver)
	d.add("max_ack_pending", have.MaxAckPending, want.MaxAckPending)
	d.add("backoff", len(have.BackOff), len(want.BackOff))
	return d.list
}

type differences struct {
	object string
	list   []Difference
}

func (d *differences) add(setting string, have, want any) {
	if h, w := fmt.Sprint(have), fmt.Sprint(want); h != w {
		d.list = append(d.list, Difference{Object: d.object, Setting: setting, Have: h, Want: w})
	}
}

// Oldest is when the oldest job of a queue was stored; zero when it is empty.
func (l Layout) Oldest(ctx context.Context, js jetstream.JetStream, queue string) (time.Time, error) {
	stream, err := js.Stream(ctx, l.Subjects.JobsStream())
	if err != nil {
		return time.Time{}, fmt.Errorf("open stream %s: %w", l.Subjects.JobsStream(), err)
	}
	msg, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(l.Subjects.Queue(queue)))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the oldest job of queue %s: %w", queue, err)
	}
	return msg.Time, nil
}
