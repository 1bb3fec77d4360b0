package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// startPoll is the pause between tries to reach a server that is starting.
const startPoll = 2 * time.Millisecond

// measureStarts starts workers with an embedded server and nothing on disk, one
// after the other, and takes the time from each start to the result of its first
// job. Only the worker has a server of its own: there is no bare side.
func (r *report) measureStarts(ctx context.Context, s *stage, progress io.Writer) error {
	for n := range s.o.starts {
		took, err := s.coldStart(ctx, partStart+"-"+strconv.Itoa(n))
		if err != nil {
			return err
		}
		r.Starts = append(r.Starts, milliseconds(took))
		if _, err := fmt.Fprintf(progress, "%-10s %d/%d: first result after %.0f ms\n", partStart, n+1, s.o.starts, milliseconds(took)); err != nil {
			return err
		}
	}
	return nil
}

// coldStart takes the time from a start to the first result.
func (s *stage) coldStart(ctx context.Context, name string) (time.Duration, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return 0, err
	}
	path, args, env := s.alone(embedded{data: filepath.Join(s.dir, name), addr: addr, http: "127.0.0.1:0"})
	begin := time.Now()
	p, err := start(ctx, s.dir, name, path, args, env)
	if err != nil {
		return 0, err
	}
	defer p.kill()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	end, err := firstResult(ctx, p, "nats://"+addr)
	if err != nil {
		return 0, p.failure(err)
	}
	return end.Sub(begin), p.stop()
}

// firstResult connects to a server as soon as it lets it, publishes a job as soon
// as there is a stream for it, and returns when its result came.
func firstResult(ctx context.Context, p *process, url string) (time.Time, error) {
	nc, err := reach(ctx, p, url)
	if err != nil {
		return time.Time{}, err
	}
	defer nc.Close()
	results, err := nc.SubscribeSync(donePrefix + ">")
	if err != nil {
		return time.Time{}, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return time.Time{}, err
	}
	body := prompt(promptSize)
	for { // nobody takes it before the stream is made
		if _, err = js.Publish(ctx, jobsPrefix+"first", body, jetstream.WithRetryAttempts(0)); err == nil {
			break
		}
		if !sleep(ctx, startPoll) {
			return time.Time{}, fmt.Errorf("publish the first job: %w", err)
		}
	}
	m, err := results.NextMsgWithContext(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("wait for the first result: %w", err)
	}
	return time.Now(), succeeded(m)
}

// reach connects to a server that is starting.
func reach(ctx context.Context, p *process, url string) (*nats.Conn, error) {
	for {
		nc, err := nats.Connect(url, nats.NoReconnect())
		if err == nil {
			return nc, nil
		}
		if p.hasEnded() {
			return nil, fmt.Errorf("%s ended by itself: %w", p.name, p.err)
		}
		if !sleep(ctx, startPoll) {
			return nil, fmt.Errorf("reach the embedded server: %w", err)
		}
	}
}
