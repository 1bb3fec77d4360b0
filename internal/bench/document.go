package main

import (
	"fmt"
	"os"
	"strings"
)

// The markers between which the document holds the latest table.
const (
	beginMarker = "<!-- bench:begin -->"
	endMarker   = "<!-- bench:end -->"
)

// writeDoc puts table between the markers of the file.
func writeDoc(name, table string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	mended, err := between(string(text), table)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(mended), info.Mode().Perm())
}

// between is text with table between its markers.
func between(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, beginMarker)
	if !found {
		return "", fmt.Errorf("there is no line %s", beginMarker)
	}
	_, behind, found := strings.Cut(rest, endMarker)
	if !found {
		return "", fmt.Errorf("there is no line %s after %s", endMarker, beginMarker)
	}
	return before + beginMarker + "\n\n" + strings.TrimSpace(table) + "\n\n" + endMarker + behind, nil
}
