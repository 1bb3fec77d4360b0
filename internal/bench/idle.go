package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// idleSample is what the worker costs that has nothing to do.
type idleSample struct {
	CPUPercent float64 `json:"cpu_percent_of_a_core"`
	RSSBytes   float64 `json:"rss_bytes"`
}

// measureIdle watches a worker with its embedded server and nothing to do.
func (r *report) measureIdle(ctx context.Context, s *stage, progress io.Writer) error {
	if _, err := fmt.Fprintf(progress, "%-10s for %s\n", partIdle, s.o.idle); err != nil {
		return err
	}
	httpAddr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	own := embedded{data: filepath.Join(s.dir, partIdle), addr: "127.0.0.1:0", http: httpAddr}
	path, args, env := s.alone(own)
	p, err := start(ctx, s.dir, partIdle, path, args, env)
	if err != nil {
		return err
	}
	defer p.kill()
	if err := ready(ctx, p, httpAddr); err != nil {
		return err
	}
	sleep(ctx, s.o.idle/10) // what a start leaves behind is over
	cpu, begin := p.cpu(), time.Now()
	if !sleep(ctx, s.o.idle) {
		return context.Cause(ctx)
	}
	used, took := p.cpu()-cpu, time.Since(begin)
	now, _, err := memory(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.Idle = &idleSample{CPUPercent: 100 * used.Seconds() / took.Seconds(), RSSBytes: float64(now)}
	return p.stop()
}

// embedded is where a worker with its own server keeps its data and listens.
type embedded struct{ data, addr, http string }

// alone returns the program of a worker with its own server, its arguments and
// its environment.
func (s *stage) alone(e embedded) (path string, args, env []string) {
	base := after(s.base, 0)
	if s.o.worker == "" {
		return s.self, []string{"child-worker", "-data", e.data, "-listen", e.addr, "-http", e.http, "-provider", base}, nil
	}
	return s.o.worker, nil, []string{
		"VLLM_BASE_URL=" + base, "WORKER_HTTP_ADDR=" + e.http, "WORKER_EMBEDDED_ADDR=" + e.addr, "WORKER_DATA_DIR=" + e.data,
	}
}

// ready waits until the worker at addr says that jobs reach it.
func ready(ctx context.Context, p *process, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			if resp.Body.Close() == nil && resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/readyz says %s", resp.Status)
		}
		if p.hasEnded() {
			return p.failure(fmt.Errorf("%s ended by itself: %w", p.name, p.err))
		}
		if !sleep(ctx, readyPoll) {
			return p.failure(err)
		}
	}
}

// freeAddr is an address that nobody listens at.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	return addr, l.Close()
}
