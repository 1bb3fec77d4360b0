package rules

import (
	"context"
	_ "embed" // the built-in rules
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

const (
	// MaxFile is the longest rules file, in bytes.
	MaxFile = 1 << 20
	// MaxRules is how many match lines a file may have, as each is tried on
	// every message.
	MaxRules = 1000
	// MaxMessage is how much of a message is looked at, in bytes from its start.
	MaxMessage = 64 << 10
	// MaxAnswer is the longest answer, in bytes; a longer one is cut. Only
	// groups that are used many times over can make it that long.
	MaxAnswer = 256 << 10
)

//go:embed default.rules
var defaultRules []byte

// Rules is a parsed rules file. It never changes and is safe for concurrent
// use. The nil value has no rules.
type Rules struct {
	list     []rule
	fallback *template // the default; nil when there is none
}

// rule is one match line with the answer of its block.
type rule struct {
	match  *regexp.Regexp
	answer template
}

// Load reads and parses the file at path, or the built-in rules when path is
// empty. Its errors name the file, the line and what to change, as [Parse]'s.
func Load(path string) (*Rules, error) {
	if path == "" {
		return Parse("default.rules", defaultRules)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return Parse(path, data)
}

// Parse parses the text of a rules file; name is what errors call it. An error
// holds every problem found, the first 20 of them, a line each that starts with
// the name and the line number.
//
// The file is lines of "match: <RE2 expression>", "answer: <text>" and
// "default: <text>"; text may stand indented on the lines below; a line that
// starts with # is a comment. Several match lines share the answer that follows.
// The built-in file is an example with everything in it.
func Parse(name string, data []byte) (*Rules, error) {
	p := &parser{name: name, rules: &Rules{}}
	p.parse(data)
	if len(p.problems) > 0 {
		return nil, errors.Join(p.problems...)
	}
	return p.rules, nil
}

// answer returns the answer to the first [MaxMessage] bytes of message: that of
// the first rule that matches, or the default. There is none when nothing
// matches, and when ctx is done between two rules.
func (r *Rules) answer(ctx context.Context, message string) (answer string, ok bool) {
	if r == nil {
		return "", false
	}
	message = head(message, MaxMessage)
	for _, rule := range r.list {
		if ctx.Err() != nil {
			return "", false
		}
		if groups := rule.match.FindStringSubmatchIndex(message); groups != nil {
			return rule.answer.expand(rule.match, message, groups), true
		}
	}
	if r.fallback == nil {
		return "", false
	}
	return r.fallback.expand(nil, "", nil), true
}

// head returns at most the first n bytes of s, without a rune cut in two.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
