package openai

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// redacted stands where a credential stood. It needs no escaping in JSON.
const redacted = "[redacted]"

// minSecret is the shortest credential that is looked for; anything shorter
// would blank out ordinary words and protects nothing.
const minSecret = 4

// redactor removes credentials from what a provider says. It knows the
// backend's own, whole or cut off at the end of a text, and what looks like
// anybody's. It is safe for concurrent use.
type redactor struct {
	secrets  []string
	patterns []lookalike
}

// lookalike finds credentials of one kind.
type lookalike struct {
	*regexp.Regexp
	// needs are texts of which every match holds one: most of what is looked at
	// holds none, and finding that out costs less than matching.
	needs []string
}

// replace returns s without what looks like such a credential.
func (l lookalike) replace(s string) string {
	for _, need := range l.needs {
		if strings.Contains(s, need) {
			return l.ReplaceAllString(s, redacted)
		}
	}
	return s
}

// newRedactor returns a redactor of the credentials in cfg: its key, and the
// values of headers whose name says that they authenticate.
func newRedactor(cfg Config) *redactor {
	r := &redactor{patterns: []lookalike{
		// "Authorization: Bearer abc", "Basic dXNlcg=="
		{regexp.MustCompile(`(?i)\b(?:bearer|basic)[ +]+[A-Za-z0-9._~+/*=-]{4,}`), []string{" ", "+"}},
		// Keys as OpenAI, Anthropic, OpenRouter, Groq, Google, Hugging Face, xAI,
		// Perplexity, NVIDIA, Replicate, Fireworks and AWS make them, masked or not.
		{
			regexp.MustCompile(`\b(?:(?:sk|rk|pk)-|gsk_|AIza|hf_|xai-|pplx-|nvapi-|r8_|fw_|AKIA|ASIA)[A-Za-z0-9_*.-]{3,}`),
			[]string{"k-", "gsk_", "AIza", "hf_", "xai-", "pplx-", "nvapi-", "r8_", "fw_", "AKIA", "ASIA"},
		},
		// What a provider has masked itself: "abcd***wxyz".
		{regexp.MustCompile(`[A-Za-z0-9_-]*\*{3,}[A-Za-z0-9_-]*`), []string{"***"}},
	}}
	r.add(string(cfg.APIKey))
	for name, value := range cfg.Headers {
		if harmless(name) {
			continue
		}
		r.add(value)
		if _, credential, ok := strings.Cut(value, " "); ok {
			r.add(strings.TrimSpace(credential))
		}
	}
	return r
}

// harmless reports whether a header of that name is known to carry no credential.
// A value that an operator configured is otherwise taken for a secret.
func harmless(name string) bool {
	switch strings.ToLower(name) {
	case "accept", "accept-language", "content-type", "http-referer", "referer", "user-agent", "x-title",
		"openai-beta", "openai-organization", "openai-project", "anthropic-version", "anthropic-beta":
		return true
	}
	return false
}

func (r *redactor) add(secret string) {
	if len(secret) < minSecret {
		return
	}
	r.secrets = append(r.secrets, secret)
	for _, spelled := range []string{url.QueryEscape(secret), strings.Trim(string(quote(secret)), `"`)} {
		if spelled != secret {
			r.secrets = append(r.secrets, spelled)
		}
	}
}

// text returns s without credentials.
func (r *redactor) text(s string) string {
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, redacted)
		s = redactTail(s, secret)
	}
	for _, pattern := range r.patterns {
		s = pattern.replace(s)
	}
	return s
}

// redactTail removes the beginning of a secret at the very end of s, which is
// what is left of one where a text was cut to its size limit.
func redactTail(s, secret string) string {
	for n := min(len(secret)-1, len(s)); n >= minSecret; n-- {
		if s[len(s)-1] == secret[n-1] && strings.HasSuffix(s, secret[:n]) {
			return s[:len(s)-n] + redacted
		}
	}
	return s
}

// line returns s as a message: without credentials, valid UTF-8, without
// control characters but line breaks and tabs, and at most limit bytes long.
func (r *redactor) line(s string, limit int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && c < 0xa0 {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return clip(strings.TrimSpace(r.text(s)), limit)
}

// clip cuts s to at most limit bytes, between two characters.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
