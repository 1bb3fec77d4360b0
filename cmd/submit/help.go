package main

import (
	"flag"
	"fmt"
	"strings"

	"github.com/peterbourgon/ff/v3/ffcli"
)

// help is the help text of a command: what it does, how it is called, two
// examples, its flags and its commands.
func help(c *ffcli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUSAGE\n", c.ShortHelp)
	for line := range strings.Lines(c.ShortUsage) {
		fmt.Fprintf(&b, "  %s\n", strings.TrimSuffix(line, "\n"))
	}
	if c.LongHelp != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.LongHelp))
	}
	if len(c.Subcommands) > 0 {
		rows := make([][]string, len(c.Subcommands))
		for i, sub := range c.Subcommands {
			rows[i] = []string{"  " + sub.Name, sub.ShortHelp}
		}
		fmt.Fprintf(&b, "\nCOMMANDS\n%s", table(rows))
	}
	var rows [][]string
	c.FlagSet.VisitAll(func(f *flag.Flag) {
		argument, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			text += " (" + f.DefValue + ")"
		}
		rows = append(rows, []string{strings.TrimRight("  -"+f.Name+" "+argument, " "), text})
	})
	if len(rows) > 0 {
		fmt.Fprintf(&b, "\nFLAGS\n%s", table(rows))
	}
	if strings.Contains(c.FlagSet.Name(), " ") {
		return b.String()
	}
	return b.String() + `
ENVIRONMENT
  NATS_URL, NATS_CREDS, NATS_CONTEXT and the other NATS_* variables of the nats
  command say where NATS is; without them it is nats://127.0.0.1:4222. A file .env
  is read if there is one. WORKER_SUBJECT_PREFIX must be that of the workers.

EXIT CODES
  0 all succeeded   1 a job failed, or is not there   2 usage or configuration
  3 NATS cannot be reached   130 interrupted: what is queued goes on
`
}
