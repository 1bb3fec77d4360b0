package config

import (
	"math"
	"slices"
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
	weightsSetting    = setting[map[string]float64, weights]
	queuesSetting     = setting[[]queue.Weighted, weighted]
	replySetting      = setting[job.ReplyRule, replyRule]
	codesSetting      = setting[[]int, statusCodes]
	classesSetting    = setting[[]backend.Class, classes]
	mappingsSetting   = setting[map[backend.Class][]string, mappings]
)

func (names) parse(text string) ([]string, error) {
	var list []string
	for _, name := range split(text, ",") {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if slices.Contains(list, name) {
			return nil, flawed("name it once", "%s is named twice", quoted(name))
		}
		list = append(list, name)
	}
	return list, nil
}

// parse leaves the conditions themselves to the route, which reports each that is
// wrong.
func (conditions) parse(text string) ([]string, error) {
	list := splitUnquoted(text, ';')
	switch {
	case len(list) == 0:
		return nil, flawed("use conditions such as on_timeout, with semicolons between", "holds no condition")
	case len(list) > job.MaxConditions:
		return nil, flawed("use "+strconv.Itoa(job.MaxConditions)+" at most; one may join several with or", "holds %d conditions", len(list))
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
	for _, item := range split(text, ",") {
		left, right, found := strings.Cut(item, "=")
		left, right = strings.TrimSpace(left), strings.TrimSpace(right)
		switch _, twice := m[left]; {
		case !found || left == "" || right == "":
			return nil, flawed(mend, "%s is not a pair", quoted(item))
		case twice:
			return nil, flawed("name it once", "%s is named twice", quoted(left))
		}
		m[left] = right
	}
	return m, nil
}

func (weights) parse(text string) (map[string]float64, error) {
	const mend = "use backend=weight, with commas between, and weights of 0 or more"
	given, err := pairs{}.parse(text)
	if err != nil {
		return nil, flawed(mend, "%s", err)
	}
	m := make(map[string]float64, len(given))
	for name, weight := range given {
		w, err := strconv.ParseFloat(weight, 64)
		if err != nil || math.IsNaN(w) || w < 0 || w > 1e9 {
			return nil, flawed(mend, "%s is not a weight", quoted(weight))
		}
		m[name] = w
	}
	return m, nil
}

func (weighted) parse(text string) ([]queue.Weighted, error) {
	const mend = "use queues such as default, or with weights high=6,default=3,low=1"
	var list []queue.Weighted
	for _, item := range split(text, ",") {
		name, weight, found := strings.Cut(item, "=")
		q := queue.Weighted{Name: strings.TrimSpace(name), Weight: 1}
		if err := checkName(q.Name); err != nil {
			return nil, err
		}
		if found {
			n, err := strconv.ParseInt(strings.TrimSpace(weight), 10, 32)
			if err != nil || n < 1 {
				return nil, flawed(mend, "the weight in %s is not a whole number above 0", quoted(item))
			}
			q.Weight = int(n)
		}
		if slices.ContainsFunc(list, func(o queue.Weighted) bool { return o.Name == q.Name }) {
			return nil, flawed("name it once", "%s is named twice", quoted(q.Name))
		}
		list = append(list, q)
	}
	if len(list) == 0 {
		return nil, flawed(mend, "names no queue")
	}
	return list, nil
}

func (replyRule) parse(text string) (job.ReplyRule, error) {
	rule, err := job.ParseReplyRule(text)
	if err != nil {
		return rule, flawed("use NATS subjects with commas between, such as "+job.DefaultReplyAllow, "%s", err)
	}
	return rule, nil
}

func (statusCodes) parse(text string) ([]int, error) {
	var list []int
	for _, item := range split(text, ",") {
		code, err := strconv.Atoi(item)
		if err != nil || code < 100 || code > 599 {
			return nil, flawed("use codes such as 429,500,503", "%s is not an HTTP status", quoted(item))
		}
		list = append(list, code)
	}
	return list, nil
}

func (classes) parse(text string) ([]backend.Class, error) {
	var list []backend.Class
	for _, item := range split(text, ",") {
		class, err := parseClass(item)
		if err != nil {
			return nil, err
		}
		list = append(list, class)
	}
	return list, nil
}

func (mappings) parse(text string) (map[backend.Class][]string, error) {
	const mend = "use class=backend|backend, with semicolons between"
	m := make(map[backend.Class][]string)
	for _, item := range split(text, ";") {
		left, right, _ := strings.Cut(item, "=")
		class, err := parseClass(left)
		if err != nil {
			return nil, err
		}
		backends := split(right, "|")
		switch _, twice := m[class]; {
		case len(backends) == 0:
			return nil, flawed(mend, "%s names no backend", quoted(item))
		case twice:
			return nil, flawed("name it once", "the class %s is named twice", class)
		}
		m[class] = backends
	}
	return m, nil
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
