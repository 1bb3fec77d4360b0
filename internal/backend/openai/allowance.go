package openai

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/backend"
)

// allowances returns what an answer's header, and those of the providers behind
// a gateway, say is left of the limits on requests and on tokens. Of several
// limits of one kind it is the scarcest: a day's requests may be nearly used up
// while the minute's are untouched.
//
// The names are those of OpenAI, Azure, Groq, xAI, Fireworks and LiteLLM
// (x-ratelimit-remaining-requests), Mistral, Cerebras and Kong (…-tokens-minute),
// OpenRouter and Together (x-ratelimit-remaining, x-tokenlimit-remaining),
// Anthropic (anthropic-ratelimit-input-tokens-remaining), and of the drafts of the
// IETF (ratelimit-remaining, and ratelimit itself).
func allowances(header http.Header, inner []http.Header) backend.Allowances {
	left := scarcest(backend.Allowances{}, header, header)
	for _, h := range inner {
		left = scarcest(left, h, header)
	}
	return left
}

// scarcest adds what one header says to what is known. The outer one knows the
// time.
func scarcest(left backend.Allowances, h, outer http.Header) backend.Allowances {
	for name := range h {
		switch {
		case strings.Contains(name, "Remaining"): // as net/http spells it
			switch unitOfLimit(name) {
			case inRequests:
				left.Requests = scarcer(left.Requests, series(h, name, outer))
			case inTokens:
				left.Tokens = scarcer(left.Tokens, series(h, name, outer))
			case inOthers:
			}
		case name == "Ratelimit":
			for _, a := range structured(h) {
				left.Requests = scarcer(left.Requests, a)
			}
		}
	}
	return left
}

// limitUnit is what a limit counts.
type limitUnit int

const (
	inOthers limitUnit = iota
	inRequests
	inTokens
)

// unitOfLimit returns what the limit counts that a header of that name is about.
// Every word of the name has to be known: credits, images or seconds of audio are
// no requests. Anthropic's priority tier is left out: what is over it is served at
// the ordinary one.
func unitOfLimit(name string) limitUnit {
	name = strings.TrimPrefix(strings.ToLower(name), "llm_provider-")
	limited, unit := false, inRequests
	for word := range strings.SplitSeq(name, "-") {
		switch word {
		case "ratelimit":
			limited = true
		case "tokenlimit", "ratelimitbysize":
			limited, unit = true, inTokens
		case "token", "tokens":
			unit = inTokens
		case "x", "anthropic", "remaining", "req", "requests", "input", "output", "prompt", "generated", "project",
			"dynamic", "second", "minute", "hour", "day", "week", "month", "1s", "1m", "1h", "1d":
		default:
			return inOthers
		}
	}
	if !limited {
		return inOthers
	}
	return unit
}

// series reads the limit whose remainder stands under name, nil when there is
// nothing to believe. Azure says -1 of what it does not know; a limit of nothing
// on which calls are made is none, and neither is one that no number holds.
func series(h http.Header, name string, outer http.Header) *backend.Allowance {
	remaining, ok := amount(h.Get(name))
	if !ok {
		return nil
	}
	a := &backend.Allowance{Remaining: remaining}
	if told := h.Get(strings.Replace(name, "Remaining", "Limit", 1)); told != "" {
		if a.Limit, ok = amount(told); !ok || a.Limit == 0 {
			return nil
		}
		a.Remaining = min(a.Remaining, a.Limit)
	}
	if reset := strings.TrimSpace(h.Get(strings.Replace(name, "Remaining", "Reset", 1))); reset != "" {
		a.Reset = parseReset(reset, clock(outer))
	}
	return a
}

// clock returns the time by the provider's clock, so that a wrong one of ours
// does not matter.
func clock(header http.Header) time.Time {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		return date
	}
	return time.Now()
}

// amount reads a number of requests or tokens. Envoy lists the policies behind it:
// "10, 10;w=60".
func amount(value string) (int64, bool) {
	value, _, _ = strings.Cut(value, ",")
	value, _, _ = strings.Cut(value, ";")
	f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !usable(f) {
		return 0, false
	}
	return int64(f), true
}

// scarcer returns that of two of which less is left, as a part of the limit; nil
// is none. What has nothing left comes first, what has no limit last. Of two alike
// it is the one that takes longer, and then the smaller: the order is total, so
// that it does not matter in which order the header is read.
func scarcer(a, b *backend.Allowance) *backend.Allowance {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	order := cmp.Or(
		cmp.Compare(share(a), share(b)), cmp.Compare(b.Reset, a.Reset),
		cmp.Compare(a.Remaining, b.Remaining), cmp.Compare(a.Limit, b.Limit),
	)
	if order <= 0 {
		return a
	}
	return b
}

// share is how much of a limit is left, 2 when that is not known.
func share(a *backend.Allowance) float64 {
	switch {
	case a.Remaining == 0:
		return 0
	case a.Limit == 0:
		return 2
	}
	return float64(a.Remaining) / float64(a.Limit)
}

// maxItems bounds how many limits one structured header may list.
const maxItems = 16

// structured reads the ratelimit field of the drafts of the IETF: either
// "limit=100, remaining=50, reset=5", or a list of items such as
// "burst";r=50;t=5, of which ratelimit-policy tells the limits: "burst";q=100;w=60.
func structured(h http.Header) []*backend.Allowance {
	limits := make(map[string]int64)
	for _, item := range listItems(h.Values("Ratelimit-Policy")) {
		name, p := params(item)
		unit := strings.Trim(p["qu"], `"`)
		if limit, ok := amount(p["q"]); ok && limit > 0 && (unit == "" || unit == "requests") {
			limits[name] = limit
		} else {
			limits[name] = -1
		}
	}
	var out []*backend.Allowance
	whole := make(map[string]string) // of the older form
	for _, item := range listItems(h.Values("Ratelimit")) {
		name, p := params(item)
		if key, value, ok := strings.Cut(name, "="); ok && !strings.HasPrefix(name, `"`) {
			whole[strings.TrimSpace(key)] = value
			continue
		}
		if remaining, ok := amount(p["r"]); ok && limits[name] >= 0 {
			out = append(out, draftItem(remaining, limits[name], p["t"]))
		}
	}
	if remaining, ok := amount(whole["remaining"]); ok {
		if limit, ok := amount(whole["limit"]); ok && limit > 0 {
			out = append(out, draftItem(remaining, limit, whole["reset"]))
		}
	}
	return out
}

// draftItem is one item of the drafts, whose reset is in seconds.
func draftItem(remaining, limit int64, reset string) *backend.Allowance {
	a := &backend.Allowance{Limit: limit, Remaining: remaining}
	if limit > 0 {
		a.Remaining = min(remaining, limit)
	}
	if seconds, err := strconv.ParseFloat(strings.TrimSpace(reset), 64); err == nil {
		a.Reset = hint(seconds, time.Second)
	}
	return a
}

// listItems returns the items of a list header. Names do not hold commas.
func listItems(lines []string) []string {
	items := strings.SplitN(strings.Join(lines, ","), ",", maxItems+1)
	return slices.DeleteFunc(items[:min(len(items), maxItems)], func(s string) bool { return strings.TrimSpace(s) == "" })
}

// params takes an item apart into its name and its parameters.
func params(item string) (string, map[string]string) {
	parts := strings.Split(item, ";")
	p := make(map[string]string)
	for _, part := range parts[1:] {
		if key, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok {
			p[key] = value
		}
	}
	return strings.TrimSpace(parts[0]), p
}
