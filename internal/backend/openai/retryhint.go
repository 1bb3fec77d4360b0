package openai

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/backend"
)

// maxHint bounds what a provider can ask for: the longest window in use is a month.
const maxHint = 31 * 24 * time.Hour

// retryHint returns how long the provider asks to wait, 0 when it does not say
// or when waiting would not help. The plain retry headers come first, then what
// the error says, then the reset of a limit.
func retryHint(class backend.Class, header http.Header, reports []report) time.Duration {
	passing := []backend.Class{backend.RateLimit, backend.Overloaded, backend.ServerError, backend.Timeout, backend.Quota}
	if !slices.Contains(passing, class) {
		return 0
	}
	now := clock(header)
	headers := append([]http.Header{header}, innerHeaders(reports)...)
	for _, h := range headers {
		if d, ok := retryAfter(h, now); ok {
			return d
		}
	}
	for _, rep := range slices.Backward(reports) {
		if rep.delay > 0 {
			return rep.delay
		}
	}
	for _, rep := range slices.Backward(reports) {
		if d := delayInText(withoutInput(rep.message)); d > 0 {
			return d
		}
	}
	if class != backend.RateLimit { // a reset is that of a short window, not of a quota or an outage
		return 0
	}
	for _, h := range headers {
		if d := resetIn(h, now); d > 0 {
			return d
		}
	}
	return 0
}

// innerHeaders returns the headers of the providers behind a gateway.
func innerHeaders(reports []report) []http.Header {
	var headers []http.Header
	for _, rep := range reports {
		if rep.headers != nil {
			headers = append(headers, rep.headers)
		}
	}
	return headers
}

// retryAfter reads the headers made for it: retry-after-ms of OpenAI and Azure,
// and retry-after in seconds, whole or not, or as a date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if f, err := strconv.ParseFloat(strings.TrimSpace(h.Get(name)), 64); err == nil {
			return hint(f, time.Millisecond), true
		}
	}
	value := strings.TrimSpace(h.Get("Retry-After"))
	if f, err := strconv.ParseFloat(value, 64); err == nil {
		return hint(f, time.Second), true
	}
	if date, err := http.ParseTime(value); err == nil {
		return until(date, now), true
	}
	if d := parseDelay(value); d > 0 {
		return d, true
	}
	return 0, false
}

// resetIn reads when limits are reset: x-ratelimit-reset-requests and its like
// of OpenAI, Groq, Mistral and OpenRouter, ratelimit-reset of the IETF draft,
// anthropic-ratelimit-tokens-reset. A limit with nothing left is the one that
// matters; where none says so, every limit may be it.
func resetIn(h http.Header, now time.Time) time.Duration {
	var exhausted, unknown, others time.Duration
	for name := range h {
		lower := strings.ToLower(name)
		if !strings.Contains(lower, "ratelimit") || !strings.Contains(lower, "reset") {
			continue
		}
		d := parseReset(strings.TrimSpace(h.Get(name)), now)
		left, err := strconv.ParseFloat(strings.TrimSpace(h.Get(strings.Replace(lower, "reset", "remaining", 1))), 64)
		switch {
		case err != nil:
			unknown = max(unknown, d)
		case left <= 0:
			exhausted = max(exhausted, d)
		default:
			others = max(others, d)
		}
	}
	switch {
	case exhausted > 0:
		return exhausted
	case unknown > 0:
		return unknown
	}
	return others
}

// parseReset reads a moment or a delay: "6m0s", "18.642s", "120ms", seconds from
// now, seconds or milliseconds since 1970, or a date.
func parseReset(value string, now time.Time) time.Duration {
	if f, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case f >= 1e17: // nanoseconds
			f /= 1e9
		case f >= 1e14: // microseconds
			f /= 1e6
		case f >= 1e11: // milliseconds
			f /= 1e3
		case f >= 1e9: // seconds
		default:
			return hint(f, time.Second)
		}
		return hint(f-float64(now.UnixNano())/1e9, time.Second)
	}
	if date, err := time.Parse(time.RFC3339, value); err == nil {
		return until(date, now)
	}
	if date, err := http.ParseTime(value); err == nil {
		return until(date, now)
	}
	return parseDelay(value)
}

// delayInText finds a delay in words: "Please try again in 18.642s", "retry in
// 1m2s", "try again in 5 seconds".
func delayInText(text string) time.Duration {
	lower := strings.ToLower(text)
	for _, phrase := range []string{"try again in ", "try again after ", "retry in ", "retrying in "} {
		for rest := lower; ; {
			_, after, ok := strings.Cut(rest, phrase)
			if !ok {
				break
			}
			if d := parseDelay(after); d > 0 {
				return d
			}
			rest = after
		}
	}
	return 0
}

// parseDelay reads a delay at the beginning of s: numbers, each with a unit. It
// stops at what is neither, and returns 0 when there is nothing to read.
func parseDelay(s string) time.Duration {
	var total time.Duration
	for {
		s = strings.TrimLeft(s, " ")
		end := strings.IndexFunc(s, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
		if end <= 0 {
			return total
		}
		f, err := strconv.ParseFloat(s[:end], 64)
		if err != nil {
			return total
		}
		s = strings.TrimLeft(s[end:], " ")
		end = strings.IndexFunc(s, func(c rune) bool { return (c < 'a' || c > 'z') && c != 'µ' && c != 'μ' })
		if end < 0 {
			end = len(s)
		}
		unit := unitOf(s[:end])
		if unit == 0 {
			return total
		}
		total = min(total+hint(f, unit), maxHint)
		s = s[end:]
	}
}

// unitOf returns the unit of that name, 0 when there is none.
func unitOf(name string) time.Duration {
	switch name {
	case "ns":
		return time.Nanosecond
	case "us", "µs", "μs":
		return time.Microsecond
	case "ms", "msec", "millis", "millisecond", "milliseconds":
		return time.Millisecond
	case "s", "sec", "secs", "second", "seconds":
		return time.Second
	case "m", "min", "mins", "minute", "minutes":
		return time.Minute
	case "h", "hr", "hrs", "hour", "hours":
		return time.Hour
	case "d", "day", "days":
		return 24 * time.Hour
	}
	return 0
}

// until returns the time from now to a moment, as a hint.
func until(moment, now time.Time) time.Duration {
	return min(max(moment.Sub(now), 0), maxHint)
}

// hint returns n units within [0, maxHint].
func hint(n float64, unit time.Duration) time.Duration {
	switch {
	case math.IsNaN(n) || n <= 0:
		return 0
	case n >= float64(maxHint)/float64(unit):
		return maxHint
	}
	return time.Duration(math.Round(n * float64(unit)))
}
