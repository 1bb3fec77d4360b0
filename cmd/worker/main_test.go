package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/leaktest"
	"understudy/internal/natstest"
)

// binary is the command, built once.
var binary string

func TestMain(m *testing.M) {
	if config := os.Getenv(natsdConfig); config != "" { // see natsd
		os.Exit(runNATS(config))
	}
	dir, err := os.MkdirTemp("", "worker")
	if err == nil {
		binary = filepath.Join(dir, "worker")
		build := exec.Command("go", "build", "-o", binary, ".") //nolint:noctx // nothing ends a build early
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the command:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(leaktest.Patient(m), goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// planted is what must never be seen in any output.
const planted = "Hush4711"

// limit is when a process that does not end is killed; no test waits for it.
const limit = 2 * time.Minute

// command is the program with nothing in its environment but vars, in a working
// directory that holds dotenv as .env unless that is empty.
func command(t *testing.T, dotenv string, vars []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, binary, args...)
	c.Dir = t.TempDir()
	c.Env = append([]string{"HOME=" + c.Dir}, vars...)
	if dotenv != "" {
		require.NoError(t, os.WriteFile(filepath.Join(c.Dir, ".env"), []byte(dotenv), 0o600))
	}
	return c
}

// ends runs a command to its end.
func ends(t *testing.T, c *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	require.NotContains(t, out.String()+errOut.String(), planted)
	return c.ProcessState.ExitCode(), out.String(), errOut.String()
}

// read is a file that the package config tests against too.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "internal", "config", "testdata", name))
	require.NoError(t, err)
	return string(text)
}

func TestCheckPrintsWhatIsInEffect(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"check-everything": 0, "check-nothing": 2, "check-wrong": 2, "check-lists": 2} {
		var vars []string
		for line := range strings.Lines(read(t, name+".env")) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			vars = append(vars, name+"="+strings.Trim(value, "'"))
		}
		for how, c := range map[string]*exec.Cmd{
			"environment": command(t, "", vars, "-check"),
			"file":        command(t, read(t, name+".env"), nil, "-check"),
		} {
			t.Run(name+" from the "+how, func(t *testing.T) {
				t.Parallel()
				code, stdout, stderr := ends(t, c)
				require.Equal(t, want, code)
				require.Equal(t, read(t, name+".txt"), stdout)
				require.Empty(t, stderr)
			})
		}
	}
}

func TestTheEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	const dotenv = "OPENROUTER_API_KEY=k\nOPENROUTER_MODEL=from-file\nVLLM_BASE_URL=http://h/v1\nVLLM_MODEL=from-file\n"
	code, stdout, _ := ends(t, command(t, dotenv, []string{"OPENROUTER_API_KEY=", "VLLM_MODEL=from-environment"}, "-check"))
	require.Zero(t, code)
	require.Contains(t, stdout, "backend openrouter: off, OPENROUTER_API_KEY is not set\n")
	require.Contains(t, stdout, "  VLLM_BASE_URL=http://h/v1\n")
	require.Contains(t, stdout, "  VLLM_MODEL=from-environment\n")
}

func TestCheckFindsWhatOnlyTheWorkerKnows(t *testing.T) {
	t.Parallel()
	code, stdout, _ := ends(t, command(t, "", []string{"OPENROUTER_API_KEY=k", "OPENROUTER_HEADERS=Content-Length: " + planted}, "-check"))
	require.Equal(t, exitConfiguration, code)
	require.Contains(t, stdout, "\nproblem: configuration: backend openrouter: ")
	require.Contains(t, stdout, "\n1 problem, 0 warnings\n")
}

func TestProblemsArePrintedOneOnALine(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := ends(t, command(t, "", []string{"OPENROUTER_API_KEY=" + planted + " ", "OPENROUTER_TIMEOUT=fast", "WORKER_CONCURRENCY=0"}))
	require.Equal(t, exitConfiguration, code)
	require.Empty(t, stdout)
	require.Equal(t, "worker: WORKER_CONCURRENCY: 0 is too small; use 1 or more\n"+
		"worker: OPENROUTER_TIMEOUT: \"fast\" is not a duration; use seconds (5.0) or a Go duration (750ms, 168h)\n", stderr)

	code, stdout, stderr = ends(t, command(t, "", []string{
		"OPENROUTER_API_KEY=k", "OPENROUTER_HEADERS=" + planted + "; X-A: " + planted + "\x01; X-B: 1", "WORKER_QUEUES=high=0,a b,low",
		"FALLBACK_ON_STATUS_CODES=" + strings.Repeat("5xx,", 12),
	}))
	require.Equal(t, exitConfiguration, code)
	require.Empty(t, stdout)
	require.Equal(t, "worker: WORKER_QUEUES: the weight in \"high=0\" is not a whole number above 0; use queues such as default, or with weights high=6,default=3,low=1\n"+
		"worker: WORKER_QUEUES: \"a b\" is not a name; use at most 64 of A-Z a-z 0-9 _ -\n"+
		"worker: OPENROUTER_HEADERS: header 1 has no colon; use Name: value, with semicolons or line breaks between\n"+
		"worker: OPENROUTER_HEADERS: the value of header 2 has a character that is not allowed; use Name: value, with semicolons or line breaks between\n"+
		strings.Repeat("worker: FALLBACK_ON_STATUS_CODES: \"5xx\" is not an HTTP status; use codes such as 429,500,503\n", 10)+
		"worker: FALLBACK_ON_STATUS_CODES: and 2 more\n", stderr)

	code, _, stderr = ends(t, command(t, "A=1\nKEY='"+planted+"\n", []string{"OPENROUTER_API_KEY=k"}))
	require.Equal(t, exitConfiguration, code)
	require.Equal(t, "worker: .env:2: cannot be understood; use NAME=value, or NAME='value' for a value with spaces, # or $\n", stderr)
}

func TestFlags(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := ends(t, command(t, "", nil, "-env"))
	require.Zero(t, code)
	require.Equal(t, read(t, "env.txt"), stdout)
	require.Empty(t, stderr)

	code, stdout, _ = ends(t, command(t, "", nil, "-version"))
	require.Zero(t, code)
	require.Regexp(t, `^worker \S+ go1\.\S+ \w+/\w+\n$`, stdout)

	for _, help := range []string{"-h", "-help", "--help"} {
		code, stdout, stderr = ends(t, command(t, "", nil, help))
		require.Zero(t, code)
		require.Empty(t, stderr)
		for _, want := range []string{"usage: worker [-check | -env | -version]", "OPENROUTER_API_KEY", "exit codes: 0"} {
			require.Contains(t, stdout, want)
		}
	}

	code, stdout, stderr = ends(t, command(t, "", nil, "-chek"))
	require.Equal(t, exitConfiguration, code)
	require.Empty(t, stdout)
	require.Equal(t, "worker: flag provided but not defined: -chek\nworker: `worker -help` tells what there is\n", stderr)

	code, _, stderr = ends(t, command(t, "", nil, "run"))
	require.Equal(t, exitConfiguration, code)
	require.Contains(t, stderr, `worker: unexpected argument "run"; the worker is configured by the environment`)
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	for _, flag := range []string{"-env", "-check", "-version", "-help"} {
		c := command(t, "", []string{"OPENROUTER_API_KEY=k"}, flag)
		var stderr bytes.Buffer
		c.Stdout, c.Stderr = full, &stderr
		require.Error(t, c.Run())
		require.Equal(t, exitFailed, c.ProcessState.ExitCode(), flag)
		require.Contains(t, stderr.String(), "worker: write to standard output: ")
	}
}

// rules is the smallest environment that works, on free ports.
func rules(more ...string) []string {
	return append([]string{"BACKENDS=rules", "WORKER_HTTP_ADDR=127.0.0.1:0", "WORKER_EMBEDDED_ADDR=127.0.0.1:0"}, more...)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAnAddressThatIsTakenNamesItsVariable(t *testing.T) {
	t.Parallel()
	addr := listen(t).Addr().String()
	for _, variable := range []string{"WORKER_HTTP_ADDR", "WORKER_EMBEDDED_ADDR"} {
		code, stdout, stderr := ends(t, command(t, "", rules(variable+"="+addr)))
		require.Equal(t, exitConfiguration, code)
		require.Empty(t, stdout)
		require.Equal(t, "worker: "+variable+": cannot listen on "+addr+": another program does already; set it to another address\n", stderr)
	}
}

func TestNATSThatIsNotThereIsItsOwnExitCode(t *testing.T) {
	t.Parallel()
	const addr = "127.0.0.1:1" // nobody listens there, nor ever gets that port by chance
	code, stdout, stderr := ends(t, command(t, "", []string{"BACKENDS=rules", "WORKER_HTTP_ADDR=", "NATS_URL=nats://me:" + planted + "@" + addr}))
	require.Equal(t, exitUnreachable, code)
	require.Empty(t, stdout)
	require.Equal(t, "worker: cannot reach NATS at nats://[set]@"+addr+": connection refused; check NATS_URL, or unset it to run with the embedded server\n", stderr)
}

func TestNATSThatRefusesTheCredentialsIsTheSame(t *testing.T) {
	t.Parallel()
	s := natstest.RunWith(t, natstest.Options{Config: `authorization { user: me, password: right }`})
	code, _, stderr := ends(t, command(t, "", []string{"BACKENDS=rules", "WORKER_HTTP_ADDR=", "NATS_URL=" + s.URL, "NATS_USER=me", "NATS_PASSWORD=" + planted}))
	require.Equal(t, exitUnreachable, code)
	require.Equal(t, "worker: NATS at "+s.URL+" refused the credentials; check NATS_USER, NATS_PASSWORD\n", stderr)
}

// running is a worker that runs.
type running struct {
	*exec.Cmd
	log   *bufio.Reader
	lines strings.Builder
}

// run starts the worker. The test's cleanup kills it, and looks through its log
// for the secret.
func starts(t *testing.T, vars []string) *running {
	t.Helper()
	r := &running{Cmd: command(t, "", append(vars, "WORKER_LOG_LEVEL=debug", "WORKER_LOG_FORMAT=json"))}
	pipe, err := r.StderrPipe()
	require.NoError(t, err)
	r.log = bufio.NewReader(pipe)
	require.NoError(t, r.Start())
	t.Cleanup(func() {
		_ = r.Process.Kill() // it has ended, unless the test failed
		_ = r.Wait()
		require.NotContains(t, r.lines.String(), planted)
	})
	return r
}

// logs waits for a line of the log that holds text.
func (r *running) logs(t *testing.T, text string) {
	t.Helper()
	for {
		line, err := r.log.ReadString('\n')
		r.lines.WriteString(line)
		require.NoError(t, err, "the log ended without %q:\n%s", text, &r.lines)
		if strings.Contains(line, text) {
			return
		}
	}
}

// ended waits for the end.
func (r *running) ended(t *testing.T) *os.ProcessState {
	t.Helper()
	rest, err := io.ReadAll(r.log)
	require.NoError(t, err)
	r.lines.Write(rest)
	if err := r.Wait(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	return r.ProcessState
}

func TestASignalStopsTheWorkerInOrder(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			r := starts(t, rules("OPENROUTER_API_KEY="+planted, "RULES_API_KEY="+planted))
			r.logs(t, `"msg":"configuration","variable":"RULES_API_KEY","warning":"has no effect with KIND=rules"`)
			r.logs(t, "worker takes jobs")
			require.NoError(t, r.Process.Signal(signal))
			require.Zero(t, r.ended(t).ExitCode(), &r.lines)
		})
	}
}

func TestASecondSignalKills(t *testing.T) {
	t.Parallel()
	called, release := make(chan struct{}, 1), make(chan struct{})
	provider := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		called <- struct{}{}
		<-release
	}))
	defer provider.Close()
	defer close(release)
	s := natstest.Run(t)

	r := starts(t, []string{"BACKENDS=openrouter", "OPENROUTER_API_KEY=" + planted, "OPENROUTER_BASE_URL=" + provider.URL, "OPENROUTER_TIMEOUT=10m", "NATS_URL=" + s.URL, "WORKER_HTTP_ADDR="})
	r.logs(t, "worker takes jobs")
	_, err := s.JetStream(t).Publish(t.Context(), "llm.jobs.default.1", []byte(`{"messages":[{"role":"user","content":"`+planted+`"}]}`), jetstream.WithExpectStream("LLM_JOBS"))
	require.NoError(t, err)
	<-called
	require.NoError(t, r.Process.Signal(syscall.SIGTERM))
	r.logs(t, "worker is stopping")
	require.NoError(t, r.Process.Signal(syscall.SIGTERM))
	status, ok := r.ended(t).Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.True(t, status.Signaled(), "exit %d:\n%s", status.ExitStatus(), &r.lines)
	require.Equal(t, syscall.SIGTERM, status.Signal())
}

func TestTheVersionOfAServiceIsSemantic(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "v0.0.0-20260101000000-abcdefabcdef+dirty": "0.0.0-20260101000000-abcdefabcdef+dirty", "(devel)": "0.0.0",
	} {
		require.Equal(t, want, semantic(version))
	}
}
