package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
)

// writeHelp writes what -help says to out.
func writeHelp(out io.Writer) error {
	_, err := io.WriteString(out, `worker takes LLM completion jobs from NATS JetStream and runs each through a
chain of backends, each behind a circuit breaker, until one answers.

usage: worker [-check | -env | -version]

  -check     print the effective configuration and everything wrong with it
  -env       print what every variable means
  -version   print the version

The first minute, without an NATS server and without a key:

  BACKENDS=rules RULES_KIND=rules worker &
  submit "hello"

The most important variables, from the environment or a file .env in the
working directory:

  OPENROUTER_API_KEY, OPENROUTER_MODEL   ask OpenRouter
  VLLM_BASE_URL, VLLM_MODEL              ask your own vLLM server
  BACKENDS=openrouter,vllm               the backends, in order; add your own
  NATS_URL                               the server; without it the worker runs
                                         one of its own on 127.0.0.1:4222
  WORKER_CONCURRENCY=64                  how many jobs run at once
  WORKER_HTTP_ADDR=127.0.0.1:8080        /metrics, /healthz and /readyz

A first SIGINT or SIGTERM lets running calls finish for WORKER_SHUTDOWN_GRACE
and hands the rest back to the queue; a second one kills.

exit codes: 0 stopped in order, 2 a problem with the configuration, 3 NATS
cannot be reached or refuses the credentials, 1 anything else
`)
	return err
}

// writeVersion writes the version and what it was built with to out.
func writeVersion(out io.Writer) error {
	_, err := fmt.Fprintf(out, "worker %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// buildVersion is the version of the module that the command was built from,
// as the Go tool recorded it.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// semantic is version as a semantic version without the leading v, which is
// what NATS services want; 0.0.0 when it is none.
func semantic(version string) string {
	number, found := strings.CutPrefix(version, "v")
	if !found {
		return "0.0.0"
	}
	return number
}
