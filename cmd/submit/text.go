package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"understudy/internal/job"
)

// plain is text without anything that could steer a terminal; line breaks and
// tabs stay.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// oneLine is text on one line without control characters, cut at limit runes.
func oneLine(text string, limit int) string {
	text = strings.Join(strings.Fields(plain(text)), " ")
	if runes := []rune(text); limit > 0 && len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return text
}

// lasting is a duration for people: 950 ms, 7.0 s, 3m20s.
func lasting(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// milliseconds is lasting for a number from a result.
func milliseconds(ms int64) string { return lasting(time.Duration(ms) * time.Millisecond) }

// age is how long ago something was, in its largest unit: 12s, 5m, 3h, 9d.
func age(now, then time.Time) string {
	d := now.Sub(then)
	switch {
	case then.IsZero():
		return "-"
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// dollars is a cost for people.
func dollars(usd float64) string { return fmt.Sprintf("$%.6f", usd) }

// times is "1 line", "2 lines".
func times(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// calls counts the entries of a trail that were calls.
func calls(trail []job.Attempt) int {
	n := 0
	for i := range trail {
		if trail[i].Outcome != job.OutcomeSkipped {
			n++
		}
	}
	return n
}

// deref is *p, or the zero value.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// dash is s, or a dash for an empty table cell.
func dash(s string) string { return cmp.Or(s, "-") }

// table lays out rows in columns, the first row being the head. The last column
// is not padded, and no line ends in spaces.
func table(rows [][]string) string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// jsonLine is v as JSON on one line, < > & as they are.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.Bytes(), nil
}

// compact is JSON text on one line, with a line break at its end. Only space
// between values goes.
func compact(text []byte) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(text) + 1)
	if err := json.Compact(&b, text); err != nil {
		return nil, fmt.Errorf("put JSON on one line: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// pretty is JSON text indented, with a line break at its end.
func pretty(text []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(text), "", "  "); err != nil {
		return nil, fmt.Errorf("indent JSON: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
