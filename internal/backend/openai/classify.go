package openai

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/backend"
)

// Verdict is what a provider's answer says about a failure.
type Verdict struct {
	// Class is never empty when the verdict is that of [Classify].
	Class backend.Class
	// Code, Type and Message are the provider's own, of the innermost error;
	// empty where it gave none. They may hold what the provider echoes.
	Code, Type, Message string
	// RetryAfter is the provider's hint, 0 when it gave none.
	RetryAfter time.Duration
	// Limit and Requested are what the provider can take and what the request
	// would need, in tokens, where it says both of a request that can never fit; 0
	// when it does not.
	Limit, Requested int64

	// inner are the headers of the providers behind a gateway.
	inner []http.Header
	// told tells that the body itself, not just the status, led to the class.
	told bool
}

// strength is how far a provider's code can be trusted.
type strength int

const (
	unknown strength = iota
	// generic codes name a whole range of failures: the status knows better.
	generic
	// weak codes cover several classes, which the message tells apart.
	weak
	// exact codes mean one thing.
	exact
)

// Classify says what kind of failure an answer is, from its status, header and
// body. It takes whatever it is given: every status, and any body.
//
// The innermost error decides, since a gateway's own words are about the
// gateway. Of one error an exact code beats the words of the message, and those
// beat a weak code. Where no error says anything the status does, and inside a
// stream or a 200 the status that the error gives as its code.
func Classify(status int, header http.Header, body []byte) Verdict {
	reports := readReports(header, capped(body))
	v := Verdict{}
	for _, rep := range slices.Backward(reports) {
		if v.Message == "" {
			v.Message = rep.message
		}
		if v.Code == "" {
			v.Code = rep.code
		}
		if v.Type == "" {
			v.Type = rep.kind
		}
	}
	v.Class, v.told = decide(effectiveStatus(status, reports), reports)
	switch {
	case status/100 != 2:
	case isHTML(body):
		v.Class = backend.BadResponse
	case !v.told && saysFailed(body):
		v.Class, v.told = backend.ServerError, true
	}
	v.RetryAfter = retryHint(v.Class, header, reports)
	v.Limit, v.Requested = fit(v.Class, reports)
	v.inner = innerHeaders(reports)
	return v
}

// saysFailed reports whether a body is an error by its shape.
func saysFailed(body []byte) bool {
	if body = bytes.TrimSpace(body); bytes.HasPrefix(body, []byte("[")) {
		var list []map[string]json.RawMessage
		return json.Unmarshal(body, &list) == nil && len(list) > 0 && failed(list[0])
	}
	var top map[string]json.RawMessage
	return json.Unmarshal(body, &top) == nil && failed(top)
}

// effectiveStatus is the status to go by. The one an error gives beats an HTTP
// status that a gateway uses for everything.
func effectiveStatus(status int, reports []report) int {
	switch status {
	case 400, 500, 502:
	default:
		if status >= 400 && status <= 599 {
			return status
		}
	}
	for _, rep := range slices.Backward(reports) {
		if rep.status != 0 {
			return rep.status
		}
	}
	return status
}

// decide returns the class, and whether the reports rather than the status gave it.
func decide(status int, reports []report) (backend.Class, bool) {
	var fallback backend.Class
	for _, rep := range slices.Backward(reports) {
		class, how := rep.class(status)
		if how > generic {
			return class, true
		}
		if how == generic && fallback == "" {
			fallback = class
		}
	}
	if status >= 400 && status <= 599 {
		return statusClass(status), len(reports) > 0
	}
	if fallback != "" {
		return fallback, true
	}
	return statusClass(status), false
}

// class returns what one report says, and how surely.
func (rep report) class(status int) (backend.Class, strength) {
	var guess backend.Class
	how := unknown
	for _, code := range rep.codes {
		class, s := codeClass(code)
		if s == exact {
			return class, s
		}
		if s > how && (s == generic || fits(status, class)) {
			guess, how = class, s
		}
	}
	if class := rep.phraseClass(status, guess); class != "" {
		return class, weak
	}
	return guess, how
}

// phraseClass returns the class of the report's words, "" when they are no help.
// The guess is that of its codes.
func (rep report) phraseClass(status int, guess backend.Class) backend.Class {
	text := strings.ToLower(clip(withoutInput(rep.message), 4096))
	if slices.Contains(rep.codes, "resource_exhausted") {
		// Google says this of every limit, also of one that passes in a minute.
		text = strings.NewReplacer("exceeded your current quota", "", "plan and billing details", "").Replace(text)
	}
	if overLimit(text) && fits(status, backend.TooLarge) {
		return backend.TooLarge
	}
	named := rep.namesRate(status, text)
	for _, p := range phrases() {
		if !rep.phraseFits(status, p.class, guess) || p.upsell && named {
			continue
		}
		for _, words := range p.any {
			if strings.Contains(text, words) && containsAny(text, p.with) {
				return p.class
			}
		}
	}
	return ""
}

// phraseFits reports whether words alone can make a failure with that status one
// of the class, given the guess of the codes. A complaint about a request quotes
// what the caller wrote, and so does a crash, which then says nothing.
func (rep report) phraseFits(status int, class, guess backend.Class) bool {
	if !fits(status, class) {
		return false
	}
	if slices.ContainsFunc(rep.codes, isValueCode) {
		return class == backend.TooLarge || class == backend.ContextLength || class == backend.Unsupported
	}
	passing := []backend.Class{backend.RateLimit, backend.Overloaded}
	switch {
	case slices.Contains(passing, class):
		return status != 400 && status != 422 || slices.Contains(passing, guess)
	case class == backend.ContentFilter:
		return status < 500 || guess == backend.InvalidRequest
	}
	return true
}

// longestRate is the longest wait that is still that of a rate, not of a quota.
const longestRate = 10 * time.Minute

// namesRate reports whether a failure is about a rate, by its code or its text,
// so that an offer to sell more says nothing. Other statuses are definite.
func (rep report) namesRate(status int, text string) bool {
	switch status {
	case 400, 402, 403, 422:
		return false
	}
	if containsAny(text, []string{"per day", "per-day", "perday", "daily", "per week", "weekly", "per month", "monthly", "/ month"}) {
		return false
	}
	if slices.Contains(rep.codes, "rate_limit_exceeded") || slices.Contains(rep.codes, "rate_limit_error") {
		return true
	}
	delay := delayInText(text)
	return delay > 0 && delay <= longestRate || containsAny(text, []string{
		"per min", "per-min", "per second", "per-second", "requests per", "tokens per", "(rpm)", "(tpm)", " rpm", " tpm",
	})
}

// withoutInput cuts a text where it begins to quote the caller's input, as
// validation errors do: "[{'type': 'missing', 'input': {...". A key is meant, not
// the name of a parameter in a sentence.
func withoutInput(text string) string {
	for _, key := range []string{`'input':`, `"input":`, `\"input\":`, `input_value=`} {
		for from := 0; ; {
			i := strings.Index(text[from:], key)
			if i < 0 {
				break
			}
			before := strings.TrimRight(text[:from+i], " \t\r\n")
			if strings.HasSuffix(before, ",") || strings.HasSuffix(before, "{") {
				text = before
				break
			}
			from += i + len(key)
		}
	}
	return text
}

// containsAny reports whether text contains one of words; no words means yes.
func containsAny(text string, words []string) bool {
	return len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// overLimit reports whether a text says that one request asks for more than the
// whole limit, so that waiting is no use: "Limit 30000, Requested 31538".
func overLimit(text string) bool {
	limit, ok := numberAfter(text, "limit ")
	requested, ok2 := numberAfter(text, "requested ")
	return ok && ok2 && strings.Contains(text, "per min") && requested > limit
}

// numberAfter returns the first number that directly follows words. It may have
// commas between its thousands.
func numberAfter(text, words string) (int, bool) {
	for {
		_, rest, ok := strings.Cut(text, words)
		if !ok {
			return 0, false
		}
		end := digits(rest)
		for end > 0 && strings.HasPrefix(rest[end:], ",") && digits(rest[end+1:]) == 3 {
			end += 4
		}
		if n, err := strconv.Atoi(strings.ReplaceAll(rest[:end], ",", "")); err == nil {
			return n, true
		}
		text = rest
	}
}

// digits returns how many digits s begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// fits reports whether a failure with that status can be of that class by the
// message or a weak code: some statuses are definite, and words about something
// else are then only words.
func fits(status int, class backend.Class) bool {
	var classes []backend.Class
	switch status {
	case 401:
		classes = []backend.Class{backend.Auth, backend.Permission}
	case 402:
		classes = []backend.Class{backend.Quota}
	case 403:
		classes = []backend.Class{
			backend.Auth, backend.Permission, backend.Quota, backend.RateLimit, backend.ContentFilter, backend.ModelNotFound,
			backend.ContextLength,
		}
	case 404, 410:
		classes = []backend.Class{backend.ModelNotFound, backend.Unsupported, backend.Permission}
	case 408, 504, 522, 524:
		classes = []backend.Class{backend.Timeout}
	case 413:
		classes = []backend.Class{backend.TooLarge, backend.ContextLength}
	case 425, 498, 503, 529:
		classes = []backend.Class{backend.Overloaded, backend.RateLimit, backend.Quota}
	case 429:
		classes = []backend.Class{
			backend.RateLimit, backend.Quota, backend.Overloaded, backend.TooLarge, backend.ContextLength,
		}
	default:
		return status < 400 || status >= 500 || class != backend.Timeout
	}
	return slices.Contains(classes, class)
}

// statusClass returns the class of a failure of which only the status is known.
func statusClass(status int) backend.Class {
	switch status {
	case 401, 440, 495, 496, 561:
		return backend.Auth
	case 402:
		return backend.Quota
	case 403, 450, 451:
		return backend.Permission
	case 404, 410:
		return backend.ModelNotFound
	case 405, 406, 415, 426, 501, 505:
		return backend.Unsupported
	case 407, 421, 444, 460, 497, 499, 511: // between here and the model
		return backend.Connection
	case 408, 504, 522, 524, 598, 599:
		return backend.Timeout
	case 409, 423, 424, 449:
		return backend.ServerError
	case 413, 414, 431, 494:
		return backend.TooLarge
	case 420, 429, 430:
		return backend.RateLimit
	case 425, 498, 503, 529:
		return backend.Overloaded
	}
	switch {
	case status >= 400 && status < 500:
		return backend.InvalidRequest
	case status >= 500 && status < 600:
		return backend.ServerError
	}
	return backend.BadResponse
}
