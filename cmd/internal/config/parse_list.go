package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"understudy/internal/backend"
	"understudy/internal/job"
	"understudy/internal/queue"
)

// The parsers of lists.
type (
	names       struct{} // of backends and routes
	conditions  struct{}
	pairs       struct{}
	weights     struct{}
	weighted    struct{} // queues
	replyRule   struct{}
	statusCodes struct{}
	classes     struct{}
	mappings    struct{}
)

// The settings of lists.
type (
	namesSetting      = setting[[]string, names]
	conditionsSetting = setting[[]string, conditions]
	pairsSetting      = setting[map[string]string, pairs]
	weightsSetting    = setting[[]weightOf, weights]
	queuesSetting     = setting[[]queue.Weighted, weighted]
	replySetting      = setting[job.ReplyRule, replyRule]
	codesSetting      = setting[[]int, statusCodes]
	classesSetting    = setting[[]backend.Class, classes]
	mappingsSetting   = setting[[]mapping, mappings]
)

// weightOf is the weight of a backend.
type weightOf struct {
	backend string
	weight  float64
}

// mapping is whom to ask after errors of a class.
type mapping struct {
	class    backend.Class
	backends []string
}

// once is what to do about a name that is there twice.
const once = "name it once"

// faultless is the value of a list in which nothing is wrong, or none and all that
// is wrong, joined.
func faultless[T any](value T, wrong []error) (T, error) {
	if len(wrong) > 0 {
		var none T
		return none, errors.Join(wrong...)
	}
	return value, nil
}

func (names) parse(text string) ([]string, error) {
	var list []string
	seen := make(map[string]int)
	var wrong []error
	for _, name := range split(text, ",") {
		if err := checkName(name); err != nil {
			wrong = append(wrong, err)
			continue
		}
		switch seen[name]++; seen[name] {
		case 1:
			list = append(list, name)
		case 2:
			wrong = append(wrong, flawed(once, "%s is named twice", quoted(name)))
		}
	}
	return list, errors.Join(wrong...)
}

// parse leaves the conditions themselves to the route, which reports each that is
// wrong.
func (conditions) parse(text string) ([]string, error) {
	list := splitUnquoted(text, ';')
	switch {
	case len(list) == 0:
		return nil, flawed("use conditions such as on_timeout, with semicolons between", "holds no condition")
	case len(list) > job.MaxConditions:
		return list, flawed("use "+strconv.Itoa(job.MaxConditions)+" at most; one may join several with or", "holds %d conditions", len(list))
	}
	return list, nil
}

// splitUnquoted is split with a separator that counts only outside of quotes.
func splitUnquoted(text string, sep byte) []string {
	var parts []string
	add := func(part string) {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	var quote byte
	start := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0 && quote != '`' && c == '\\':
			i++ // what follows does not end the string
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == sep:
			add(text[start:i])
			start = i + 1
		}
	}
	add(text[start:])
	return parts
}

func (pairs) parse(text string) (map[string]string, error) {
	const mend = "use alias=actual, with commas between"
	m := make(map[string]string)
	seen := make(map[string]int)
	var wrong []error
	for _, item := range split(text, ",") {
		left, right, ok := cutPair(item)
		if !ok {
			wrong = append(wrong, flawed(mend, "%s is not a pair", quoted(item)))
			continue
		}
		if seen[left]++; seen[left] == 2 {
			wrong = append(wrong, flawed(once, "%s is named twice", quoted(left)))
		}
		m[left] = right
	}
	return faultless(m, wrong)
}

// cutPair takes an item apart at the first equals sign; ok tells that neither side
// is empty.
func cutPair(item string) (left, right string, ok bool) {
	left, right, _ = strings.Cut(item, "=")
	left, right = strings.TrimSpace(left), strings.TrimSpace(right)
	return left, right, left != "" && right != ""
}

func (weights) parse(text string) ([]weightOf, error) {
	const mend = "use backend=weight, with commas between, and weights of 0 or more"
	var list []weightOf
	seen := make(map[string]int)
	var wrong []error
	for _, item := range split(text, ",") {
		name, weight, ok := cutPair(item)
		if !ok {
			wrong = append(wrong, flawed(mend, "%s is not a pair", quoted(item)))
			continue
		}
		if seen[name]++; seen[name] == 2 {
			wrong = append(wrong, flawed(mend, "%s is named twice", quoted(name)))
		}
		w, err := strconv.ParseFloat(weight, 64)
		if err != nil || math.IsNaN(w) || w < 0 || w > 1e9 {
			wrong = append(wrong, flawed(mend, "%s is not a weight", quoted(weight)))
		}
		list = append(list, weightOf{name, w})
	}
	return list, errors.Join(wrong...)
}

func (weighted) parse(text string) ([]queue.Weighted, error) {
	const mend = "use queues such as default, or with weights high=6,default=3,low=1"
	var list []queue.Weighted
	seen := make(map[string]int)
	var wrong []error
	for _, item := range split(text, ",") {
		name, weight, found := strings.Cut(item, "=")
		q := queue.Weighted{Name: strings.TrimSpace(name), Weight: 1}
		if err := checkName(q.Name); err != nil {
			wrong = append(wrong, err)
		} else if seen[q.Name]++; seen[q.Name] == 2 {
			wrong = append(wrong, flawed(once, "%s is named twice", quoted(q.Name)))
		}
		if found {
			n, err := strconv.ParseInt(strings.TrimSpace(weight), 10, 32)
			if err != nil || n < 1 {
				wrong = append(wrong, flawed(mend, "the weight in %s is not a whole number above 0", quoted(item)))
			}
			q.Weight = int(n)
		}
		list = append(list, q)
	}
	if len(list) == 0 {
		return nil, flawed(mend, "names no queue")
	}
	return faultless(list, wrong)
}

func (replyRule) parse(text string) (job.ReplyRule, error) {
	rule, err := job.ParseReplyRule(text)
	if err == nil {
		return rule, nil
	}
	var wrong []error
	for pattern := range strings.SplitSeq(text, ",") {
		if err := checkPattern(strings.TrimSpace(pattern)); err != nil {
			wrong = append(wrong, err)
		}
	}
	return rule, errors.Join(wrong...)
}

// checkPattern returns what is wrong with one pattern of a list.
func checkPattern(pattern string) error {
	alone := pattern
	if pattern == "" {
		alone = "," // an empty text is a list of none, not of an empty one
	}
	_, err := job.ParseReplyRule(alone)
	if err == nil {
		return nil
	}
	text := err.Error()
	if len(pattern) > job.MaxSubject || hasUser(pattern) {
		text = strings.Replace(text, "subject pattern "+strconv.Quote(pattern), fmt.Sprintf("a subject pattern of %d bytes", len(pattern)), 1)
	}
	return flawed("use NATS subjects with commas between, such as "+job.DefaultReplyAllow, "%s", text)
}

func (statusCodes) parse(text string) ([]int, error) {
	var list []int
	var wrong []error
	for _, item := range split(text, ",") {
		code, err := strconv.Atoi(item)
		if err != nil || code < 100 || code > 599 {
			wrong = append(wrong, flawed("use codes such as 429,500,503", "%s is not an HTTP status", quoted(item)))
		}
		list = append(list, code)
	}
	return faultless(list, wrong)
}

func (classes) parse(text string) ([]backend.Class, error) {
	var list []backend.Class
	var wrong []error
	for _, item := range split(text, ",") {
		class, err := parseClass(item)
		if err != nil {
			wrong = append(wrong, err)
		}
		list = append(list, class)
	}
	return faultless(list, wrong)
}

func (mappings) parse(text string) ([]mapping, error) {
	const mend = "use class=backend|backend, with semicolons between"
	var list []mapping
	seen := make(map[backend.Class]int)
	var wrong []error
	for _, item := range split(text, ";") {
		left, right, _ := strings.Cut(item, "=")
		class, err := parseClass(left)
		if err != nil {
			wrong = append(wrong, err)
		} else if seen[class]++; seen[class] == 2 {
			wrong = append(wrong, flawed(once, "the class %s is named twice", class))
		}
		backends := split(right, "|")
		if len(backends) == 0 {
			wrong = append(wrong, flawed(mend, "%s names no backend", quoted(item)))
		}
		list = append(list, mapping{class, backends})
	}
	return list, errors.Join(wrong...)
}

func parseClass(name string) (backend.Class, error) {
	class, err := backend.ParseClass(name)
	if err != nil {
		all := make([]string, 0, len(backend.Classes()))
		for _, c := range backend.Classes() {
			all = append(all, string(c))
		}
		return "", flawed("use one of "+strings.Join(all, ", "), "%s is not an error class", quoted(strings.TrimSpace(name)))
	}
	return class, nil
}
