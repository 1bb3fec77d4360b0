package openai

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

// scripted is a client whose backend plays the next script with every call.
type scripted struct {
	t      *testing.T
	client *Client
	mu     sync.Mutex
	next   []script
	server sync.WaitGroup
}

// newScripted makes a client of scripts, to be used in a synctest bubble.
func newScripted(t *testing.T, cfg Config) *scripted {
	t.Helper()
	s := &scripted{t: t}
	cfg.Name, cfg.BaseURL = "b", "http://backend/v1"
	cfg.DialContext = func(context.Context, string, string) (net.Conn, error) {
		client, conn := net.Pipe()
		s.server.Go(func() { s.serve(conn) })
		return client, nil
	}
	c, err := New(cfg)
	require.NoError(t, err)
	s.client = c
	t.Cleanup(func() {
		c.Close()
		s.server.Wait()
	})
	return s
}

func (s *scripted) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	steps := s.next
	s.mu.Unlock()
	for _, step := range steps {
		step(conn)
	}
}

// call makes one call and returns how long it took.
func (s *scripted) call(req *backend.Request, steps ...script) (time.Duration, error) {
	s.t.Helper()
	s.mu.Lock()
	s.next = steps
	s.mu.Unlock()
	started := time.Now()
	_, err := s.client.Complete(s.t.Context(), req)
	return time.Since(started), err
}

// answers makes n calls that are answered after d.
func (s *scripted) answers(n int, d time.Duration) {
	s.t.Helper()
	for range n {
		took, err := s.call(chat(false), after(d, jsonHead+goodAnswer))
		require.NoError(s.t, err)
		require.Equal(s.t, d, took)
	}
}

// hangs makes a call that nobody answers, and returns its message and time.
func (s *scripted) hangs() (string, time.Duration) {
	s.t.Helper()
	took, err := s.call(chat(false), untilClosed)
	e := failure(s.t, err)
	require.Equal(s.t, backend.Timeout, e.Class)
	require.ErrorIs(s.t, err, context.DeadlineExceeded)
	return e.Message, took
}

// untilClosed says nothing until the client hangs up.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestPercentilesAreThoseOfTheLatestCalls(t *testing.T) {
	t.Parallel()
	var l latencies
	add := func(d time.Duration) { l.add(pace{}, true, d, 0) }
	c := &Client{}
	require.Equal(t, Latency{}, c.Latency())
	add(7)
	require.Equal(t, Percentiles{P50: 7, P95: 7, P99: 7, Samples: 1}, l.whole.percentiles())
	add(3)
	require.Equal(t, Percentiles{P50: 3, P95: 7, P99: 7, Samples: 2}, l.whole.percentiles())
	l = latencies{}
	for i := range 200 { // from the slowest to the fastest
		add(time.Duration(200 - i))
	}
	require.Equal(t, Percentiles{P50: 100, P95: 190, P99: 198, Samples: 200}, l.whole.percentiles())
	for range ringSize {
		add(5)
	}
	require.Equal(t, Percentiles{P50: 5, P95: 5, P99: 5, Samples: 256}, l.whole.percentiles())
	for range 3 { // the third largest of 256
		add(9)
	}
	require.Equal(t, Percentiles{P50: 5, P95: 5, P99: 9, Samples: 256}, l.whole.percentiles())
	require.Equal(t, Percentiles{}, l.first.percentiles())
}

func TestPercentilesAreSortedOnceForEachNewCall(t *testing.T) {
	t.Parallel()
	var r ring
	for i := range time.Duration(50) {
		r.add(i)
	}
	known := r.percentiles()
	r.times[0] = 1000 // not what add does: only a new sort would see it
	require.Equal(t, known, r.percentiles())
}

func TestTheTimeoutFollowsTheBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, Config{Timeout: 10 * time.Second, AdaptiveTimeout: true})
		s.answers(19, 2*time.Second)
		message, took := s.hangs() // 19 are too few
		require.Equal(t, "no answer in 10s", message)
		require.Equal(t, 10*time.Second, took)
		// The 20th was the one that was cut: its 10 s are the p99, and 15 s are over TIMEOUT.
		message, _ = s.hangs()
		require.Equal(t, "no answer in 10s", message)
		require.Equal(t, Percentiles{P50: 2 * time.Second, P95: 10 * time.Second, P99: 10 * time.Second, Samples: 21}, s.client.Latency().Percentiles)

		s.answers(256, 2*time.Second) // both are forgotten
		for i, want := range []struct {
			message string
			took    time.Duration
		}{
			// A backend that hangs gets more time, step by step: the p99 of 256 is the
			// third largest.
			{"no answer in 3s (adaptive)", 3 * time.Second},
			{"no answer in 3s (adaptive)", 3 * time.Second},
			{"no answer in 3s (adaptive)", 3 * time.Second},
			{"no answer in 4.5s (adaptive)", 4500 * time.Millisecond},
			{"no answer in 4.5s (adaptive)", 4500 * time.Millisecond},
			{"no answer in 4.5s (adaptive)", 4500 * time.Millisecond},
			{"no answer in 6.75s (adaptive)", 6750 * time.Millisecond},
			{"no answer in 6.75s (adaptive)", 6750 * time.Millisecond},
			{"no answer in 6.75s (adaptive)", 6750 * time.Millisecond},
			{"no answer in 10s", 10 * time.Second},
			{"no answer in 10s", 10 * time.Second},
		} {
			message, took := s.hangs()
			require.Equal(t, want.message, message, i)
			require.Equal(t, want.took, took, i)
		}
	})
}

func TestTheTimeoutStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		usual   time.Duration
		cfg     Config
		message string
	}{
		{"p99 x 1.5", 2 * time.Second, Config{AdaptiveTimeout: true, Timeout: 10 * time.Second}, "no answer in 3s (adaptive)"},
		{"a quarter at least", 100 * time.Millisecond, Config{AdaptiveTimeout: true, Timeout: 10 * time.Second}, "no answer in 2.5s (adaptive)"},
		{"all of it at most", 9 * time.Second, Config{AdaptiveTimeout: true, Timeout: 10 * time.Second}, "no answer in 10s"},
		{"whole milliseconds", 1234567891, Config{AdaptiveTimeout: true, Timeout: 4 * time.Second}, "no answer in 1.852s (adaptive)"},
		{"turned off", 2 * time.Second, Config{Timeout: 10 * time.Second}, "no answer in 10s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, row.cfg)
				s.answers(20, row.usual)
				message, took := s.hangs()
				require.Equal(t, row.message, message)
				limit := s.client.pace(false).limit
				require.LessOrEqual(t, limit, row.cfg.Timeout)
				require.Contains(t, message, took.String())
			})
		})
	}
}

func TestTheFirstTokensLimitFollowsTheFirstTokens(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	end := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`) + "data: [DONE]\n\n"
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, Config{Timeout: 20 * time.Second, FirstTokenTimeout: 8 * time.Second, AdaptiveTimeout: true})
		for range 20 {
			_, err := s.call(chat(false), after(2*time.Second, streamHead+token), after(10*time.Second, end))
			require.NoError(t, err)
		}
		require.Equal(t, Latency{
			Percentiles: Percentiles{P50: 12 * time.Second, P95: 12 * time.Second, P99: 12 * time.Second, Samples: 20},
			FirstToken:  Percentiles{P50: 2 * time.Second, P95: 2 * time.Second, P99: 2 * time.Second, Samples: 20},
		}, s.client.Latency())

		message, took := s.hangs()
		require.Equal(t, "no first token in 3s (adaptive)", message)
		require.Equal(t, 3*time.Second, took)
		require.Equal(t, 21, s.client.Latency().FirstToken.Samples)
		require.Equal(t, 3*time.Second, s.client.Latency().FirstToken.P99)
		require.Equal(t, 20, s.client.Latency().Samples) // how long the whole would have taken nobody knows

		// Silence after the first token is TIMEOUT's, which does not follow.
		took, err := s.call(chat(false), after(time.Second, streamHead+token), untilClosed)
		require.Equal(t, "no token for 20s", failure(t, err).Message)
		require.Equal(t, 21*time.Second, took)
		require.Equal(t, 21, s.client.Latency().Samples)
		require.Equal(t, 21*time.Second, s.client.Latency().P99)
		require.Equal(t, 22, s.client.Latency().FirstToken.Samples)
	})
}

func TestAfterAPauseThereIsTimeToLoadTheModel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, Config{Timeout: 60 * time.Second, AdaptiveTimeout: true})
		s.answers(20, 20*time.Second)
		require.Equal(t, 30*time.Second, s.client.pace(false).limit)
		time.Sleep(5*time.Minute - 1)
		require.Equal(t, pace{limit: 30 * time.Second, adaptive: true}, s.client.pace(false))
		time.Sleep(time.Nanosecond)
		require.Equal(t, pace{limit: time.Minute, cold: true}, s.client.pace(false))

		// Three times the median is not more than that: no cold start.
		s = newScripted(t, Config{Timeout: 60 * time.Second, AdaptiveTimeout: true})
		s.answers(20, 10*time.Second)
		time.Sleep(5 * time.Minute)
		s.answers(1, 30*time.Second)
		require.Equal(t, uint64(0), s.client.Latency().ColdStarts)
		require.Equal(t, 21, s.client.Latency().Samples)
		// It was slow, but warm.
		require.Equal(t, 45*time.Second, s.client.pace(false).limit)

		time.Sleep(5 * time.Minute)
		s.answers(1, 30*time.Second+1)
		require.Equal(t, uint64(1), s.client.Latency().ColdStarts)
		require.Equal(t, 21, s.client.Latency().Samples)

		time.Sleep(5 * time.Minute)
		message, took := s.hangs()
		require.Equal(t, "no answer in 1m0s", message)
		require.Equal(t, time.Minute, took)
		require.Equal(t, uint64(2), s.client.Latency().ColdStarts)
		require.Equal(t, 21, s.client.Latency().Samples)
		require.True(t, s.client.pace(false).cold) // still no answer
	})
}

func TestAColdStartOfAStreamIsAboutItsFirstToken(t *testing.T) {
	t.Parallel()
	token := chunk(`"choices":[{"index":0,"delta":{"content":"x"}}]`)
	end := chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`) + "data: [DONE]\n\n"
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, Config{Timeout: 20 * time.Second, FirstTokenTimeout: 8 * time.Second})
		stream := func(first, rest time.Duration) {
			_, err := s.call(chat(false), after(first, streamHead+token), after(rest, end))
			require.NoError(t, err)
		}
		for range 20 {
			stream(time.Second, time.Second)
		}
		time.Sleep(5 * time.Minute)
		stream(time.Second, 15*time.Second) // a long answer, but not a late one
		require.Equal(t, uint64(0), s.client.Latency().ColdStarts)
		time.Sleep(5 * time.Minute)
		stream(4*time.Second, 0)
		require.Equal(t, uint64(1), s.client.Latency().ColdStarts)
		require.Equal(t, 21, s.client.Latency().FirstToken.Samples)
		require.Equal(t, 21, s.client.Latency().Samples)
	})
}

func TestAModelThatIsLoadingIsAColdStart(t *testing.T) {
	t.Parallel()
	fails := func(status int, body string) script {
		return after(time.Second, fmt.Sprintf("HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
	}
	for _, row := range []struct {
		name   string
		status int
		body   string
		want   uint64
	}{
		{"llama.cpp", 503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, 1},
		{"hugging face", 503, `{"error":"Model mistralai/Mistral-7B is currently loading","estimated_time":20.0}`, 1},
		{"bedrock", 429, `{"__type":"ModelNotReadyException","message":"x"}`, 1},
		{"busy", 503, `{"error":{"code":503,"message":"The server is overloaded","type":"unavailable_error"}}`, 0},
		{"another class", 500, `{"error":{"message":"failed while loading model weights","type":"api_error","code":"invalid_api_key"}}`, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, Config{})
				_, err := s.call(chat(false), fails(row.status, row.body))
				require.Error(t, err)
				require.Equal(t, Latency{ColdStarts: row.want}, s.client.Latency())
				s.answers(1, time.Second) // it is warm now: the same words are another matter
				_, err = s.call(chat(false), fails(row.status, row.body))
				require.Error(t, err)
				require.Equal(t, row.want, s.client.Latency().ColdStarts)
				require.Equal(t, 1, s.client.Latency().Samples)
			})
		})
	}
}

func TestOnlyAnswersAndOwnLimitsCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, Config{Timeout: 10 * time.Second})
		for _, step := range []script{
			after(time.Second, "HTTP/1.1 504 X\r\nContent-Length: 0\r\n\r\n"), // another's timeout
			after(time.Second, jsonHead+"{}"),
			after(time.Second, ""),
		} {
			_, err := s.call(chat(false), step)
			require.Error(t, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the job's time, not ours
		_, err := s.client.Complete(ctx, chat(false))
		require.Error(t, err)
		cancel()
		_, err = s.client.Complete(t.Context(), &backend.Request{URL: "/v1/nothing", Body: []byte("{}")})
		require.Error(t, err)
		require.Equal(t, Latency{}, s.client.Latency())
		_, _ = s.hangs()
		require.Equal(t, Latency{Percentiles: Percentiles{P50: 10 * time.Second, P95: 10 * time.Second, P99: 10 * time.Second, Samples: 1}}, s.client.Latency())
	})
}

func TestLatencyIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	server := &recorder{answer: goodAnswer}
	c := newTestClient(t, serve(t, server), func(cfg *Config) { cfg.AdaptiveTimeout = true })
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 25 {
				_, _ = c.Complete(t.Context(), chat(false))
				_ = c.Latency()
			}
		})
	}
	calls.Wait()
	l := c.Latency()
	require.Equal(t, 100, l.Samples+int(l.ColdStarts)) // the first ones may find the machine busy
}

func TestPercentilesAreThoseOfTheLatestTimes(t *testing.T) {
	t.Parallel()
	var r ring
	require.Zero(t, r.percentiles())
	random := rand.New(rand.NewPCG(9, 10))
	var times []time.Duration
	for range 3 * ringSize {
		d := time.Duration(random.IntN(50)) // many are alike
		r.add(d)
		times = append(times, d)
		latest := slices.Sorted(slices.Values(times[max(0, len(times)-ringSize):]))
		n := len(latest)
		rank := func(percent int) time.Duration { return latest[(n*percent+99)/100-1] }
		require.Equal(t, Percentiles{P50: rank(50), P95: rank(95), P99: rank(99), Samples: n}, r.percentiles())
	}
}
