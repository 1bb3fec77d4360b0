package results

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// farOff is more than any wait here takes.
const farOff = time.Hour

// slow is a dialer whose connections write only when they are let, and keep what
// they wrote.
type slow struct {
	mu      sync.Mutex // held while writes wait; guards the rest
	text    strings.Builder
	refused error
	skips   bool
}

func (s *slow) Dial(network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(context.Background(), network, address)
	return &slowConn{conn, s}, err
}

func (s *slow) SkipTLSHandshake() bool { return s.skips }

type slowConn struct {
	net.Conn
	of *slow
}

func (c *slowConn) Write(p []byte) (int, error) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.of.refused != nil {
		return 0, c.of.refused
	}
	c.of.text.Write(p)
	return c.Conn.Write(p)
}

func TestWhatWasPublishedIsWrittenAfterTheWait(t *testing.T) {
	t.Parallel()
	var s slow
	var writes Writes
	nc := natstest.Run(t).Conn(t, nats.SetCustomDialer(&s), writes.Option())
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := range 500 {
				text := strconv.Itoa(p) + "-" + strconv.Itoa(i) + "."
				if err := nc.Publish("x", []byte(text)); err != nil || !writes.wait(nc, patience) {
					t.Error(text, err)
					return
				}
				s.mu.Lock()
				there := strings.Contains(s.text.String()[max(s.text.Len()-1<<16, 0):], "\n"+text)
				s.mu.Unlock()
				if !there {
					t.Error(text, "was not written when the wait for it ended")
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAWaitEndsWithTheWriteOrItsLimit(t *testing.T) {
	t.Parallel()
	var s slow
	var writes Writes
	nc := natstest.Run(t).Conn(t, nats.SetCustomDialer(&s), writes.Option())
	require.True(t, writes.wait(nc, 0), "nothing was published")

	s.mu.Lock()
	require.NoError(t, nc.Publish("x", nil))
	ended := make(chan bool, 1)
	go func() { ended <- writes.wait(nc, farOff) }() // ends when s.mu is free
	select {
	case <-ended:
		s.mu.Unlock()
		require.Fail(t, "the wait ended before the write")
	case <-time.After(50 * time.Millisecond):
	}
	s.mu.Unlock()
	require.True(t, <-ended)
}

func TestAFailedWriteEndsTheWait(t *testing.T) {
	t.Parallel()
	var s slow
	var writes Writes
	srv := natstest.Run(t)
	nc := srv.Conn(t, nats.SetCustomDialer(&s), writes.Option())
	s.mu.Lock()
	s.refused = errors.New("no room")
	s.mu.Unlock()
	require.NoError(t, nc.Publish("x", nil))
	writes.wait(nc, farOff)
	s.mu.Lock()
	s.refused = nil
	s.mu.Unlock()
}

func TestNobodyKnowsWithoutAConnection(t *testing.T) {
	t.Parallel()
	var writes Writes
	srv := natstest.Run(t)
	nc := srv.Conn(t, writes.Option())
	srv.Stop(t)
	require.Eventually(t, func() bool { return !nc.IsConnected() }, patience, 10*time.Millisecond)
	require.NoError(t, nc.Publish("x", nil)) // kept for the next connection
	require.False(t, writes.wait(nc, farOff))
	srv.Start(t)
	require.Eventually(t, nc.IsConnected, patience, 10*time.Millisecond)
	require.NoError(t, nc.Publish("x", nil))
	require.True(t, writes.wait(nc, patience), "the next connection is seen, too")
	nc.Close()
	require.False(t, writes.wait(nc, farOff))
}

func TestTheDialerBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	var writes Writes
	o := nats.GetDefaultOptions()
	o.CustomDialer = &slow{skips: true}
	require.NoError(t, writes.Option()(&o))
	skipping, ok := o.CustomDialer.(interface{ SkipTLSHandshake() bool })
	require.True(t, ok)
	require.True(t, skipping.SkipTLSHandshake(), "a dialer that does TLS itself still does")

	o = nats.GetDefaultOptions()
	o.Dialer = &net.Dialer{Deadline: time.Unix(1, 0)}
	require.NoError(t, writes.Option()(&o))
	_, err := o.CustomDialer.Dial("tcp", "127.0.0.1:1")
	require.ErrorContains(t, err, "i/o timeout", "its deadline has passed")

	o = nats.GetDefaultOptions()
	require.NoError(t, writes.Option()(&o))
	skipping, ok = o.CustomDialer.(interface{ SkipTLSHandshake() bool })
	require.True(t, ok)
	require.False(t, skipping.SkipTLSHandshake())
	_, err = o.CustomDialer.Dial("tcp", "127.0.0.1:1")
	require.ErrorContains(t, err, "refused")
}
