package main

import (
	"fmt"
	"html"
	"strings"
)

// bar is one stacked bar, of microseconds.
type bar struct {
	name  string
	parts []piece
}

// piece is one part of a bar, by the number of its colour.
type piece struct {
	name  string
	value float64
	color int
}

// The measures of a picture of bars.
const (
	barsWidth  = 960.0
	barsLeft   = 150.0
	barsRight  = 80.0
	barHeight  = 34.0
	barGap     = 18.0
	barsTop    = 44.0
	legendLine = 18.0
	perLine    = 3 // entries of the legend
)

// bars draws stacked bars on one scale, with a legend of all their parts. The
// colours go round the circle, and are as readable on dark ground as on light.
func bars(title string, all []bar) string {
	var b strings.Builder
	most := 0.0
	for _, one := range all {
		most = max(most, one.sum())
	}
	fmt.Fprintf(&b, `<text class="title" x="10" y="18">%s</text>`+"\n", html.EscapeString(title))
	y := barsTop
	for _, one := range all {
		one.draw(&b, y, (barsWidth-barsLeft-barsRight)/max(most, 1e-9))
		y += barHeight + barGap
	}
	seen := make(map[string]bool)
	n := 0
	for _, one := range all {
		for _, p := range one.parts {
			if seen[p.name] || p.value <= 0 {
				continue
			}
			seen[p.name] = true
			x, line := 10+float64(n%perLine)*(barsWidth-10)/perLine, y+float64(n/perLine)*legendLine
			fmt.Fprintf(&b, `<rect x="%.1f" y="%g" width="12" height="12" fill="%s"/><text x="%.1f" y="%g">%s</text>`+"\n",
				x, line, color(p.color), x+18, line+10, html.EscapeString(p.name))
			n++
		}
	}
	return svg(title, barsWidth, y+float64((n+perLine-1)/perLine)*legendLine+6, b.String())
}

func (one bar) sum() float64 {
	sum := 0.0
	for _, p := range one.parts {
		sum += max(p.value, 0)
	}
	return sum
}

// draw draws the bar at y, so many units wide for each of its own.
func (one bar) draw(b *strings.Builder, y, scale float64) {
	fmt.Fprintf(b, `<text x="%g" y="%g" text-anchor="end">%s</text>`+"\n", barsLeft-8, y+barHeight/2+4, html.EscapeString(one.name))
	x := barsLeft
	for _, p := range one.parts {
		if p.value <= 0 {
			continue
		}
		fmt.Fprintf(b, `<rect x="%.1f" y="%g" width="%.1f" height="%g" fill="%s"><title>%s: %s us</title></rect>`+"\n",
			x, y, p.value*scale, barHeight, color(p.color), html.EscapeString(p.name), figure(p.value))
		x += p.value * scale
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%g">%s us</text>`+"\n", x+6, y+barHeight/2+4, figure(one.sum()))
}

// color is a colour that differs much from those of the numbers beside it.
func color(n int) string { return fmt.Sprintf("hsl(%d 55%% %d%%)", n*137%360, 44+n%3*9) }
