// Command generate writes docs/configuration.md, or what its one argument names.
package main

import (
	"bytes"
	"fmt"
	"os"

	"understudy/cmd/internal/config"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the file to write as the only argument, got %d", len(args))
	}
	var text bytes.Buffer
	if err := config.Markdown(&text); err != nil {
		return err
	}
	return os.WriteFile(args[0], text.Bytes(), 0o644)
}
