package worker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// pipes is a listener without a network, for a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the server calls it once.
func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects to the listener.
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// slowGauge is a metric that takes a while to measure.
type slowGauge struct {
	prometheus.Gauge
	takes time.Duration
}

// Collect implements prometheus.Collector.
func (s slowGauge) Collect(ch chan<- prometheus.Metric) {
	<-time.After(s.takes)
	s.Gauge.Collect(ch)
}

func TestAStopOfHTTPAnswersWhoHasAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		takes, ends time.Duration
		answer      string
	}{
		"in time":      {2 * time.Second, 2 * time.Second, "HTTP/1.1 200 OK"},
		"not for ever": {time.Minute, closeTimeout, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &Worker{logger: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry()}
				w.reg.MustRegister(slowGauge{prometheus.NewGauge(prometheus.GaugeOpts{Name: "slow"}), c.takes})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				l := newPipes()
				var stopped time.Time
				go func() {
					w.serveHTTP(ctx, l)
					stopped = time.Now()
				}()
				conn := l.dial()
				defer conn.Close()
				_, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
				require.NoError(t, err)
				synctest.Wait()
				begin := time.Now()
				cancel()
				answer, err := io.ReadAll(conn)
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(string(answer), c.answer), "%s", answer)
				require.Equal(t, c.answer != "", strings.Contains(string(answer), "\nslow 0\n"), "the whole of it")
				<-time.After(time.Second) // for the server's next look at its connections
				synctest.Wait()
				require.False(t, stopped.IsZero())
				require.GreaterOrEqual(t, stopped.Sub(begin), c.ends)
				<-time.After(c.takes) // the one that is not answered ends too
			})
		})
	}
}
