package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wellFormed requires that text is XML.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err, text)
	}
}

func TestScalePlacesPowersOfTenEvenly(t *testing.T) {
	t.Parallel()
	s := newScale([]float64{3, 700}, 100, 400)
	require.InDelta(t, 100, s.at(1), 1e-9)
	require.InDelta(t, 200, s.at(10), 1e-9)
	require.InDelta(t, 400, s.at(1000), 1e-9)
	require.Equal(t, []float64{1, 10, 100, 1000}, s.ticks())
	require.Equal(t, []float64{1, 2, 5, 10}, newScale([]float64{2, 8}, 0, 1).ticks())
}

func TestScaleOfOneNumberOrNoneIsNotEmpty(t *testing.T) {
	t.Parallel()
	for _, all := range [][]float64{nil, {1}, {10}, {7}} {
		s := newScale(all, 0, 1)
		require.Greater(t, s.high, s.low)
	}
}

func TestSeriesLeavesOutWhatHasNoLogarithm(t *testing.T) {
	t.Parallel()
	var s series
	s.add(1, 0)
	s.add(0, 1)
	s.add(2, 3)
	require.Equal(t, series{xs: []float64{2}, ys: []float64{3}}, s)
}

func TestChartIsReadableInBothModes(t *testing.T) {
	t.Parallel()
	line := series{name: "worker", class: "worker"}
	line.add(10, 100)
	line.add(100, 1000)
	text := chart("Cost & size", []panel{{title: "a < b", axis: "jobs", series: []series{line, {name: "nothing", class: "bare"}}}, {title: "empty"}})

	wellFormed(t, text)
	require.Contains(t, text, "prefers-color-scheme:dark")
	require.Contains(t, text, "Cost &amp; size")
	require.Contains(t, text, `<polyline class="worker" points="52.0,`)
	require.NotContains(t, text, ">nothing<")
	require.Equal(t, 1, strings.Count(text, ">worker<"))
}

func TestBarsAreAsWideAsTheirValues(t *testing.T) {
	t.Parallel()
	text := bars("Steps", []bar{
		{"one", []piece{{"pull", 75, 0}, {"call & more", 25, 1}, {"none", 0, 2}}},
		{"two", []piece{{"pull", 50, 0}}},
	})
	wellFormed(t, text)
	require.Contains(t, text, `width="547.5" height="34"`) // three quarters of 730
	require.Contains(t, text, `width="182.5" height="34"`)
	require.Contains(t, text, `width="365.0" height="34"`)
	require.Contains(t, text, ">call &amp; more<")
	require.NotContains(t, text, ">none<")
	require.Contains(t, text, ">100 us<")
}

func TestBarsWithoutValuesAreDrawnAllTheSame(t *testing.T) {
	t.Parallel()
	wellFormed(t, bars("None", nil))
	wellFormed(t, bars("None", []bar{{name: "one"}}))
}

func TestShortNumbers(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{1: "1", 0.5: "0.5", 50: "50", 1000: "1k", 20000: "20k", 1 << 20: "1.05M", 1e6: "1M"} {
		require.Equal(t, want, short(x))
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 20000: "20,000", 1000000: "1,000,000"} {
		require.Equal(t, want, thousands(n))
	}
}
