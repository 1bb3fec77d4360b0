package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// The sections of the document that are written, by the names of their markers.
const (
	sectionTable = "bench"
	sectionSteps = "bench-steps"
	sectionScale = "bench-scale"
)

// markers are the lines between which the document holds a section.
func markers(section string) (begin, end string) {
	return "<!-- " + section + ":begin -->", "<!-- " + section + ":end -->"
}

// text prints the report for people.
func (r *report) text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintf(w, "%s\n", r.machine())
	part := ""
	for _, l := range r.Lines {
		if l.Part != part && err == nil {
			part = l.Part
			_, err = fmt.Fprintf(w, "\n%s\n  \t%s\n", r.title(part), strings.Join(r.head(part), "\t"))
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", strings.Join(r.row(l), "\t"))
		}
	}
	for _, t := range r.tables() {
		if err == nil {
			_, err = io.WriteString(w, t.text())
		}
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

// tables are what is told beside the lines with goals.
func (r *report) tables() []table {
	var all []table
	if r.Steps != nil {
		all = append(all, r.Steps.tables()...)
	}
	for _, c := range r.Curves {
		all = append(all, c.table())
	}
	return all
}

// markdown is the table of the lines for the document.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString(r.machine() + "\n")
	part := ""
	for _, l := range r.Lines {
		if l.Part != part {
			part = l.Part
			head := r.head(part)
			fmt.Fprintf(&b, "\n| %s | %s |\n|---|%s---|---|---|\n", r.title(part), strings.Join(head, " | "), strings.Repeat("---:|", len(head)-3))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r.row(l), " | "))
	}
	return b.String()
}

// document writes what was measured into the file, and the pictures beside it.
func (r *report) document(name string) error {
	dir, begin := filepath.Dir(name), strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	p := pictures{dir: dir, begin: begin}
	if len(r.Lines) > 0 {
		if err := writeDoc(name, sectionTable, r.markdown()); err != nil {
			return err
		}
	}
	if r.Steps != nil {
		text, err := r.Steps.markdown(p)
		if err == nil {
			err = writeDoc(name, sectionSteps, text)
		}
		if err != nil {
			return err
		}
	}
	if len(r.Curves) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString(r.machine() + "\n")
	for _, c := range r.Curves {
		text, err := c.markdown(p)
		if err != nil {
			return err
		}
		b.WriteString("\n" + text)
	}
	return writeDoc(name, sectionScale, b.String())
}

// pictures are the files beside the document whose names begin like its own.
type pictures struct{ dir, begin string }

// put writes a picture and returns how the document shows it.
func (p pictures) put(name, alt, svg string) (string, error) {
	file := p.begin + "-" + name + ".svg"
	if err := os.WriteFile(filepath.Join(p.dir, file), []byte(svg), 0o644); err != nil { //nolint:gosec // a public document
		return "", err
	}
	return fmt.Sprintf("![%s](%s)\n", alt, file), nil
}

// writeDoc puts text between the markers of a section of the file.
func writeDoc(name, section, text string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	mended, err := between(string(old), section, text)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(mended), info.Mode().Perm())
}

// between is old with text between the markers of a section.
func between(old, section, text string) (string, error) {
	begin, end := markers(section)
	before, rest, found := strings.Cut(old, begin)
	if !found {
		return "", fmt.Errorf("there is no line %s", begin)
	}
	_, behind, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("there is no line %s after %s", end, begin)
	}
	return before + begin + "\n\n" + strings.TrimSpace(text) + "\n\n" + end + behind, nil
}
