package main

import "strings"

// table is a plain table with a title.
type table struct {
	title string
	head  []string
	rows  [][]string
	notes []string
}

// text is the table for people, its columns separated by tabs.
func (t table) text() string {
	var b strings.Builder
	b.WriteString("\n" + t.title + "\n")
	for _, row := range append([][]string{t.head}, t.rows...) {
		b.WriteString("  " + strings.Join(row, "\t") + "\n")
	}
	for _, note := range t.notes {
		b.WriteString("  " + note + "\n")
	}
	return b.String()
}

// markdown is the table for the document.
func (t table) markdown() string {
	var b strings.Builder
	b.WriteString("**" + t.title + "**\n\n")
	b.WriteString("| " + strings.Join(t.head, " | ") + " |\n|---|" + strings.Repeat("---:|", len(t.head)-1) + "\n")
	for _, row := range t.rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	for _, note := range t.notes {
		b.WriteString("\n" + note + "\n")
	}
	return b.String()
}
