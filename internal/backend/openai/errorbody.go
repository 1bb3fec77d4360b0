package openai

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxWraps is how deep errors are unwrapped that wrap errors.
const maxWraps = 8

// report is what one party says about a failure. A gateway's report wraps that
// of the provider behind it.
type report struct {
	// code and kind are the party's own code and type, as it wrote them.
	code, kind string
	// codes are all its exact words for the failure, most telling first, as
	// [codeWord] spells them.
	codes   []string
	message string
	// status is a code that is an HTTP status, 0 when there is none.
	status int
	// delay is how long to wait, where the report has a field for that.
	delay time.Duration
	// limit and requested are tokens, where the report has fields for that.
	limit, requested int64
	// headers are those of the provider behind a gateway, where it passes them on.
	headers http.Header
}

// reader collects the reports of a body, outermost first.
type reader struct{ reports []report }

// readReports takes a body apart. It never fails: what it does not understand is
// a message.
func readReports(header http.Header, body []byte) []report {
	var r reader
	if name := header.Get("X-Amzn-Errortype"); name != "" {
		r.add(report{code: name, codes: []string{codeWord(name)}})
	}
	r.text(string(bytes.TrimSpace(body)), 0)
	return r.reports
}

func (r *reader) add(rep report) {
	if rep.message != "" || rep.status != 0 || len(rep.codes) > 0 || rep.delay != 0 || rep.headers != nil {
		r.reports = append(r.reports, rep)
	}
}

// text reads a text, which may be JSON, hold JSON or a Python dict, be HTML, or
// just be words.
func (r *reader) text(s string, depth int) {
	s = strings.TrimSpace(s)
	if s == "" || depth > maxWraps {
		return
	}
	if v, ok := decode(s); ok {
		r.value(v, depth)
		return
	}
	if isHTML([]byte(s)) {
		r.add(report{message: title(s)})
		return
	}
	own := withoutInput(s)
	rep := report{message: s, codes: exceptions(own)}
	if !strings.ContainsAny(s, " \t\n") {
		rep.code, rep.codes = s, append(rep.codes, codeWord(s))
	}
	r.add(rep)
	if i := strings.Index(own, "{'"); i >= 0 {
		r.python(own[i:])
	}
	if i := strings.Index(own, `{"`); i > 0 {
		dec := json.NewDecoder(strings.NewReader(s[i:]))
		dec.UseNumber()
		var v any
		if dec.Decode(&v) == nil {
			r.value(v, depth+1)
		}
	}
}

// decode decodes a text that is a JSON object or list.
func decode(s string) (any, bool) {
	if s[0] != '{' && s[0] != '[' {
		return nil, false
	}
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil, false
	}
	return v, true
}

func (r *reader) value(v any, depth int) {
	if depth > maxWraps {
		return
	}
	switch v := v.(type) {
	case string:
		r.text(v, depth+1)
	case []any:
		r.list(v, depth)
	case map[string]any:
		r.object(v, depth)
	}
}

// list reads the errors of a list: validation errors are one message together,
// of anything else the first counts.
func (r *reader) list(items []any, depth int) {
	var rep report
	var lines []string
	for _, item := range items[:min(len(items), 8)] {
		m, _ := item.(map[string]any)
		msg, ok := m["msg"].(string)
		if !ok {
			continue
		}
		var where []string
		loc, _ := m["loc"].([]any)
		for _, step := range loc[:min(len(loc), 8)] {
			where = append(where, scalar(step))
		}
		lines = append(lines, strings.TrimPrefix(strings.Join(where, ".")+": "+msg, ": "))
		rep.codes = appendCode(rep.codes, m["type"])
	}
	if len(lines) > 0 {
		rep.message = strings.Join(lines, "; ")
		r.add(rep)
		return
	}
	if len(items) > 0 {
		r.value(items[0], depth+1)
	}
}

// object reads an error object of any of the shapes in use, and then what it
// wraps.
func (r *reader) object(m map[string]any, depth int) {
	rep := report{
		code: first(m, "code", "error_code", "errorCode", "__type", "errorType"),
		kind: first(m, "type", "error_type"),
	}
	if status, _ := m["status"].(string); rep.kind == "" && atoiStatus(status) == 0 {
		rep.kind = status // a Google error's name
	}
	metadata, _ := m["metadata"].(map[string]any)
	inner, _ := firstOf(m, "innererror", "inner_error").(map[string]any)
	for _, from := range []struct {
		m     map[string]any
		names []string
	}{
		{inner, []string{"code"}},
		{m, []string{"code", "error_code", "errorCode", "__type", "errorType"}},
		{metadata, []string{"provider_code", "error_type"}},
		{m, []string{"type", "error_type", "status", "reason"}},
	} {
		for _, name := range from.names {
			rep.codes = appendCode(rep.codes, from.m[name])
		}
	}
	rep.message = firstString(m, "message", "Message", "error_message", "errorMessage", "error_msg", "err_msg",
		"msg", "status_msg", "error_description", "detail", "title")
	rep.status = statusIn(m, "code", "status", "statusCode", "status_code", "http_status", "error_code")
	rep.limit, rep.requested = tokensOf(m["n_ctx"]), tokensOf(m["n_prompt_tokens"]) // llama.cpp
	rep.details(m["details"])
	rep.metadata(metadata)
	rep.codes = append(rep.codes, exceptions(withoutInput(rep.message))...)
	nested := rep.message != "" && (rep.message[0] == '{' || rep.message[0] == '[' ||
		strings.Contains(rep.message, "{'") || strings.Contains(rep.message, `{"`))
	r.add(rep)
	if nested && depth < maxWraps {
		r.text(rep.message, depth+1)
	}
	for _, name := range []string{"message", "detail", "errors", "error", "cause", "upstream_error", "provider_error", "base_resp"} {
		switch v := m[name].(type) {
		case string:
			if name == "error" {
				r.text(v, depth+1)
			}
		default:
			r.value(v, depth+1)
		}
	}
	r.value(firstOf(metadata, "raw"), depth+1)
}

// details reads the details of a Google error: the reason, how long to wait, and
// which quota it was.
func (rep *report) details(v any) {
	list, _ := v.([]any)
	for _, item := range list {
		m, _ := item.(map[string]any)
		if reason, ok := m["reason"].(string); ok {
			rep.codes = slices.Insert(rep.codes, 0, codeWord(reason))
		}
		if delay, ok := m["retryDelay"].(string); ok {
			rep.delay = max(rep.delay, parseDelay(delay))
		}
		violations, _ := m["violations"].([]any)
		for _, violation := range violations {
			q, _ := violation.(map[string]any)
			switch quota := strings.ToLower(scalar(q["quotaId"]) + scalar(q["quotaMetric"]) + scalar(q["subject"])); {
			case strings.Contains(quota, "perday"):
				rep.codes = slices.Insert(rep.codes, 0, "quota_per_day")
			case strings.Contains(quota, "perminute"):
				rep.codes = append(rep.codes, "quota_per_minute")
			}
		}
	}
	if text, ok := v.(string); ok && rep.message == "" {
		rep.message = text
	}
}

// metadata reads what OpenRouter adds: headers of the provider, and why the
// moderation refused an input.
func (rep *report) metadata(m map[string]any) {
	if m["flagged_input"] != nil || m["reasons"] != nil {
		rep.codes = slices.Insert(rep.codes, 0, "moderation")
	}
	headers, _ := m["headers"].(map[string]any)
	for name, value := range headers {
		if rep.headers == nil {
			rep.headers = make(http.Header)
		}
		rep.headers.Set(name, scalar(value))
	}
}

// python reads the error in a Python dict, as LiteLLM quotes it in its messages.
func (r *reader) python(s string) {
	rep := report{
		code: pythonField(s, "code"), kind: pythonField(s, "type"), message: pythonField(s, "message"),
	}
	rep.codes = appendCode(appendCode(nil, rep.code), rep.kind)
	rep.status = atoiStatus(rep.code)
	r.add(rep)
}

// pythonField returns the value of a key in the text of a dict: a string or a
// number, "" for anything else.
func pythonField(s, key string) string {
	_, rest, ok := strings.Cut(s, "'"+key+"': ")
	if !ok || rest == "" {
		return ""
	}
	if quote := rest[0]; quote == '\'' || quote == '"' {
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case quote:
				return rest[1:i]
			}
		}
		return ""
	}
	if end := strings.IndexAny(rest, ",}"); end >= 0 && strings.Trim(rest[:end], "0123456789") == "" {
		return rest[:end]
	}
	return ""
}

// exceptions returns the LiteLLM exceptions that a message names.
func exceptions(s string) []string {
	var codes []string
	for _, part := range strings.Split(s, "litellm.")[1:] {
		end := strings.IndexFunc(part, func(c rune) bool { return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') })
		if end > 0 {
			codes = append(codes, codeWord(part[:end]))
		}
		if len(codes) == maxWraps {
			break
		}
	}
	slices.Reverse(codes) // the last one named is the one that was wrapped
	return codes
}

// codeWord spells a code the way the tables do: lower case, underscores, without
// an AWS namespace or address.
func codeWord(s string) string {
	if i := strings.LastIndexByte(s, '#'); i >= 0 {
		s = s[i+1:]
	}
	s, _, _ = strings.Cut(s, ":")
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(s)))
}

// appendCode appends v if it is a code of a sane length.
func appendCode(codes []string, v any) []string {
	s, ok := v.(string)
	if !ok || s == "" || len(s) > maxWord {
		return codes
	}
	return append(codes, codeWord(s))
}

// statusIn returns the first of the named members that is an HTTP status.
func statusIn(m map[string]any, names ...string) int {
	for _, name := range names {
		if status := atoiStatus(scalar(m[name])); status != 0 {
			return status
		}
	}
	return 0
}

// atoiStatus returns a code that is the HTTP status of an error, or else 0.
func atoiStatus(s string) int {
	if n, err := strconv.Atoi(s); err == nil && n >= 400 && n <= 599 {
		return n
	}
	return 0
}

// scalar returns a string or a number as text.
func scalar(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// first returns the first of the named members that is a string or a number.
func first(m map[string]any, names ...string) string { return scalar(firstOf(m, names...)) }

// firstOf returns the first of the named members that is there.
func firstOf(m map[string]any, names ...string) any {
	for _, name := range names {
		if v, ok := m[name]; ok && v != nil {
			return v
		}
	}
	return nil
}

// firstString returns the first of the named members that is a string.
func firstString(m map[string]any, names ...string) string {
	for _, name := range names {
		if s, ok := m[name].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// isHTML reports whether a body is a page of a proxy, a CDN or a load balancer.
func isHTML(body []byte) bool {
	text := bytes.TrimSpace(body[:min(len(body), 1024)])
	if len(text) == 0 || text[0] != '<' {
		return false
	}
	head := strings.ToLower(string(text))
	return strings.HasPrefix(head, "<!doctype") || strings.Contains(head, "<html")
}

// title returns the title of a page, or else its first heading.
func title(page string) string {
	lower := strings.ToLower(page)
	if len(lower) != len(page) {
		page = lower // a letter that changes its length; the title survives in lower case
	}
	for _, tag := range []string{"title", "h1", "h2"} {
		start := strings.Index(lower, "<"+tag)
		if start < 0 {
			continue
		}
		open := strings.IndexByte(lower[start:], '>')
		end := strings.Index(lower[start:], "</"+tag)
		if open > 0 && end > open {
			return strings.Join(strings.Fields(page[start+open+1:start+end]), " ")
		}
	}
	return ""
}
