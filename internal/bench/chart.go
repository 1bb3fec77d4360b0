package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// series is one line of a chart.
type series struct {
	name, class string
	xs, ys      []float64
}

// add adds a point, unless it cannot be shown on an axis of powers of ten.
func (s *series) add(x, y float64) {
	if x > 0 && y > 0 {
		s.xs, s.ys = append(s.xs, x), append(s.ys, y)
	}
}

// panel is one chart of a picture. Both its axes are of powers of ten.
type panel struct {
	title, axis string
	series      []series
}

// The measures of a picture, in its own units.
const (
	panelWidth  = 320.0
	panelHeight = 240.0
	marginLeft  = 52.0
	marginRight = 14.0
	marginTop   = 58.0
	marginBelow = 42.0
	legendAt    = panelHeight + marginTop + 18
)

// style makes a picture readable on light and on dark ground. It has no ground of
// its own.
const style = `<style>
text{font:11px system-ui,sans-serif;fill:#1f2328}
.title{font-size:13px;font-weight:600}
.grid{stroke:#1f2328;stroke-opacity:.14}
.axis{stroke:#1f2328;stroke-opacity:.5;fill:none}
polyline{fill:none;stroke-width:2}
.worker{stroke:#0969da}circle.worker,rect.worker{fill:#0969da}
.bare{stroke:#bc4c00}circle.bare,rect.bare{fill:#bc4c00}
.ideal{stroke:#6e7781;stroke-dasharray:4 4}circle.ideal{fill:#6e7781;stroke-dasharray:none}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.grid,.axis{stroke:#e6edf3}
.worker{stroke:#58a6ff}circle.worker,rect.worker{fill:#58a6ff}
.bare{stroke:#f0883e}circle.bare,rect.bare{fill:#f0883e}
.ideal{stroke:#8b949e}circle.ideal{fill:#8b949e}
}
</style>
`

// svg is a picture of a size, with its title for those who cannot see it.
func svg(title string, width, height float64, body string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img">`+"\n<title>%s</title>\n%s%s</svg>\n",
		width, height, html.EscapeString(title), style, body)
}

// chart draws panels side by side, with one legend.
func chart(title string, panels []panel) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<text class="title" x="%g" y="18">%s</text>`+"\n", marginLeft, html.EscapeString(title))
	for i, p := range panels {
		p.draw(&b, float64(i)*panelWidth)
	}
	legend(&b, panels)
	return svg(title, float64(len(panels))*panelWidth, legendAt+14, b.String())
}

// legend names the lines, each once.
func legend(b *strings.Builder, panels []panel) {
	seen := make(map[string]bool)
	x := marginLeft
	for _, p := range panels {
		for _, s := range p.series {
			if len(s.xs) == 0 || seen[s.name] {
				continue
			}
			seen[s.name] = true
			fmt.Fprintf(b, `<polyline class="%s" points="%g,%g %g,%g"/><text x="%g" y="%g">%s</text>`+"\n",
				s.class, x, legendAt-4, x+22, legendAt-4, x+28, legendAt, html.EscapeString(s.name))
			x += 110
		}
	}
}

// scale places numbers between from and to by their logarithm.
type scale struct{ low, high, from, to float64 }

// newScale is a scale that ends at powers of ten.
func newScale(all []float64, from, to float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, x := range all {
		low, high = min(low, math.Floor(math.Log10(x))), max(high, math.Ceil(math.Log10(x)))
	}
	if len(all) == 0 {
		low, high = 0, 1
	}
	if low == high {
		high++
	}
	return scale{low, high, from, to}
}

// at is where x is.
func (s scale) at(x float64) float64 {
	return s.from + (math.Log10(x)-s.low)/(s.high-s.low)*(s.to-s.from)
}

// ticks are the powers of ten, and the fives and twos where there are few.
func (s scale) ticks() []float64 {
	between := []float64{1}
	if s.high-s.low <= 2 {
		between = []float64{1, 2, 5}
	}
	var all []float64
	for power := s.low; power <= s.high; power++ {
		for _, n := range between {
			if x := n * math.Pow(10, power); math.Log10(x) <= s.high+1e-9 {
				all = append(all, x)
			}
		}
	}
	return all
}

// draw draws the panel with its left edge at x.
func (p panel) draw(b *strings.Builder, x float64) {
	var xs, ys []float64
	for _, s := range p.series {
		xs, ys = append(xs, s.xs...), append(ys, s.ys...)
	}
	left, right, top, below := x+marginLeft, x+panelWidth-marginRight, marginTop, panelHeight+marginTop-marginBelow
	across, up := newScale(xs, left, right), newScale(ys, below, top)
	fmt.Fprintf(b, `<text x="%g" y="%g">%s</text>`+"\n", left, top-10, html.EscapeString(p.title))
	for _, tick := range up.ticks() {
		y := up.at(tick)
		fmt.Fprintf(b, `<line class="grid" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, y, right, y, left-5, y+4, short(tick))
	}
	for _, tick := range across.ticks() {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%g" x2="%.1f" y2="%g"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n",
			across.at(tick), top, across.at(tick), below, across.at(tick), below+15, short(tick))
	}
	fmt.Fprintf(b, `<polyline class="axis" points="%g,%g %g,%g %g,%g"/><text x="%g" y="%g" text-anchor="middle">%s</text>`+"\n",
		left, top, left, below, right, below, (left+right)/2, below+32, html.EscapeString(p.axis))
	for _, s := range p.series {
		s.draw(b, across, up)
	}
}

// draw draws the line and its points.
func (s series) draw(b *strings.Builder, across, up scale) {
	if len(s.xs) == 0 {
		return
	}
	var line, dots strings.Builder
	for i := range s.xs {
		x, y := across.at(s.xs[i]), up.at(s.ys[i])
		fmt.Fprintf(&line, "%.1f,%.1f ", x, y)
		fmt.Fprintf(&dots, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"><title>%s: %s</title></circle>`, s.class, x, y, short(s.xs[i]), figure(s.ys[i]))
	}
	fmt.Fprintf(b, `<polyline class="%s" points="%s"/>%s`+"\n", s.class, strings.TrimSpace(line.String()), dots.String())
}

// short is a number in as few letters as it takes.
func short(x float64) string {
	switch {
	case x >= 1e6:
		return trimmed(x/1e6) + "M"
	case x >= 1e3:
		return trimmed(x/1e3) + "k"
	default:
		return trimmed(x)
	}
}

func trimmed(x float64) string { return fmt.Sprintf("%.3g", x) }
