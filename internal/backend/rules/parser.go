package rules

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxProblems is how many problems of a file are told.
const maxProblems = 20

// parser reads a rules file from top to bottom.
type parser struct {
	name     string
	rules    *Rules
	problems []error

	line        int
	matches     []matchLine // they wait for their answer
	matchesLine int         // of the first of them, also if that was wrong; 0 for none
	text        *text       // the answer or default that is being read
	count       int         // match lines so far
	defaultLine int         // 0 for none
}

// matchLine is a match line that waits for its answer.
type matchLine struct {
	line  int
	match *regexp.Regexp
}

// text is an answer or default in the making.
type text struct {
	key   string
	line  int
	first string   // on the line of the key
	rest  []string // the indented lines below
}

func (p *parser) parse(data []byte) {
	if len(data) > MaxFile {
		p.complain(1, "the file is longer than %d bytes; shorten it", MaxFile)
		return
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for line := range strings.SplitSeq(string(data), "\n") {
		p.line++
		if !utf8.ValidString(line) {
			p.complain(p.line, "the line is not UTF-8; save the file as UTF-8")
			continue
		}
		p.read(strings.TrimRight(line, " \t\r"))
	}
	p.finish()
	if p.matchesLine > 0 {
		p.complain(p.matchesLine, "match without an answer; add an answer: line below it")
	}
	if p.count == 0 && p.defaultLine == 0 && len(p.problems) == 0 {
		p.complain(1, "no rule; add a match: and an answer: line, or a default: line")
	}
}

// read takes one line without its trailing space.
func (p *parser) read(line string) {
	if line == "" || line[0] == ' ' || line[0] == '\t' {
		switch {
		case p.text != nil:
			p.text.rest = append(p.text.rest, line)
		case line != "":
			p.complain(p.line, "indented text outside of an answer; start the line with match:, answer:, default: or #")
		}
		return
	}
	if line[0] == '#' {
		return
	}
	p.finish()
	key, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	switch {
	case !strings.Contains(line, ":"), key != "match" && key != "answer" && key != "default":
		p.complain(p.line, "a line starts with match:, answer:, default: or #, in lower case; indent the text of an answer")
	case key == "match":
		p.match(value)
	case key == "answer" && p.matchesLine == 0:
		p.complain(p.line, "answer without a match; add a match: line above it, or call it default:")
		p.text = &text{line: p.line} // so that its text is not complained of as well
	case key == "answer":
		p.text = &text{key: key, line: p.line, first: value}
	default:
		if p.matchesLine > 0 {
			p.complain(p.matchesLine, "match without an answer; add an answer: line below it")
			p.matches, p.matchesLine = nil, 0
		}
		p.text = &text{key: key, line: p.line, first: value}
	}
}

// match takes the expression of a match line.
func (p *parser) match(expression string) {
	p.count++
	if p.matchesLine == 0 {
		p.matchesLine = p.line
	}
	if p.count > MaxRules {
		if p.count == MaxRules+1 {
			p.complain(p.line, "more than %d match lines; join some with |", MaxRules)
		}
		return
	}
	if expression == "" {
		p.complain(p.line, "match is empty; give an expression, or use default: to answer everything")
		return
	}
	match, err := compile(expression)
	if err != nil {
		p.complain(p.line, "match: %w", err)
		return
	}
	p.matches = append(p.matches, matchLine{p.line, match})
}

// finish ends the answer or default that is being read.
func (p *parser) finish() {
	t := p.text
	p.text = nil
	if t == nil || t.key == "" {
		return
	}
	matches := p.matches
	if t.key == "answer" {
		p.matches, p.matchesLine = nil, 0
	}
	body := t.String()
	if body == "" {
		p.complain(t.line, "%s is empty; write the text behind it, or indented below", t.key)
		return
	}
	answer, err := newTemplate(body)
	if err != nil {
		p.complain(t.line, "%s: %w", t.key, err)
		return
	}
	if t.key == "answer" {
		for _, m := range matches {
			if err := answer.check(m.match); err != nil {
				p.complain(t.line, "answer, with the match of line %d: %w", m.line, err)
				continue
			}
			p.rules.list = append(p.rules.list, rule{m.match, answer})
		}
		return
	}
	if p.defaultLine > 0 {
		p.complain(t.line, "a second default; the first is on line %d; keep one", p.defaultLine)
		return
	}
	p.defaultLine = t.line
	if err := answer.check(nil); err != nil {
		p.complain(t.line, "default: %w", err)
	}
	p.rules.fallback = &answer
}

// String is the text: what stands behind the key, and the lines below without
// the indent they share and without blank lines at the ends.
func (t *text) String() string {
	indent, seen := "", false
	for _, line := range t.rest {
		own := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		switch {
		case line == "":
		case !seen:
			indent, seen = own, true
		default:
			for !strings.HasPrefix(own, indent) {
				indent = indent[:len(indent)-1]
			}
		}
	}
	lines := make([]string, 0, len(t.rest)+1)
	lines = append(lines, t.first)
	for _, line := range t.rest {
		lines = append(lines, strings.TrimPrefix(line, indent))
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

func (p *parser) complain(line int, format string, args ...any) {
	switch {
	case len(p.problems) < maxProblems:
		p.problems = append(p.problems, fmt.Errorf("%s:%d: %w", p.name, line, fmt.Errorf(format, args...)))
	case len(p.problems) == maxProblems:
		p.problems = append(p.problems, fmt.Errorf("%s: and more", p.name))
	}
}
