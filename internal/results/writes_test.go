package results

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// slow makes connections that write only when they are let, and keep what
// they wrote.
type slow struct {
	mu      sync.Mutex    // held while writes wait; guards the rest
	gate    chan struct{} // gives leave for each write; nil for all
	text    strings.Builder
	refused error
}

// wrap is a [natstest.Wrap].
func (s *slow) wrap(conn net.Conn) (net.Conn, error) { return &slowConn{conn, s}, nil }

// hold lets writes go one by one from now on, as gate gives leave; nil lets all go.
func (s *slow) hold(gate chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
}

func (s *slow) held() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate
}

// written is how many bytes were written.
func (s *slow) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Len()
}

type slowConn struct {
	net.Conn
	of *slow
}

func (c *slowConn) Write(p []byte) (int, error) {
	if gate := c.of.held(); gate != nil {
		<-gate
	}
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
	nc := natstest.Run(t).Conn(t, nats.SetCustomDialer(natstest.Wrap(s.wrap)), writes.Option())
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := range 500 {
				text := strconv.Itoa(p) + "-" + strconv.Itoa(i) + "."
				if err := nc.Publish("x", []byte(text)); err != nil || !writes.wait(t.Context(), nc, time.After(patience)) {
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
	nc := natstest.Run(t).Conn(t, nats.SetCustomDialer(natstest.Wrap(s.wrap)), writes.Option())
	require.True(t, writes.wait(t.Context(), nc, time.After(0)), "nothing was published")

	s.mu.Lock()
	require.NoError(t, nc.Publish("x", nil))
	ended := make(chan bool, 1)
	require.False(t, writes.wait(t.Context(), nc, time.After(10*time.Millisecond)))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, writes.wait(canceled, nc, nil))
	go func() { ended <- writes.wait(t.Context(), nc, nil) }() // ends when s.mu is free
	select {
	case <-ended:
		s.mu.Unlock()
		require.Fail(t, "the wait ended before the write")
	case <-time.After(50 * time.Millisecond):
	}
	s.mu.Unlock()
	require.True(t, <-ended)
}

// With TLS one write of the client is many on the network.
func TestAWaitEndsWithTheLastPiece(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	srv := natstest.RunWith(t, natstest.Options{Config: fmt.Sprintf("tls { cert_file: %q, key_file: %q }", cert, key)})
	var s slow
	var writes Writes
	nc := srv.Conn(t, nats.SetCustomDialer(natstest.Wrap(s.wrap)), writes.Option(), nats.RootCAs(cert))
	const size = 20 << 10 // below what the client writes at once
	before, gate := s.written(), make(chan struct{})
	s.hold(gate)
	require.NoError(t, nc.Publish("x", make([]byte, size)))
	ended := make(chan bool, 1)
	go func() { ended <- writes.wait(t.Context(), nc, nil) }() // ends with the last piece
	pieces := 0
	for open := true; open; {
		select {
		case gate <- struct{}{}:
			pieces++
		case ok := <-ended:
			require.True(t, ok)
			open = false
		}
	}
	s.hold(nil)
	close(gate)
	require.Greater(t, s.written()-before, size)
	require.Greater(t, pieces, 1)
}

// certificate returns the files of a certificate for 127.0.0.1 and of its key.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: secret}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return filepath.Join(dir, "cert"), filepath.Join(dir, "key")
}

func TestAFailedWriteEndsTheWait(t *testing.T) {
	t.Parallel()
	var s slow
	var writes Writes
	srv := natstest.Run(t)
	nc := srv.Conn(t, nats.SetCustomDialer(natstest.Wrap(s.wrap)), writes.Option())
	s.mu.Lock()
	s.refused = errors.New("no room")
	s.mu.Unlock()
	require.NoError(t, nc.Publish("x", nil))
	writes.wait(t.Context(), nc, nil)
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
	require.False(t, writes.wait(t.Context(), nc, nil))
	srv.Start(t)
	require.Eventually(t, nc.IsConnected, patience, 10*time.Millisecond)
	require.NoError(t, nc.Publish("x", nil))
	require.True(t, writes.wait(t.Context(), nc, time.After(patience)), "the next connection is seen, too")
	nc.Close()
	require.False(t, writes.wait(t.Context(), nc, nil))
}

// tlsDialer does TLS itself.
type tlsDialer struct{ natstest.Wrap }

func (tlsDialer) SkipTLSHandshake() bool { return true }

func TestTheDialerBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	var writes Writes
	o := nats.GetDefaultOptions()
	o.CustomDialer = tlsDialer{}
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
