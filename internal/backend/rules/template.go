package rules

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// template is an answer, cut into text and references to groups.
type template []part

// part is text, or a reference to the group of that name or number.
type part struct {
	text  string
	group string // empty for text
}

// newTemplate parses text: $1, $name and ${name} refer to groups, $$ is a
// dollar sign, and so is a $ that nothing to refer to follows.
func newTemplate(text string) (template, error) {
	var t template
	for {
		before, after, found := strings.Cut(text, "$")
		if before != "" {
			t = append(t, part{text: before})
		}
		if !found {
			return t, nil
		}
		var group string
		switch {
		case strings.HasPrefix(after, "$"):
			after = after[1:]
		case strings.HasPrefix(after, "{"):
			var closed bool
			if group, after, closed = strings.Cut(after[1:], "}"); !closed {
				return nil, errors.New(`"${" without "}"; write ${name}, or $${ for the characters themselves`)
			}
			if group == "" || wordLen(group) < len(group) {
				return nil, fmt.Errorf("${%s} is no group; a name has letters, digits and _; write $${ for the characters themselves", group)
			}
		default:
			n := wordLen(after)
			group, after = after[:n], after[n:]
		}
		if group == "" {
			t = append(t, part{text: "$"})
		} else {
			t = append(t, part{group: group})
		}
		text = after
	}
}

// wordLen is how many bytes at the start of s can be of a group's name.
func wordLen(s string) int {
	return len(s) - len(strings.TrimLeft(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"))
}

// check returns an error unless match has every group the template refers to; a
// nil match has none.
func (t template) check(match *regexp.Regexp) error {
	for _, p := range t {
		if p.group == "" {
			continue
		}
		if match == nil {
			return fmt.Errorf("$%s: a default has no groups; write $$%s for a dollar sign", p.group, p.group)
		}
		if groupIndex(match, p.group) < 0 {
			return fmt.Errorf("$%s: the expression has no such group; write $$%s for a dollar sign, ${1} if text follows a number at once", p.group, p.group)
		}
	}
	return nil
}

// expand returns the template with every reference replaced by what its group
// matched in message, at most [MaxAnswer] bytes.
func (t template) expand(match *regexp.Regexp, message string, groups []int) string {
	var b strings.Builder
	for _, p := range t {
		b.WriteString(p.text)
		if p.group != "" {
			if i := 2 * groupIndex(match, p.group); groups[i] >= 0 { // else: an optional group that is absent
				b.WriteString(message[groups[i]:groups[i+1]])
			}
		}
		if b.Len() > MaxAnswer {
			break
		}
	}
	return head(b.String(), MaxAnswer)
}

// groupIndex is the number of the group that name stands for, -1 if there is none.
func groupIndex(match *regexp.Regexp, name string) int {
	if i, err := strconv.Atoi(name); err == nil && i <= match.NumSubexp() {
		return i
	}
	return match.SubexpIndex(name)
}
