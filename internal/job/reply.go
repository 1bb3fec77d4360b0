package job

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DefaultReplyAllow is the rule for reply subjects unless WORKER_REPLY_ALLOW
// says otherwise: the inboxes of the NATS clients.
const DefaultReplyAllow = "_INBOX.>,_R_.>"

// MaxSubject is the longest subject a job may name, in bytes.
const MaxSubject = 255

// ReplyRule says to which subjects a job may have its result and events sent. A
// worker publishes with its own permissions, so without a rule any publisher
// could write anywhere the worker can. The zero value allows nothing. A
// ReplyRule is safe for concurrent use.
type ReplyRule struct {
	patterns [][]string // each split at its dots
}

// ParseReplyRule reads NATS subject patterns joined by commas, such as
// [DefaultReplyAllow]: `*` stands for one token, `>` at the end for one or more.
// Space around a pattern is ignored; an empty string allows nothing. The error
// names the pattern that is wrong.
func ParseReplyRule(patterns string) (ReplyRule, error) {
	var rule ReplyRule
	if strings.TrimSpace(patterns) == "" {
		return rule, nil
	}
	for pattern := range strings.SplitSeq(patterns, ",") {
		pattern = strings.TrimSpace(pattern)
		tokens, err := splitPattern(pattern)
		if err != nil {
			return ReplyRule{}, fmt.Errorf("subject pattern %q %w", pattern, err)
		}
		rule.patterns = append(rule.patterns, tokens)
	}
	return rule, nil
}

// Allows reports whether one of the patterns matches subject. It does not check
// that subject is one that can be published to.
func (r ReplyRule) Allows(subject string) bool {
	tokens := strings.Split(subject, ".")
	return slices.ContainsFunc(r.patterns, func(pattern []string) bool { return matches(pattern, tokens) })
}

func matches(pattern, tokens []string) bool {
	for i, want := range pattern {
		switch {
		case i >= len(tokens) || tokens[i] == "":
			return false
		case want == ">":
			return true
		case want != "*" && want != tokens[i]:
			return false
		}
	}
	return len(pattern) == len(tokens)
}

func splitPattern(pattern string) ([]string, error) {
	tokens := strings.Split(pattern, ".")
	plain := slices.Clone(tokens)
	for i, token := range tokens {
		if token == "*" || token == ">" && i == len(tokens)-1 {
			plain[i] = "x"
		}
	}
	if err := checkSubject(strings.Join(plain, ".")); err != nil {
		return nil, err
	}
	return tokens, nil
}

// checkSubject returns an error, a clause that follows the subject's name,
// unless anyone may publish to subject.
func checkSubject(subject string) error {
	switch {
	case subject == "":
		return fmt.Errorf("is empty")
	case len(subject) > MaxSubject:
		return fmt.Errorf("has %d bytes; at most %d", len(subject), MaxSubject)
	case !utf8.ValidString(subject):
		return fmt.Errorf("is not valid UTF-8")
	case strings.ContainsFunc(subject, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("holds a space or a control character")
	case strings.ContainsAny(subject, "*>"):
		return fmt.Errorf("holds a wildcard where none is allowed")
	case strings.Contains(subject, "$"):
		return fmt.Errorf("holds a $, which is for subjects of the NATS server")
	case slices.Contains(strings.Split(subject, "."), ""):
		return fmt.Errorf("holds an empty token")
	}
	return nil
}
