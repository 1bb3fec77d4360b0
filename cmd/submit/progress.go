package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barEvery is how often the bar is drawn.
const barEvery = 200 * time.Millisecond

// bar shows a person how far a batch is. Without a terminal it shows nothing.
type bar struct {
	progress *mpb.Progress // nil without a terminal
	line     *mpb.Bar
	failed   atomic.Int64
	restore  func()
}

// newBar draws a bar of total lines; what is said meanwhile goes above it.
func (a *app) newBar(name string, total int) *bar {
	b := &bar{restore: func() {}}
	out, ok := a.stderr.(*syncWriter)
	if !a.terminals.err || !ok {
		return b
	}
	b.restore = out.through(func(w io.Writer) io.Writer {
		b.progress = mpb.New(mpb.WithOutput(w), mpb.WithRefreshRate(barEvery))
		return above{b.progress, w}
	})
	speed := decor.NewAverageSpeed(0, "%.1f/s", a.now())
	b.line = b.progress.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name(name+" "), decor.CountersNoUnit("%d/%d")),
		mpb.AppendDecorators(
			decor.Any(func(decor.Statistics) string { return fmt.Sprintf("%d failed ", b.failed.Load()) }),
			speed, decor.Name(" ETA "), decor.AverageETA(decor.ET_STYLE_GO),
		),
	)
	return b
}

// above writes whole lines above the bar.
type above struct {
	progress *mpb.Progress
	w        io.Writer
}

// Write implements io.Writer.
func (a above) Write(p []byte) (int, error) {
	if n, err := a.progress.Write(p); err == nil {
		return n, nil
	}
	return a.w.Write(p) // the bar is gone
}

// add counts one line.
func (b *bar) add(succeeded bool) {
	if b.line == nil {
		return
	}
	if !succeeded {
		b.failed.Add(1)
	}
	b.line.Increment()
}

// stop ends the bar and leaves its last state on the terminal.
func (b *bar) stop() {
	if b.progress == nil {
		return
	}
	if !b.line.Completed() {
		b.line.Abort(false)
	}
	b.progress.Wait()
	b.restore()
}
