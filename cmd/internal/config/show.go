package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"understudy/internal/worker"
)

// Print writes the effective configuration to out: every variable that has a
// value, defaults included, then the routes as they are walked, then what there
// is to say. Secrets are shown as [set].
func (w *Worker) Print(out io.Writer) error {
	var b strings.Builder
	b.WriteString("NATS: " + w.where() + "\n")
	section(&b, "", w.nats)
	section(&b, "worker", w.worker)
	section(&b, "lists", w.lists)
	section(&b, "breakers", w.breakers)
	for _, e := range w.backends {
		if e.off != "" {
			fmt.Fprintf(&b, "\nbackend %s: off, %s\n", e.name, e.off)
			continue
		}
		section(&b, "backend "+e.name, e.inUse())
	}
	for _, e := range w.routes {
		chain := strings.Join(e.route.Chain, ", ")
		switch {
		case chain == "":
			chain = "no backend"
		case !e.route.Enabled:
			chain = e.route.Chain[0] + " alone"
		}
		section(&b, "route "+e.name+": "+chain, e.fields)
	}
	b.WriteString("\n")
	w.Report.print(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

// where says on one line which NATS server it will be.
func (w *Worker) where() string {
	if e := w.Config.Embedded; e != nil {
		return fmt.Sprintf("an embedded server on %s, files in %s", e.Addr, e.DataDir)
	}
	return w.NATS.Servers()
}

// inUse are the variables that this kind of backend reads.
func (b *backendEntry) inUse() []field {
	var list []field
	for _, f := range b.fields {
		rules := f.name == b.spec.Rules.name
		switch {
		case f.name == b.spec.Kind.name, rules == (b.spec.Kind.value == worker.KindRules):
			list = append(list, f)
		}
	}
	return list
}

// section writes the variables that have a value and an effect.
func section(b *strings.Builder, title string, list []field) {
	if title != "" {
		b.WriteString("\n" + title + "\n")
	}
	for _, f := range list {
		if f.tag.Get("inert") != "" && !f.isGiven() {
			continue
		}
		if text := f.shown(); text != "" || f.isGiven() {
			fmt.Fprintf(b, "  %s=%s\n", f.name, printable(text))
		}
	}
}

// printable is text on one line.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// print writes the findings, each on a line with its details below, and how many
// there are.
func (r *Report) print(b *strings.Builder) {
	for _, f := range r.Warnings {
		b.WriteString("warning: " + printable(f.line()) + f.below() + "\n")
	}
	for _, f := range r.Problems {
		b.WriteString("problem: " + printable(f.line()) + f.below() + "\n")
	}
	fmt.Fprintf(b, "%s, %s\n", counted(total(r.Problems), "problem"), counted(total(r.Warnings), "warning"))
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
