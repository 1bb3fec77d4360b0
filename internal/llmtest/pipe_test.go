package llmtest_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

// ends returns both ends of a new connection.
func ends(t *testing.T, p *llmtest.Pipe) (client, server net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn)
	go func() {
		c, err := p.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- c
	}()
	client, err := p.DialContext(t.Context(), "tcp", "anywhere:80")
	require.NoError(t, err)
	server = <-accepted
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
	})
	return client, server
}

func TestHTTPOverAPipeTakesNoTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipe := llmtest.NewPipe()
		provider := llmtest.NewProvider(llmtest.Config{Script: llmtest.Always(llmtest.Reply{Delay: time.Hour, Size: 1 << 20})})
		server := &http.Server{Handler: provider, ReadHeaderTimeout: time.Minute}
		served := make(chan error, 1)
		go func() { served <- server.Serve(pipe) }()
		transport := &http.Transport{DialContext: pipe.DialContext, MaxIdleConnsPerHost: 2}
		began := time.Now()
		for range 2 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/v1/chat/completions", strings.NewReader(hello))
			require.NoError(t, err)
			res, err := transport.RoundTrip(req)
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.EqualValues(t, 1<<20, n)
		}
		require.Equal(t, 2*time.Hour, time.Since(began))
		synctest.Wait()
		require.Equal(t, 1, pipe.Open(), "the connection is used again")
		transport.CloseIdleConnections()
		synctest.Wait()
		require.Zero(t, pipe.Open())
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
}

func TestAPipeKeepsWhatWasWrittenBeforeItsEnd(t *testing.T) {
	t.Parallel()
	client, server := ends(t, llmtest.NewPipe())
	n, err := server.Write([]byte("farewell"))
	require.NoError(t, err)
	require.Equal(t, 8, n)
	require.NoError(t, server.Close())
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "farewell", string(got))
	_, err = client.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.EPIPE)
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = server.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestAPipeBlocksAWriterOnlyWhenItIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := ends(t, llmtest.NewPipe())
		data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
		n, err := client.Write(data)
		require.NoError(t, err)
		require.Equal(t, len(data), n)
		began := time.Now()
		require.NoError(t, client.SetWriteDeadline(began.Add(time.Second)))
		_, err = client.Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		got := make([]byte, len(data))
		_, err = io.ReadFull(server, got)
		require.NoError(t, err)
		require.Equal(t, data, got)
	})
}

func TestADeadlineWakesAReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, _ := ends(t, llmtest.NewPipe())
		began := time.Now()
		require.NoError(t, client.SetReadDeadline(began.Add(2*time.Second)))
		time.AfterFunc(time.Second, func() { _ = client.SetReadDeadline(began.Add(3 * time.Second)) })
		_, err := client.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began), "the later deadline counts")
		require.NoError(t, client.SetDeadline(time.Unix(1, 0)))
		_, err = client.Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, client.SetDeadline(time.Time{}))
		_, err = client.Write([]byte("x"))
		require.NoError(t, err)
	})
}

func TestABrokenPipeResetsAndRefusesUntilItIsMended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipe := llmtest.NewPipe()
		client, server := ends(t, pipe)
		_, err := server.Write([]byte("lost"))
		require.NoError(t, err)
		require.Equal(t, 1, pipe.Open())
		pipe.Break()
		for _, end := range []net.Conn{client, server} {
			_, err = end.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			_, err = end.Write([]byte("x"))
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
		_, err = pipe.DialContext(t.Context(), "tcp", "x:1")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Equal(t, 1, pipe.Refused())

		pipe.Mend()
		again, _ := ends(t, pipe)
		_, err = again.Write([]byte("x"))
		require.NoError(t, err)

		require.NoError(t, server.Close())
		require.Equal(t, 1, pipe.Open())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = pipe.DialContext(ctx, "tcp", "x:1")
		require.ErrorIs(t, err, context.DeadlineExceeded, "nobody accepts")
		require.NoError(t, pipe.Close())
		require.NoError(t, pipe.Close())
		_, err = pipe.DialContext(t.Context(), "tcp", "x:1")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		_, err = pipe.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.Equal(t, "pipe", pipe.Addr().Network())
	})
}
