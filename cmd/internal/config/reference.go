package config

import (
	"fmt"
	"io"
	"strings"
)

// group is a part of the reference.
type group struct {
	title, intro string
	// prefixes are the starts of the variables' names.
	prefixes []string
	spec     any
}

// reference is the manual: every variable, in the order in which one meets them.
func reference() []group {
	return []group{
		{"NATS", "As the nats command has them. Other variables that begin with NATS_ are left alone.", []string{"NATS"}, &natsSpec{}},
		{"The worker", "", []string{"WORKER"}, &workerSpec{}},
		{"Backends and routes", "A backend that is off leaves the chains that name it. When all are off, the worker does not start.", []string{""}, &listsSpec{}},
		{"One backend", "<NAME> is a name in BACKENDS, in upper case and with _ for -: VLLM_2_BASE_URL is of the backend vllm-2.", []string{"<NAME>"}, &backendSpec{}},
		{"Breakers", "For all backends; of KIND=rules there is none.", []string{"BREAKER"}, &breakerSpec{}},
		{
			"Routes",
			"FALLBACK_* is the default route, ROUTE_<NAME>_* is a route in ROUTES. Routes inherit nothing: what FALLBACK_* says holds for the default route alone, and what a named route leaves out has the default below. A job may override most of it for itself, in chain, primary and policy.",
			[]string{"FALLBACK", "ROUTE_<NAME>"},
			&routeSpec{},
		},
	}
}

// preamble is what holds for all variables.
func preamble() []string {
	return []string{
		"The environment is the only configuration. A file .env in the working directory adds what the environment does not have.",
		"Times are seconds (5.0) or Go durations (750ms, 168h). An empty variable counts as not set, but for WORKER_HTTP_ADDR.",
		"`worker -check` prints what is in effect and everything that is wrong with it: of each variable the first ten mistakes, and how many more there are.",
	}
}

// Reference writes the manual of all variables as plain text to out.
func Reference(out io.Writer) error {
	var b strings.Builder
	for _, line := range preamble() {
		wrap(&b, "", line)
	}
	err := eachGroup(func(g group, list []field) {
		b.WriteString("\n" + strings.ToUpper(g.title) + "\n")
		if g.intro != "" {
			wrap(&b, "", g.intro)
		}
		for i, f := range list {
			if i > 0 || g.intro != "" {
				b.WriteString("\n")
			}
			g.entry(&b, f)
		}
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// entry writes one variable as plain text.
func (g *group) entry(b *strings.Builder, f field) {
	for _, name := range g.names(f) {
		b.WriteString("  " + name + "\n")
	}
	wrap(b, "      ", meaning(f))
	if d := defaultOf(f); d != "" {
		wrap(b, "      ", "Default: "+d)
	}
}

// Markdown writes the manual of all variables as Markdown to out.
func Markdown(out io.Writer) error {
	var b strings.Builder
	b.WriteString("# Configuration\n\n<!-- Generated from cmd/internal/config/spec.go by go generate ./cmd/internal/config; do not edit. -->\n")
	for _, line := range preamble() {
		b.WriteString("\n" + markdown(line) + "\n")
	}
	err := eachGroup(func(g group, list []field) {
		fmt.Fprintf(&b, "\n## %s\n\n", g.title)
		if g.intro != "" {
			b.WriteString(markdown(g.intro) + "\n\n")
		}
		b.WriteString("| Variable | Default | Meaning |\n|---|---|---|\n")
		for _, f := range list {
			names := g.names(f)
			for i, name := range names {
				names[i] = code(name)
			}
			byDefault := markdown(f.tag.Get("shown"))
			if byDefault == "" {
				byDefault = code(strings.ReplaceAll(f.tag.Get("default"), ",", ", "))
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(names, "<br>"), byDefault, markdown(meaning(f)))
		}
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// eachGroup calls do with every group and its variables.
func eachGroup(do func(group, []field)) error {
	for _, g := range reference() {
		list, err := fields(g.prefixes[0], g.spec)
		if err != nil {
			return err
		}
		do(g, list)
	}
	return nil
}

// names are the names of a variable, one for each prefix of the group.
func (g *group) names(f field) []string {
	list := []string{f.name}
	for _, prefix := range g.prefixes[1:] {
		list = append(list, prefix+strings.TrimPrefix(f.name, g.prefixes[0]))
	}
	return list
}

// defaultOf is the default of a variable, for people.
func defaultOf(f field) string {
	if shown := f.tag.Get("shown"); shown != "" {
		return shown
	}
	return f.tag.Get("default")
}

// meaning is what a variable does, for people.
func meaning(f field) string {
	if f.tag.Get("inert") != "" {
		return f.tag.Get("desc") + " Not in effect in this version."
	}
	return f.tag.Get("desc")
}

// markdown is text with what is code in it marked as such.
func markdown(text string) string {
	words := strings.Fields(text)
	for i, word := range words {
		core := strings.Trim(word, ".,;:()")
		if strings.ContainsAny(core, "_=<*/") && !strings.Contains(word, "`") {
			words[i] = strings.Replace(word, core, code(core), 1)
		}
	}
	return strings.Join(words, " ")
}

// code is text as code, in a table too.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

// wrap writes text in lines of 80 columns.
func wrap(b *strings.Builder, indent, text string) {
	const width = 80
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}
